"""Federated learning, simulated in JAX: one round, one jitted program.

    import fedjax_sim as fs

Every name of :data:`__all__` is here, and every registered algorithm under its own name
(``fs.fedavg``). A name is looked up when it is first used, so that importing the package imports
nothing else: the command line answers at once, and a program may still configure JAX. Editors and
type checkers read ``__init__.pyi``, which ``make generated`` writes.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import Any, NoReturn

HOMES = {
    "aggregators": "chain stage",
    "core.errors": "FedError",
    "core.law": "Law",
    "core.types": "Aggregator Algorithm Batch Learner Mean Member Message Objective Outcome "
    "Roster RoundState Sampler Server Upload Variables",
    "data": "Examples Federation Population by_client from_arrays from_partition local_work "
    "population",
    "engine": "Engine",
    "engine.federate": "federate",
    "engine.program": "Program make_round",
    "experiments.config.load": "load_config",
    "experiments.records": "RunFolder",
    "experiments.rooms": "register",
    "experiments.run": "run",
    "experiments.simulate": "simulate",
    "models": "Model from_functions from_linen from_nnx",
    "models.objectives": "classification regression",
    "persistence.checkpoint": "open_store state_hash",
    "report": "comparison plot_runs",
    "runtime.devices": "enable_compilation_cache use_cores",
    "simulation.callbacks": "Stop callback",
    "simulation.evaluate": "make_evaluation",
    "simulation.history": "History",
    "tasks": "Task",
}
"""Module to the public names that live in it."""

MODULES = {
    "aggregators": "aggregators",
    "algorithms": "algorithms",
    "clients": "clients",
    "data": "data",
    "export": "persistence.export",
    "models": "models",
    "optimizers": "optimizers",
    "samplers": "samplers",
    "tasks": "tasks",
    "testing": "testing",
    "weights": "persistence.weights",
}
"""Public name of a module to its place in the package."""

_HOME = {name: home for home, names in HOMES.items() for name in names.split()}

_RENAMED = {
    "batching": "local_work",
    "keep_programs": "enable_compilation_cache",
    "wrappers": "clients",
}
"""Names of earlier versions."""

__all__ = sorted([*_HOME, *MODULES, "__version__"])


def __getattr__(name: str) -> Any:
    """Looks a name up on its first use: a public name, a submodule, or a registered algorithm, in
    this order.
    """
    if name in _RENAMED:
        _missing(name, f"; it is called {_RENAMED[name]!r} now")
    if name == "__version__":
        found = importlib.import_module("importlib.metadata").version("fedjax-sim")
    elif name in _HOME:
        found = getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
    elif name.startswith("_"):
        found = None
    else:
        found = _submodule(name)
    if found is None:
        # Not kept: a notebook's cell that runs again registers its algorithm again.
        return _algorithm(name) or _missing(name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*__all__, *__getattr__("algorithms").REGISTRY})


def _missing(name: str, hint: str = "") -> NoReturn:
    text = f"module {__name__!r} has no attribute {name!r}{hint}"
    raise AttributeError(text, name=name, obj=sys.modules[__name__])


def _submodule(name: str) -> ModuleType | None:
    wanted = f"{__name__}.{MODULES.get(name, name)}"
    try:
        return importlib.import_module(wanted)
    except ModuleNotFoundError as error:
        if error.name != wanted:
            raise
        return None


def _algorithm(name: str) -> Any:
    entry = None if name.startswith("_") else __getattr__("algorithms").REGISTRY.get(name)
    return entry and entry.factory
