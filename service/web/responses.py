"""POST /v1/responses: chat in the shape of OpenAI's Responses API. Nothing is remembered between requests."""

import time
import uuid
from collections.abc import Iterable, Mapping, Sequence
from contextlib import aclosing
from functools import partial
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from model.tokenizer import Tokenizer
from service.settings import ServiceSettings
from service.web.constraint_check import ConstraintCheck
from service.web.errors import InvalidParameter
from service.web.frontend import Frontend
from service.web.generation import Generation, IndexedDelta, batches, begin
from service.web.intake import in_good_time, take_in
from service.web.logprobs import chat_logprobs
from service.web.models import ServedModel
from service.web.output import Delta, fold
from service.web.plan import Plan, plan_generation
from service.web.prompts import chat_prompt
from service.web.protocol.responses import ResponsesRequest
from service.web.streaming import EventStream, encode_line

_encode = msgspec.json.Encoder().encode


class ResponsesRoute:
    """The endpoint of responses."""

    def __init__(self, frontend: Frontend, settings: ServiceSettings) -> None:
        self._frontend = frontend
        self._settings = settings
        self._constraints = ConstraintCheck(settings.queue_timeout_s)

    async def respond(self, request: Request) -> Response:
        """Answer a conversation."""
        choose = partial(self._frontend.models.choose, capability="chat")
        received = await take_in(request, ResponsesRequest, choose, self._settings)
        body = received.body
        await self._constraints.check(body.constrained)
        plan = await in_good_time(received.size_bytes, self._plan, body, received.model)
        generation = begin(request, plan, self._frontend, self._settings)
        answer = ResponseObject(body, generation)
        if body.stream:
            return EventStream(
                generation,
                self._frontend,
                ResponseWriter(answer),
                keepalive_s=self._settings.sse_keepalive_s,
                headers=received.headers,
            )
        deltas: list[Delta] = []
        async with aclosing(batches(generation, self._frontend, request.receive)) as running:
            async for batch in running:
                deltas += [delta for _, delta in batch]
        headers = received.headers | {"server-timing": generation.timings.server_timing()}
        return Response(_encode(answer.finished(fold(deltas))), media_type="application/json", headers=headers)

    def _plan(self, body: ResponsesRequest, model: ServedModel) -> Plan:
        chat = body.as_chat()
        try:
            prompt = chat_prompt(chat, model, self._settings)
        except InvalidParameter as error:
            error.param = "input"  # chat calls it messages
            raise
        return plan_generation(chat, model, [prompt], [None], stream_interval=self._settings.stream_interval)


