"""POST /v1/completions and /v1/chat/completions: from a checked request to an answer, plain or streamed."""

from collections import defaultdict
from contextlib import aclosing
from functools import partial

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from service.settings import ServiceSettings
from service.web.call_shape import CallShape
from service.web.constraint_check import ConstraintCheck
from service.web.frontend import Frontend
from service.web.generation import Generation, batches, begin
from service.web.intake import Received, in_good_time, take_in
from service.web.models import ServedModel
from service.web.output import Delta, Echo, fold
from service.web.plan import Plan, plan_generation
from service.web.prompts import chat_prompt, completion_prompts
from service.web.protocol.chat import ChatRequest
from service.web.protocol.completions import CompletionRequest
from service.web.protocol.generation import GenerationRequest
from service.web.shapes import ChatShape, CompletionShape, Envelope, Shape, plain_answer
from service.web.streaming import ChunkWriter, EventStream


class GenerationRoutes:
    """The two endpoints that generate text."""

    def __init__(self, frontend: Frontend, settings: ServiceSettings) -> None:
        self._frontend = frontend
        self._settings = settings
        self._constraints = ConstraintCheck(settings.queue_timeout_s)

    async def completions(self, request: Request) -> Response:
        """Continue one or several prompts."""
        choose = partial(self._frontend.models.choose, capability="completions")
        received = await take_in(request, CompletionRequest, choose, self._settings)
        await self._constraints.check(received.body.constrained)
        plan = await in_good_time(received.size_bytes, self._plan_completion, received.body, received.model)
        return await self._answer(
            request, received, plan, CompletionShape(plan, names_ids=received.body.return_tokens_as_token_ids)
        )

    async def chat(self, request: Request) -> Response:
        """Answer a conversation."""
        choose = partial(self._frontend.models.choose, capability="chat")
        received = await take_in(request, ChatRequest, choose, self._settings)
        await self._constraints.check(received.body.constrained)
        plan = await in_good_time(received.size_bytes, self._plan_chat, received.body, received.model)
        names_ids, calls = received.body.return_tokens_as_token_ids, received.body.forced_calls
        shape = CallShape(plan, calls, names_ids=names_ids) if calls else ChatShape(plan, names_ids=names_ids)
        return await self._answer(request, received, plan, shape)

    def _plan_completion(self, body: CompletionRequest, model: ServedModel) -> Plan:
        prompts = completion_prompts(body, model, self._settings)
        echoes = [
            Echo.of_tokens(model.tokenizer, prompt.token_ids, num_hidden=prompt.num_bos) if body.echo else None
            for prompt in prompts
        ]
        return plan_generation(body, model, prompts, echoes, stream_interval=self._settings.stream_interval)

    def _plan_chat(self, body: ChatRequest, model: ServedModel) -> Plan:
        prompt = chat_prompt(body, model, self._settings)
        echo = Echo(body.messages[-1].content or "") if body.echo else None
        return plan_generation(body, model, [prompt], [echo], stream_interval=self._settings.stream_interval)

    async def _answer(
        self, request: Request, received: Received[GenerationRequest], plan: Plan, shape: Shape
    ) -> Response:
        generation = begin(request, plan, self._frontend, self._settings)
        envelope = Envelope(plan.model.id, plan.model.fingerprint, received.body.request_id)
        if not received.body.stream:
            return await self._plain(request, received, generation, shape, envelope)
        writer = ChunkWriter(
            shape,
            envelope,
            usage=generation.usage,
            includes_usage=received.body.includes_usage,
            has_running_usage=received.body.has_running_usage,
        )
        return EventStream(
            generation,
            self._frontend,
            writer,
            keepalive_s=self._settings.sse_keepalive_s,
            headers=received.headers,
        )

    async def _plain(
        self,
        request: Request,
        received: Received[GenerationRequest],
        generation: Generation,
        shape: Shape,
        envelope: Envelope,
    ) -> Response:
        gains: defaultdict[int, list[Delta]] = defaultdict(list)
        async with aclosing(batches(generation, self._frontend, request.receive)) as running:
            async for deltas in running:
                for index, delta in deltas:
                    gains[index].append(delta)
        choices = [fold(gains[index]) for index in generation.shown_candidates()]
        answer = plain_answer(shape, envelope, choices, generation.usage())
        headers = received.headers | {"server-timing": generation.timings.server_timing()}
        return Response(msgspec.json.encode(answer), media_type="application/json", headers=headers)
