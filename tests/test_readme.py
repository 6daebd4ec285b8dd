"""What README.md says is true: its commands parse and run, its tree is complete, its outputs are what comes out."""

import json
import os
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import groundup
from tests.foreign_files import write_nanogpt
from tests.forked import Forked
from tests.house import modules
from tests.program import Program, run_program
from tests.stub_judge import stub_judge
from tests.training.running import run_verb

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
DEMO = sorted((ROOT / "checkpoints").glob("*/config.json"))

needs_demo = pytest.mark.skipif(len(DEMO) < 3, reason="no demo checkpoints; `make train ARGS=--full` makes them")


def commands(first_word: str) -> list[list[str]]:
    """Return the shell commands of the README that start with a word, continued lines joined."""
    lines = [line for kind, text in BLOCKS if kind == "sh" for line in text.replace("\\\n", " ").splitlines()]
    return [words for line in lines if (words := shlex.split(line)) and words[0] == first_word]


def block(kind: str, holding: str) -> str:
    (found,) = [text for each, text in BLOCKS if each == kind and holding in text]
    return str(found)


def test_every_groundup_command_parses() -> None:
    assert len(commands("groundup")) >= 9
    for _, *words in commands("groundup"):
        verb, flags = groundup.split_verb(words)
        config_class = groundup.load(groundup.choose(verb).config)
        assert groundup.parse(config_class, flags, prog=verb)


def test_every_groundup_command_of_the_docs_parses() -> None:
    for file in (ROOT / "docs").glob("*.md"):
        blocks = re.findall(r"^```sh\n(.*?)^```$", file.read_text(), re.MULTILINE | re.DOTALL)
        lines = [line for text in blocks for line in text.replace("\\\n", " ").splitlines()]
        for words in (shlex.split(line, comments=True) for line in lines):
            if words[:1] == ["groundup"]:
                verb, flags = groundup.split_verb(words[1:])
                assert groundup.parse(groundup.load(groundup.choose(verb).config), flags, prog=verb)


def test_every_verb_is_shown() -> None:
    assert {groundup.split_verb(command[1:])[0] for command in commands("groundup")} == set(groundup.VERBS)


def test_every_make_word_is_a_target() -> None:
    words = set(re.findall(r"`make (\w+)", README))
    assert words == {"serve", "test", "check", "train", "load"}
    for word in words:
        plan = subprocess.run(["make", "-n", word, "PORT=1"], cwd=ROOT, capture_output=True, text=True, check=True)
        assert plan.stdout


def test_the_installed_extras_exist() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    (install,) = commands("pip")
    assert (ROOT / install[install.index("--constraint") + 1]).exists()
    assert set(re.findall(r"\w+", install[-1])) <= set(extras)


def test_every_link_leads_somewhere() -> None:
    for file in (ROOT / "README.md", ROOT / "deploy/README.md", *(ROOT / "docs").glob("*.md")):
        for target in re.findall(r"\]\(([^)]+)\)", file.read_text()):
            assert "://" in target or (file.parent / target.partition("#")[0]).exists(), f"{file.name}: {target}"


def test_the_tree_shows_every_file_with_a_comment() -> None:
    shown = list(paths_of(block("text", "groundup.py  ")))
    sources = {module.place for module in modules().values() if module.path.name != "__init__.py"}
    assert {path for path in shown if path.endswith(".py")} == sources
    assert all((ROOT / path).exists() for path in shown)


def test_the_book_is_mapped_to_files_that_exist() -> None:
    text = (ROOT / "docs/architecture.md").read_text()
    for path in re.findall(r"`((?:model|training|service)/[\w/]+\.\w+)`", text):
        assert (ROOT / path).exists(), path
    for path in re.findall(r"`((?:web|host|engine)/\w+\.py)`", text):
        assert (ROOT / "service" / path).exists(), path


