"""Field types of request bodies: what JSON may stand in each, and the complaint when something else does.

A complaint is a pydantic error; `validation` turns the first of them into an answer. No whole request is known here.
"""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, PlainValidator, ValidationInfo
from pydantic_core import PydanticCustomError, PydanticKnownError

from service.web.errors import quote

MAX_STOPS = 4
MAX_STOP_CHARS = 1000
MAX_STOP_TOKEN_IDS = 64
MAX_LOGIT_BIASES = 1024

Value = TypeVar("Value")


class Body(BaseModel):
    """A JSON object sent by a client. Strict: `true` is not a number, `"16"` is not an integer."""

    model_config = ConfigDict(frozen=True, strict=True, extra="ignore", arbitrary_types_allowed=True)


def complaint(code: str, message: str, *, at: str = "", param: str = "") -> PydanticCustomError:
    """Build an error with one of the API's codes.

    `at` extends the path of the field (`[2]`, `.type`); `param` replaces it, for checks across fields. Either way
    `{param}` in the message stands for the resulting path.
    """
    return PydanticCustomError("complaint", "complaint", {"code": code, "message": message, "at": at, "param": param})


def wrong_type(expected: str, value: object, *, at: str = "") -> PydanticCustomError:
    return PydanticCustomError("wrong_type", "wrong_type", {"expected": expected, "value": value, "at": at})


def absent(at: str = "", *, param: str = "") -> PydanticCustomError:
    return complaint("missing_required_parameter", "Missing required parameter: '{param}'.", at=at, param=param)


def unsupported(param: str = "") -> PydanticCustomError:
    message = "Unsupported parameter: '{param}' is not supported with this model."
    return complaint("unsupported_parameter", message, param=param)


def empty_array(at: str = "", *, param: str = "") -> PydanticCustomError:
    message = "Invalid '{param}': empty array. Expected an array with minimum length 1, but got an empty array instead."
    return complaint("empty_array", message, at=at, param=param)


def array_too_long(limit: int, length: int) -> PydanticCustomError:
    message = (
        f"Invalid '{{param}}': array too long. Expected an array with maximum length {limit}, "
        f"but got an array with length {length} instead."
    )
    return complaint("array_above_max_length", message)


def json_type(value: object) -> str:
    """Name a value's JSON type with its article."""
    match value:
        case None:
            return "null"
        case bool():
            return "a boolean"
        case int():
            return "an integer"
        case float():
            return "a number"
        case str():
            return "a string"
        case list():
            return "an array"
        case _:
            return "an object"


def _whole(value: object) -> object:
    return int(value) if isinstance(value, float) and value.is_integer() else value


def is_integer(value: object) -> bool:
    return isinstance(_whole(value), int) and not isinstance(value, bool)


Int = Annotated[int, BeforeValidator(_whole)]
"""16 and 16.0, but not 16.5, "16" or true."""


def at_most_setting(name: str) -> AfterValidator:
    """Bound a number by the service setting `name`."""

    def check(value: int, info: ValidationInfo) -> int:
        limit = getattr(info.context, name)
        if value > limit:
            raise PydanticKnownError("less_than_equal", {"le": limit})
        return value

    return AfterValidator(check)


def unsupported_unless(*neutral: object) -> PlainValidator:
    """Accept only values that ask for nothing, null among them; refuse the others by the field's name."""

    def check(value: object) -> object:
        if value is not None and not any(value == item and type(value) is type(item) for item in neutral):
            raise unsupported()
        return value

    return PlainValidator(check)


Refused = Annotated[Any, unsupported_unless()]
"""A field that would change the meaning of a request, and that we do not have."""

RefusedSwitch = Annotated[Any, unsupported_unless(False)]
RefusedText = Annotated[Any, unsupported_unless("")]
RefusedList = Annotated[Any, unsupported_unless([])]
RefusedNumber = Annotated[Any, unsupported_unless(0, 0.0)]

TokenIds = tuple[int, ...]


def _texts_or_ids(value: object, *, limit_setting: str, info: ValidationInfo) -> tuple[str, ...] | tuple[TokenIds, ...]:
    """Bring the four spellings of a list of texts into one: several texts, or several lists of token ids."""
    if isinstance(value, str):
        return (value,)
    if not isinstance(value, list):
        raise wrong_type("a string or an array", value)
    if not value:
        raise empty_array()
    if is_integer(value[0]):
        return (_token_ids(value, at=""),)
    limit = getattr(info.context, limit_setting)
    if len(value) > limit:
        raise array_too_long(limit, len(value))
    if isinstance(value[0], list):
        return tuple(_token_ids(item, at=f"[{i}]") for i, item in enumerate(value))
    if not isinstance(value[0], str):
        raise wrong_type("a string, an integer or an array", value[0], at="[0]")
    return tuple(_text(item, at=f"[{i}]") for i, item in enumerate(value))


def _text(value: object, *, at: str) -> str:
    if not isinstance(value, str):
        raise wrong_type("a string", value, at=at)
    return value


def _token_ids(value: object, *, at: str) -> TokenIds:
    if not isinstance(value, list):
        raise wrong_type("an array of integers", value, at=at)
    if not value:
        raise empty_array(at)
    return tuple(_token_id(item, at=f"{at}[{i}]") for i, item in enumerate(value))


def _token_id(value: object, *, at: str) -> int:
    if not is_integer(value):
        raise wrong_type("an integer", value, at=at)
    assert isinstance(value, int | float)
    return int(value)


