"""Chat answers that consist of calls: how they look in a message, and piece by piece in a stream."""

from collections.abc import Mapping
from typing import Any, ClassVar

from service.web.output import Delta
from service.web.plan import Plan
from service.web.shapes import ChatShape
from service.web.tools import CallReader, ForcedCalls, show_deltas, show_whole


class CallShape(ChatShape):
    """The text of the answer is its calls, and is shown as nothing else."""

    shows_text: ClassVar[bool] = False

    def __init__(self, plan: Plan, calls: ForcedCalls, *, names_ids: bool) -> None:
        super().__init__(plan, names_ids=names_ids)
        self._calls = calls
        self._readers: dict[int, CallReader] = {}

    def opening(self, index: int) -> dict[str, Any]:
        """Return the chunk that says who speaks."""
        return self._around(index, {"delta": {"role": "assistant", "content": None, "refusal": None}}, None, Delta())

    def chunk(self, index: int, delta: Delta) -> dict[str, Any] | None:
        """Return what calls gain; the text between two calls shows nothing."""
        reader = self._readers.setdefault(index, CallReader(self._calls))
        calls = show_deltas(reader.push(delta.text))
        if not (calls or delta.entries or delta.token_ids or delta.finish_reason):
            return None
        logprobs = self._logprobs(delta) if delta.entries else None
        return self._around(index, {"delta": {"tool_calls": calls} if calls else {}}, logprobs, delta)

    def _whole(self, whole: Delta) -> dict[str, Any]:
        message = super()._whole(whole)["message"]
        calls = show_whole(self._calls, whole.text)
        said = {"content": None, "tool_calls": calls} if calls else {"content": ""}  # cut short before the first name
        return {"message": {**message, **said}}

    def _around(
        self, index: int, content: Mapping[str, Any], logprobs: dict[str, Any] | None, delta: Delta
    ) -> dict[str, Any]:
        choice = super()._around(index, content, logprobs, delta)
        is_whole = choice["finish_reason"] == "stop" and choice["stop_reason"] is None
        if is_whole and not self._calls.is_named:
            choice["finish_reason"] = "tool_calls"
        return choice
