"""The body of POST /classify."""

from typing import Annotated, Self

from pydantic import ConfigDict, Field, model_validator

from service.web.complaints import absent, complaint
from service.web.fields import Inputs, Int, Side, Truncation, exactly_one
from service.web.protocol.base import RequestBody


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
