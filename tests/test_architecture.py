"""Imports point the right way, and files keep the house rules that no linter knows."""

import ast
import subprocess
import sys

import pytest

from tests.house import Module, import_cycles, import_graph, modules, size_row

MAY_IMPORT = {
    "groundup": {"groundup"},
    "model": {"model"},
    "training": {"training", "model"},
    "service": {"service", "model"},
    "client": {"client"},
    "loadtest": {"loadtest"},
}
"""The packages of ours that each package may import."""

WINGS = {
    "service.engine": {"service.engine"},
    "service.host": {"service.host", "service.engine", "service.settings", "service.metrics", "service.logs"},
    "service.web": {"service.web", "service.host", "service.settings", "service.metrics", "service.logs"},
}
"""The parts of the service that each wing may import: web talks to host, host to engine, nobody the other way."""

NEVER = {
    "model": {"fastapi", "starlette", "litserve", "zmq", "transformers"},
    "training": {"fastapi", "starlette", "litserve", "zmq"},
    "service.engine": {
        "fastapi",
        "starlette",
        "litserve",
        "zmq",
        "tiktoken",
        "jinja2",
        "pydantic",
        "prometheus_client",
    },
    "service.host": {"jinja2", "tiktoken"},
    "service.web": {"torch", "numpy", "zmq"},
    "client": {"torch", "fastapi", "starlette", "litserve", "httpx", "openai"},
    "loadtest": {"torch", "fastapi", "litserve"},
}
"""Third parties that a package must not know."""

TORCH_IN_SERVICE = (
    "service.engine.runner",
    "service.engine.build",
    "service.engine.compiled",
    "service.engine.cuda_graphs",
    "service.engine.memory",
    "service.bench",
)
"""Where the service may import torch at the top of a file: what only a process that runs a model loads."""

MODULES = modules()
GRAPH = import_graph()


def inside(module: str, package: str) -> bool:
    return module == package or module.startswith(f"{package}.")


def ours_in(package: str) -> list[Module]:
    return [module for name, module in MODULES.items() if inside(name, package)]


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_packages_import_only_what_lies_below_them(package: str) -> None:
    for module in ours_in(package):
        for found in module.imports:
            top = found.module.split(".")[0]
            assert top not in MAY_IMPORT or top in MAY_IMPORT[package], f"{module.place} imports {found.module}"


@pytest.mark.parametrize("wing", WINGS)
def test_wings_of_the_service_import_only_what_lies_below_them(wing: str) -> None:
    for module in ours_in(wing):
        for name in GRAPH[module.name]:
            allowed = name == "service" or any(inside(name, part) for part in WINGS[wing])
            assert allowed or not inside(name, "service"), f"{module.place} imports {name}"


@pytest.mark.parametrize("package", NEVER)
def test_packages_do_not_know_what_is_not_theirs(package: str) -> None:
    for module in ours_in(package):
        for found in module.imports:
            assert found.module.split(".")[0] not in NEVER[package], f"{module.place} imports {found.module}"


def test_only_files_that_run_a_model_import_torch_in_the_service() -> None:
    for module in ours_in("service"):
        at_top = any(found.is_at_top and inside(found.module, "torch") for found in module.imports)
        allowed = any(inside(module.name, place) for place in TORCH_IN_SERVICE)
        assert allowed or not at_top, f"{module.place} imports torch at its top"


def test_only_vocabularies_that_need_it_load_the_tokenizers_library() -> None:
    found = {module.name for module in ours_in("model") for each in module.imports if inside(each.module, "tokenizers")}
    assert found == {"model.vocabularies.library_backend"}
    program = "import sys, model.tokenizer; assert not {'tokenizers', 'numpy'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


def test_the_http_process_runs_without_torch() -> None:
    program = "import sys, service.server; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


def test_no_import_circles() -> None:
    assert import_cycles(GRAPH) == []


def test_a_circle_would_be_found() -> None:
    assert import_cycles({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == [["b", "c", "b"]]


def test_package_files_are_maps_and_import_nothing() -> None:
    for module in MODULES.values():
        if module.path.name == "__init__.py":
            assert not module.imports, module.place


def test_every_file_says_in_its_first_line_what_it_is() -> None:
    for module in MODULES.values():
        assert ast.get_docstring(module.tree), f"{module.place} has no docstring"


def test_no_file_is_a_drawer() -> None:
    for module in MODULES.values():
        assert module.path.stem not in {"utils", "helpers", "common", "misc"}, module.place


def test_code_is_ascii() -> None:
    for module in MODULES.values():
        for number, line in enumerate(module.source.splitlines(), start=1):
            assert line.isascii(), f"{module.place}:{number}: {line.strip()}"


def test_the_size_table_can_be_printed() -> None:
    assert size_row().startswith("| groundup | ")
