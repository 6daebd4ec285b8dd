"""What is said of a constraint that cannot be enforced, and of which part of it."""

import json
from typing import Any

import pytest

from model.grammar import ConstraintSpec
from model.grammar_check import complain

DEEP = {"type": "object", "properties": {"x": {"type": "array", "items": {"type": "thing"}}}}
ONE_OF = {"oneOf": [{"type": "integer"}, {"type": "number"}]}


@pytest.mark.parametrize(
    ("schema", "reason", "place"),
    [
        ({"type": "thing"}, "Invalid type: thing", "#"),
        (DEEP, "Invalid type: thing", "#/properties/x/items"),
        ({"anyOf": [{"type": "null"}, {"type": "string", "minLength": -1}]}, "'minLength', got -1", "#/anyOf/1"),
        ({"properties": {"a/b": {"type": "string", "pattern": "(?=a)"}}}, "look-ahead", "#/properties/a~1b"),
        ({"prefixItems": [True, ONE_OF]}, "'oneOf'", "#/prefixItems/1"),
        ({"items": {"$ref": "#/$defs/no"}}, "does not exist", "#/items"),
        ({"items": {"$ref": "#/$defs/t"}, "$defs": {"t": {"items": {"type": "thing"}}}}, "thing", "#/$defs/t/items"),
        (
            {"$ref": "#/$defs/t", "$defs": {"t": {"anyOf": [{"$ref": "#/$defs/t"}, {"type": "x"}]}}},
            "x",
            "#/$defs/t/anyOf/1",
        ),
        (
            {"type": "object", "properties": {"n": {"type": "integer", "minimum": 2, "maximum": 1}}, "required": ["n"]},
            "required property 'n' is unsatisfiable",
            "#",
        ),
        ({"items": {"not": {}}}, "the keyword 'not' is not supported", "#/items/not"),
    ],
)
def test_a_schema_is_faulted_where_the_fault_is(schema: dict[str, Any], reason: str, place: str) -> None:
    complaint = complain(ConstraintSpec("json_schema", json.dumps(schema)))
    assert complaint is not None
    assert reason in complaint
    assert complaint.endswith(f" (at {place})")
    assert complaint.count("(at ") == 1


def test_of_several_functions_the_faulty_one_is_named() -> None:
    complaint = complain(ConstraintSpec("calls", json.dumps([2, {"f": {"type": "object"}, "g": DEEP}])))
    assert complaint == "function g: Invalid type: thing (at #/properties/x/items)"


def test_what_is_fine_is_not_complained_of() -> None:
    assert complain(ConstraintSpec("json_schema", "{}")) is None
    assert complain(ConstraintSpec("calls", json.dumps([2, {"f": {"type": "object"}}]))) is None
    assert "unclosed group" in (complain(ConstraintSpec("regex", "(a")) or "")
