"""Any OpenAI-compatible server, as a list of models and a stream of text. It keeps no conversation.

Whatever goes wrong becomes one `EndpointError` whose message says it in a line.
"""

import http.client
import json
import urllib.error
import urllib.request
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

Message = dict[str, str]
"""`role` and `content` of one turn."""

_LONGEST_ERROR_BYTES = 1 << 16
_LONGEST_ERROR_CHARS = 500


class EndpointError(ValueError):
    """The server cannot be reached, refused, or broke off; the message is for the user."""


class Piece(NamedTuple):
    """Some text of an answer; the last one says why the answer ends."""

    text: str
    finish_reason: str | None = None


class Endpoint:
    """A server and the key to it."""

    def __init__(self, base_url: str, *, api_key: str | None, timeout_s: float) -> None:
        """Remember where it is; nothing is sent yet. `timeout_s` is the longest silence."""
        self.base_url = base_url.rstrip("/")
        self._headers = {"Content-Type": "application/json", "User-Agent": "groundup-chat"}
        if api_key:
            self._headers["Authorization"] = f"Bearer {api_key.strip()}"
        self._timeout_s = timeout_s

    def chat_models(self) -> list[str]:
        """Return the ids of the models that may chat: those that say so, and those that do not say what they can."""
        with self._send("/models") as response:
            answer = _read_json(response.read())
        cards = answer.get("data")
        if not isinstance(cards, list) or not all(isinstance(card, dict) and "id" in card for card in cards):
            raise EndpointError(f"{self.base_url}/models: the answer is no list of models; is /v1 missing?")
        return [str(card["id"]) for card in cards if _may_chat(card.get("capabilities"))]

    def answer(self, model: str, messages: Sequence[Message], sampling: Mapping[str, Any]) -> Generator[Piece]:
        """Yield the next turn of a conversation while it is written. Closing the iterator closes the connection.

        Raises:
            EndpointError: before or in the middle of the answer.
        """
        body = {"model": model, "messages": list(messages), "stream": True, **sampling}
        with self._send("/chat/completions", body) as response:
            yield from _pieces(response)

    @contextmanager
    def _send(self, path: str, body: Mapping[str, Any] | None = None) -> Iterator[http.client.HTTPResponse]:
        url = self.base_url + path
        content = None if body is None else json.dumps(body).encode()
        try:
            request = urllib.request.Request(url, content, self._headers)
            with urllib.request.urlopen(request, timeout=self._timeout_s) as response:
                yield response
        except EndpointError:
            raise
        except urllib.error.HTTPError as error:
            with error:
                raise EndpointError(_describe(error)) from None
        except urllib.error.URLError as error:
            reason = getattr(error.reason, "strerror", None) or error.reason
            raise EndpointError(f"--base-url: cannot reach {url}: {reason}; does the server run?") from None
        except TimeoutError:
            raise EndpointError(f"{url}: no answer for {self._timeout_s:g} s (--timeout-s)") from None
        except (OSError, http.client.HTTPException) as error:
            raise EndpointError(f"{url}: the connection broke: {error or type(error).__name__}") from None
        except ValueError as error:
            raise EndpointError(f"--base-url: {url}: {error}") from None


def _may_chat(capabilities: object) -> bool:
    """Believe a list, as ours is; other servers mean other things by the word."""
    return not isinstance(capabilities, list) or "chat" in capabilities


def _pieces(lines: Iterable[bytes]) -> Iterator[Piece]:
    """Read server-sent events until the last one."""
    finish_reason = None
    for line in lines:
        if not line.startswith(b"data:"):
            continue  # comments that keep the connection open, and the blank lines between events
        data = line.removeprefix(b"data:").strip()
        if data == b"[DONE]":
            return
        event = _read_json(data)
        if error := event.get("error"):
            raise EndpointError(_message_of(error))
        for choice in event.get("choices") or ():
            try:
                finish_reason = choice.get("finish_reason")
                text = (choice.get("delta") or {}).get("content") or ""
                shown = text.encode("utf-8", "replace").decode()  # half a character cannot be printed
            except AttributeError:
                raise EndpointError("the server streams something that is no answer; is --base-url right?") from None
            yield Piece(shown, finish_reason)
    if finish_reason is None:
        raise EndpointError("the server broke off in the middle of the answer")


def _read_json(content: bytes) -> dict[str, Any]:
    try:
        value = json.loads(content)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise EndpointError("the server answered with something that is not a JSON object; is --base-url right?")
    return value


def _describe(error: urllib.error.HTTPError) -> str:
    """Put a refusal into a line: the server's own words where it has any."""
    try:
        answer = json.loads(error.read(_LONGEST_ERROR_BYTES))
    except (ValueError, OSError, http.client.HTTPException):
        answer = None
    if isinstance(answer, dict):
        said = answer.get("error") or answer.get("detail") or answer.get("message")
        if said:
            return _message_of(said)
    return f"{error.url}: {error.code} {error.reason}"


def _message_of(error: object) -> str:
    message = error.get("message", error) if isinstance(error, dict) else error
    return " ".join(str(message).split())[:_LONGEST_ERROR_CHARS]
