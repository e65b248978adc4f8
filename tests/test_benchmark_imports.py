"""The imports of the benchmarks: no circle, and every name that they import or call exists.

Names are looked up without running a benchmark, because most of them are imported inside functions,
or given as text to a fresh process.
"""

from __future__ import annotations

import ast
import importlib
import re
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "benchmarks"
KIT = FOLDER / "peers" / "kit"
"""Scripts that run in environments of their own, where neither package is installed."""
FILES = sorted(path for path in FOLDER.rglob("*.py") if KIT not in path.parents)
FUNCTION = re.compile(r"\"(benchmarks(?:\.\w+)+):(\w+)\"")
"""A function that :func:`benchmarks.fresh.fresh` calls by name."""


def module_name(path: Path) -> str:
    """The dotted name of a module: ``benchmarks.pages``, or ``benchmarks.peers``."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in FILES}


def imports(tree: ast.AST) -> Iterator[tuple[str, str | None]]:
    """Yields ``(module, name)`` of every import in a tree, inside functions too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, None) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: relative import"
            yield from ((node.module or "", alias.name) for alias in node.names)


def imported_modules(tree: ast.AST) -> set[str]:
    """The modules of the benchmarks that are imported anywhere in a tree."""
    modules = set()
    for module, name in imports(tree):
        full = f"{module}.{name}"
        modules |= {full if full in MODULES else module} & MODULES.keys()
    return modules


def circle(graph: dict[str, set[str]]) -> list[str]:
    """The modules of a circle of imports; empty if there is none."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return error.args[1]
    return []


def test_benchmarks_do_not_import_each_other_in_circles():
    graph = {
        module: imported_modules(ast.parse(path.read_text(encoding="utf-8")))
        for module, path in MODULES.items()
    }
    assert sum(map(len, graph.values())) > 50
    assert circle(graph) == []


def test_a_circle_would_be_found():
    inside_a_function = "def f():\n    from benchmarks import pages\n"
    assert imported_modules(ast.parse(inside_a_function)) == {"benchmarks.pages"}
    assert imported_modules(ast.parse("from benchmarks.pages import table")) == {"benchmarks.pages"}
    assert imported_modules(ast.parse("import benchmarks.pages, jax")) == {"benchmarks.pages"}
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"a"}})
    assert not circle({"a": {"b", "c"}, "b": {"c"}})


@pytest.mark.parametrize("path", FILES, ids=[module_name(path) for path in FILES])
def test_names_that_benchmarks_use_exist(path):
    text = path.read_text(encoding="utf-8")
    used = [
        (module, name)
        for module, name in imports(ast.parse(text))
        if module.partition(".")[0] in ("benchmarks", "fedjax_sim")
    ]
    missing = [f"{module}.{name}" for module, name in used if not exists(module, name)]
    functions = FUNCTION.findall(text)
    missing += [f"{module}:{name}" for module, name in functions if not exists(module, name)]
    assert missing == []


def exists(module: str, name: str | None) -> bool:
    """Whether a module can be imported and has a name, as an attribute or as a module in it."""
    imported = importlib.import_module(module)
    if name is None or hasattr(imported, name):
        return True
    return hasattr(imported, "__path__") and find_spec(f"{module}.{name}") is not None
