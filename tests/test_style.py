"""The style law of the package, measured by ``benchmarks/style.py``, and that measure itself."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import style

ROOT = Path(__file__).parent.parent
FILE_LINES = 400
BODY = 60
MOST_BODIES = 25

SOURCE = '''
"""A module.

>>> 1 + 1
2
"""


def first(a: int, b, *, c=None):
    """One line."""
    a, b = b, a
    x, y = first(1, 2)
    for number in range(3):
        a += number
    return a, nobody


class Thing:
    """A class.

    >>> for _ in range(2):
    ...     print(1)
    1
    1
    >>> 2
    2
    """

    def method(self, value: str) -> None:
        """Two lines.

        >>> this is no example but it counts
        """
'''


@pytest.fixture(scope="module")
def measured() -> style.Style:
    return style.measure(style.PACKAGE)


# --------------------------------------------------------------------------------- the style law


def test_assignments_are_not_packed(measured):
    assert measured.packed <= 0.5


def test_lines_have_at_most_100_columns(measured):
    wide = [
        f"{path.relative_to(ROOT)}:{number}"
        for path in style.source_files(style.PACKAGE)
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if len(line) > style.WIDTH
    ]
    assert wide == []
    assert measured.wide == 0


def test_most_docstrings_say_more_than_one_line(measured):
    assert measured.one_line_docs <= 45


def test_there_are_examples(measured):
    assert measured.examples >= 60


def test_function_bodies_are_short(measured):
    assert measured.body_max <= BODY
    assert measured.body_p90 < MOST_BODIES


def test_files_are_short():
    lines = {
        str(path.relative_to(ROOT)): len(path.read_text(encoding="utf-8").splitlines())
        for path in style.source_files(style.PACKAGE)
    }
    assert {path: count for path, count in lines.items() if count > FILE_LINES} == {}


# ------------------------------------------------------------------------------------ the measure


def test_a_folder_is_measured(tmp_path):
    (tmp_path / "module.py").write_text(SOURCE)
    (tmp_path / "module_test.py").write_text("def test(a): pass\n")
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "other.py").write_text(f"x = '{'x' * 200}'\n")
    measured = style.measure(tmp_path)
    lines = len(SOURCE.splitlines())
    assert (measured.files, measured.lines) == (1, lines)
    assert measured.packed == pytest.approx(1000 / lines)
    assert measured.stumbling == pytest.approx(1000 / lines)
    assert measured.annotated == 50
    assert measured.one_line_docs == 50
    assert measured.examples == 4
    assert measured.wide == 0
    assert (measured.body_mean, measured.body_max) == (2.5, 5)


def test_wide_lines_are_counted(tmp_path):
    (tmp_path / "module.py").write_text(
        f'def one():\n    return "{"x" * 87}"\n\n\ndef two():\n    return "{"é" * 88}"\n'
    )
    assert style.measure(tmp_path).wide == pytest.approx(100 / 6)


@pytest.mark.parametrize(
    ("code", "packed"),
    [
        ("a, b = 1, 2", True),
        ("a, b = b, a", True),
        ("a, b = pair()", False),
        ("a = 1, 2", False),
        ("a = b = 1", False),
    ],
)
def test_packed_assignments(code, packed):
    assert style.is_packed(ast.parse(code).body[0]) == packed


def test_the_command_measures_a_folder(tmp_path):
    (tmp_path / "module.py").write_text(SOURCE)
    command = [sys.executable, "-m", "benchmarks.style", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert tmp_path.name in done.stdout
    for label in style.LABELS.values():
        assert label in done.stdout
