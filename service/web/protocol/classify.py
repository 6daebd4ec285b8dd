"""The bodies of POST /classify and /predict."""

from typing import Annotated, Literal, NamedTuple, Self

from pydantic import ConfigDict, Field, PlainValidator, ValidationInfo, WithJsonSchema, model_validator

from service.web.complaints import absent, complaint
from service.web.fields import SETTING, Inputs, Int, Side, Texts, Truncation, exactly_one, inputs_of, text_of
from service.web.protocol.base import RequestBody


class Batch(NamedTuple):
    """Texts, and whether they came as a list."""

    texts: Texts
    is_list: bool


def _batch(value: object, info: ValidationInfo) -> Batch:
    """Read what text-embeddings-inference takes: a text, or several, each in a list of its own or not."""
    if not isinstance(value, list):
        return Batch(inputs_of(text_of(value, at=""), info), is_list=False)
    return Batch(inputs_of([_only_text(item, at=f"[{i}]") for i, item in enumerate(value)], info), is_list=True)


def _only_text(item: object, *, at: str) -> str:
    return text_of(item[0] if isinstance(item, list) and len(item) == 1 else item, at=at)


_TEXT = {"type": "string"}
_ITEM = {"anyOf": [_TEXT, {"type": "array", "items": _TEXT, "minItems": 1, "maxItems": 1}]}
_ITEMS = {"type": "array", "items": _ITEM, "minItems": 1, f"{SETTING}maxItems": "max_classify_items"}


class PredictRequest(RequestBody):
    """POST /predict."""

    inputs: Annotated[Batch, PlainValidator(_batch), WithJsonSchema({"anyOf": [_TEXT, _ITEMS]})]
    """What to classify: a text, or several."""
    raw_scores: bool = False
    """Let each `score` be a logit."""
    truncate: bool = False
    """Cut texts to the length that the model was trained with instead of refusing those that do not fit."""
    truncation_direction: Literal["Left", "Right"] | None = None
    """Which end of a text is cut; absent: the one that the model was trained with, else right."""

    def as_classify(self) -> "ClassifyRequest":
        """Return the same as a classify request."""
        side: Side | None = None
        if self.truncation_direction is not None:
            side = "left" if self.truncation_direction == "Left" else "right"
        return ClassifyRequest.model_construct(
            model=self.model,
            inputs=self.inputs.texts,
            raw_scores=self.raw_scores,
            truncate=self.truncate,
            truncation_side=side,
        )


class ClassifyRequest(RequestBody):
    """POST /classify."""

    model_config = ConfigDict(json_schema_extra=exactly_one("input", "inputs"))

    input: Inputs | None = None
    """What to classify: a text, several, or their token ids."""
    inputs: Inputs | None = None
    """Another spelling of `input`; send one of them."""
    top_k: Annotated[Int, Field(ge=1)] | None = None
    """How many labels `scores` lists; absent: all."""
    raw_scores: bool = False
    """Let each `score` be a logit, and add `logits`."""
    use_activation: bool = True
    """False is `raw_scores`."""
    truncate: bool = False
    """Cut texts to the length that the model was trained with instead of refusing those that do not fit."""
    truncation_side: Side | None = None
    """Which end of a text is cut; absent: the one that the model was trained with, else right."""
    truncate_prompt_tokens: Truncation | None = None
    """Keep at most this many tokens of each text; -1: as many as fit."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.input is not None and self.inputs is not None:
            message = "'input' and '{param}' are two spellings of one field; send one of them."
            raise complaint("invalid_value", message, param="inputs")
        if self.input is None and self.inputs is None:
            raise absent(param="input")
        return self
