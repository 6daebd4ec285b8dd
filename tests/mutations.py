"""Request bodies as they come from broken clients and unfriendly ones: valid ones, changed somewhere.

By hand against a running server, as many as one likes: `python -m tests.mutations http://127.0.0.1:8000 5000`.
"""

import copy
import http.client
import json
import random
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

MESSAGES = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": [{"type": "text", "text": "Hi"}]}]
SCHEMA = {"type": "object", "properties": {"a": {"enum": [1, "b"]}}, "required": ["a"], "additionalProperties": False}
TOOL = {"type": "function", "function": {"name": "f", "description": "d", "parameters": SCHEMA}}
SAMPLING: dict[str, Any] = {
    "max_tokens": 3,
    "n": 2,
    "temperature": 0.5,
    "top_p": 0.9,
    "top_k": 5,
    "min_p": 0.1,
    "seed": 1,
    "stop": ["x", "yz"],
    "stop_token_ids": [5],
    "logit_bias": {"7": -1},
    "presence_penalty": 0.5,
    "frequency_penalty": -0.5,
    "repetition_penalty": 1.1,
    "min_tokens": 1,
    "stream": False,
    "truncate_prompt_tokens": 32,
    "bad_words": ["bad"],
    "allowed_token_ids": [40, 41, 42],
    "user": "someone",
}


def seeds(complete: str, chat: str, classify: str) -> dict[str, list[dict[str, Any]]]:
    """Return valid bodies for every POST route, by its path. Without the model that a body names it is not valid."""
    return {
        "/v1/completions": [
            {"model": complete, "prompt": ["Hello", "you"], "logprobs": 2, "echo": True, **SAMPLING},
            {"model": complete, "prompt": [[40, 41], [42]], "max_tokens": 2, "best_of": 2, "prompt_logprobs": 1},
            {
                "model": complete,
                "prompt": "Hi",
                "max_tokens": 2,
                "stream": True,
                "stream_options": {"include_usage": True},
            },
            {"model": complete, "prompt": "Hi", "max_tokens": 4, "structured_outputs": {"regex": "[ab]{1,3}"}},
        ],
        "/v1/chat/completions": [
            {"model": chat, "messages": MESSAGES, "logprobs": True, "top_logprobs": 2, **SAMPLING},
            {
                "model": chat,
                "messages": [*MESSAGES, {"role": "assistant", "content": "A"}],
                "max_tokens": 2,
                "continue_final_message": True,
            },
            {
                "model": chat,
                "messages": MESSAGES,
                "max_completion_tokens": 4,
                "tools": [TOOL],
                "tool_choice": "required",
            },
            {
                "model": chat,
                "messages": MESSAGES,
                "max_completion_tokens": 4,
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {"name": "n", "schema": SCHEMA, "strict": True},
                },
            },
        ],
        "/v1/embeddings": [
            {
                "model": complete,
                "input": ["Hello", "you"],
                "encoding_format": "base64",
                "dimensions": 8,
                "pooling": "last",
            },
            {"model": complete, "input": [40, 41], "normalize": False, "truncate_prompt_tokens": 4},
        ],
        "/v1/responses": [
            {"model": chat, "input": MESSAGES, "instructions": "Be brief.", "max_output_tokens": 3, "temperature": 0.5},
            {
                "model": chat,
                "input": "Hi",
                "max_output_tokens": 2,
                "stream": True,
                "text": {"format": {"type": "text"}},
            },
        ],
        "/predict": [
            {"model": classify, "inputs": ["Hello", "you"], "raw_scores": True, "truncate": True},
            {"model": classify, "inputs": "Hello", "truncation_direction": "Left"},
        ],
        "/classify": [
            {"model": classify, "input": ["Hello", "you"], "top_k": 1, "raw_scores": True, "truncate": True},
            {"model": classify, "inputs": [[40, 41]], "truncate_prompt_tokens": 4, "truncation_side": "left"},
        ],
        "/tokenize": [
            {"model": chat, "prompt": "Hello <|end|>", "add_special_tokens": True, "return_token_strs": True},
            {"model": chat, "messages": MESSAGES, "add_generation_prompt": False},
        ],
        "/detokenize": [{"model": chat, "tokens": [40, 41, 42]}],
    }


