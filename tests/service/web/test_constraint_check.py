"""The process that tries constraints: what it costs when one is fatal, and what is remembered."""

import asyncio
import json

import pytest

from model.grammar import ConstraintSpec
from service.web.constraint_check import CheckProgram, ConstraintCheck
from service.web.constraints import Constrained
from service.web.errors import InvalidParameter, QueueTimeout

ENDLESS = ConstraintSpec(
    "json_schema", json.dumps({"allOf": [{"type": "string", "pattern": f"[a-z]{{{i}}}x"} for i in range(30)]})
)


def test_a_constraint_that_never_ends_to_compile_costs_the_process_and_nothing_else() -> None:
    program = CheckProgram()
    assert program.ask(ConstraintSpec("regex", "a+")) is None
    assert program.ask(ENDLESS) == "it is too complex to be checked"
    assert program.ask(ConstraintSpec("regex", "[")) is not None
    program.close()


def test_a_verdict_is_remembered_however_the_text_begins(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[ConstraintSpec] = []

    def ask(self: CheckProgram, spec: ConstraintSpec) -> str | None:
        asked.append(spec)
        return "no" if spec.text == "bad" else None

    monkeypatch.setattr(CheckProgram, "ask", ask)

    async def main() -> None:
        check = ConstraintCheck(timeout_s=30)
        await check.check(None)
        for opens_text in (False, True):
            await check.check(Constrained(ConstraintSpec("regex", "good", opens_text), "regex"))
            with pytest.raises(InvalidParameter, match="Invalid constraint in 'regex': no"):
                await check.check(Constrained(ConstraintSpec("regex", "bad", opens_text), "regex"))

    asyncio.run(main())
    assert [spec.text for spec in asked] == ["good", "bad"]


def test_who_waits_too_long_for_the_check_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        check = ConstraintCheck(timeout_s=0.0)
        with pytest.raises(QueueTimeout):
            await check.check(Constrained(ConstraintSpec("regex", "a"), "regex"))

    monkeypatch.setattr(CheckProgram, "ask", lambda self, spec: None)
    asyncio.run(main())
