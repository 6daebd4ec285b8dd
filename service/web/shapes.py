"""The JSON of a generation answer, plain and streamed: what completions and chat share, and where they differ."""

import time
import uuid
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from service.web.logprobs import chat_logprobs, legacy_logprobs, prompt_logprobs
from service.web.output import Delta
from service.web.plan import Plan


class Shape(ABC):
    """How one endpoint shows a choice."""

    id_prefix: ClassVar[str]
    object: ClassVar[str]
    chunk_object: ClassVar[str]
    extra: ClassVar[Mapping[str, Any]] = {}
    """Further fields of every answer and chunk."""
    shows_text: ClassVar[bool] = True
    """Whether a chunk shows the text it brings as it is."""

    def __init__(self, plan: Plan, *, names_ids: bool) -> None:
        """With `names_ids`, tokens are shown as `token_id:7`."""
        self.tokenizer = plan.model.tokenizer
        self.num_logprobs = plan.output.num_logprobs
        self.num_prompt_logprobs = plan.output.num_prompt_logprobs
        self.names_ids = names_ids
        self._keeps_token_ids = plan.output.keeps_token_ids

    def choice(self, index: int, whole: Delta) -> dict[str, Any]:
        """Return a complete choice."""
        return self._around(index, self._whole(whole), self._logprobs(whole), whole)

    def chunk(self, index: int, delta: Delta) -> dict[str, Any] | None:
        """Return what a choice gains, if there is anything to show."""
        return self._around(index, self._gain(delta), self._logprobs(delta) if delta.entries else None, delta)

    def opening(self, index: int) -> dict[str, Any] | None:
        """Return what a streamed choice begins with, if anything."""
        return None

    def beside_choices(self, choices: Sequence[Delta]) -> Mapping[str, Any]:
        """Return further fields of an answer that its choices decide."""
        return {}

    def _prompt_logprobs(self, whole: Delta) -> dict[str, Any]:
        """Return what vLLM calls `prompt_logprobs`, if it was asked for."""
        if self.num_prompt_logprobs is None:
            return {}
        k = self.num_prompt_logprobs
        return {"prompt_logprobs": prompt_logprobs(self.tokenizer, whole.prompt_logprobs, k, as_ids=self.names_ids)}

    @abstractmethod
    def _whole(self, whole: Delta) -> dict[str, Any]: ...

    @abstractmethod
    def _gain(self, delta: Delta) -> dict[str, Any]: ...

    @abstractmethod
    def _logprobs(self, delta: Delta) -> dict[str, Any] | None: ...

    def _around(
        self, index: int, content: Mapping[str, Any], logprobs: dict[str, Any] | None, delta: Delta
    ) -> dict[str, Any]:
        ends = {"logprobs": logprobs, "finish_reason": delta.finish_reason, "stop_reason": delta.stop_reason}
        choice = {"index": index, **content, **ends}
        if self._keeps_token_ids:
            choice["token_ids"] = list(delta.token_ids)
            choice["prompt_token_ids"] = list(delta.prompt_token_ids) or None
        return choice


class CompletionShape(Shape):
    """POST /v1/completions: chunks and answers look alike."""

    id_prefix = "cmpl-"
    object = "text_completion"
    chunk_object = "text_completion"

    def _whole(self, whole: Delta) -> dict[str, Any]:
        return {"text": whole.text} | self._prompt_logprobs(whole)

    def _gain(self, delta: Delta) -> dict[str, Any]:
        return {"text": delta.text}

    def _logprobs(self, delta: Delta) -> dict[str, Any] | None:
        if self.num_logprobs is None:
            return None
        return legacy_logprobs(self.tokenizer, delta.entries, self.num_logprobs, as_ids=self.names_ids)


class ChatShape(Shape):
    """POST /v1/chat/completions: an answer has a message, a chunk a delta of it."""

    id_prefix = "chatcmpl-"
    object = "chat.completion"
    chunk_object = "chat.completion.chunk"
    extra: ClassVar[Mapping[str, Any]] = {"service_tier": "default"}

    def opening(self, index: int) -> dict[str, Any]:
        """Return the chunk that says who speaks."""
        return self._around(index, {"delta": {"role": "assistant", "content": "", "refusal": None}}, None, Delta())

    def beside_choices(self, choices: Sequence[Delta]) -> Mapping[str, Any]:
        """Return the prompt's scores: all choices have one prompt."""
        return self._prompt_logprobs(choices[0])

    def _whole(self, whole: Delta) -> dict[str, Any]:
        return {"message": {"role": "assistant", "content": whole.text, "refusal": None, "annotations": []}}

    def _gain(self, delta: Delta) -> dict[str, Any]:
        return {"delta": {"content": delta.text} if delta.text else {}}

    def _logprobs(self, delta: Delta) -> dict[str, Any] | None:
        if self.num_logprobs is None:
            return None
        return chat_logprobs(self.tokenizer, delta.entries, self.num_logprobs, as_ids=self.names_ids)


@dataclass(frozen=True, slots=True)
class Envelope:
    """What an answer and all its chunks have in common."""

    model: str
    fingerprint: str
    suffix: str | None = None
    """The client's own id for the request."""
    created: int = field(default_factory=lambda: int(time.time()))
    token: str = field(default_factory=lambda: uuid.uuid4().hex)

    def fields(self, shape: Shape, object_name: str) -> dict[str, Any]:
        """Return the leading fields of the JSON object."""
        fields = {
            "id": shape.id_prefix + (self.suffix or self.token),
            "object": object_name,
            "created": self.created,
            "model": self.model,
            "system_fingerprint": self.fingerprint,
        }
        return fields | dict(shape.extra)


def plain_answer(
    shape: Shape, envelope: Envelope, choices: Sequence[Delta], usage: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the JSON object of an answer that is not streamed."""
    return envelope.fields(shape, shape.object) | {
        "choices": [shape.choice(index, whole) for index, whole in enumerate(choices)],
        "usage": usage,
        **shape.beside_choices(choices),
    }