class ResponseObject:
    """The JSON of one response, at every stage of it."""

    def __init__(self, body: ResponsesRequest, generation: Generation) -> None:
        self._body = body
        self._generation = generation
        self._created_s = int(time.time())
        self._id = "resp_" + uuid.uuid4().hex
        self.item_id = "msg_" + uuid.uuid4().hex

    def unfinished(self) -> dict[str, Any]:
        """Return what is known before the first token."""
        return self._around("in_progress", [])

    def finished(self, whole: Delta) -> dict[str, Any]:
        """Return the whole answer."""
        is_complete = whole.finish_reason == "stop"
        status = "completed" if is_complete else "incomplete"
        incomplete = None if is_complete else {"reason": "max_output_tokens"}
        return self._around(status, [self.item(whole, status)], incomplete=incomplete)

    def failed(self, message: str) -> dict[str, Any]:
        """Return what is left of an answer that failed."""
        return self._around("failed", [], error={"code": "server_error", "message": message})

    def item(self, whole: Delta | None, status: str) -> dict[str, Any]:
        """Return the message, empty before there is one."""
        content = [] if whole is None else [self.part(whole)]
        return {"id": self.item_id, "type": "message", "status": status, "role": "assistant", "content": content}

    def part(self, whole: Delta) -> dict[str, Any]:
        """Return the content of the message."""
        return {"type": "output_text", "text": whole.text, "annotations": [], "logprobs": self.logprobs(whole)}

    def logprobs(self, delta: Delta) -> Sequence[Any]:
        """Return the scores of some tokens, if they were asked for."""
        k = self._body.top_logprobs
        tokenizer: Tokenizer = self._generation.plan.model.tokenizer
        logprobs: Sequence[Any] = chat_logprobs(tokenizer, delta.entries, k, as_ids=False)["content"] if k else []
        return logprobs

    def _around(
        self,
        status: str,
        output: Sequence[Mapping[str, Any]],
        *,
        incomplete: Mapping[str, str] | None = None,
        error: Mapping[str, str] | None = None,
    ) -> dict[str, Any]:
        body = self._body
        return {
            "id": self._id,
            "object": "response",
            "created_at": self._created_s,
            "status": status,
            "background": False,
            "error": error,
            "incomplete_details": incomplete,
            "instructions": body.instructions,
            "max_output_tokens": body.max_output_tokens,
            "metadata": dict(body.metadata),
            "model": self._generation.plan.model.id,
            "output": output,
            "parallel_tool_calls": True,
            "previous_response_id": None,
            "service_tier": "default",
            "store": False,
            "temperature": body.temperature,
            "text": {"format": dict(body.text.format)},
            "tool_choice": "auto",
            "tools": [],
            "top_logprobs": body.top_logprobs,
            "top_p": body.top_p,
            "truncation": "disabled",
            "usage": None if status == "in_progress" else self._usage(),
        }

    def _usage(self) -> dict[str, Any]:
        usage = self._generation.usage()
        return {
            "input_tokens": usage["prompt_tokens"],
            "input_tokens_details": usage["prompt_tokens_details"],
            "output_tokens": usage["completion_tokens"],
            "output_tokens_details": usage["completion_tokens_details"],
            "total_tokens": usage["total_tokens"],
        }


class ResponseWriter:
    """The events of one streamed response, numbered."""

    def __init__(self, answer: ResponseObject) -> None:
        self._answer = answer
        self._deltas: list[Delta] = []
        self._num_events = 0

    def opening(self, num_choices: int) -> bytes:
        """Return what a stream begins with."""
        answer, part = self._answer, self._answer.part(Delta())
        return (
            self._event("created", response=answer.unfinished())
            + self._event("in_progress", response=answer.unfinished())
            + self._event("output_item.added", output_index=0, item=answer.item(None, "in_progress"))
            + self._event("content_part.added", **self._place(), part=part)
        )

    def frames(self, deltas: Iterable[IndexedDelta]) -> bytes:
        """Return the events of some gains."""
        events = b""
        for _, delta in deltas:
            self._deltas.append(delta)
            if delta.text:
                logprobs = self._answer.logprobs(delta)
                events += self._event("output_text.delta", **self._place(), delta=delta.text, logprobs=logprobs)
        return events

    def closing(self) -> bytes:
        """Return what a stream ends with."""
        answer, whole = self._answer, fold(self._deltas)
        finished = answer.finished(whole)
        part, item = answer.part(whole), finished["output"][0]
        return (
            self._event("output_text.done", **self._place(), text=whole.text, logprobs=part["logprobs"])
            + self._event("content_part.done", **self._place(), part=part)
            + self._event("output_item.done", output_index=0, item=item)
            + self._event(finished["status"], response=finished)
        )

    def failing(self, error: Mapping[str, Any]) -> bytes:
        """Return how a stream ends that fails, given the JSON object of the error."""
        return self._event("failed", response=self._answer.failed(error["error"]["message"]))

    def _place(self) -> dict[str, Any]:
        return {"item_id": self._answer.item_id, "output_index": 0, "content_index": 0}

    def _event(self, kind: str, **fields: Any) -> bytes:
        kind = "response." + kind
        event = {"type": kind, "sequence_number": self._num_events, **fields}
        self._num_events += 1
        return b"event: " + kind.encode() + b"\ndata: " + encode_line(event) + b"\n\n"
