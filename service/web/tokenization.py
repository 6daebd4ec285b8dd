"""POST /tokenize and /detokenize, GET /tokenizer_info: the tokenizer of a served model, for clients that count."""

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from service.settings import ServiceSettings
from service.web.errors import InvalidParameter
from service.web.frontend import Frontend
from service.web.intake import in_good_time, take_in
from service.web.logprobs import token_text
from service.web.middleware import exchange_of
from service.web.models import ServedModel
from service.web.prompts import check_token_ids, render_chat
from service.web.protocol.tokens import DetokenizeRequest, TokenizeRequest


class TokenizerRoutes:
    """What the HTTP process can answer alone."""

    def __init__(self, frontend: Frontend, settings: ServiceSettings) -> None:
        self._frontend = frontend
        self._settings = settings

    async def tokenize(self, request: Request) -> Response:
        """Turn a text or a conversation into ids; text of control tokens is parsed."""
        received = await take_in(request, TokenizeRequest, self._frontend.models.choose_any, self._settings)
        answer = await in_good_time(received.size_bytes, _tokenized, received.body, received.model)
        return _json(answer, received.headers)

    async def detokenize(self, request: Request) -> Response:
        """Turn ids into text, control tokens included."""
        received = await take_in(request, DetokenizeRequest, self._frontend.models.choose_any, self._settings)
        answer = await in_good_time(received.size_bytes, _detokenized, received.body, received.model)
        return _json(answer, received.headers)

    async def info(self, request: Request) -> Response:
        """Describe the tokenizer of the model named in the query, or of the default one."""
        name = request.query_params.get("model")
        may_use = exchange_of(request.scope).key.may_use
        model = self._frontend.models.choose_any({} if name is None else {"model": name}, may_use=may_use)
        named = model.tokenizer.named_tokens
        answer = {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "bos_token": named.get("bos_token"),
            "eos_token": named.get("eos_token"),
            "pad_token": named.get("pad_token"),
            "vocab_size": model.vocab_size,
            "chat_template": None if model.template is None else model.template.source,
        }
        return _json(msgspec.json.encode(answer), {})


def _tokenized(body: TokenizeRequest, model: ServedModel) -> bytes:
    tokens = _tokens(body, model)
    strings = [token_text(model.tokenizer, token_id) for token_id in tokens] if body.return_token_strs else None
    answer = {"count": len(tokens), "max_model_len": model.context, "tokens": tokens, "token_strs": strings}
    return msgspec.json.encode(answer)


def _detokenized(body: DetokenizeRequest, model: ServedModel) -> bytes:
    check_token_ids(body.tokens, model, "tokens")
    text = model.tokenizer.decode(body.tokens)
    return msgspec.json.encode({"prompt": text, "content": text})


def _tokens(body: TokenizeRequest, model: ServedModel) -> list[int]:
    if body.messages is None:
        text = body.prompt if body.prompt is not None else body.content
        assert text is not None
        bos = model.tokenizer.bos_ids if body.add_special_tokens else ()
        return [*bos, *model.tokenizer.encode(text, parse_special=True)]
    if model.template is None:
        message = "Invalid 'messages': this model has no chat template."
        raise InvalidParameter("invalid_value", "messages", message)
    return render_chat(body.messages, model, opens_answer=body.add_generation_prompt)


def _json(answer: bytes, headers: dict[str, str]) -> Response:
    return Response(answer, media_type="application/json", headers=headers)
