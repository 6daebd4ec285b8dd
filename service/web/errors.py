"""Everything that can be wrong with a request, as exceptions that know their HTTP answer.

    ApiError
    +-- InvalidRequest                 invalid_request_error, 400 unless said otherwise
    |   +-- MalformedJson
    |   +-- InvalidParameter           any code that names a parameter
    |   |   +-- ContextLengthExceeded
    |   +-- ConstraintTooComplex
    |   +-- UnrecognizedArgument
    |   +-- MissingApiKey              401
    |   +-- WrongApiKey                401
    |   +-- InsufficientPermissions    403
    |   +-- UnknownModel               404
    |   +-- UnsupportedModel           404
    |   +-- UnknownUrl                 404
    |   +-- MethodNotSupported         405
    |   +-- BodyTooLarge               413
    |   +-- UnsupportedMediaType       415
    +-- RateLimited                    429, with a type of its own
    +-- ServerFault                    server_error; the message is generic and gets the request id
        +-- InternalError              500
        +-- ServerOverloaded           503 or as configured
        +-- ModelLoading               503
        +-- EngineUnavailable          503
        +-- ServerShuttingDown         503
        +-- QueueTimeout               503
        +-- RequestTimeout             504

    ClientGone                         nobody is left to answer

Messages follow OpenAI's wording where clients match on it. Where the errors are raised is no concern of this file.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

MAX_MESSAGE_CHARS = 1000
MAX_ECHO_CHARS = 200

RETRY_SOON: Mapping[str, str] = {"Retry-After": "1"}
RETRY_LATER: Mapping[str, str] = {"Retry-After": "5"}


class ClientGone(Exception):
    """The client closed its connection before the answer was complete."""


class ApiError(Exception):
    """An answer that is not a result. Use the leaves."""

    status = 500
    type = "server_error"
    code: str | None = None
    headers: Mapping[str, str] = {}

    def __init__(self, message: str, *, param: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.param = param

    def body(self, request_id: str) -> dict[str, Any]:
        """Return the JSON object a client gets."""
        error = {"message": self.public_message(request_id), "type": self.type, "param": self.param, "code": self.code}
        return {"error": error}

    def public_message(self, request_id: str) -> str:
        return self.message[:MAX_MESSAGE_CHARS]


def quote(value: object) -> str:
    """Show an offending value inside a message: one line, bounded, whatever it is."""
    if isinstance(value, str):
        shown = value if len(value) <= MAX_ECHO_CHARS else value[:MAX_ECHO_CHARS] + "..."
        return "'" + "".join(c if c.isprintable() else "?" for c in shown) + "'"
    return (
        str(value)[:MAX_ECHO_CHARS]
        if isinstance(value, bool | int | float)
        else f"a value of type {type(value).__name__}"
    )


class InvalidRequest(ApiError):
    status = 400
    type = "invalid_request_error"


class MalformedJson(InvalidRequest):
    def __init__(self) -> None:
        super().__init__("We could not parse the JSON body of your request. Send one JSON object, encoded as UTF-8.")


class InvalidParameter(InvalidRequest):
    """A parameter that is missing, of the wrong type, out of range or not supported."""

    def __init__(self, code: str, param: str, message: str) -> None:
        super().__init__(message, param=param)
        self.code = code


class ContextLengthExceeded(InvalidParameter):
    """More tokens than the model's context holds. Agents and proxies match on these sentences."""

    def __init__(self, param: str, details: str) -> None:
        super().__init__("context_length_exceeded", param, details)

    @classmethod
    def of_messages(cls, context: int, num_tokens: int) -> "ContextLengthExceeded":
        return cls(
            "messages",
            f"This model's maximum context length is {context} tokens. However, your messages resulted in "
            f"{num_tokens} tokens. Please reduce the length of the messages.",
        )

    @classmethod
    def of_messages_and_answer(cls, context: int, num_tokens: int, max_tokens: int) -> "ContextLengthExceeded":
        return cls(
            "messages",
            f"This model's maximum context length is {context} tokens. However, you requested "
            f"{num_tokens + max_tokens} tokens ({num_tokens} in the messages, {max_tokens} in the completion). "
            "Please reduce the length of the messages or completion.",
        )

    @classmethod
    def of_prompt(cls, context: int, num_tokens: int, max_tokens: int) -> "ContextLengthExceeded":
        return cls(
            "prompt",
            f"This model's maximum context length is {context} tokens, however you requested "
            f"{num_tokens + max_tokens} tokens ({num_tokens} in your prompt; {max_tokens} for the completion). "
            "Please reduce your prompt; or completion length.",
        )

    @classmethod
    def of_input(cls, context: int, num_tokens: int) -> "ContextLengthExceeded":
        return cls(
            "input",
            f"This model's maximum context length is {context} tokens. However, your input resulted in {num_tokens} "
            "tokens. Please reduce the length of the input.",
        )


class ConstraintTooComplex(InvalidRequest):
    """What an answer must look like could be checked, but not be followed to its end."""

    code = "invalid_schema"

    def __init__(self) -> None:
        super().__init__("The schema or the expression that the answer must match is too complex to be enforced.")


class UnrecognizedArgument(InvalidRequest):
    def __init__(self, name: str) -> None:
        super().__init__(f"Unrecognized request argument supplied: {name[:MAX_ECHO_CHARS]}")