def admin_seeds(directory: str) -> dict[str, list[dict[str, Any]]]:
    """Return the same for the routes that want the admin key, with the directory of a checkpoint."""
    return {"/admin/models": [{"path": directory, "id": "added"}, {"path": directory, "id": None}]}


WRONG_VALUES: list[Any] = [
    None, True, False, 0, -1, 1, 2**31, 2**63, 2**64, -(2**63) - 1, 10**300, 0.0, -0.0, 1e-320, 1e308, 0.5, 1.0,
    "", " ", "0", "1", "null", "\x00", "\ufeff", "\U0010ffff", "e\u0301", "<|end|>", "a" * 5000, "../../etc/passwd",
    [], [[]], {}, [None], [0] * 3000, ["x", 1], {"": ""}, {"a": {"b": {"c": []}}}, [[[[[[]]]]]], {"type": "text"},
]  # fmt: skip
LITERALS = (
    b"NaN",
    b"Infinity",
    b"-Infinity",
    b"1e999",
    b"-1e999",
    b"9" * 5000,
    b"1" + b"0" * 400,
    b"0x10",
    b"01",
    b"1.",
    b".5",
    b"+1",
    b"'a'",
    b"undefined",
    b"/**/1",
    b'"\\ud800"',
    b'"\\udfff\\ud800"',
    b'"\\x41"',
    b'"\n"',
    b'"\xff\xfe"',
    b'"\xed\xa0\x80"',
    b'"\xc0\x80"',
    b"[" * 200 + b"]" * 200,
    b'{"a":' * 500 + b"1" + b"}" * 500,
    b"[" * 100_000,
    b'"' + b"\\u00e9" * 3000 + b'"',
)
"""What no JSON value is written like, or hardly any."""

_MARK = "\N{OBJECT REPLACEMENT CHARACTER}"


def mutated(seed: Mapping[str, Any], rng: random.Random) -> bytes:
    """Return a body made from a valid one by one to three changes, of its values or of its bytes."""
    value = copy.deepcopy(dict(seed))
    for _ in range(rng.randint(1, 2)):
        rng.choice(_VALUE_CHANGES)(value, rng)
    if rng.random() < 0.5:
        return json.dumps(value).encode()
    return rng.choice(_BYTE_CHANGES)(value, rng)


def _places(value: Any) -> list[tuple[Any, Any]]:
    """Every container with every key of it, however deep."""
    found: list[tuple[Any, Any]] = []
    todo = [value]
    while todo:
        container = todo.pop()
        keys = list(container) if isinstance(container, dict) else range(len(container))
        found += [(container, key) for key in keys]
        todo += [container[key] for key in keys if isinstance(container[key], dict | list) and len(found) < 500]
    return found


def _replace(value: dict[str, Any], rng: random.Random) -> None:
    if places := _places(value):
        container, key = rng.choice(places)
        container[key] = copy.deepcopy(rng.choice(WRONG_VALUES))


def _remove(value: dict[str, Any], rng: random.Random) -> None:
    if places := _places(value):
        container, key = rng.choice(places)
        del container[key]


def _add(value: dict[str, Any], rng: random.Random) -> None:
    names = ["", "a" * 300, "self", "__class__", "model_config", "\x00", "prompt", "messages", "\U0001f642", *SAMPLING]
    value[rng.choice(names)] = copy.deepcopy(rng.choice(WRONG_VALUES))


def _nest(value: dict[str, Any], rng: random.Random) -> None:
    if places := _places(value):
        container, key = rng.choice(places)
        for _ in range(rng.choice([1, 2, 40, 130])):
            container[key] = [container[key]] if rng.random() < 0.5 else {"a": container[key]}


