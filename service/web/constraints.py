"""What an answer must look like, in all the spellings that clients have for it.

Whether it can be enforced is `constraint_check`'s to find out; the grammars themselves are `model.grammar`'s.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import PlainValidator, WithJsonSchema

from model.grammar import ConstraintSpec
from service.web.complaints import absent, array_too_long, complaint, empty_array, unsupported, wrong_type
from service.web.errors import quote
from service.web.fields import text_of

MAX_CHOICES = 10_000
MAX_NAME_CHARS = 64

_FORMATS = ("text", "json_object", "json_schema")
_REFUSED_FORMATS = ("grammar", "structural_tag")


@dataclass(frozen=True, slots=True)
class Constrained:
    """A constraint and the field that asks for it."""

    spec: ConstraintSpec
    param: str


def schema_spec(schema: Mapping[str, Any] | bool) -> ConstraintSpec:
    """Demand JSON that satisfies a schema."""
    return ConstraintSpec("json_schema", json.dumps(schema, ensure_ascii=False))


def format_spec(value: object) -> Constrained | None:
    """Read `response_format`, in OpenAI's shape or in llama.cpp's."""
    if not isinstance(value, Mapping):
        raise wrong_type("an object", value)
    match _kind(value):
        case "text":
            return None
        case "json_object" if value.get("schema") is None:
            return Constrained(ConstraintSpec("json_object"), "response_format")
        case "json_object":
            return Constrained(_schema(value["schema"], ".schema"), "response_format.schema")
        case _:
            return _named_schema(value.get("json_schema"), ".json_schema", "response_format.json_schema.schema")


def text_format_spec(value: object) -> Constrained | None:
    """Read `text.format` of the Responses API: the same with the schema one level higher."""
    if not isinstance(value, Mapping):
        raise wrong_type("an object", value)
    match _kind(value):
        case "text":
            return None
        case "json_object":
            return Constrained(ConstraintSpec("json_object"), "text.format")
        case _:
            return _named_schema(value, "", "text.format.schema")


def _kind(value: Mapping[str, Any]) -> str:
    kind = value.get("type")
    if kind is None:
        raise absent(".type")
    if kind in _REFUSED_FORMATS:
        raise unsupported()
    if kind not in _FORMATS:
        supported = ", ".join(f"'{name}'" for name in _FORMATS)
        message = f"Invalid value: {quote(kind)}. Supported values are: {supported}."
        raise complaint("invalid_value", message, at=".type")
    return str(kind)


def _named_schema(value: object, at: str, param: str) -> Constrained:
    if value is None:
        raise absent(at)
    if not isinstance(value, Mapping):
        raise wrong_type("an object", value, at=at)
    if value.get("name") is None:
        raise absent(f"{at}.name")
    check_name(value["name"], f"{at}.name")
    if value.get("schema") is None:
        raise absent(f"{at}.schema")
    return Constrained(_schema(value["schema"], f"{at}.schema"), param)


def check_name(value: object, at: str) -> str:
    """Return a name of a schema or a function: letters, digits, `_` and `-`."""
    name = text_of(value, at=at)
    is_plain = name.isascii() and name.replace("_", "a").replace("-", "a").isalnum()
    if not is_plain or len(name) > MAX_NAME_CHARS:
        message = (
            f"Invalid '{{param}}': expected up to {MAX_NAME_CHARS} letters, digits, '_' and '-', got {quote(name)}."
        )
        raise complaint("invalid_value", message, at=at)
    return name


def _schema(value: object, at: str) -> ConstraintSpec:
    """A schema is an object; some clients send it as text."""
    if isinstance(value, str):
        try:
            value = json.loads(value, parse_constant=_no_constant)
        except (ValueError, RecursionError):
            raise complaint("invalid_schema", "Invalid '{param}': it is not JSON.", at=at) from None
    if not isinstance(value, Mapping):
        raise wrong_type("an object", value, at=at)
    return schema_spec(value)


def _no_constant(name: str) -> object:
    raise ValueError(name)


def _choices(value: object, at: str) -> ConstraintSpec:
    if not isinstance(value, list):
        raise wrong_type("an array of strings", value, at=at)
    if not value:
        raise empty_array(at)
    if len(value) > MAX_CHOICES:
        raise array_too_long(MAX_CHOICES, len(value))
    return ConstraintSpec("choice", json.dumps([text_of(choice, at=f"{at}[{i}]") for i, choice in enumerate(value)]))


def _regex(value: object, at: str) -> ConstraintSpec:
    return ConstraintSpec("regex", text_of(value, at=at))


_KINDS: Mapping[str, Any] = {"json": _schema, "regex": _regex, "choice": _choices}


def _structured(value: object) -> Constrained:
    """Read vLLM's `structured_outputs`."""
    if not isinstance(value, Mapping):
        raise wrong_type("an object", value)
    given = [key for key, each in value.items() if each is not None and each is not False]
    for key in given:
        if key not in (*_KINDS, "json_object"):  # such as `whitespace_pattern`, which would change the form
            raise unsupported(f"structured_outputs.{quote(key)[1:-1]}")
    if len(given) != 1:
        message = f"Invalid '{{param}}': expected exactly one of 'json', 'regex' and 'choice', got {len(given)}."
        raise complaint("invalid_value", message)
    key = given[0]
    if key == "json_object":
        if value[key] is not True:
            raise wrong_type("a boolean", value[key], at=".json_object")
        return Constrained(ConstraintSpec("json_object"), "structured_outputs")
    return Constrained(_KINDS[key](value[key], f".{key}"), f"structured_outputs.{key}")


