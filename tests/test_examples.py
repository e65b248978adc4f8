"""The examples in docstrings: every ``>>>`` is run, and what it prints is compared."""

from __future__ import annotations

import doctest
import importlib
import pkgutil

import pytest

import fedjax_sim

FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
FEWEST = 60
"""Examples that the package must have at least."""


def modules() -> list[str]:
    """Names of all modules of the package but the one that runs the command line."""
    found = pkgutil.walk_packages(fedjax_sim.__path__, "fedjax_sim.")
    return [module.name for module in found if not module.name.endswith("__main__")]


def documented(name: str) -> list[doctest.DocTest]:
    """The docstrings of a module that hold examples."""
    module = importlib.import_module(name)
    return [test for test in doctest.DocTestFinder().find(module, name) if test.examples]


CASES = {test.name: test for name in modules() for test in documented(name)}


@pytest.mark.parametrize("name", CASES)
def test_an_example_prints_what_its_docstring_says(name, restored_registry):
    lines: list[str] = []
    runner = doctest.DocTestRunner(optionflags=FLAGS)
    runner.run(CASES[name], out=lines.append, clear_globs=False)
    assert not lines, "".join(lines)


def test_there_are_examples():
    assert sum(len(case.examples) for case in CASES.values()) >= FEWEST