def _stretch(value: dict[str, Any], rng: random.Random) -> None:
    lists = [container[key] for container, key in _places(value) if isinstance(container[key], list) and container[key]]
    if lists:
        chosen = rng.choice(lists)
        chosen *= rng.choice([2, 5, 300])


def _literal(value: dict[str, Any], rng: random.Random) -> bytes:
    container, key = rng.choice(_places(value) or [(value, "x")])
    container[key] = _MARK
    return json.dumps(value).encode().replace(json.dumps(_MARK).encode(), rng.choice(LITERALS))


def _truncate(value: dict[str, Any], rng: random.Random) -> bytes:
    content = json.dumps(value).encode()
    return content[: rng.randrange(len(content))]


def _flip(value: dict[str, Any], rng: random.Random) -> bytes:
    content = bytearray(json.dumps(value).encode())
    for _ in range(rng.randint(1, 5)):
        content[rng.randrange(len(content))] = rng.randrange(256)
    return bytes(content)


def _encode(value: dict[str, Any], rng: random.Random) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode(
        rng.choice(["utf-16", "utf-32", "utf-8-sig", "cp1252"]), "replace"
    )


def _duplicate(value: dict[str, Any], rng: random.Random) -> bytes:
    name = rng.choice(list(value) or ["x"])
    return json.dumps(value).encode()[:-1] + f", {json.dumps(name)}: {json.dumps(rng.choice(WRONG_VALUES))}}}".encode()


def _wrap(value: dict[str, Any], rng: random.Random) -> bytes:
    content = json.dumps(value).encode()
    return (
        rng.choice([b"[%s]", b"%s%%", b"\x00%s", b"%s{}", b"\n\t %s \r\n", b"callback(%s)", b'"%s"', b"%s,"]) % content
    )


_VALUE_CHANGES: list[Callable[[dict[str, Any], random.Random], None]] = [
    _replace,
    _replace,
    _replace,
    _remove,
    _add,
    _nest,
    _stretch,
]
_BYTE_CHANGES: list[Callable[[dict[str, Any], random.Random], bytes]] = [
    _literal,
    _literal,
    _truncate,
    _flip,
    _encode,
    _duplicate,
    _wrap,
]


def check(status: int, content_type: str, content: bytes) -> None:
    """Assert that an answer is one that our API gives: a result, or an error object of a client's mistake."""
    if status == 200:
        assert content_type.startswith(("application/json", "text/event-stream")), content_type
        return
    assert status in (400, 404), (status, content)
    answer = json.loads(content)
    assert list(answer) == ["error"], answer
    assert sorted(answer["error"]) == ["code", "message", "param", "type"], answer
    error = answer["error"]
    assert error["type"] == "invalid_request_error", error
    assert isinstance(error["message"], str), error
    assert 0 < len(error["message"]) <= 1000, error
    assert error["param"] is None or isinstance(error["param"], str), error
    assert error["code"] is None or isinstance(error["code"], str), error


def bodies(valid: Mapping[str, list[dict[str, Any]]], count: int, seed: int = 0) -> Iterator[tuple[str, bytes]]:
    """Yield that many paths with mutated bodies; the same ones for the same seed."""
    rng = random.Random(seed)
    for _ in range(count):
        path = rng.choice(list(valid))
        yield path, mutated(rng.choice(valid[path]), rng)


def main(url: str, count: int) -> None:
    """Send mutated bodies to a server of the demo models, one after another, and count the answers."""
    place = urlsplit(url)
    connection = http.client.HTTPConnection(place.hostname or "", place.port, timeout=120)
    answers: Counter[int] = Counter()
    for path, body in bodies(seeds("groundup-base", "groundup-chat", "groundup-spam"), count):
        connection.request("POST", path, body, {"Content-Type": "application/json"})
        response = connection.getresponse()
        content = response.read()
        try:
            check(response.status, response.getheader("content-type", ""), content)
        except AssertionError as error:
            print(path, body[:2000], str(error)[:500])
            answers[-1] += 1
        answers[response.status] += 1
    print(dict(answers))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
