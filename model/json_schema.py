"""Which JSON schemas can be enforced token by token, exactly: the others are refused, by keyword and place.

What passes here and compiles allows only text that validates. It knows no grammars and no tokens.
"""

from collections.abc import Iterator, Mapping
from typing import Any, TypeGuard
from urllib.parse import unquote

from model.character_classes import narrow_classes

MAX_SUBSCHEMAS = 3000
MAX_REFERENCES = 500
"""References are followed by recursion, one inside the other."""
MAX_DEPTH = 64
MAX_VALUES = 20_000
"""Of all `enum` and `const` together."""

MAX_NUMBER = 2**53
"""Of bounds and values. Whole numbers beyond it are written as others, and the least of 64 bits exhausts the stack."""
MARGIN = 1e-6
"""How far from a whole exclusive bound numbers stay. llguidance 1.9.1 writes the bound itself where the other bound has
the same whole part: 3 for numbers above 3 and up to 3.5."""
FAR = 1e6
"""Bounds from here on lose digits behind the point; there, numbers stay a whole 1 away."""

Schema = Mapping[str, Any]

_ONE = frozenset({"items", "additionalItems", "additionalProperties"})
_MANY = frozenset({"anyOf", "allOf", "oneOf", "prefixItems"})
_NAMED = frozenset({"properties", "patternProperties", "$defs", "definitions"})
_VALUES = frozenset({"const", "enum"})
_REFUSED = frozenset(
    {
        *("not", "if", "then", "else", "contains", "minContains", "maxContains", "uniqueItems", "propertyNames"),
        *("dependentRequired", "dependentSchemas", "dependencies", "unevaluatedItems", "unevaluatedProperties"),
        *("$dynamicRef", "$recursiveRef"),
    }
)
_NEUTRAL: Mapping[str, bool] = {"uniqueItems": False, "unevaluatedItems": True, "unevaluatedProperties": True}
"""Values of refused keywords that demand nothing."""

_FORMATS = frozenset({"date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid", "uri"})
_REFUSED_FORMATS = frozenset(
    {
        *("idn-email", "idn-hostname", "uri-reference", "iri", "iri-reference", "uri-template"),
        *("json-pointer", "relative-json-pointer", "regex"),
    }
)


class SchemaError(ValueError):
    """A schema that cannot be enforced."""

    def __init__(self, place: str, reason: str) -> None:
        """`place` is a JSON pointer into the schema, `#` for its root."""
        super().__init__(f"{reason} (at {place})")
        self.place = place
        self.reason = reason


def enforceable(schema: object) -> dict[str, Any]:
    """Return the schema as it is to be compiled: without what demands nothing.

    Raises:
        SchemaError: part of it cannot be enforced, or it is too large.
    """
    if schema is True:
        return {}
    if not isinstance(schema, Mapping):
        raise SchemaError("#", "a schema is an object" if schema is not False else "nothing satisfies `false`")
    check = _Check()
    rewritten = check.rewrite(schema, "#", 0)
    for place in check.references:
        _check_that_it_leads_somewhere(place, schema)
    return rewritten


class _Check:
    """One walk over a schema, and what it has counted."""

    def __init__(self) -> None:
        self.references: list[str] = []
        """Places of schemas that refer to others."""
        self._num_subschemas = 0
        self._num_values = 0

    def rewrite(self, schema: Schema, place: str, depth: int) -> dict[str, Any]:
        self._num_subschemas += 1
        if self._num_subschemas > MAX_SUBSCHEMAS:
            raise SchemaError(place, f"more than {MAX_SUBSCHEMAS} subschemas")
        if depth > MAX_DEPTH:
            raise SchemaError(place, f"more than {MAX_DEPTH} schemas inside one another")
        _check_min_properties(schema, place)
        return {
            key: self._rewrite_value(key, value, f"{place}/{_escape(key)}", depth + 1)
            for key, value in _without_whole_exclusive_bounds(_within_reach(schema, place)).items()
            if not _demands_nothing(key, value, place)
        }

    def _rewrite_value(self, key: str, value: Any, place: str, depth: int) -> Any:
        if key in _REFUSED:
            raise SchemaError(place, f"the keyword '{key}' is not supported")
        if key == "$ref":
            self._check_reference(value, place)
        elif key in _VALUES:
            self._count_values(value, place)
        elif key == "pattern" and isinstance(value, str):
            return narrow_classes(value)
        elif key in _NAMED and isinstance(value, Mapping):
            return {name: self._subschema(each, f"{place}/{_escape(name)}", depth) for name, each in value.items()}
        elif (key in _MANY or key == "items") and isinstance(value, list):
            return [self._subschema(each, f"{place}/{i}", depth) for i, each in enumerate(value)]
        elif key in _ONE:
            return self._subschema(value, place, depth)
        return value

    def _subschema(self, value: Any, place: str, depth: int) -> Any:
        if isinstance(value, bool):
            return value
        if not isinstance(value, Mapping):
            raise SchemaError(place, "a schema is an object, true or false")
        return self.rewrite(value, place, depth)

    def _check_reference(self, value: Any, place: str) -> None:
        self.references.append(place.removesuffix("/$ref"))
        if len(self.references) > MAX_REFERENCES:
            raise SchemaError(place, f"more than {MAX_REFERENCES} references")
        if not (isinstance(value, str) and value.startswith("#")):
            raise SchemaError(place, "a '$ref' must begin with '#': only this schema itself is known")

    def _count_values(self, value: Any, place: str) -> None:
        leaves = list(_leaves(value, place, MAX_DEPTH))
        if any(_is_number(leaf) and abs(leaf) > MAX_NUMBER for leaf in leaves):
            raise SchemaError(place, f"a number beyond {MAX_NUMBER} in 'enum' or 'const'")
        self._num_values += len(leaves)
        if self._num_values > MAX_VALUES:
            raise SchemaError(place, f"more than {MAX_VALUES} values in 'enum' and 'const'")