class MissingApiKey(InvalidRequest):
    status = 401
    headers: Mapping[str, str] = {"WWW-Authenticate": "Bearer"}

    def __init__(self) -> None:
        super().__init__(
            "You didn't provide an API key. You need to provide your API key in an Authorization header using Bearer "
            "auth (i.e. Authorization: Bearer YOUR_KEY)."
        )


class WrongApiKey(InvalidRequest):
    status = 401
    code = "invalid_api_key"
    headers: Mapping[str, str] = {"WWW-Authenticate": "Bearer"}

    def __init__(self) -> None:
        super().__init__("Incorrect API key provided.")


class InsufficientPermissions(InvalidRequest):
    status = 403
    code = "insufficient_permissions"

    def __init__(self, reason: str) -> None:
        super().__init__(f"You have insufficient permissions for this operation: {reason}.")


class UnknownModel(InvalidRequest):
    status = 404
    code = "model_not_found"

    def __init__(self, name: str) -> None:
        super().__init__(f"The model {_tick(name)} does not exist or you do not have access to it.", param="model")

    @classmethod
    def as_resource(cls, name: str) -> "UnknownModel":
        """The same for `GET /v1/models/{id}`, which has its own sentence."""
        error = cls(name)
        error.message = f"The model {quote(name)} does not exist"
        return error


def _tick(name: str) -> str:
    return "`" + quote(name)[1:-1] + "`"


class UnsupportedModel(InvalidRequest):
    status = 404
    code = "unsupported_model"

    def __init__(self, kind: str, endpoint: str, better_endpoint: str) -> None:
        super().__init__(
            f"This is not a {kind} model and thus not supported in the {endpoint} endpoint. "
            f"Did you mean to use {better_endpoint}?",
            param="model",
        )


class UnknownUrl(InvalidRequest):
    status = 404
    code = "unknown_url"

    def __init__(self, method: str, path: str) -> None:
        super().__init__(f"Invalid URL ({method} {quote(path)[1:-1]})")


class MethodNotSupported(InvalidRequest):
    status = 405
    code = "method_not_supported"

    def __init__(self, method: str, path: str, allowed: Sequence[str]) -> None:
        super().__init__(f"Not allowed to {method} on {quote(path)[1:-1]}.")
        self.headers = {"Allow": ", ".join(allowed)}


class BodyTooLarge(InvalidRequest):
    status = 413
    code = "request_too_large"
    headers: Mapping[str, str] = {"Connection": "close"}

    def __init__(self, max_bytes: int) -> None:
        super().__init__(f"Request body too large: this server accepts at most {max_bytes} bytes.")


class UnsupportedMediaType(InvalidRequest):
    status = 415
    code = "unsupported_media_type"

    def __init__(self) -> None:
        super().__init__("Unsupported media type: send a JSON body with 'Content-Type: application/json'.")


class RateLimited(ApiError):
    """A key has used up its minute. Clients wait as long as they are told; what can never fit is not tried again."""

    status = 429
    code = "rate_limit_exceeded"

    def __init__(self, kind: str, *, limit: int, left: int, asked: int, retry_s: float | None) -> None:
        """`kind` is requests or tokens; without `retry_s` waiting does not help."""
        advice = "Reduce the request." if retry_s is None else f"Please try again in {retry_s:.3g}s."
        super().__init__(
            f"Rate limit reached on {kind} per min: Limit {limit}, Remaining {left}, Requested {asked}. {advice}"
        )
        self.type = kind
        self.headers = (
            {"x-should-retry": "false"}
            if retry_s is None
            else {"Retry-After": str(math.ceil(retry_s)), "retry-after-ms": str(math.ceil(1000 * retry_s))}
        )


class ServerFault(ApiError):
    """Not the client's mistake. What exactly happened is in the log, under the request id."""

    status = 503
    explanation = "The server had an error while processing your request."

    def __init__(self) -> None:
        super().__init__(self.explanation)

    def public_message(self, request_id: str) -> str:
        return f"{self.message} (request id: {request_id})"


class InternalError(ServerFault):
    status = 500
    code = "internal_error"


class ServerOverloaded(ServerFault):
    code = "server_overloaded"
    headers = RETRY_SOON
    explanation = "The server is overloaded: too many requests are waiting. Please retry later."

    def __init__(self, status: int = 503) -> None:
        super().__init__()
        self.status = status


class ModelLoading(ServerFault):
    code = "model_loading"
    headers = RETRY_LATER
    explanation = "The model is still loading. Please retry later."


class EngineUnavailable(ServerFault):
    code = "engine_unavailable"
    headers = RETRY_LATER
    explanation = "The engine behind this model is not available. Please retry later."


class ServerShuttingDown(ServerFault):
    code = "server_shutting_down"
    headers: Mapping[str, str] = {"Retry-After": "1", "Connection": "close"}
    explanation = "The server is shutting down. Please retry, so that another one can answer."


class QueueTimeout(ServerFault):
    code = "queue_timeout"
    headers = RETRY_SOON
    explanation = "The request waited too long for its turn. Please retry later."


class RequestTimeout(ServerFault):
    """The official clients retry every 5xx twice; a request that was too slow once must not run three times."""

    status = 504
    code = "timeout"
    headers: Mapping[str, str] = {"x-should-retry": "false"}
    explanation = "The request took longer than allowed. Ask for fewer tokens, or allow more time."
