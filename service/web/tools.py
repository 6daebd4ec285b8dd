"""Functions a model is made to call: what `tools` and `tool_choice` demand, and the calls as the model writes them.

Calls are written under a constraint, so that what is read here is what was promised: one object of arguments for a
named function; where the model chooses, a list framed as `model.grammar` does it. How they are shown is `call_shape`'s.
"""

import json
import re
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, PlainValidator, WithJsonSchema

from model.grammar import ConstraintSpec
from service.settings import ServiceSettings
from service.web.complaints import absent, complaint, wrong_type
from service.web.constraints import Constrained, check_name, schema_spec
from service.web.errors import quote
from service.web.fields import Body

MAX_TOOLS = 128
MAX_CALLS = 8
"""Calls in one answer, where the model chooses how many."""


class Function(Body):
    """What a function is called and takes."""

    name: Annotated[str, AfterValidator(lambda name: check_name(name, ""))]
    """Up to 64 letters, digits, `_` and `-`."""
    description: str | None = None
    """For the model, if its template shows it."""
    parameters: dict[str, Any] | None = None
    """A JSON schema of the arguments, an object; absent: there are none."""
    strict: bool | None = None
    """Without effect: arguments always satisfy the schema."""


class Tool(Body):
    """Something a model may use; only functions exist."""

    type: Literal["function"]
    """Always `function`."""
    function: Function
    """The function."""


Tools = Annotated[list[Tool], Field(min_length=1, max_length=MAX_TOOLS)]


def _choice(value: object) -> str | tuple[str]:
    """A word, or the name of a function as a tuple of its own, since a function may be called `auto`."""
    if isinstance(value, str):
        if value not in ("none", "auto", "required"):
            message = f"Invalid value: {quote(value)}. Supported values are: 'none', 'auto', 'required'."
            raise complaint("invalid_value", message)
        return value
    if not isinstance(value, Mapping):
        raise wrong_type("a string or an object", value)
    if value.get("type") is None:
        raise absent(".type")
    if value["type"] != "function":
        message = f"Invalid value: {quote(value['type'])}. Supported values are: 'function'."
        raise complaint("invalid_value", message, at=".type")
    function = value.get("function")
    if function is None:
        raise absent(".function")
    if not isinstance(function, Mapping):
        raise wrong_type("an object", function, at=".function")
    if function.get("name") is None:
        raise absent(".function.name")
    return (check_name(function["name"], ".function.name"),)


_NAMED = {
    "type": "object",
    "properties": {
        "type": {"const": "function"},
        "function": {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]},
    },
    "required": ["type", "function"],
}

ToolChoice = Annotated[
    str | tuple[str],
    PlainValidator(_choice),
    WithJsonSchema({"anyOf": [{"enum": ["none", "auto", "required"]}, _NAMED]}),
]


@dataclass(frozen=True, slots=True)
class ForcedCalls:
    """The functions that an answer consists of calls of."""

    functions: Mapping[str, Any]
    """Schemas of their arguments, by name."""
    is_named: bool
    """Whether it is one call, of the only function."""
    max_calls: int
    param: str
    """The field to blame for a schema."""

    def constrained(self) -> Constrained:
        """Return what an answer of calls must look like."""
        if self.is_named:
            (schema,) = self.functions.values()
            return Constrained(schema_spec(schema), self.param)
        text = json.dumps([self.max_calls, self.functions], ensure_ascii=False)
        return Constrained(ConstraintSpec("calls", text), self.param)


def forced_calls(
    tools: Sequence[Tool] | None, choice: str | tuple[str] | None, *, parallel: bool
) -> ForcedCalls | None:
    """Say what a request demands, once `check_tools` has passed it; None where it demands no call."""
    if tools is None or choice in (None, "none", "auto"):
        return None
    schemas = {tool.function.name: _arguments(tool.function.parameters) for tool in tools}
    if isinstance(choice, tuple):
        index = list(schemas).index(choice[0])
        return ForcedCalls({choice[0]: schemas[choice[0]]}, True, 1, f"tools[{index}].function.parameters")
    return ForcedCalls(schemas, False, MAX_CALLS if parallel else 1, "tools")


