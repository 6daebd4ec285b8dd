"""From what clients say to grammars: the parts that need no vocabulary."""

import pytest

from model.constraint import check_spec
from model.grammar import MAX_CHARS, ConstraintSpec, GrammarError


@pytest.mark.parametrize(
    ("spec", "reason"),
    [
        (ConstraintSpec("regex", "["), "unclosed character class"),
        (ConstraintSpec("regex", "(?=a)b"), "look-around"),
        (ConstraintSpec("regex", r"(a)\1"), "backreferences"),
        (ConstraintSpec("json_schema", '{"type": "thing"}'), "Invalid type: thing"),
        (ConstraintSpec("json_schema", '{"$ref": "#/$defs/a"}'), "does not exist"),
        (ConstraintSpec("json_schema", '{"type": "integer", "minimum": 3, "maximum": 2}'), "Unsatisfiable"),
        (ConstraintSpec("json_schema", '{"oneOf": [{"type": "integer"}, {"type": "number"}]}'), "'oneOf'"),
        (ConstraintSpec("json_schema", '{"not": {}}'), "'not' is not supported .at #/not."),
        (ConstraintSpec("regex", "a" * (MAX_CHARS + 1)), "longer than"),
    ],
)
def test_what_cannot_be_enforced_is_refused_with_a_reason(spec: ConstraintSpec, reason: str) -> None:
    with pytest.raises(GrammarError, match=reason) as caught:
        check_spec(spec)
    assert "%" not in str(caught.value)  # the grammar is ours, the client did not write it
