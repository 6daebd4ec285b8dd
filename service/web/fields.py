"""Field types of request bodies: what JSON may stand in each, and the complaint when something else does.

No whole request is known here; `protocol` puts the fields together.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    PlainValidator,
    ValidationInfo,
    WithJsonSchema,
    model_validator,
)
from pydantic_core import PydanticKnownError, core_schema

from service.web.complaints import (
    array_too_long,
    complaint,
    empty_array,
    empty_string,
    string_too_long,
    unsupported,
    wrong_type,
)
from service.web.errors import quote

MAX_STOPS = 4
MAX_STOP_CHARS = 1000
MAX_STOP_TOKEN_IDS = 64
MAX_LOGIT_BIASES = 1024
MAX_BAD_WORDS = 128

SETTING = "x-setting-"
"""In front of a keyword of a JSON schema: its value is that of the service setting named there."""


class Body(BaseModel):
    """A JSON object sent by a client. Strict: `true` is not a number, `"16"` is not an integer."""

    model_config = ConfigDict(frozen=True, strict=True, extra="ignore", use_attribute_docstrings=True)

    nullable: ClassVar[frozenset[str]] = frozenset()
    """Fields whose null is a value of its own; of all others it stands for an omitted field."""
    without_effect: ClassVar[frozenset[str]] = frozenset()
    """Fields of the public API that are accepted and change nothing here."""

    @model_validator(mode="before")
    @classmethod
    def _leave_out_nulls(cls, value: Any) -> Any:
        if not isinstance(value, dict) or None not in value.values():
            return value
        return {name: item for name, item in value.items() if item is not None or name in cls.nullable}


def _whole(value: object) -> object:
    return int(value) if isinstance(value, float) and value.is_integer() else value


def is_integer(value: object) -> bool:
    return isinstance(_whole(value), int) and not isinstance(value, bool)


Int = Annotated[int, BeforeValidator(_whole)]
"""16 and 16.0, but not 16.5, "16" or true."""


@dataclass(frozen=True)
class AtMostSetting:
    """Bound a number by a service setting."""

    name: str

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
        return core_schema.with_info_after_validator_function(self._check, handler(source))

    def __get_pydantic_json_schema__(
        self, schema: core_schema.CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        return {**handler(schema), SETTING + "maximum": self.name}

    def _check(self, value: int, info: ValidationInfo) -> int:
        limit = getattr(info.context, self.name)
        if value > limit:
            raise PydanticKnownError("less_than_equal", {"le": limit})
        return value


def exactly_one(*names: str) -> dict[str, Any]:
    """Return what a body's JSON schema says of fields of which exactly one must be there, and not be null."""
    return {
        "oneOf": [{"required": [name], "properties": {name: {"not": {"type": "null"}}}} for name in names],
    }


