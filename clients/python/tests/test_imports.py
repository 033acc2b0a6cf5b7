"""The modules of the package import each other in one direction only."""

from __future__ import annotations

import ast
from graphlib import CycleError, TopologicalSorter

import pytest
from conftest import ROOT

SOURCES = ROOT / "clients/python/src/tickcast"


def imports(source: str) -> set[str]:
    """The sibling modules that a module imports, for type checking and within functions as well."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and node.level == 1:
            names |= {node.module} if node.module else {alias.name for alias in node.names}
    return names


def test_modules_have_no_import_cycle() -> None:
    graph = {path.stem: imports(path.read_text()) for path in SOURCES.glob("*.py")}
    assert graph["client"] >= {"session", "reading"}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(f"import cycle: {' -> '.join(error.args[1])}")
