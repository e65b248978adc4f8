"""``python -m benchmarks.style [FOLDER ...]``: how the package and other packages are written.

Without arguments: ``fedjax_sim`` and those of the anchors that are installed here, side by side.
Tests are not counted. The figures describe the code; ``tests/test_style.py`` states which of them
the package must keep.
"""

from __future__ import annotations

import argparse
import ast
import doctest
import importlib.util
import re
import statistics
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

PACKAGE = Path(__file__).parent.parent / "fedjax_sim"
ANCHORS = ("optax", "chex", "flax", "mctx", "rlax", "optimistix", "blackjax")
"""Packages whose style the package is compared with."""
WIDTH = 100
STUMBLING = re.compile(r"nobody|whoever|somebody|anybody|everybody|stranger", re.IGNORECASE)
"""Words of riddles, which a literal sentence does not need."""

Function = ast.FunctionDef | ast.AsyncFunctionDef
Documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


class Style(NamedTuple):
    """The figures of a package, without its tests."""

    files: int
    lines: int
    body_mean: float
    """Lines of a function's body without its docstring."""
    body_p90: int
    body_max: int
    packed: float
    """Assignments of several values to several names, per 1,000 lines."""
    wide: float
    """Per cent of lines over 100 columns."""
    annotated: float
    """Per cent of arguments with an annotation, ``self`` and ``cls`` not counted."""
    one_line_docs: float
    """Per cent of the functions with a docstring whose docstring has one line."""
    examples: int
    """Doctest examples in docstrings."""
    stumbling: float
    """Stumbling words per 1,000 lines."""


LABELS = {
    "files": "files",
    "lines": "lines",
    "body_mean": "body, lines: mean",
    "body_p90": "body, lines: 90 %",
    "body_max": "body, lines: largest",
    "packed": "packed assignments per 1,000 lines",
    "wide": "lines over 100 columns, %",
    "annotated": "annotated arguments, %",
    "one_line_docs": "one-line docstrings, %",
    "examples": "examples (>>>)",
    "stumbling": "stumbling words per 1,000 lines",
}


def measure(folder: Path) -> Style:
    """Measures all Python files below a folder, except for tests."""
    texts = [path.read_text(encoding="utf-8") for path in source_files(folder)]
    lines = [line for text in texts for line in text.splitlines()]
    nodes = [node for text in texts for node in ast.walk(ast.parse(text))]
    functions = [node for node in nodes if isinstance(node, Function)]
    bodies = sorted(map(body_lines, functions))
    arguments = [argument for function in functions for argument in arguments_of(function)]
    docstrings = [text for text in map(ast.get_docstring, functions) if text]
    thousands = len(lines) / 1000
    return Style(
        files=len(texts),
        lines=len(lines),
        body_mean=statistics.mean(bodies),
        body_p90=bodies[int(0.9 * len(bodies))],
        body_max=bodies[-1],
        packed=sum(map(is_packed, nodes)) / thousands,
        wide=percentage(len(line) > WIDTH for line in lines),
        annotated=percentage(argument.annotation is not None for argument in arguments),
        one_line_docs=percentage("\n" not in text for text in docstrings),
        examples=sum(map(count_examples, docstrings_of(nodes))),
        stumbling=sum(len(STUMBLING.findall(text)) for text in texts) / thousands,
    )


def source_files(folder: Path) -> list[Path]:
    """Python files below a folder that are neither tests nor in a folder of tests."""
    return sorted(path for path in folder.rglob("*.py") if not is_test(path.relative_to(folder)))


def is_test(path: Path) -> bool:
    """Whether a file is a test by its name, or in a folder of tests."""
    return path.stem.endswith("_test") or not {"test", "tests"}.isdisjoint(path.parts[:-1])


def body_lines(function: Function) -> int:
    """Lines of a function's body, without its docstring."""
    body = function.body
    if ast.get_docstring(function) is not None:
        body = body[1:]
    return (function.end_lineno or 0) - body[0].lineno + 1 if body else 0


def is_packed(node: ast.AST) -> bool:
    """Whether a node is an assignment such as ``a, b = x, y``."""
    if not isinstance(node, ast.Assign) or len(node.targets) != 1:
        return False
    return isinstance(node.targets[0], ast.Tuple) and isinstance(node.value, ast.Tuple)


def arguments_of(function: Function) -> Iterator[ast.arg]:
    """Arguments that a caller gives by name or position."""
    arguments = function.args
    for argument in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs):
        if argument.arg not in ("self", "cls"):
            yield argument


def docstrings_of(nodes: Iterable[ast.AST]) -> Iterator[str]:
    """Docstrings of modules, classes and functions."""
    for node in nodes:
        if isinstance(node, Documented):
            yield ast.get_docstring(node) or ""


def count_examples(docstring: str) -> int:
    """Doctest examples of a docstring; in one that doctest cannot parse, lines with ``>>>``."""
    try:
        return len(doctest.DocTestParser().get_examples(docstring))
    except ValueError:
        return len(re.findall(r"^\s*>>>", docstring, re.MULTILINE))


def percentage(values: Iterable[bool]) -> float:
    """Per cent of the values that are true; nan of no values."""
    values = list(values)
    return 100 * sum(values) / len(values) if values else float("nan")


def installed(name: str) -> Path | None:
    """The folder of an installed package; None if it is not installed."""
    spec = importlib.util.find_spec(name)
    folders = list(spec.submodule_search_locations or ()) if spec else []
    return Path(folders[0]) if folders else None


def table(styles: dict[str, Style]) -> str:
    """The figures as text: a row for each, a column for each package."""
    heads = [" " * 36, *(f"{name:>12}" for name in styles)]
    rows = [
        [f"{label:<36}", *(f"{_figure(getattr(style, field)):>12}" for style in styles.values())]
        for field, label in LABELS.items()
    ]
    return "\n".join("".join(row).rstrip() for row in (heads, *rows))


def _figure(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:.1f}"


def main() -> None:
    """Runs the command of the module's docstring."""
    verbatim = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.style", description=__doc__, formatter_class=verbatim
    )
    parser.add_argument(
        "folders",
        nargs="*",
        type=Path,
        metavar="FOLDER",
        help="folders to measure instead of fedjax_sim and the installed anchors",
    )
    folders = parser.parse_args().folders
    if folders:
        print(table({folder.resolve().name: measure(folder) for folder in folders}))
        return
    anchors = {name: installed(name) for name in ANCHORS}
    present = {name: folder for name, folder in anchors.items() if folder is not None}
    compared = {PACKAGE.name: PACKAGE, **present}
    print(table({name: measure(folder) for name, folder in compared.items()}))
    if missing := sorted(anchors.keys() - present.keys()):
        print(f"\nNot installed here: {', '.join(missing)}.")


if __name__ == "__main__":
    main()
