"""The shape of the code: layers, sizes, docstrings, and that nothing but an algorithm's own file knows its name."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import numpy as np
import pytest

from fedjax_sim.algorithms import REGISTRY

TESTS = Path(__file__).parent
PACKAGE = TESTS.parent / "fedjax_sim"
FILES = sorted(PACKAGE.rglob("*.py"))
TREES = {path: ast.parse(path.read_text()) for path in FILES}
NAMES = [str(path.relative_to(PACKAGE)) for path in FILES]
EACH = pytest.mark.parametrize("path", FILES, ids=NAMES)

LAYERS = [
    {"types", "tree", "checks", "permutation", "machine", "processes", "vault", "files"},
    {
        "guard",
        "learner",
        "local",
        "server",
        "objectives",
        "optimizers",
        "samplers",
        "aggregators",
        "data",
        "models",
    },
    {"engine", "supply", "keeping", "single", "rounds", "program", "survey", "wrappers"},
    {"algorithms", "tasks", "privacy"},
    {
        "manifest",
        "hush",
        "checkpoint",
        "weights",
        "export",
        "evaluate",
        "history",
        "records",
        "callbacks",
        "progress",
        "interrupts",
        "incident",
        "replay",
        "trouble",
        "loop",
        "report",
    },
    {"config", "runs", "cli", "__main__"},
]
LEVEL = {unit: level for level, units in enumerate(LAYERS) for unit in units}
CLOSED = {1, 3}
"""Layers whose units never import each other; in the others they may, acyclically."""

THEORY = {"laws/test_closed_forms.py"}
"""Tests of what a paper says about one algorithm."""


def unit(path: Path) -> str:
    """A module of the top level, or a package."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported(tree: ast.AST) -> Iterator[str]:
    """The units of the package that a module imports, anywhere in it."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: relative imports hide what imports what"
            names = (
                [node.module or ""]
                if node.module != PACKAGE.name
                else [f"{PACKAGE.name}.{alias.name}" for alias in node.names]
            )
        else:
            continue
        yield from (name.split(".")[1] for name in names if name.startswith(f"{PACKAGE.name}."))


def functions(path: Path) -> Iterator[ast.FunctionDef]:
    return (
        node
        for node in ast.walk(TREES[path])
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    )


def length(function: ast.FunctionDef) -> int:
    """Lines of the body without its docstring."""
    documented = ast.get_docstring(function) is not None
    body = function.body[1:] if documented else function.body
    return function.end_lineno - body[0].lineno + 1 if body else 0


# ------------------------------------------------------------------------------------------------------------ layers


def test_every_module_belongs_to_a_layer():
    there = {unit(path) for path in FILES} - {"__init__"}
    assert there <= LEVEL.keys()
    assert sum(map(len, LAYERS)) == len(LEVEL)


@EACH
def test_imports_go_downward(path):
    me = unit(path)
    if me == "__init__":
        return
    for other in set(imported(TREES[path])) - {me}:
        assert other in LEVEL, f"{me} imports {other}, which is in no layer"
        assert LEVEL[other] <= LEVEL[me], (
            f"{me} (layer {LEVEL[me]}) imports {other} (layer {LEVEL[other]})"
        )
        assert LEVEL[other] < LEVEL[me] or LEVEL[me] not in CLOSED, (
            f"{me} imports {other} of its own layer {LEVEL[me]}"
        )


def test_units_do_not_import_each_other_in_circles():
    graph: dict[str, set[str]] = {}
    for path in FILES:
        graph.setdefault(unit(path), set()).update(set(imported(TREES[path])) - {unit(path)})
    order = list(
        TopologicalSorter(
            {me: others for me, others in graph.items() if me != "__init__"}
        ).static_order()
    )
    assert (
        order.index("types")
        < order.index("engine")
        < order.index("algorithms")
        < order.index("cli")
    )


def test_the_walk_sees_every_kind_of_import():
    lines = [
        "import fedjax_sim.a.b",
        "from fedjax_sim import c, d",
        "from fedjax_sim.e import f",
        "import os",
    ]
    lines += ["def g():", "    from fedjax_sim.h.i import j"]
    assert set(imported(ast.parse("\n".join(lines)))) == {"a", "c", "d", "e", "h"}


# ------------------------------------------------------------------------------------------------------------ sizes


@pytest.mark.parametrize(
    "path",
    [*FILES, *sorted(TESTS.rglob("*.py"))],
    ids=lambda path: str(path.relative_to(TESTS.parent)),
)
def test_files_stay_below_300_lines(path):
    assert len(path.read_text().splitlines()) < 300


@EACH
def test_function_bodies_stay_within_45_lines(path):
    long = {
        function.name: length(function) for function in functions(path) if length(function) > 45
    }
    assert not long


def test_nine_functions_of_ten_stay_within_25_lines():
    assert (
        np.percentile([length(function) for path in FILES for function in functions(path)], 90)
        <= 25
    )


@pytest.mark.parametrize("name", REGISTRY)
def test_an_algorithm_is_a_short_file(name):
    assert len((PACKAGE / "algorithms" / f"{name}.py").read_text().splitlines()) <= 150


def test_a_docstring_does_not_count_as_body():
    code = 'def f():\n    """Says\n    much.\n    """\n    a = 1\n\n    return a\n'
    assert length(ast.parse(code).body[0]) == 3


# ------------------------------------------------------------------------------------------------------------ words


@EACH
def test_whatever_is_public_has_a_docstring(path):
    assert ast.get_docstring(TREES[path]), "the module has none"
    kinds = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
    public = [
        node
        for node in TREES[path].body
        if isinstance(node, kinds) and not node.name.startswith("_")
    ]
    methods = [
        inner
        for node in public
        if isinstance(node, ast.ClassDef)
        for inner in node.body
        if isinstance(inner, kinds)
    ]
    bare = [
        node.name
        for node in [*public, *methods]
        if not node.name.startswith("_") and not ast.get_docstring(node)
    ]
    assert not bare


@EACH
def test_nothing_is_asserted_in_the_package(path):
    lines = [node.lineno for node in ast.walk(TREES[path]) if isinstance(node, ast.Assert)]
    assert not lines, "errors are raised by fedjax_sim.core.errors, in three parts"


ENGINE = [
    *(PACKAGE / "engine").glob("*.py"),
    *(PACKAGE / f"{name}.py" for name in ("rounds", "program", "evaluate", "loop", "checkpoint")),
]
OVER_ALL = re.compile(r"\bEVERY\b|from rigs import|def rig\(")
"""What a test says that is about every algorithm."""
GENERIC = [
    path
    for path in sorted(TESTS.rglob("*.py"))
    if OVER_ALL.search(path.read_text()) and path.name not in THEORY
]


@pytest.mark.parametrize("path", [*ENGINE, *GENERIC], ids=lambda path: path.name)
def test_what_is_about_every_algorithm_names_none(path):
    named = re.findall(rf"(?i)\b({'|'.join(REGISTRY)})\b", path.read_text())
    assert not named
