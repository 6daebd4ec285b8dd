"""GET /openapi.json: what this service takes and gives, generated from the types that check it.

Fields, ranges and defaults come from `protocol`, limits from the settings, names of models from what is served now.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import TypeAdapter

from service.settings import ServiceSettings
from service.web import answers
from service.web.fields import SETTING, Body
from service.web.models import Capability
from service.web.protocol.admin import NewModel
from service.web.protocol.chat import ChatRequest
from service.web.protocol.classify import ClassifyRequest, PredictRequest
from service.web.protocol.completions import CompletionRequest
from service.web.protocol.embeddings import EmbeddingRequest
from service.web.protocol.responses import ResponsesRequest
from service.web.protocol.tokens import DetokenizeRequest, TokenizeRequest

Schema = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Operation:
    """One method of one path."""

    path: str
    summary: str
    answer: Any
    """Type of the JSON of a good answer; None: plain text."""
    body: type[Body] | None = None
    capability: Capability | None = None
    """What a model must be able to do; None: any model will do."""
    streams: bool = False
    is_public: bool = False
    is_admin: bool = False
    is_deletion: bool = False
    errors: tuple[int, ...] = ()
    """Statuses of its own."""
    parameters: tuple[Schema, ...] = ()

    @property
    def method(self) -> str:
        if self.is_deletion:
            return "delete"
        return "get" if self.body is None else "post"


_MODEL_ID = {"name": "id", "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
_MODEL_QUERY = {"name": "model", "in": "query", "required": False, "schema": {"type": "string"}}
_READ = (400, 403, 404, 413, 415, 429, 503)
_GENERATE = (*_READ, 500, 504)

OPERATIONS = (
    Operation(
        "/v1/completions",
        "Continue texts.",
        answers.Completion,
        CompletionRequest,
        "completions",
        streams=True,
        errors=_GENERATE,
    ),
    Operation(
        "/v1/chat/completions",
        "Answer a conversation.",
        answers.ChatCompletion,
        ChatRequest,
        "chat",
        streams=True,
        errors=_GENERATE,
    ),
    Operation(
        "/v1/responses",
        "Answer a conversation, in the shape of the Responses API.",
        answers.ModelResponse,
        ResponsesRequest,
        "chat",
        streams=True,
        errors=_GENERATE,
    ),
    Operation("/v1/embeddings", "Embed texts.", answers.Embeddings, EmbeddingRequest, "embeddings", errors=_GENERATE),
    Operation("/classify", "Label texts.", answers.Classifications, ClassifyRequest, "classify", errors=_GENERATE),
    Operation(
        "/predict",
        "Label texts, as text-embeddings-inference does.",
        answers.Predictions,
        PredictRequest,
        "classify",
        errors=_GENERATE,
    ),
    Operation("/tokenize", "Turn a text into token ids.", answers.Tokens, TokenizeRequest, errors=_READ),
    Operation("/detokenize", "Turn token ids into text.", answers.Text, DetokenizeRequest, errors=_READ),
    Operation(
        "/tokenizer_info",
        "Describe the tokenizer of a model.",
        answers.TokenizerInfo,
        errors=(404,),
        parameters=(_MODEL_QUERY,),
    ),
    Operation("/v1/models", "List the models.", answers.ModelList),
    Operation("/v1/models/{id}", "Describe a model.", answers.ModelCard, errors=(404,), parameters=(_MODEL_ID,)),
    Operation("/health", "Say whether requests are welcome.", answers.Status, is_public=True, errors=(503,)),
    Operation("/readyz", "The same, for probes.", answers.Status, is_public=True, errors=(503,)),
    Operation("/livez", "Say whether a restart would help.", answers.Status, is_public=True, errors=(503,)),
    Operation("/metrics", "Numbers for Prometheus.", None, is_public=True),
)

ADMIN_OPERATIONS = (
    Operation(
        "/admin/models", "List the models with their versions and directories.", answers.ServedVersions, is_admin=True
    ),
    Operation(
        "/admin/models",
        "Add or replace a model.",
        answers.ServedVersion,
        NewModel,
        is_admin=True,
        errors=(400, 413, 415, 503),
    ),
    Operation(
        "/admin/models/{id}",
        "Serve a model no more.",
        answers.RemovedModel,
        is_admin=True,
        is_deletion=True,
        errors=(404, 503),
        parameters=(_MODEL_ID,),
    ),
)
"""What there is with an admin key."""

_SCHEMES: Schema = {
    "bearer": {"type": "http", "scheme": "bearer"},
    "header": {"type": "apiKey", "in": "header", "name": "X-Api-Key"},
}

_STATUSES = {
    400: "The request is wrong; `param` says where.",
    401: "The API key is missing or wrong.",
    403: "The API key may not do this.",
    404: "There is no such model, or it cannot do this.",
    413: "The body is too large.",
    415: "The body is not JSON.",
    429: "The API key has used up its minute; `Retry-After` says when to come back.",
    500: "A fault of the server.",
    503: "Not now: loading, overloaded or shutting down; `Retry-After` says when to come back.",
    504: "It took longer than allowed.",
}


def describe_service(cards: Sequence[Mapping[str, Any]], settings: ServiceSettings, version: str) -> Schema:
    """Return the document, in the form of OpenAPI 3.1. `cards` are those of `GET /v1/models`."""
    components: Schema = {}
    error = TypeAdapter(answers.ErrorAnswer).json_schema(ref_template=_REF)
    components["ErrorAnswer"] = _adopt(error, components, settings)
    paths: Schema = {}
    operations = (*OPERATIONS, *(ADMIN_OPERATIONS if settings.admin_key_hashes else ()))
    for operation in operations:
        paths.setdefault(operation.path, {})[operation.method] = _describe(operation, cards, settings, components)
    schemes = _SCHEMES if settings.api_key_hashes else {}
    if settings.admin_key_hashes:
        schemes = schemes | {f"admin_{name}": scheme for name, scheme in _SCHEMES.items()}
    document: Schema = {
        "openapi": "3.1.0",
        "info": {
            "title": "Groundup",
            "version": version,
            "description": "Unknown fields of a body are ignored, and listed in the header `x-ignored-params`; null "
            "is an omitted field. The header `x-request-timeout-ms` shortens the time a request may take.",
        },
        "paths": paths,
        "components": {"schemas": components, **({"securitySchemes": schemes} if schemes else {})},
    }
    return document | ({"security": [{name: []} for name in _SCHEMES]} if settings.api_key_hashes else {})


def _describe(
    operation: Operation, cards: Sequence[Mapping[str, Any]], settings: ServiceSettings, components: Schema
) -> Schema:
    is_public = operation.is_public and not (operation.path == "/metrics" and settings.metrics_require_key)
    has_keys = operation.is_admin or (bool(settings.api_key_hashes) and not is_public)
    refusals = (401, 403) if operation.is_admin else (401,) if has_keys else ()
    described: Schema = {
        "summary": operation.summary,
        "responses": {"200": _good_answer(operation, settings, components)}
        | {str(status): _error_answer(operation, status) for status in sorted({*operation.errors, *refusals})},
    }
    if operation.parameters:
        described["parameters"] = list(operation.parameters)
    if operation.body is not None:
        names = [
            card["id"] for card in cards if operation.capability is None or operation.capability in card["capabilities"]
        ]
        schema = _body_schema(operation, names, settings, components)
        described["requestBody"] = {"required": True, "content": {"application/json": {"schema": schema}}}
    if operation.is_public and is_public and settings.api_key_hashes:
        described["security"] = []
    if operation.is_admin:
        described["security"] = [{f"admin_{name}": []} for name in _SCHEMES]
    return described


def _good_answer(operation: Operation, settings: ServiceSettings, components: Schema) -> Schema:
    if operation.answer is None:
        return {"description": operation.summary, "content": {"text/plain": {"schema": {"type": "string"}}}}
    schema = _adopt(TypeAdapter(operation.answer).json_schema(ref_template=_REF), components, settings)
    if isinstance(operation.answer, type):
        name = operation.answer.__name__
        components[name] = schema
        schema = {"$ref": _REF.format(model=name)}
    content: Schema = {"application/json": {"schema": schema}}
    if operation.streams:
        content["text/event-stream"] = {}  # a schema would be held against each event, and events are of many kinds
    return {"description": operation.summary, "content": content}


def _error_answer(operation: Operation, status: int) -> Schema:
    tells_status = operation.answer is answers.Status and status == 503
    schema = {"$ref": _REF.format(model="Status" if tells_status else "ErrorAnswer")}
    return {"description": _STATUSES[status], "content": {"application/json": {"schema": schema}}}


def _body_schema(
    operation: Operation, model_names: Sequence[str], settings: ServiceSettings, components: Schema
) -> Schema:
    body = operation.body
    assert body is not None
    schema = body.model_json_schema(ref_template=_REF)
    for definition in schema.get("$defs", {}).values():
        definition["properties"] = _with_nulls(definition, frozenset())
    schema = _adopt(schema, components, settings)
    required = set(schema.get("required", ()))
    properties = _with_nulls(schema, body.nullable)
    properties |= {name: {"description": "Accepted, and changes nothing."} for name in sorted(body.without_effect)}
    if "model" not in properties:
        return schema | {"properties": properties}
    needs_name = operation.capability is not None and settings.default_model is None
    if operation.capability == "classify" and len(model_names) == 1:
        needs_name = False
    about_model = {"description": properties["model"]["description"]}
    names: list[str | None] = [*model_names, *([] if needs_name else [None])]
    properties["model"] = ({"enum": names} if names else {"type": "string"}) | about_model  # nothing satisfies no enum
    required |= {"model"} if needs_name else set()
    return schema | {"properties": properties, "required": sorted(required)}


_REF = "#/components/schemas/{model}"
_KEYWORDS = {"ge": "minimum", "le": "maximum", "gt": "exclusiveMinimum", "lt": "exclusiveMaximum"}


def _adopt(schema: Schema, components: Schema, settings: ServiceSettings) -> Schema:
    """Move a schema's definitions to the document's, and say everything in the keywords of JSON Schema."""
    for name, definition in schema.pop("$defs", {}).items():
        plain = _plain(definition, settings)
        assert components.setdefault(name, plain) == plain, f"{name} is the name of two definitions"
    adopted: Schema = _plain(schema, settings)
    return adopted


def _plain(schema: Any, settings: ServiceSettings) -> Any:
    if isinstance(schema, list):
        return [_plain(item, settings) for item in schema]
    if not isinstance(schema, dict):
        return schema
    plain: Schema = {}
    for keyword, value in schema.items():
        if keyword.startswith(SETTING):
            plain[keyword.removeprefix(SETTING)] = getattr(settings, value)
        elif keyword in ("properties", "$defs"):
            plain[keyword] = {name: _plain(field, settings) for name, field in value.items()}
        elif keyword != "title" and not (keyword == "default" and value is None):
            name = _KEYWORDS.get(str(keyword), str(keyword))
            plain[name] = _plain(value, settings)
    return plain


def _with_nulls(schema: Schema, nullable: Collection[str]) -> Schema:
    """Return the fields of an object as they may be sent; those of `nullable` say themselves what their null is."""
    given = {*schema.get("required", ()), *nullable}
    return {name: field if name in given else _nullable(field) for name, field in schema["properties"].items()}


def _nullable(schema: Schema) -> Schema:
    """Allow null, which is the same as leaving the field out."""
    about = {name: schema[name] for name in ("description", "default") if name in schema}
    rest = {name: value for name, value in schema.items() if name not in about}
    if None in rest.get("enum", ()) or {"type": "null"} in rest.get("anyOf", ()) or not rest:
        return schema
    if set(rest) == {"anyOf"}:
        return {"anyOf": [*rest["anyOf"], {"type": "null"}]} | about
    return {"anyOf": [rest, {"type": "null"}]} | about
