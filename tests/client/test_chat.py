"""`groundup chat` in a pseudo-terminal and in a pipe, as its users have it."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from tests.client.stub_server import DONE, Answer, cards, chunk, says, stub_server
from tests.program import poll


class Terminal:
    """A program on a pseudo-terminal of its own: what it shows, and keys to press."""

    def __init__(self, *args: str) -> None:
        self._master, slave = os.openpty()
        # The first terminal that the leader of a session opens becomes its own: Ctrl-C then comes as a signal.
        command = 'tty=$1; shift; exec "$@" <"$tty" >"$tty" 2>&1'
        self._process = subprocess.Popen(
            ["sh", "-c", command, "sh", os.ttyname(slave), sys.executable, "-m", "groundup", *args],
            start_new_session=True,
            env=environment() | {"TERM": "dumb"},
        )
        self._slave = slave  # kept open, lest the terminal ends before its user has read it all
        os.set_blocking(self._master, False)
        self.shown = ""

    def press(self, keys: str) -> None:
        os.write(self._master, keys.encode())

    def wait_for(self, pattern: str) -> str:
        """Wait until what was shown since the last wait has a match; return everything up to its end."""

        def find() -> str | None:
            self._read()
            match = re.search(pattern, self.shown)
            if match is None:
                return None
            before, self.shown = self.shown[: match.end()], self.shown[match.end() :]
            return before

        return poll(find, 30, f"no {pattern!r} on the terminal, only {self.shown!r}")

    def end(self) -> int:
        return self._process.wait(30)

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._slave)
        os.close(self._master)

    def _read(self) -> None:
        with suppress(BlockingIOError):
            self.shown += os.read(self._master, 1 << 16).decode(errors="replace").replace("\r\n", "\n")


@contextmanager
def terminal(*args: str) -> Iterator[Terminal]:
    opened = Terminal(*args)
    try:
        yield opened
    finally:
        opened.close()


def environment() -> dict[str, str]:
    ours = ("OPENAI_", "GROUNDUP_", "PYTEST_")
    return {name: value for name, value in os.environ.items() if not name.startswith(ours)}


def pipe(url: str, *flags: str, asked: bytes, key: str | None = None) -> "subprocess.CompletedProcess[bytes]":
    return subprocess.run(
        [sys.executable, "-m", "groundup", "chat", "--base-url", url, *flags],
        input=asked,
        capture_output=True,
        timeout=60,
        check=False,
        env=environment() | ({"OPENAI_API_KEY": key} if key else {}),
    )


def test_a_conversation_has_memory_commands_and_errors_in_one_line(tmp_path: Path) -> None:
    def answer(body: Any) -> Answer:
        said = body["messages"][-1]["content"]
        if said == "fail":
            return Answer([b'{"error": {"message": "Too long."}}'], status=400)
        return says(f"{len(body['messages'])}: ", said.upper(), "\x1b[2J")

    with stub_server(cards("parrot"), answer) as server:
        with terminal("chat", "--base-url", server.url, "--system", "Be loud.", "--temperature", "0.5") as chat:
            chat.wait_for(r"parrot at .*Ctrl-D ends\.\n> ")
            chat.press("hello\n")
            chat.wait_for("2: HELLO\N{REPLACEMENT CHARACTER}\\[2J\n> ")
            chat.press("fail\n")
            chat.wait_for(r"\nerror: Too long\.\n> ")
            chat.press("//slash\n")
            chat.wait_for("4: /SLASH.*\n> ")
            chat.press("/nope\n")
            chat.wait_for(r"\nerror: /nope: unknown command; /help lists them\n> ")
            chat.press("\n/save " + str(tmp_path / "said.jsonl") + "\n")
            chat.wait_for(r"Saved to .*\n> ")
            chat.press("/reset\nagain\n")
            chat.wait_for("2: AGAIN.*\n> ")
            chat.press("thrown away\x03")
            chat.wait_for(r"\n> ")
            chat.press("\x04")
            assert chat.end() == 0
        assert [body["temperature"] for body in server.bodies] == [0.5] * 4
        assert server.bodies[2]["messages"][0] == {"role": "system", "content": "Be loud."}
        assert (tmp_path / "said.jsonl").read_text().count("\n") == 1


def test_ctrl_c_stops_an_answer_and_the_conversation_goes_on_with_what_was_said() -> None:
    def answer(body: Any) -> Answer:
        endless = (chunk("word ") for _ in range(10_000_000))
        return Answer(endless) if len(body["messages"]) == 1 else says("Enough.")

    with stub_server(cards("a"), answer) as server, terminal("chat", "--base-url", server.url) as chat:
        chat.wait_for("> ")
        chat.press("talk\n")
        chat.wait_for("word word")
        chat.press("\x03")
        chat.wait_for(r"\n\[stopped\]\n> ")
        assert server.was_left.wait(20)
        chat.press("thanks\n")
        chat.wait_for(r"Enough\.\n> ")
        assert server.bodies[1]["messages"][1]["content"].startswith("word word")
        chat.press("\x04")
        assert chat.end() == 0


def test_a_pipe_is_one_question_and_its_answer_is_the_whole_output() -> None:
    with stub_server(cards("a"), lambda _: says("Two\n", "lines \u20ac")) as server:
        done = pipe(server.url, "--seed", "3", "--stop", "x", asked="What\nis \u20ac?\n".encode(), key="sesame")
        assert (done.returncode, done.stdout.decode(), done.stderr) == (0, "Two\nlines \u20ac\n", b"")
        assert server.keys == ["Bearer sesame"] * 2
        (body,) = server.bodies
        assert body["messages"] == [{"role": "user", "content": "What\nis \u20ac?"}]
        assert (body["seed"], body["stop"], "temperature" in body) == (3, ["x"], False)


@pytest.mark.parametrize(
    ("asked", "answer", "complaint"),
    [
        (b"", says("x"), "nothing was asked: the input is empty"),
        (b"hi", Answer([b'{"error": {"message": "No."}}'], status=503), "No."),
        (b"hi", Answer([chunk("He")]), "the server broke off in the middle of the answer"),
    ],
)
def test_what_fails_in_a_pipe_is_one_line_and_a_status(asked: bytes, answer: Answer, complaint: str) -> None:
    with stub_server(cards("a"), lambda _: answer) as server:
        done = pipe(server.url, asked=asked)
        assert (done.returncode, done.stderr.decode()) == (2, f"error: {complaint}\n")


def test_a_choice_of_models_is_the_users() -> None:
    with stub_server(cards("a", "b"), lambda _: Answer([chunk("Hi", "stop"), DONE])) as server:
        done = pipe(server.url, asked=b"hi")
        assert (done.returncode, done.stderr) == (2, b"error: --model: choose one of a, b\n")
        assert pipe(server.url, "--model", "b", asked=b"hi").stdout == b"Hi\n"
        assert server.bodies[0]["model"] == "b"


def test_a_reader_that_has_seen_enough_ends_it_quietly() -> None:
    with stub_server(cards("a"), lambda _: Answer(chunk("word\n") for _ in range(10_000_000))) as server:
        command = f'echo hi | "{sys.executable}" -m groundup chat --base-url {server.url} | head -n 2'
        done = subprocess.run(["sh", "-c", command], capture_output=True, timeout=60, check=True, env=environment())
        assert (done.stdout, done.stderr) == (b"word\nword\n", b"")