def _prompts(value: object, info: ValidationInfo) -> tuple[str, ...] | tuple[TokenIds, ...]:
    return ("",) if value is None else _texts_or_ids(value, limit_setting="max_prompts", info=info)


def _inputs(value: object, info: ValidationInfo) -> tuple[str, ...] | tuple[TokenIds, ...]:
    return _texts_or_ids(value, limit_setting="max_classify_items", info=info)


Prompts = Annotated[tuple[str, ...] | tuple[TokenIds, ...], PlainValidator(_prompts)]
"""What to complete; null is the empty text."""

Inputs = Annotated[tuple[str, ...] | tuple[TokenIds, ...], PlainValidator(_inputs)]
"""What to classify."""


def _stops(value: object) -> tuple[str, ...]:
    stops = [value] if isinstance(value, str) else value
    if not isinstance(stops, list):
        raise wrong_type("a string or an array of strings", value)
    if len(stops) > MAX_STOPS:
        raise array_too_long(MAX_STOPS, len(stops))
    places = [""] if isinstance(value, str) else [f"[{i}]" for i in range(len(stops))]
    return tuple(_stop(stop, at=place) for stop, place in zip(stops, places, strict=True))


def _stop(value: object, *, at: str) -> str:
    text = _text(value, at=at)
    if not text:
        raise complaint("invalid_value", "Invalid '{param}': a stop string must not be empty.", at=at)
    if len(text) > MAX_STOP_CHARS:
        message = (
            f"Invalid '{{param}}': string too long. Expected a string with maximum length {MAX_STOP_CHARS}, "
            f"but got a string with length {len(text)} instead."
        )
        raise complaint("string_above_max_length", message, at=at)
    return text


Stops = Annotated[tuple[str, ...], PlainValidator(_stops)]


def _logit_bias(value: object) -> tuple[tuple[int, float], ...]:
    if not isinstance(value, Mapping):
        raise wrong_type("an object", value)
    if len(value) > MAX_LOGIT_BIASES:
        raise complaint(
            "invalid_logit_bias",
            f"Invalid 'logit_bias': at most {MAX_LOGIT_BIASES} tokens can be biased, not {len(value)}.",
        )
    return tuple((_biased_token(key), _bias(bias)) for key, bias in value.items())


def _biased_token(key: str) -> int:
    if not (key.isascii() and key.isdigit() and len(key) <= 18):
        raise complaint("invalid_logit_bias", f"Invalid 'logit_bias': {quote(key)} is not a token id.")
    return int(key)


def _bias(value: object) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool) or not -100 <= value <= 100:
        message = f"Invalid 'logit_bias': a bias is a number from -100 to 100, not {quote(value)}."
        raise complaint("invalid_logit_bias", message)
    return float(value)


LogitBias = Annotated[tuple[tuple[int, float], ...], PlainValidator(_logit_bias)]
"""Pairs of token id and bias. Whether the ids are in the vocabulary is checked where the vocabulary is known."""

_FORMATS_WITH_CONSTRAINTS = ("json_object", "json_schema", "grammar", "structural_tag")


def _response_format(value: object) -> str:
    if not isinstance(value, Mapping):
        raise wrong_type("an object", value)
    kind = value.get("type")
    if kind is None:
        raise absent(".type")
    if kind in _FORMATS_WITH_CONSTRAINTS:
        raise unsupported()
    if kind != "text":
        supported = ", ".join(f"'{name}'" for name in ("text", *_FORMATS_WITH_CONSTRAINTS[:2]))
        raise complaint(
            "invalid_value", f"Invalid value: {quote(kind)}. Supported values are: {supported}.", at=".type"
        )
    return "text"


ResponseFormat = Annotated[str, PlainValidator(_response_format)]

Temperature = Annotated[float, Field(ge=0.0, le=2.0)]
Probability = Annotated[float, Field(ge=0.0, le=1.0)]
Penalty = Annotated[float, Field(ge=-2.0, le=2.0)]
Seed = Annotated[Int, Field(ge=-(2**63), le=2**63 - 1)]
StopTokenIds = Annotated[list[Annotated[Int, Field(ge=0)]], Field(max_length=MAX_STOP_TOKEN_IDS)]
Side = Literal["left", "right"]

_ROLES_THAT_REFUSE = ("assistant",)
_TEXT_PARTS = ("text", "input_text", "output_text")


def joined_content(parts: Sequence[object], role: str) -> str:
    """Concatenate the text parts of a message."""
    if not parts:
        raise empty_array(".content")
    return "".join(_part_text(part, role, at=f".content[{i}]") for i, part in enumerate(parts))


def _part_text(part: object, role: str, *, at: str) -> str:
    if not isinstance(part, Mapping):
        raise wrong_type("an object", part, at=at)
    kind = part.get("type")
    if kind is None:
        raise absent(f"{at}.type")
    if not isinstance(kind, str):
        raise wrong_type("a string", kind, at=f"{at}.type")
    field = "refusal" if kind == "refusal" and role in _ROLES_THAT_REFUSE else "text"
    if field == "text" and kind not in _TEXT_PARTS:
        noun = kind.partition("_")[0]
        message = f"Invalid value: {quote(kind)}. {quote(noun)[1:-1]} input is not supported by this model."
        raise complaint("invalid_value", message, at=f"{at}.type")
    if part.get(field) is None:
        raise absent(f"{at}.{field}")
    return _text(part[field], at=f"{at}.{field}")
