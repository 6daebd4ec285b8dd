"""What a text must look like, as clients say it, and the same as a grammar in llguidance's dialect of Lark.

The rules of a schema are `model.json_schema`'s; tokens are `model.constraint`'s.
"""

import json
from dataclasses import dataclass
from typing import Any, Literal

from model.character_classes import narrow_classes
from model.json_schema import SchemaError, enforceable

MAX_CHARS = 256 * 1024
"""Longest schema, expression or list of choices, as it is written."""

_WHITESPACE = r" |\n[ \t]{0,32}"
"""Between the tokens of JSON: one space, or a new line with indentation. A model that could go on for ever, would."""
_ESCAPES = 'nrbtf\\"'
"""Behind a backslash. Without `u`, each string has one spelling, so that a key cannot hide behind another's."""

ConstraintKind = Literal["json_object", "json_schema", "regex", "choice", "calls"]


class GrammarError(ValueError):
    """A constraint that cannot be enforced; the message is for whoever wrote it."""


@dataclass(frozen=True, slots=True)
class ConstraintSpec:
    """What a sequence's text must look like."""

    kind: ConstraintKind
    text: str = ""
    """As JSON the schema, the list of choices, or for `calls` the most there may be and the schema of each function's
    arguments, by name; the expression as it is; empty for `json_object`."""
    opens_text: bool = False
    """Whether it is a text of its own, where some vocabularies write the first word with a space that is not shown."""


def to_lark(spec: ConstraintSpec, opening: str = "") -> str:
    """Write the grammar of everything the text may be, behind an `opening` that comes in any case.

    Raises:
        GrammarError: it says what of the constraint is unsupported, and where.
    """
    if len(spec.text) > MAX_CHARS:
        raise GrammarError(f"longer than {MAX_CHARS} characters")
    # Without forcing, every token is allowed that may follow, not only the one its tokenizer would choose.
    start = f"start: {_quoted(opening)} body" if opening else "start: body"
    return "\n".join(['%llguidance {"no_forcing": true}', start, *_rules(spec)])


def _rules(spec: ConstraintSpec) -> list[str]:
    match spec.kind:
        case "json_object":
            return [f"body: {_json({'type': 'object'})}"]
        case "json_schema":
            return [f"body: {_schema(json.loads(spec.text))}"]
        case "regex":
            return [f"body: {_expression(narrow_classes(spec.text))}"]
        case "choice":
            return [f"body: {_expression('|'.join(map(_literal, json.loads(spec.text))))}"]
        case "calls":
            return _call_rules(*json.loads(spec.text))


def _call_rules(max_calls: int, functions: dict[str, Any]) -> list[str]:
    """Write calls as a list of objects, framed as `json.dumps` would: whoever reads them need not expect otherwise."""
    calls = [f"{_quoted(call_opening(name))} arguments_{i} {_quoted('}')}" for i, name in enumerate(functions)]
    more = f" ({_quoted(', ')} call){{0,{max_calls - 1}}}" if max_calls > 1 else ""
    rules = [f"body: {_quoted('[')} call{more} {_quoted(']')}", "call: " + " | ".join(calls)]
    for i, (name, schema) in enumerate(functions.items()):
        try:
            rules.append(f"arguments_{i}: {_schema(schema)}")
        except GrammarError as error:
            raise GrammarError(f"function {name}: {error}") from None
    return rules


def call_opening(name: str) -> str:
    """Return what stands before the arguments of a call."""
    return '{"name": ' + json.dumps(name) + ', "arguments": '


def _schema(schema: object) -> str:
    try:
        return _json(enforceable(schema))
    except SchemaError as error:
        raise GrammarError(str(error)) from None


def _quoted(text: str) -> str:
    return json.dumps(text)


def _json(schema: dict[str, Any]) -> str:
    options = {"whitespace_pattern": _WHITESPACE, "json_allowed_escapes": _ESCAPES}
    return "%json " + json.dumps({**schema, "x-guidance": options})


def _expression(regex: str) -> str:
    from llguidance import regex_to_lark

    return f"/{regex_to_lark(regex, '')}/" if regex else '""'


def _literal(text: str) -> str:
    """Write an expression that matches this text only."""
    return "".join(c if c.isalnum() or c in " _" else rf"\x{{{ord(c):x}}}" for c in text)
