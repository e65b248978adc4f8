"""The files that are made from the code are current."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

from fedjax_sim.algorithms import REGISTRY

ROOT = Path(__file__).parents[1]


def generator() -> ModuleType:
    """``docs/generate.py`` as a module."""
    spec = importlib.util.spec_from_file_location("generate", ROOT / "docs" / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


GENERATOR = generator()
FILES = {str(path.relative_to(ROOT)): text for path, text in GENERATOR.generated().items()}


@pytest.mark.parametrize("name", FILES)
def test_a_generated_file_is_current(name):
    assert (ROOT / name).read_text(encoding="utf-8") == FILES[name], "run `make generated`"


@pytest.mark.parametrize("name", REGISTRY)
def test_an_algorithm_is_in_every_document(name):
    assert f"| `{name}` |" in FILES["README.md"]
    assert f"### `algorithm` `{name}`" in FILES["docs/configuration.md"]
    assert f" {name} as {name}" in FILES["fedjax_sim/__init__.pyi"]
    assert f"algorithm_{name}" in FILES["configs/fedjax_sim.schema.json"]


def test_a_change_would_be_noticed():
    text = "<!-- algorithms -->\nan older table\n<!-- /algorithms -->"
    entries = GENERATOR.entries_by_kind()
    assert "an older table" not in GENERATOR.with_tables(text, entries)