def paths_of(tree: str) -> Iterator[str]:
    folders: list[str] = []
    for line in tree.splitlines():
        name, comment = re.split(r"\s{2,}", line.strip(), maxsplit=1)
        assert 0 < len(comment.split()) <= 10, line
        depth = (len(line) - len(line.lstrip())) // 2
        path = "/".join([*folders[:depth], name.rstrip("/")])
        folders[depth:] = [name.rstrip("/")]
        yield path


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a server of the committed checkpoints."""
    arguments = ["serve", *(str(config.parent) for config in DEMO), "--port", "0", "--drain-delay-s", "0"]
    with run_program("-m", "groundup", *arguments, log=tmp_path_factory.mktemp("demo") / "log") as server:
        yield address_of(server)


def address_of(server: Program) -> str:
    return server.wait_for(r"Serving .* on (http://\S+)", 120)[1]


@pytest.mark.slow
@needs_demo
def test_the_curl_call_gives_the_answer_shown(demo: str) -> None:
    command = block("sh", "curl").replace("http://localhost:8000", demo)
    run = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True, timeout=60)
    assert without_noise(json.loads(run.stdout)) == without_noise(json.loads(block("json", "{")))


@pytest.mark.slow
@needs_demo
def test_the_client_snippet_prints_what_is_shown(demo: str) -> None:
    program = block("python", "openai").replace("http://localhost:8000", demo)
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert run.stdout == block("text", BLOCKS[[kind for kind, _ in BLOCKS].index("python") + 1][1])


def without_noise(answer: Any) -> Any:
    """Leave out what differs from call to call, and the digits that differ from machine to machine."""
    if isinstance(answer, dict):
        return {key: without_noise(value) for key, value in answer.items() if key not in ("id", "created")}
    if isinstance(answer, list):
        return [without_noise(value) for value in answer]
    return round(answer, 2) if isinstance(answer, float) else answer


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_your_own_text_becomes_answers(tmp_path: Path) -> None:
    """Run the README's commands in their order, on tiny files and with few steps."""
    write_examples(tmp_path)
    shrink = ["--steps", "3", "--eval-interval", "3", "--batch-size", "4"]
    for command in commands("groundup")[2:]:
        verb, arguments = groundup.split_verb(command[1:])
        if verb in ("pretrain", "instruct", "dpo", "classify"):
            arguments += shrink
        if verb == "classify" and "--base" not in arguments:
            arguments += ["--warmup-lm-steps", "3"]
        if verb == "serve":
            checkpoints = [str(tmp_path / name) for name in arguments[: arguments.index("--port")]]
            with run_program("-m", "groundup", "serve", *checkpoints, "--port", "0", log=tmp_path / "log") as server:
                address_of(server)
        elif verb == "judge":
            with stub_judge(lambda prompt: "50") as judge:
                arguments[arguments.index("--base-url") + 1] = judge.url
                run_groundup(verb, *arguments, cwd=tmp_path)
        elif verb not in ("bench", "bench-training", "bench-classify", "chain", "chat", "data fetch"):
            run_groundup(*verb.split(), *arguments, cwd=tmp_path)


def run_groundup(*arguments: str, cwd: Path) -> None:
    log = cwd / "said"
    assert Forked(run_in, cwd, list(arguments), log=log).wait(120) == 0, f"{arguments}\n{log.read_text()}"


def run_in(folder: Path, arguments: list[str]) -> None:
    os.chdir(folder)
    run_verb(arguments)


def write_examples(folder: Path) -> None:
    write_nanogpt(folder, has_bias=True, vocab_size=1024)
    sentences = [
        f"The {size} boat number {i} crossed the river and came back." for i in range(40) for size in ("a", "b")
    ]
    (folder / "my-texts").mkdir()
    (folder / "my-texts" / "boats.txt").write_text("\n".join(sentences * 4))
    (folder / "votes.jsonl").write_text('["my-chat", "my-base"]\n["my-base", "my-chat"]\n')
    (folder / "held-out.txt").write_text("\n".join(sentences[:20]))
    answers = [{"instruction": f"Add one to {i}.", "input": "", "output": str(i + 1)} for i in range(40)]
    (folder / "my-answers.jsonl").write_text("\n".join(map(json.dumps, answers)))
    preferences = [{"prompt": f"Add one to {i}.", "chosen": str(i + 1), "rejected": str(i)} for i in range(40)]
    (folder / "my-preferences.jsonl").write_text("\n".join(map(json.dumps, preferences)))
    labels = [f"{'spam' if i % 2 else 'ham'}\t{'win a prize' if i % 2 else 'see you soon'} {i}" for i in range(60)]
    (folder / "my-labels.tsv").write_text("\n".join(labels) + "\n")