def check_tools(tools: Sequence[Tool] | None, choice: str | tuple[str] | None, settings: ServiceSettings) -> None:
    """Refuse a choice that cannot be followed. A model that was not taught to cannot decide whether to call."""
    if tools is None:
        if choice not in (None, "none", "auto"):
            message = "Invalid value for '{param}': it is only allowed when 'tools' are specified."
            raise complaint("invalid_value", message, param="tool_choice")
        return
    names = [tool.function.name for tool in tools]
    for i, name in enumerate(names):
        if name in names[:i]:
            message = f"Invalid '{{param}}': there are two functions called {quote(name)}."
            raise complaint("invalid_value", message, param=f"tools[{i}].function.name")
    if choice in (None, "auto") and settings.tools_auto == "error":
        message = (
            "Unsupported parameter: '{param}'. Tool calling is not supported by this model: "
            "it cannot choose whether to call. Name a function in 'tool_choice', or send 'required'."
        )
        raise complaint("unsupported_parameter", message, param="tools")
    if isinstance(choice, tuple) and choice[0] not in names:
        message = f"Invalid value for '{{param}}': there is no function called {quote(choice[0])} in 'tools'."
        raise complaint("invalid_value", message, param="tool_choice")


def _arguments(parameters: Mapping[str, Any] | None) -> dict[str, Any]:
    """Arguments are an object, whether or not the schema says so."""
    if not parameters:
        return {"type": "object", "properties": {}, "additionalProperties": False}
    return {"type": "object", **parameters}


@dataclass(slots=True)
class CallDelta:
    """What one call of an answer gains: its name first, then pieces of its arguments."""

    index: int
    name: str | None
    arguments: str


_OPENING = re.compile(r'[\[,] ?\{"name": "([A-Za-z0-9_-]*)", "arguments": ')


class CallReader:
    """Splits an answer into calls as it arrives, in pieces cut anywhere."""

    def __init__(self, calls: ForcedCalls) -> None:
        self._only = next(iter(calls.functions)) if calls.is_named else None
        self._frame = ""
        """What stands between the arguments of two calls, as far as it has arrived."""
        self._num_calls = 0
        self._depth = 0
        self._is_in_string = False
        self._is_escaped = False

    def push(self, text: str) -> list[CallDelta]:
        """Take a piece of the answer; return what calls gain by it."""
        if self._only is not None:
            name, self._num_calls = (None if self._num_calls else self._only), 1
            return [CallDelta(0, name, text)] if text or name else []
        deltas: list[CallDelta] = []
        while text:
            if self._depth == 0:
                text = self._push_frame(text, deltas)
            else:
                end = self._end_of_arguments(text)
                deltas.append(CallDelta(self._num_calls - 1, None, text[:end]))
                text = text[end:]
        return deltas

    def _push_frame(self, text: str, deltas: list[CallDelta]) -> str:
        """Read on in the frame; once it is complete, a call has begun. Return what follows it."""
        self._frame += text
        match = _OPENING.search(self._frame)
        if match is None or match.end() == len(self._frame):
            return ""
        rest, self._frame = self._frame[match.end() :], ""
        deltas.append(CallDelta(self._num_calls, match[1], ""))
        self._num_calls += 1
        end = self._end_of_arguments(rest)
        deltas.append(CallDelta(self._num_calls - 1, None, rest[:end]))
        return rest[end:]

    def _end_of_arguments(self, text: str) -> int:
        """Count brackets outside of strings; return where the arguments end, or the length of the text."""
        for i, character in enumerate(text):
            if self._is_escaped:
                self._is_escaped = False
            elif self._is_in_string:
                self._is_escaped = character == "\\"
                self._is_in_string = character != '"'
            elif character == '"':
                self._is_in_string = True
            elif character in "{[":
                self._depth += 1
            elif character in "}]":
                self._depth -= 1
                if self._depth == 0:
                    return i + 1
        return len(text)


def show_deltas(deltas: Sequence[CallDelta]) -> list[dict[str, Any]]:
    """Write what calls gain as a chunk shows it."""
    return [_show(delta) for delta in deltas]


def _show(delta: CallDelta) -> dict[str, Any]:
    if delta.name is None:
        return {"index": delta.index, "function": {"arguments": delta.arguments}}
    function = {"name": delta.name, "arguments": delta.arguments}
    return {"index": delta.index, "id": f"call_{uuid.uuid4().hex}", "type": "function", "function": function}


def show_whole(calls: ForcedCalls, text: str) -> list[dict[str, Any]]:
    """Write the calls of a complete answer; the last one may have been cut short."""
    shown: list[dict[str, Any]] = []
    for delta in show_deltas(CallReader(calls).push(text)):
        if "id" in delta:
            shown.append({key: value for key, value in delta.items() if key != "index"})
        else:
            shown[-1]["function"]["arguments"] += delta["function"]["arguments"]
    return shown