def _demands_nothing(key: str, value: Any, place: str) -> bool:
    """Formats that other standards define are annotations, and so is what only tells a library how to write."""
    if key == "format" and value in _REFUSED_FORMATS:
        raise SchemaError(f"{place}/format", f"the format '{value}' is not supported")
    is_foreign_format = key == "format" and not (isinstance(value, str) and value in _FORMATS)
    return key == "x-guidance" or is_foreign_format or (key in _NEUTRAL and value is _NEUTRAL[key])


def _within_reach(schema: Schema, place: str) -> Schema:
    """Draw bounds that are far away closer, which leaves fewer numbers, all of them allowed."""
    inner = dict(schema)
    for key, sign in (("minimum", 1), ("exclusiveMinimum", 1), ("maximum", -1), ("exclusiveMaximum", -1)):
        bound = inner.get(key)
        if _is_number(bound) and sign * bound > MAX_NUMBER:
            raise SchemaError(f"{place}/{key}", f"'{key}' leaves only numbers beyond {MAX_NUMBER}")
        if _is_number(bound) and sign * bound < -MAX_NUMBER:
            inner[key] = -sign * MAX_NUMBER
    return inner


def _without_whole_exclusive_bounds(schema: Schema) -> Schema:
    """Replace them, unless only integers are meant, by bounds that lie a little inside."""
    if schema.get("type") == "integer":
        return schema
    inner = dict(schema)
    for exclusive, inclusive, sign, closest in (
        ("exclusiveMinimum", "minimum", 1, max),
        ("exclusiveMaximum", "maximum", -1, min),
    ):
        bound, other = inner.get(exclusive), inner.get(inclusive)
        if _is_number(bound) and float(bound).is_integer() and (other is None or _is_number(other)):
            del inner[exclusive]
            inside = bound + sign * (MARGIN if abs(bound) < FAR else 1)
            inner[inclusive] = inside if other is None else closest(inside, other)
    return inner


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


def parts(schema: Schema, place: str) -> Iterator[tuple[str, object]]:
    """Yield the schemas directly inside another one, each with its place."""
    for key, value in schema.items():
        inside = f"{place}/{_escape(key)}"
        if key in _NAMED and isinstance(value, Mapping):
            yield from ((f"{inside}/{_escape(name)}", each) for name, each in value.items())
        elif (key in _MANY or key == "items") and isinstance(value, list):
            yield from ((f"{inside}/{i}", each) for i, each in enumerate(value))
        elif key in _ONE:
            yield inside, value


def _check_that_it_leads_somewhere(place: str, root: Schema) -> None:
    """Refuse a reference that comes back to itself without anything between: no value is described."""
    seen: set[str] = set()
    while place not in seen:
        seen.add(place)
        target = target_of(place, root)
        if not isinstance(target, Mapping) or not isinstance(target.get("$ref"), str):
            return
        place = target["$ref"]
    raise SchemaError(place, "a '$ref' that only leads back to itself")


def target_of(pointer: str, root: Schema) -> object:
    """Follow a JSON pointer; None where it leads nowhere, which is told when the schema is compiled, and for names."""
    found: object = root if pointer == "#" or pointer.startswith("#/") else None
    for key in pointer.split("/")[1:]:
        key = unquote(key).replace("~1", "/").replace("~0", "~")
        if isinstance(found, list):
            found = found[int(key)] if key.isdecimal() and int(key) < len(found) else None
        else:
            found = found.get(key) if isinstance(found, Mapping) else None
    return found


def _check_min_properties(schema: Schema, place: str) -> None:
    """Free keys could repeat, and repeated keys count once: the number must be reached without them."""
    least = schema.get("minProperties")
    required = schema.get("required")
    certain = len({*required}) if isinstance(required, list) and all(isinstance(key, str) for key in required) else 0
    if isinstance(least, int | float) and least > max(1, certain):
        raise SchemaError(f"{place}/minProperties", "'minProperties' above 1 and above the number of required ones")


def _leaves(value: Any, place: str, depth: int) -> Iterator[Any]:
    if depth == 0:
        raise SchemaError(place, f"a value of more than {MAX_DEPTH} levels")
    if isinstance(value, Mapping | list):
        for each in value.values() if isinstance(value, Mapping) else value:
            yield from _leaves(each, place, depth - 1)
    else:
        yield value


def _escape(key: str) -> str:
    """Write a key as part of a JSON pointer (RFC 6901)."""
    return key.replace("~", "~0").replace("/", "~1")
