"""The structure of the code: rooms and floors, sizes, docstrings, and code that names no algorithm.

A *room* is a folder directly in the package. Rooms stand on floors, and a module imports only from
its own room and from rooms on lower floors. docs/architecture.md has the same table.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import numpy as np
import pytest

from fedjax_sim.algorithms import REGISTRY

TESTS = Path(__file__).parent
ROOT = TESTS.parent
PACKAGE = ROOT / "fedjax_sim"
ARCHITECTURE = ROOT / "docs" / "architecture.md"
FILES = sorted(PACKAGE.rglob("*.py"))
TEST_FILES = sorted(TESTS.rglob("*.py"))
TREES = {path: ast.parse(path.read_text(encoding="utf-8")) for path in FILES}

FACE = "__init__"
"""The package's own ``__init__.py``, which looks public names up in the rooms."""
FLOORS = {
    1: ["core"],
    2: [
        "runtime",
        "data",
        "models",
        "optimizers",
        "clients",
        "aggregators",
        "servers",
        "samplers",
    ],
    3: ["engine", "tasks", "persistence"],
    4: ["algorithms", "simulation"],
    5: ["report", "experiments", "testing"],
    6: [FACE],
    7: ["cli"],
    8: ["__main__"],
}
FLOOR = {room: floor for floor, rooms in FLOORS.items() for room in rooms}
LOOSE = {FACE, "__main__"}
"""The only files that stand directly in the package."""

LINES = 400
BODY = 60
SHORT_BODY = 25
ALGORITHM_LINES = 250


def module_name(path: Path) -> str:
    """The dotted name of a module: ``fedjax_sim.engine.trip``, or ``fedjax_sim.engine``."""
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in FILES}


def room_of(module: str) -> str:
    """The room of a module; the package itself is the face."""
    return module.split(".")[1] if "." in module else FACE


def imported(tree: ast.AST, modules: Iterable[str]) -> Iterator[tuple[str, int]]:
    """The modules of the package that are imported anywhere in a tree, with line numbers.

    ``from fedjax_sim.engine import Plan, trip`` imports ``fedjax_sim.engine`` for ``Plan`` and the
    module ``fedjax_sim.engine.trip``.
    """
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: relative import"
            module = node.module or ""
            full = [f"{module}.{alias.name}" for alias in node.names]
            names = [name if name in modules else module for name in full]
        else:
            continue
        for name in names:
            if name.partition(".")[0] == PACKAGE.name:
                yield name, node.lineno


def module_level(tree: ast.Module) -> ast.Module:
    """The tree without function bodies: what is executed when the module is imported."""
    copy = ast.parse(ast.unparse(tree))
    for node in ast.walk(copy):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            node.body = [ast.Pass()]
    return copy


