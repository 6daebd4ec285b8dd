"""The house in numbers: source files, who imports whom, and the row of the size table (`python -m tests.house`).

It reads source text only, and imports nothing of ours.
"""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from statistics import median, quantiles

ROOT = Path(__file__).parents[1]
PACKAGES = ("model", "training", "service", "client", "loadtest")


@dataclass(frozen=True)
class Import:
    """One name of a module imported somewhere in a file."""

    module: str
    is_at_top: bool
    """Whether it runs when the file is imported, rather than when a function of it is called."""


@dataclass(frozen=True)
class Module:
    """One of our source files."""

    name: str
    path: Path

    @property
    def place(self) -> str:
        return self.path.relative_to(ROOT).as_posix()

    @cached_property
    def source(self) -> str:
        return self.path.read_text("utf-8")

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.source)

    @property
    def num_lines(self) -> int:
        return len(self.source.splitlines())

    @property
    def function_lengths(self) -> list[int]:
        """Lines from `def` to the end of the body, for every function and method."""
        functions = [n for n in ast.walk(self.tree) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)]
        return [(function.end_lineno or function.lineno) - function.lineno + 1 for function in functions]

    @cached_property
    def imports(self) -> list[Import]:
        return list(self._find_imports(self.tree, is_at_top=True))

    def _find_imports(self, node: ast.AST, *, is_at_top: bool) -> Iterator[Import]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Import):
                yield from (Import(alias.name, is_at_top) for alias in child.names)
            elif isinstance(child, ast.ImportFrom):
                assert child.level == 0, f"{self.place}: relative import"
                yield Import(child.module or "", is_at_top)
                yield from (Import(f"{child.module}.{alias.name}", is_at_top) for alias in child.names)
            else:
                is_function = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
                yield from self._find_imports(child, is_at_top=is_at_top and not is_function)


def modules() -> dict[str, Module]:
    """Return every source file of ours by module name; tests are not part of the house."""
    paths = [ROOT / "groundup.py", *(path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py")))]
    names = {path: ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__") for path in paths}
    return {name: Module(name, path) for path, name in names.items()}


def import_graph() -> dict[str, set[str]]:
    """Return which of our modules each of our modules imports, anywhere in the file."""
    ours = modules()
    return {
        name: {found.module for found in module.imports if found.module in ours and found.module != name}
        for name, module in ours.items()
    }


def import_cycles(graph: dict[str, set[str]]) -> list[list[str]]:
    """Return the circles of a graph, each once, as the path that closes it."""
    cycles: list[list[str]] = []
    done: set[str] = set()

    def visit(name: str, path: list[str]) -> None:
        if name in path:
            cycles.append([*path[path.index(name) :], name])
        elif name not in done:
            for imported in sorted(graph[name]):
                visit(imported, [*path, name])
            done.add(name)

    for name in sorted(graph):
        visit(name, [])
    return cycles


def size_row() -> str:
    """Return our row of the table that compares houses."""
    ours = list(modules().values())
    files = [module.num_lines for module in ours if module.num_lines]
    functions = [length for module in ours for length in module.function_lengths]
    documented = sum(ast.get_docstring(module.tree) is not None for module in ours)
    longest = max(ours, key=lambda module: module.num_lines)
    cells = (
        f"{sum(files):,}",
        f"{median(files):.0f} / {max(files)} ({longest.place})",
        f"{median(functions):.0f} / {quantiles(functions, n=10)[-1]:.0f} / {max(functions)}",
        f"{documented / len(ours):.0%}",
        str(len(import_cycles(import_graph()))),
    )
    return "| groundup | " + " | ".join(cells) + " |"


if __name__ == "__main__":
    print("| codebase | Python lines | median / longest file | fn median / p90 / max | docstrings | import circles |")
    print("| --- | --- | --- | --- | --- | --- |")
    print(size_row())
