"""The body of POST /v1/embeddings."""

from typing import Annotated, Literal

from pydantic import Field

from service.web.fields import EmbeddingInputs, Int, Side, Truncation
from service.web.protocol.base import RequestBody


class EmbeddingRequest(RequestBody):
    """POST /v1/embeddings."""

    input: EmbeddingInputs
    """What to embed: a text, several, or their token ids."""
    encoding_format: Literal["float", "base64"] = "float"
    """A list of numbers, or the same as little-endian float32 in base64."""
    dimensions: Annotated[Int, Field(ge=1)] | None = None
    """Keep this many leading components; absent: all."""
    truncate_prompt_tokens: Truncation | None = None
    """Keep at most this many tokens of each text; -1: as many as fit."""
    truncation_side: Side = "right"
    """Which end of a text is cut."""
    pooling: Literal["mean", "last"] = "mean"
    """Average the final states of all tokens, or take the last one's."""
    normalize: bool = True
    """Scale each embedding to length 1."""
