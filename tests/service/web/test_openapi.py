"""GET /openapi.json describes what is true: what bodies may hold, what answers look like, who may ask."""

from pathlib import Path
from typing import Any

import pytest

from service.web.openapi import ADMIN_OPERATIONS, OPERATIONS
from tests.service.web.conftest import ServiceMaker
from tests.service.web.scripted_worker import Service

BODIES = [operation for operation in OPERATIONS if operation.body is not None]


@pytest.fixture(scope="module")
def document(make_service: ServiceMaker) -> Any:
    return make_service(max_n=7).get("/openapi.json").json()


def body_of(document: Any, path: str) -> Any:
    return document["paths"][path]["post"]["requestBody"]["content"]["application/json"]["schema"]


def test_every_route_is_described_and_nothing_else(service: Service, document: Any) -> None:
    served = {route.path for route in service.app.router.routes if "admin" not in route.path}  # type: ignore[attr-defined]
    aliases = {"/v1/chat", "/v1/classify", "/v1/health", "/openapi.json"}
    assert set(document["paths"]) == {path.replace(":path", "") for path in served - aliases}
    for path in document["paths"]:
        assert service.get(path.replace("{id}", "tiny-base")).status_code in (200, 405)


@pytest.mark.parametrize("operation", BODIES, ids=lambda operation: operation.path)
def test_every_field_has_a_meaning_and_none_is_missing(document: Any, operation: Any) -> None:
    schema = body_of(document, operation.path)
    assert set(schema["properties"]) == set(operation.body.model_fields) | operation.body.without_effect
    for name, field in schema["properties"].items():
        assert field["description"], name
    for definition in document["components"]["schemas"].values():
        assert "title" not in definition


def test_ranges_are_those_of_the_settings(document: Any) -> None:
    number = body_of(document, "/v1/completions")["properties"]["n"]
    assert number["anyOf"][0] == {"type": "integer", "minimum": 1, "maximum": 7}
    assert (number["default"], number["description"]) == (1, "Choices for each prompt.")


def test_models_are_named_by_what_they_can(document: Any) -> None:
    named = {operation.path: body_of(document, operation.path)["properties"]["model"]["enum"] for operation in BODIES}
    assert named["/v1/completions"] == ["tiny-base", "tiny-chat"]
    assert named["/v1/chat/completions"] == ["tiny-chat"]
    assert named["/classify"] == ["tiny-spam", None]
    assert "model" in body_of(document, "/v1/completions")["required"]
    assert "model" not in body_of(document, "/classify").get("required", [])


def test_models_that_come_later_are_named_too(make_service: ServiceMaker, checkpoint_paths: tuple[Path, ...]) -> None:
    service = make_service(admin_key="secret")
    named = [body_of(service.get("/openapi.json").json(), "/v1/completions")["properties"]["model"]["enum"]]
    body = {"path": str(checkpoint_paths[0]), "id": "added"}
    assert service.post("/admin/models", body, headers={"x-api-key": "secret"}).status_code == 200
    named += [body_of(service.get("/openapi.json").json(), "/v1/completions")["properties"]["model"]["enum"]]
    assert named == [["tiny-base", "tiny-chat"], ["tiny-base", "tiny-chat", "added"]]


def test_references_lead_somewhere(document: Any) -> None:
    def references(value: Any) -> Any:
        if isinstance(value, dict):
            yield from [value["$ref"]] if isinstance(value.get("$ref"), str) else []
            for item in value.values():
                yield from references(item)
        elif isinstance(value, list):
            for item in value:
                yield from references(item)

    for reference in set(references(document)):
        assert reference.removeprefix("#/components/schemas/") in document["components"]["schemas"]


def test_keys_are_described_where_they_are_asked_for(make_service: ServiceMaker, document: Any) -> None:
    assert "security" not in document
    guarded = make_service(api_keys=["a"])
    assert guarded.get("/openapi.json").status_code == 401
    described = guarded.get("/openapi.json", headers={"x-api-key": "a"}).json()
    assert set(described["components"]["securitySchemes"]) == {"bearer", "header"}
    assert described["paths"]["/health"]["get"]["security"] == []
    assert "401" in described["paths"]["/v1/models"]["get"]["responses"]
    assert "401" not in described["paths"]["/metrics"]["get"]["responses"]


def test_who_needs_a_key_for_numbers_is_told_of_it_by_an_error(make_service: ServiceMaker) -> None:
    guarded = make_service(api_keys=["a"], metrics_require_key=True)
    assert guarded.get("/metrics").status_code == 401
    described = guarded.get("/openapi.json", headers={"x-api-key": "a"}).json()["paths"]["/metrics"]["get"]
    assert "security" not in described
    schema = described["responses"]["401"]["content"]["application/json"]["schema"]
    assert schema == {"$ref": "#/components/schemas/ErrorAnswer"}


def test_admin_routes_are_described_where_there_are_any(make_service: ServiceMaker, document: Any) -> None:
    assert not any("admin" in path for path in document["paths"])
    service = make_service(admin_key="secret")
    described = service.get("/openapi.json").json()
    assert "security" not in described
    served = {
        (method.lower(), route.path.replace(":path", ""))  # type: ignore[attr-defined]
        for route in service.app.router.routes
        for method in route.methods - {"HEAD"}  # type: ignore[attr-defined]
        if route.path.startswith("/admin")  # type: ignore[attr-defined]
    }
    assert served == {(operation.method, operation.path) for operation in ADMIN_OPERATIONS}
    for method, path in served:
        operation = described["paths"][path][method]
        assert operation["security"] == [{"admin_bearer": []}, {"admin_header": []}]
        assert {"401", "403"} < set(operation["responses"])
    body = body_of(described, "/admin/models")
    assert (body["required"], set(body["properties"])) == (["path"], {"path", "id"})


def test_fields_of_inner_objects_may_be_null_too(document: Any) -> None:
    inner = document["components"]["schemas"]["ResponseText"]["properties"]["format"]
    assert {"type": "null"} in inner["anyOf"]