_NAME = {"type": "string", "pattern": f"^[A-Za-z0-9_-]{{1,{MAX_NAME_CHARS}}}$"}
_OBJECT = {"type": "object"}
_JSON = {"anyOf": [_OBJECT, {"type": "string"}]}
_LIST = {"type": "array", "items": {"type": "string"}, "minItems": 1, "maxItems": MAX_CHOICES}


def _format_of(kind: str, properties: Mapping[str, Any], required: list[str]) -> dict[str, Any]:
    return {"type": "object", "properties": {"type": {"const": kind}, **properties}, "required": ["type", *required]}


_NAMED = {"type": "object", "properties": {"name": _NAME, "schema": _JSON}, "required": ["name", "schema"]}

ResponseFormat = Annotated[
    Constrained | None,
    PlainValidator(format_spec),
    WithJsonSchema(
        {
            "anyOf": [
                _format_of("text", {}, []),
                _format_of("json_object", {"schema": _JSON}, []),
                _format_of("json_schema", {"json_schema": _NAMED}, ["json_schema"]),
            ]
        }
    ),
]
"""OpenAI's spelling."""

StructuredOutputs = Annotated[
    Constrained | None,
    PlainValidator(_structured),
    WithJsonSchema(
        {
            "type": "object",
            "properties": {
                "json": _JSON,
                "regex": {"type": "string"},
                "choice": _LIST,
                "json_object": {"const": True},
            },
            "additionalProperties": False,
            "minProperties": 1,
            "maxProperties": 1,
        }
    ),
]
"""vLLM's spelling."""


def _plain(kind: str, schema: Mapping[str, Any]) -> Any:
    def read(value: object) -> ConstraintSpec:
        spec: ConstraintSpec = _KINDS[kind](value, "")
        return spec

    return Annotated[ConstraintSpec | None, PlainValidator(read), WithJsonSchema(dict(schema))]


PlainSchema = _plain("json", _JSON)
PlainRegex = _plain("regex", {"type": "string"})
PlainChoice = _plain("choice", _LIST)
"""Spellings of older vLLM (`guided_*`), SGLang (`regex`) and llama.cpp (`json_schema`)."""


def only_one(found: Mapping[str, Constrained | ConstraintSpec | None]) -> Constrained | None:
    """Return the one constraint among the fields of a request."""
    given = {name: value for name, value in found.items() if value is not None}
    if len(given) > 1:
        first, second = list(given)[:2]
        raise complaint("invalid_value", f"'{first}' and '{{param}}' exclude each other.", param=second)
    for name, value in given.items():
        return value if isinstance(value, Constrained) else Constrained(value, name)
    return None
