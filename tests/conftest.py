"""Set-up of every test: four CPU devices, a folder of compiled programs, quick compilation, groups.

``FEDJAX_SIM_TEST_PROGRAMS`` names the folder in which compiled programs are kept for the other
worker and the next run; ``.cache/test-programs`` without it. An empty folder measures the suite
from a cold cache.

Tests of what stands around a program (:data:`AROUND`) compile with few optimizations, in a third
of the time. Tests of numbers (``laws``, ``engine``) choose for themselves, and slow tests (but for
those of fuzzing) compile everything as users do.
"""

from __future__ import annotations

import importlib
import os
from functools import cache
from pathlib import Path
from typing import Any

import jax
import pytest
from jax._src import compiler

HERE = Path(__file__).parent
PROGRAMS = Path(
    os.environ.get("FEDJAX_SIM_TEST_PROGRAMS") or HERE.parent / ".cache" / "test-programs"
)
AROUND = ("cli", "data", "experiments", "fuzz", "host", "models")
AROUND += ("engine/test_replay.py", "engine/test_rewrite.py", "engine/test_model_axis.py")
AROUND += ("engine/test_memory_limit.py", "engine/test_nonfinite.py", "engine/test_dtypes.py")
AROUND += ("laws/test_clients.py", "test_benchmarks.py")
"""Folders and files of tests that compile quickly."""
CONFIGURED = ("cli", "experiments", "fuzz", "engine/test_replay.py")
"""Folders and files of tests that read configurations."""
QUICK = (
    "laws/test_laws.py",
    "laws/test_closed_forms.py",
    "laws/test_contracts.py",
    "experiments/test_config.py",
    "experiments/test_history.py",
    "host/test_files.py",
    "data/test_batching.py",
    "cli/test_cli.py",
    "test_api.py",
    "test_structure.py",
)
"""Files of ``make test-quick``; of laws those of the first algorithm or case."""

# Commands that tests start keep nothing in the user's folder.
os.environ["FEDJAX_SIM_CACHE"] = str(PROGRAMS / "commands")

jax.config.update("jax_num_cpu_devices", 4)
jax.config.update("jax_threefry_partitionable", True)
jax.config.update("jax_compilation_cache_dir", str(PROGRAMS))
jax.config.update("jax_compilation_cache_max_size", 2 * 2**30)
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "quick: part of `make test-quick`")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks what is quick. Tests of a file run on one worker, unless they have a group."""
    for item in items:
        if item.get_closest_marker("xdist_group") is None:
            item.add_marker(pytest.mark.xdist_group(item.path.stem))
    cases = {}
    for item in items:
        if _below(item, QUICK) and item.get_closest_marker("slow") is None:
            case = getattr(item, "callspec", None) and item.callspec.params.get("name")
            first = cases.setdefault(item.path, case) if case else case
            if case == first or not _below(item, ("laws",)):
                item.add_marker("quick")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """With ``-m quick`` other files are not even imported."""
    if config.option.markexpr == "quick" and collection_path.name.startswith("test_"):
        return None if collection_path in [HERE / name for name in QUICK] else True
    return None


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Before the fixtures of a module, which compile too."""
    slow = item.get_closest_marker("slow") is not None and not _below(item, ("fuzz",))
    quick = _below(item, AROUND) and not slow
    _options.clear()
    if quick:
        _options.update(_known())
        os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "1"  # of commands that the test starts
    else:
        os.environ.pop("JAX_DISABLE_MOST_OPTIMIZATIONS", None)
    if _below(item, CONFIGURED):
        _share_models()


def _below(item: pytest.Item, names: tuple[str, ...]) -> bool:
    return any(item.path.is_relative_to(HERE / name) for name in names)


# ------------------------------------------------------------------------------- compilation

_options: dict[str, Any] = {}
_original = compiler.get_compile_options


def _get_compile_options(*args: Any, **settings: Any) -> Any:
    if _options and not settings.get("env_options_overrides"):
        settings["env_options_overrides"] = _options
    return _original(*args, **settings)


compiler.get_compile_options = _get_compile_options


@cache
def _known() -> dict[str, Any]:
    """The options of quick compilation; none where this version of XLA does not know them."""
    from fedjax_sim.testing.program import QUICK

    try:
        jax.jit(lambda: 0).lower().compile(compiler_options=QUICK)
    except (jax.errors.JaxRuntimeError, ValueError):
        return {}
    return QUICK


# ------------------------------------------------------------------------------ configurations


@cache
def _share_models() -> None:
    """Makes what a file can say once for each content of the registries, not for each file."""
    users = [
        importlib.import_module(f"fedjax_sim.experiments.config.{name}")
        for name in ("load", "reference")
    ]
    original, made = users[0].run_model, {}

    def run_model(known: Any) -> Any:
        named = [
            (kind, name, entry) for kind, held in known.items() for name, entry in held.items()
        ]
        key = tuple((kind, name, id(entry)) for kind, name, entry in named)
        if key not in made:
            made[key] = original(known), named  # which keeps the ids
        return made[key][0]

    for user in users:
        user.run_model = run_model


@pytest.fixture
def restored_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forgets after a test what it declared, registered or loaded as a plug-in."""
    from fedjax_sim.core import registry
    from fedjax_sim.experiments import plugins
    from fedjax_sim.experiments.config import entries_by_kind

    entries_by_kind()
    kept = {kind: dict(entries) for kind, entries in registry._ENTRIES.items()}
    monkeypatch.setattr(registry, "_ENTRIES", kept)
    monkeypatch.setattr(registry, "_KINDS", dict(registry._KINDS))
    monkeypatch.setattr(plugins, "_LOADED", dict(plugins._LOADED))