def functions(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    """All functions of a file, nested ones too."""
    for node in ast.walk(TREES[path]):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def body_length(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines of a function's body without its docstring."""
    body = function.body[ast.get_docstring(function) is not None :]
    return (function.end_lineno or 0) - body[0].lineno + 1 if body else 0


def short(path: Path) -> str:
    """A path as it is written in messages."""
    return str(path.relative_to(ROOT))


# ------------------------------------------------------------------------------------------- rooms


def test_every_room_has_a_floor():
    folders = {path.name for path in PACKAGE.iterdir() if (path / "__init__.py").exists()}
    files = {path.stem for path in PACKAGE.glob("*.py")}
    assert files == LOOSE
    assert folders | LOOSE == FLOOR.keys()
    assert sum(map(len, FLOORS.values())) == len(FLOOR)


def test_imports_between_rooms_go_downward():
    upward = [
        f"{short(path)}:{line}: {room} (floor {FLOOR[room]}) imports {name} (floor {FLOOR[other]})"
        for module, path in MODULES.items()
        for room in [path.stem if module == PACKAGE.name else room_of(module)]
        for name, line in imported(TREES[path], MODULES)
        for other in [room_of(name)]
        if other != room and FLOOR[other] >= FLOOR[room]
    ]
    assert not upward


def test_every_import_is_of_a_module_that_exists():
    missing = [
        f"{short(path)}:{line}: {name}"
        for path, tree in TREES.items()
        for name, line in imported(tree, MODULES)
        if name not in MODULES
    ]
    assert not missing


def test_modules_do_not_import_each_other_in_circles():
    graph = {
        module: {name for name, _ in imported(module_level(TREES[path]), MODULES)} - {module}
        for module, path in MODULES.items()
    }
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


def test_the_document_has_the_same_floors():
    rows = re.findall(
        r"^\| (\d) \| (?:\[?`([\w/]+?)/?`|the package)", ARCHITECTURE.read_text(), re.MULTILINE
    )
    documented = {(int(floor), room or FACE) for floor, room in rows}
    assert documented == {(floor, room) for room, floor in FLOOR.items()}


def test_the_walk_sees_every_kind_of_import():
    code = """
    import fedjax_sim.a.b
    from fedjax_sim import c, d
    from fedjax_sim.e import f, Thing
    import os
    def g():
        from fedjax_sim.h.i import j
    """
    lines = "\n".join(line[4:] for line in code.splitlines())
    tree = ast.parse(lines)
    modules = [f"fedjax_sim.{name}" for name in ("c", "d", "e", "e.f", "h.i")]
    expected = {*modules, "fedjax_sim.a.b"}
    assert {name for name, _ in imported(tree, modules)} == expected
    assert {name for name, _ in imported(module_level(tree), modules)} == expected - {modules[-1]}


# ------------------------------------------------------------------------------------------- sizes


def test_files_are_at_most_400_lines_long():
    lengths = {
        short(path): len(path.read_text(encoding="utf-8").splitlines())
        for path in [*FILES, *TEST_FILES]
    }
    assert not {name: length for name, length in lengths.items() if length > LINES}


def test_function_bodies_are_at_most_60_lines_long():
    long = {
        f"{short(path)}: {function.name}": body_length(function)
        for path in FILES
        for function in functions(path)
        if body_length(function) > BODY
    }
    assert not long


def test_nine_functions_of_ten_are_shorter_than_25_lines():
    lengths = [body_length(function) for path in FILES for function in functions(path)]
    assert np.percentile(lengths, 90) < SHORT_BODY


def test_an_algorithm_is_a_short_file():
    own = [entry for entry in REGISTRY.values() if entry.plugin is None]
    lengths = {
        entry.name: len((PACKAGE / "algorithms" / f"{entry.name}.py").read_text().splitlines())
        for entry in own
    }
    assert not {name: length for name, length in lengths.items() if length > ALGORITHM_LINES}


def test_a_docstring_does_not_count_as_body():
    code = 'def f():\n    """Adds.\n    More.\n    """\n    a = 1\n\n    return a\n'
    assert body_length(ast.parse(code).body[0]) == 3


# -------------------------------------------------------------------------------------- docstrings


def public_definitions(tree: ast.Module) -> Iterator[ast.AST]:
    """Public functions and classes of a module, and the public methods of these classes."""
    kinds = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
    for node in tree.body:
        if isinstance(node, kinds) and not node.name.startswith("_"):
            yield node
            if isinstance(node, ast.ClassDef):
                methods = [inner for inner in node.body if isinstance(inner, kinds)]
                yield from (inner for inner in methods if not inner.name.startswith("_"))


def test_every_public_definition_has_a_docstring():
    bare = [
        f"{short(path)}: {getattr(node, 'name', 'module')}"
        for path, tree in TREES.items()
        for node in [tree, *public_definitions(tree)]
        if not ast.get_docstring(node)
    ]
    assert not bare


def test_nothing_is_asserted_in_the_package():
    """Errors are raised by ``fedjax_sim.core.errors``, in three parts."""
    asserted = [
        f"{short(path)}:{node.lineno}"
        for path, tree in TREES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Assert)
    ]
    assert not asserted


# ------------------------------------------------------------------------- names of algorithms

GENERIC_ROOMS = ("runtime", "engine", "persistence", "simulation", "report", "experiments")
GENERIC_ROOMS += ("testing", "cli")
"""Rooms whose code is about every algorithm."""
ABOUT_ALL = re.compile(
    r"^(from federation import .*\bEVERY\b|import rigs|from rigs import)", re.MULTILINE
)
"""In a test: an import of the list of all algorithms, or of their signatures."""
ABOUT_ONE = {"test_closed_forms.py", "test_clients.py"}
"""Tests of what a paper says of one algorithm, and of wrappers that have an algorithm's name."""
EXAMPLE = re.compile(r"^[ \t]*>>>.*\n(?:[ \t]*\S.*\n)*", re.MULTILINE)
"""A runnable example in a docstring, which may use any algorithm."""

GENERIC = [path for room in GENERIC_ROOMS for path in sorted((PACKAGE / room).rglob("*.py"))]
GENERIC += [
    path
    for folder in ("laws", "engine", "host")
    for path in sorted((TESTS / folder).glob("*.py"))
    if path.name not in ABOUT_ONE and ABOUT_ALL.search(path.read_text(encoding="utf-8"))
]
GENERIC += [TESTS / "support" / "rigs.py", TESTS / "support" / "federation.py"]


def named_algorithms(text: str) -> set[str]:
    """Names of algorithms outside runnable examples; ``fs.name`` is an example, too."""
    names = "|".join(REGISTRY)
    return set(re.findall(rf"(?i)(?<!fs\.)\b({names})\b", EXAMPLE.sub("", text)))


def test_what_is_about_every_algorithm_names_none():
    found = {short(path): named_algorithms(path.read_text(encoding="utf-8")) for path in GENERIC}
    assert not {name: names for name, names in found.items() if names}


def test_a_name_would_be_noticed():
    name = next(iter(REGISTRY))
    assert named_algorithms(f"if name == '{name}':") == {name}
    assert not named_algorithms(f"text\n    >>> fs.{name}\n    1\n\n    text\n")
    assert {"engine", "testing", "laws"} <= {path.parent.name for path in GENERIC}
