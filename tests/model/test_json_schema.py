"""What of JSON Schema is refused, by keyword and place, and what passes through unchanged."""

from typing import Any

import pytest

from model.json_schema import MAX_DEPTH, MAX_REFERENCES, MAX_SUBSCHEMAS, MAX_VALUES, SchemaError, enforceable


@pytest.mark.parametrize(
    "keyword",
    [
        *("not", "if", "contains", "uniqueItems", "propertyNames", "dependentRequired", "dependentSchemas"),
        *("dependencies", "unevaluatedItems", "unevaluatedProperties", "$dynamicRef"),
    ],
)
def test_a_keyword_that_cannot_be_enforced_is_named_with_its_place(keyword: str) -> None:
    schema = {"type": "object", "properties": {"a/b": {"type": "array", "items": {keyword: {}}}}}
    with pytest.raises(SchemaError, match=f"'{keyword.replace('$', '.')}' is not supported") as caught:
        enforceable(schema)
    assert caught.value.place == f"#/properties/a~1b/items/{keyword}"


def test_what_demands_nothing_is_left_out() -> None:
    idle = {"uniqueItems": False, "unevaluatedProperties": True, "x-guidance": {"lenient": True}, "format": "password"}
    assert enforceable({"type": "string", **idle}) == {"type": "string"}


def test_annotations_and_unknown_words_pass() -> None:
    schema = {"title": "T", "description": "d", "default": {"not": 1}, "examples": [{"if": 1}], "nullable": True}
    assert enforceable(schema) == schema


def test_values_are_not_mistaken_for_schemas() -> None:
    schema = {"enum": [{"not": {}}], "const": {"if": 1}, "properties": {"not": {"type": "string"}}}
    assert enforceable(schema) == schema


@pytest.mark.parametrize("name", ["iri", "regex", "json-pointer"])
def test_formats_of_the_standard_that_cannot_be_enforced_are_refused(name: str) -> None:
    with pytest.raises(SchemaError, match=f"'{name}'"):
        enforceable({"type": "string", "format": name})


def test_only_references_into_the_schema_itself_are_followed() -> None:
    assert enforceable({"$ref": "#/$defs/a", "$defs": {"a": {"type": "integer"}}})
    with pytest.raises(SchemaError, match="begin with '#'"):
        enforceable({"$ref": "https://example.com/schema"})


def test_a_number_of_free_keys_cannot_be_demanded() -> None:
    """Free keys could repeat, and a repeated key counts once."""
    assert enforceable({"minProperties": 1})
    assert enforceable({"minProperties": 2, "required": ["a", "b"]})
    with pytest.raises(SchemaError, match="minProperties"):
        enforceable({"minProperties": 2, "required": ["a"]})


@pytest.mark.parametrize("schema", [3, "x", [], None, False, {"properties": {"a": 3}}, {"items": "x"}])
def test_what_is_no_schema_is_refused(schema: Any) -> None:
    with pytest.raises(SchemaError):
        enforceable(schema)


def test_true_is_a_schema_that_everything_satisfies() -> None:
    assert enforceable(True) == {}


@pytest.mark.parametrize(
    ("given", "compiled"),
    [
        ({"exclusiveMinimum": 3}, {"minimum": 3.000001}),
        ({"exclusiveMaximum": -3.0, "maximum": 5}, {"maximum": -3.000001}),
        ({"exclusiveMinimum": 0, "minimum": 1}, {"minimum": 1}),
        ({"exclusiveMinimum": 0.5}, {"exclusiveMinimum": 0.5}),
        ({"type": "integer", "exclusiveMinimum": 3}, {"type": "integer", "exclusiveMinimum": 3}),
        ({"exclusiveMinimum": True}, {"exclusiveMinimum": True}),
        ({"exclusiveMinimum": 10**12, "exclusiveMaximum": 10**13}, {"minimum": 10**12 + 1, "maximum": 10**13 - 1}),
    ],
)
def test_numbers_keep_off_a_whole_exclusive_bound(given: dict[str, Any], compiled: dict[str, Any]) -> None:
    assert enforceable(given) == compiled


def test_bounds_of_64_bits_are_drawn_closer() -> None:
    given = {"type": "integer", "minimum": -(2**63), "maximum": 2**63 - 1}
    assert enforceable(given) == {"type": "integer", "minimum": -(2**53), "maximum": 2**53}


@pytest.mark.parametrize(
    "schema", [{"const": 2**64}, {"enum": [1, [-(2**63)]]}, {"minimum": 1e19}, {"exclusiveMaximum": -(2**60)}]
)
def test_numbers_that_would_be_written_as_others_are_refused(schema: dict[str, Any]) -> None:
    with pytest.raises(SchemaError, match="beyond 9007199254740992"):
        enforceable(schema)


@pytest.mark.parametrize(
    "schema",
    [
        {"$ref": "#"},
        {"$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}, "properties": {"x": {"$ref": "#/$defs/a"}}},
        {"anyOf": [{"$ref": "#/anyOf/0"}]},
    ],
)
def test_references_that_lead_nowhere_are_refused(schema: dict[str, Any]) -> None:
    with pytest.raises(SchemaError, match="leads back to itself"):
        enforceable(schema)


def test_references_may_come_back_through_a_value() -> None:
    schema = {"$ref": "#/$defs/n", "$defs": {"n": {"properties": {"a~/b": {"$ref": "#/$defs/n"}}}}}
    assert enforceable(schema) == schema
    schema = {"$ref": "#name", "$defs": {"n": {"$anchor": "name", "type": "integer"}}}
    assert enforceable(schema) == schema


def nested(depth: int) -> dict[str, Any]:
    schema: dict[str, Any] = {}
    for _ in range(depth):
        schema = {"items": schema}
    return schema


def listed(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("schema", "reason"),
    [
        ({"properties": {str(i): {} for i in range(MAX_SUBSCHEMAS)}}, "subschemas"),
        ({"anyOf": [{"$ref": "#"}] * (MAX_REFERENCES + 1)}, "references"),
        ({"enum": list(range(MAX_VALUES + 1))}, "values"),
        ({"const": listed(MAX_DEPTH)}, "levels"),
        (nested(MAX_DEPTH + 1), "inside one another"),
    ],
)
def test_size_is_bounded(schema: dict[str, Any], reason: str) -> None:
    with pytest.raises(SchemaError, match=reason):
        enforceable(schema)
