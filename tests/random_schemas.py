"""Random JSON schemas of the keywords that can be enforced: nested, combined, some of them nonsense."""

import random
from collections.abc import Callable
from typing import Any

Schema = dict[str, Any]

_PATTERNS = ["^[a-c]{1,4}$", "x", "^\\d{2}-\\w+$", "(foo|bar)+$", "^.{0,3}$", "[^\\s]a", "^$|q"]
_FORMATS = ["date", "ipv4", "ipv6", "uuid", "email", "time", "date-time", "hostname", "duration", "uri"]
_KEYS = ["a", "b", "name", "x y", "\u00fc", 'q"', "n/1"]
_VALUES: list[Any] = [None, True, False, 0, -3, 2.5, "", "a", 'say "no"\n', "\u4f60", [], [1, "x"], {}, {"a": None}]


def random_schema(draw: random.Random) -> Schema:
    """Return a schema whose answers are a few dozen characters long, mostly."""
    names = [f"d{i}" for i in range(draw.choice([0, 0, 1, 2]))]
    schema = _object(draw, 3, names) if draw.random() < 0.6 else _any(draw, 3, names)
    if names:
        schema["$defs"] = {name: _any(draw, 1, names) for name in names}
    return schema


def _any(draw: random.Random, depth: int, names: list[str]) -> Schema:
    makers: list[Callable[[random.Random, int, list[str]], Schema]] = [_leaf, _leaf, _values]
    if depth > 0:
        makers += [_object, _object, _array, _combined, _several_types]
    if names:
        makers.append(_reference)
    return draw.choice(makers)(draw, depth - 1, names)


def _object(draw: random.Random, depth: int, names: list[str]) -> Schema:
    keys = draw.sample(_KEYS, draw.randint(0, 4))
    schema: Schema = {"type": "object", "properties": {key: _any(draw, depth, names) for key in keys}}
    if draw.random() < 0.8:
        schema["required"] = draw.sample(keys, draw.randint(0, len(keys)))
    kind = draw.random()
    if kind < 0.5:
        schema["additionalProperties"] = False
    elif kind < 0.7:
        schema["additionalProperties"] = _any(draw, depth, names)
    elif kind < 0.8:
        schema["patternProperties"] = {"^z": _any(draw, depth, names)}
        schema["additionalProperties"] = draw.random() < 0.5
    if draw.random() < 0.2:
        schema["maxProperties"] = draw.randint(1, 4)
    if draw.random() < 0.2:
        schema["minProperties"] = draw.randint(0, 2)
    return schema


def _array(draw: random.Random, depth: int, names: list[str]) -> Schema:
    schema: Schema = {"type": "array", "items": _any(draw, depth, names)}
    least = draw.randint(0, 3)
    if draw.random() < 0.5:
        schema["minItems"] = least
    if draw.random() < 0.7:
        schema["maxItems"] = least + draw.randint(0, 3)
    if draw.random() < 0.3:
        schema["prefixItems"] = [_any(draw, depth, names) for _ in range(draw.randint(1, 2))]
    if draw.random() < 0.1:
        schema["items"] = False
    return schema


def _leaf(draw: random.Random, depth: int, names: list[str]) -> Schema:
    del depth, names
    return draw.choice([_string, _string, _integer, _number, _plain])(draw)


def _string(draw: random.Random) -> Schema:
    schema: Schema = {"type": "string"}
    kind = draw.random()
    if kind < 0.25:
        schema["pattern"] = draw.choice(_PATTERNS)
    elif kind < 0.5:
        schema["format"] = draw.choice(_FORMATS)
    elif kind < 0.9:
        least = draw.randint(0, 3)
        schema |= {"minLength": least, "maxLength": least + draw.randint(0, 6)}
    return schema


def _integer(draw: random.Random) -> Schema:
    schema: Schema = {"type": "integer"}
    least = draw.randint(-1000, 1000)
    if draw.random() < 0.5:
        schema[draw.choice(["minimum", "exclusiveMinimum"])] = least
    if draw.random() < 0.5:
        schema[draw.choice(["maximum", "exclusiveMaximum"])] = least + draw.randint(0, 300)
    if draw.random() < 0.2:
        schema["multipleOf"] = draw.choice([2, 3, 7, 10])
    return schema


def _number(draw: random.Random) -> Schema:
    schema: Schema = {"type": "number"}
    least = draw.choice([-2.5, -0.125, 0, 0.5, 3, 1000.75])
    if draw.random() < 0.6:
        schema[draw.choice(["minimum", "exclusiveMinimum"])] = least
    if draw.random() < 0.6:
        schema[draw.choice(["maximum", "exclusiveMaximum"])] = least + draw.choice([0, 0.5, 1, 12.25])
    if draw.random() < 0.1:
        schema["multipleOf"] = draw.choice([0.5, 0.25])
    return schema


def _plain(draw: random.Random) -> Schema:
    return draw.choice([{"type": "boolean"}, {"type": "null"}, {"const": draw.choice(_VALUES)}])


def _values(draw: random.Random, depth: int, names: list[str]) -> Schema:
    del depth, names
    return {"enum": draw.sample(_VALUES, draw.randint(1, 4))}


def _several_types(draw: random.Random, depth: int, names: list[str]) -> Schema:
    del depth, names
    kinds = draw.sample(["string", "integer", "null", "boolean"], 2)
    return {"type": kinds, "maxLength": 5, "minimum": draw.randint(-5, 5)}


def _combined(draw: random.Random, depth: int, names: list[str]) -> Schema:
    kind = draw.choice(["anyOf", "anyOf", "allOf", "oneOf"])
    if kind == "allOf":
        parts = [_object(draw, depth, names) for _ in range(2)]
        for part in parts:
            part.pop("additionalProperties", None)
        return {"allOf": parts}
    if kind == "oneOf":
        tags = draw.sample(["s", "t", "u"], 2)
        return {
            "oneOf": [
                {
                    "type": "object",
                    "properties": {"k": {"const": tag}, "v": _any(draw, depth, names)},
                    "required": ["k"],
                }
                for tag in tags
            ]
        }
    return {"anyOf": [_any(draw, depth, names) for _ in range(2)]}


def _reference(draw: random.Random, depth: int, names: list[str]) -> Schema:
    del depth
    return {"$ref": f"#/$defs/{draw.choice(names)}"}
