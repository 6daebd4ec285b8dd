"""`groundup chat`: a conversation in the terminal, or one question out of a pipe.

It knows how to read lines, show text as it comes and stop; what is asked and how is the endpoint's business.
"""

import os
import re
import sys
from collections.abc import Generator
from contextlib import closing, suppress

from client.conversation import Conversation, choose_model
from client.endpoint import Endpoint, Piece
from client.settings import ChatConfig

PROMPT = "> "

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
"""What a model could write to move the cursor or retitle the window; not newline and tab."""


def run(config: ChatConfig) -> None:
    """Talk until the user ends it; where input or output is no terminal, answer all of the input once.

    Raises:
        ValueError: there is no server or no model to talk to; from a pipe, also whatever else goes wrong.
    """
    endpoint = Endpoint(config.url, api_key=os.environ.get("OPENAI_API_KEY"), timeout_s=config.timeout_s)
    is_terminal = sys.stdin.isatty() and sys.stdout.isatty()
    question = "" if is_terminal else sys.stdin.read().strip()
    if not is_terminal and not question:
        raise ValueError("nothing was asked: the input is empty")
    model = config.model or choose_model(endpoint.chat_models())
    talk = Conversation(model, config.system, endpoint.chat_models)
    if is_terminal:
        _converse(talk, endpoint, config)
    else:
        talk.turns.append({"role": "user", "content": question})
        with closing(endpoint.answer(talk.model, talk.messages, config.sampling)) as pieces:
            for piece in pieces:
                print(piece.text, end="", flush=True)
        print()


def _converse(talk: Conversation, endpoint: Endpoint, config: ChatConfig) -> None:
    with suppress(ImportError):
        import readline  # noqa: F401  # gives `input` arrow keys, history and pasting of several lines
    print(f"{talk.model} at {endpoint.base_url}. /help lists commands, Ctrl-D ends.")
    while True:
        try:
            line = input(PROMPT).strip()
            if line.startswith("/") and not line.startswith("//"):
                print(talk.command(line))
            elif line:
                _exchange(talk, endpoint, config, line.removeprefix("/") if line.startswith("//") else line)
        except EOFError:
            print()
            return
        except KeyboardInterrupt:  # throws away a line that is being written, and a command that takes too long
            print()
        except (ValueError, OSError) as error:
            print(f"error: {error}")


def _exchange(talk: Conversation, endpoint: Endpoint, config: ChatConfig, question: str) -> None:
    """Ask and show; whatever was answered is kept, and a question without any answer is forgotten."""
    talk.turns.append({"role": "user", "content": question})
    said: list[str] = []
    try:
        _show(endpoint.answer(talk.model, talk.messages, config.sampling), said)
    finally:
        if said:
            talk.turns.append({"role": "assistant", "content": "".join(said)})
        else:
            talk.turns.pop()


def _show(answer: Generator[Piece], said: list[str]) -> None:
    """Print pieces as they come and keep them in `said`; Ctrl-C ends that, and closing the answer cancels it."""
    finish_reason = None
    try:
        with closing(answer) as pieces:
            for piece in pieces:
                finish_reason = piece.finish_reason or finish_reason
                if piece.text:
                    said.append(piece.text)
                    print(_CONTROL.sub("\N{REPLACEMENT CHARACTER}", piece.text), end="", flush=True)
    except KeyboardInterrupt:
        finish_reason = "stopped"
    finally:
        if said:
            print()
    if finish_reason in ("length", "stopped"):
        print("[cut at its limit]" if finish_reason == "length" else "[stopped]")
