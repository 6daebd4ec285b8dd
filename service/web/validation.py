"""From a JSON object to a request model: the first complaint in field order becomes the one error of the answer.

It knows pydantic's error types and the API's codes, and nothing about the endpoints.
"""

from collections.abc import Callable, Mapping
from typing import Any, TypeVar
from urllib.parse import quote as percent_encode

from pydantic import ValidationError
from pydantic_core import ErrorDetails, PydanticCustomError

from service.settings import ServiceSettings
from service.web.complaints import array_too_long, empty_array, empty_string, json_type, string_too_long
from service.web.errors import InvalidParameter, UnrecognizedArgument, quote
from service.web.fields import Body

BodyType = TypeVar("BodyType", bound=Body)

MAX_LISTED_PARAMS = 32
MAX_PARAM_CHARS = 64

_EXPECTED = {
    "int_type": "an integer",
    "int_from_float": "an integer",
    "float_type": "a number",
    "bool_type": "a boolean",
    "string_type": "a string",
    "list_type": "an array",
    "dict_type": "an object",
    "mapping_type": "an object",
    "model_type": "an object",
    "model_attributes_type": "an object",
}


def validate(model: type[BodyType], data: Mapping[str, Any], settings: ServiceSettings) -> BodyType:
    """Build the request.

    Raises:
        InvalidParameter: something in it is wrong.
    """
    try:
        return model.model_validate(dict(data), context=settings)
    except ValidationError as error:
        raise as_api_error(error.errors(include_url=False)[0]) from None


def ignored_params(model: type[Body], data: Mapping[str, Any], *, strict: bool) -> list[str]:
    """Return the names of fields that mean nothing to us, safe to put into a header.

    Raises:
        UnrecognizedArgument: `strict`, and there is one.
    """
    known = {field.alias or name for name, field in model.model_fields.items()} | model.without_effect
    unknown = [name for name in data if name not in known]
    if unknown and strict:
        raise UnrecognizedArgument(unknown[0])
    return [percent_encode(name[:MAX_PARAM_CHARS], safe="") for name in unknown[:MAX_LISTED_PARAMS]]


def as_api_error(error: ErrorDetails) -> InvalidParameter:
    """Translate one of pydantic's errors."""
    context, kind = error.get("ctx", {}), error["type"]
    if kind in _SIZES:
        kind, context = "complaint", _SIZES[kind](context, error["input"]).context or {}
    param = context.get("param") or _path(error["loc"]) + context.get("at", "")
    value = context.get("value", error["input"])
    match kind:
        case "complaint":
            return InvalidParameter(context["code"], param, context["message"].replace("{param}", param))
        case "missing":
            return InvalidParameter("missing_required_parameter", param, f"Missing required parameter: '{param}'.")
        case "greater_than_equal" | "greater_than":
            return _out_of_range(param, value, context, "below_min", "below minimum")
        case "less_than_equal" | "less_than":
            return _out_of_range(param, value, context, "above_max", "above maximum")
        case "string_pattern_mismatch":
            message = f"Invalid '{param}': {quote(value)} does not match the pattern {context['pattern']}."
            return InvalidParameter("invalid_value", param, message)
        case "literal_error" if isinstance(value, str):
            supported = context["expected"].replace(" or ", ", ")
            message = f"Invalid value: {quote(value)}. Supported values are: {supported}."
            return InvalidParameter("invalid_value", param, message)
        case _:
            expected = context.get("expected") if kind == "wrong_type" else _EXPECTED.get(kind, "a string")
            message = f"Invalid type for '{param}': expected {expected}, but got {json_type(value)} instead."
            return InvalidParameter("invalid_type", param, message)


def _out_of_range(param: str, value: object, context: Mapping[str, Any], code: str, words: str) -> InvalidParameter:
    sign, bound = next((sign, context[key]) for key, sign in _SIGNS.items() if key in context)
    kind = "integer" if isinstance(bound, int) else "decimal"
    expected = f"Expected a value {sign} {bound}, but got {quote(value)} instead."
    message = f"Invalid '{param}': {kind} {words} value. {expected}"
    return InvalidParameter(f"{kind}_{code}_value", param, message)


_SIZES: Mapping[str, Callable[[Mapping[str, Any], Any], PydanticCustomError]] = {
    "too_short": lambda context, value: empty_array(),  # no list and no string has another minimum than one
    "too_long": lambda context, value: array_too_long(context["max_length"], context["actual_length"]),
    "string_too_short": lambda context, value: empty_string(),
    "string_too_long": lambda context, value: string_too_long(context["max_length"], len(value)),
}
_SIGNS = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<"}


def _path(location: tuple[str | int, ...]) -> str:
    path = ""
    for part in location:
        path += f"[{part}]" if isinstance(part, int) else f".{part}" if path else part
    return path