class UnsupportedUnless:
    """Accept only values that ask for nothing, null among them; refuse the others by the field's name."""

    def __init__(self, *neutral: object) -> None:
        self._neutral = neutral

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
        return core_schema.no_info_plain_validator_function(self._check)

    def __get_pydantic_json_schema__(
        self, schema: core_schema.CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        return {"enum": [*self._neutral, None]}

    def _check(self, value: object) -> object:
        if value is not None and not any(value == item and type(value) is type(item) for item in self._neutral):
            raise unsupported()
        return value


Refused = Annotated[Any, UnsupportedUnless()]
"""A field that would change the meaning of a request, and that we do not have."""

RefusedSwitch = Annotated[Any, UnsupportedUnless(False)]
RefusedText = Annotated[Any, UnsupportedUnless("")]
RefusedNumber = Annotated[Any, UnsupportedUnless(0, 0.0)]

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
    return tuple(text_of(item, at=f"[{i}]") for i, item in enumerate(value))


def text_of(value: object, *, at: str) -> str:
    """Return the value if it is a string, and complain if not."""
    if not isinstance(value, str):
        raise wrong_type("a string", value, at=at)
    return value


def _token_ids(value: object, *, at: str) -> TokenIds:
    if not isinstance(value, list):
        raise wrong_type("an array of integers", value, at=at)
    if not value:
        raise empty_array(at)
    if set(map(type, value)) == {int}:  # a hundred times faster than naming the place of each
        return tuple(value)
    return tuple(_token_id(item, at=f"{at}[{i}]") for i, item in enumerate(value))


def _token_id(value: object, *, at: str) -> int:
    if not is_integer(value):
        raise wrong_type("an integer", value, at=at)
    assert isinstance(value, int | float)
    return int(value)


def _tokens(value: object) -> TokenIds:
    return () if value == [] else _token_ids(value, at="")


def _prompts(value: object, info: ValidationInfo) -> tuple[str, ...] | tuple[TokenIds, ...]:
    return ("",) if value is None else _texts_or_ids(value, limit_setting="max_prompts", info=info)


def inputs_of(value: object, info: ValidationInfo) -> tuple[str, ...] | tuple[TokenIds, ...]:
    """Read what to classify."""
    return _texts_or_ids(value, limit_setting="max_classify_items", info=info)


def _embedding_inputs(value: object, info: ValidationInfo) -> tuple[str, ...] | tuple[TokenIds, ...]:
    return _texts_or_ids(value, limit_setting="max_embedding_items", info=info)


def _list_of(items: Mapping[str, Any], **bounds: object) -> dict[str, Any]:
    return {"type": "array", "items": items, **bounds}


_TEXT = {"type": "string"}
_TOKEN_ID = {"type": "integer", "minimum": 0}


def _texts_schema(limit_setting: str, *more: Mapping[str, Any]) -> WithJsonSchema:
    ids = _list_of(_TOKEN_ID, minItems=1)
    several = {"minItems": 1, SETTING + "maxItems": limit_setting}
    return WithJsonSchema({"anyOf": [_TEXT, _list_of(_TEXT, **several), ids, _list_of(ids, **several), *more]})


Texts = tuple[str, ...] | tuple[TokenIds, ...]

Prompts = Annotated[Texts, PlainValidator(_prompts), _texts_schema("max_prompts", {"type": "null"})]
"""What to complete; null is the empty text."""

Inputs = Annotated[Texts, PlainValidator(inputs_of), _texts_schema("max_classify_items")]
"""What to classify."""

EmbeddingInputs = Annotated[Texts, PlainValidator(_embedding_inputs), _texts_schema("max_embedding_items")]
"""What to embed."""

Tokens = Annotated[TokenIds, PlainValidator(_tokens), WithJsonSchema(_list_of(_TOKEN_ID))]
"""What to turn into text."""


def _stops(value: object) -> tuple[str, ...]:
    stops = [value] if isinstance(value, str) else value
    if not isinstance(stops, list):
        raise wrong_type("a string or an array of strings", value)
    if len(stops) > MAX_STOPS:
        raise array_too_long(MAX_STOPS, len(stops))
    places = [""] if isinstance(value, str) else [f"[{i}]" for i in range(len(stops))]
    return tuple(_stop(stop, at=place) for stop, place in zip(stops, places, strict=True))


def _stop(value: object, *, at: str) -> str:
    text = text_of(value, at=at)
    if not text:
        raise empty_string(at=at)
    if len(text) > MAX_STOP_CHARS:
        raise string_too_long(MAX_STOP_CHARS, len(text), at=at)
    return text


_SOME_TEXT = {"type": "string", "minLength": 1, "maxLength": MAX_STOP_CHARS}

Stops = Annotated[
    tuple[str, ...],
    PlainValidator(_stops),
    WithJsonSchema({"anyOf": [_SOME_TEXT, _list_of(_SOME_TEXT, maxItems=MAX_STOPS)]}),
]


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


LogitBias = Annotated[
    tuple[tuple[int, float], ...],
    PlainValidator(_logit_bias),
    WithJsonSchema(
        {
            "type": "object",
            "propertyNames": {"pattern": "^[0-9]{1,18}$"},
            "additionalProperties": {"type": "number", "minimum": -100, "maximum": 100},
            "maxProperties": MAX_LOGIT_BIASES,
        }
    ),
]
"""Pairs of token id and bias. Whether the ids are in the vocabulary is checked where the vocabulary is known."""

FIT = -1
"""`truncate_prompt_tokens`: as many tokens as the context leaves room for."""


def _truncation(value: int) -> int:
    if value == 0:
        raise complaint("invalid_value", "Invalid '{param}': expected -1 (as many as fit) or a positive number.")
    return value


Truncation = Annotated[Int, Field(ge=FIT, json_schema_extra={"not": {"const": 0}}), AfterValidator(_truncation)]
"""How many tokens of a prompt to keep."""

Temperature = Annotated[float, Field(ge=0.0, le=2.0)]
Probability = Annotated[float, Field(ge=0.0, le=1.0)]
Penalty = Annotated[float, Field(ge=-2.0, le=2.0)]
Seed = Annotated[Int, Field(ge=-(2**63), le=2**63 - 1)]
AllowedTokenIds = Annotated[list[Annotated[Int, Field(ge=0)]], Field(min_length=1)]
BadWords = Annotated[
    tuple[Annotated[str, Field(min_length=1, max_length=MAX_STOP_CHARS)], ...],
    Field(max_length=MAX_BAD_WORDS, strict=False),
]
StopTokenIds = Annotated[list[Annotated[Int, Field(ge=0)]], Field(max_length=MAX_STOP_TOKEN_IDS)]
Side = Literal["left", "right"]
