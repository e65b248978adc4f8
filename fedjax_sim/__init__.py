"""Federated learning, simulated in JAX: one round, one jitted program.

    import fedjax_sim as fs

Everything of :data:`__all__` is here, and every registered algorithm under its own name (``fs.fedavg``). Names are looked up when
they are first used, so that importing the package imports nothing else: the command line answers at once, and a program may still
configure JAX.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fedjax_sim import aggregators, algorithms, clients, data, models, samplers, tasks
    from fedjax_sim.core.errors import FedError
    from fedjax_sim.core.types import (
        Aggregator,
        Algorithm,
        Batch,
        Law,
        Learner,
        Mean,
        Member,
        Message,
        Objective,
        Outcome,
        Roster,
        RoundState,
        Sampler,
        Server,
        Upload,
        Variables,
    )
    from fedjax_sim.data import (
        Examples,
        Federation,
        Population,
        by_client,
        from_arrays,
        from_partition,
        local_work,
        population,
    )
    from fedjax_sim.engine import Engine
    from fedjax_sim.engine.federate import federate
    from fedjax_sim.engine.program import Program, make_round
    from fedjax_sim.models import Model, from_functions, from_linen, from_nnx
    from fedjax_sim.models.objectives import classification, regression
    from fedjax_sim.persistence import export, weights
    from fedjax_sim.persistence.checkpoint import open_store, state_hash
    from fedjax_sim.report import comparison, plot_runs
    from fedjax_sim.runtime.devices import enable_compilation_cache, use_cores
    from fedjax_sim.simulation.callbacks import Stop, callback
    from fedjax_sim.simulation.evaluate import make_evaluation
    from fedjax_sim.simulation.history import History
    from fedjax_sim.simulation.simulate import simulate
    from fedjax_sim.tasks import Task

    __version__: str

__all__ = [
    "Aggregator",
    "Algorithm",
    "Batch",
    "Engine",
    "Examples",
    "FedError",
    "Federation",
    "History",
    "Law",
    "Learner",
    "Mean",
    "Member",
    "Message",
    "Model",
    "Objective",
    "Outcome",
    "Population",
    "Program",
    "Roster",
    "RoundState",
    "Sampler",
    "Server",
    "Stop",
    "Task",
    "Upload",
    "Variables",
    "__version__",
    "aggregators",
    "algorithms",
    "by_client",
    "callback",
    "classification",
    "clients",
    "comparison",
    "data",
    "enable_compilation_cache",
    "export",
    "federate",
    "from_arrays",
    "from_functions",
    "from_linen",
    "from_nnx",
    "from_partition",
    "local_work",
    "make_evaluation",
    "make_round",
    "models",
    "open_store",
    "plot_runs",
    "population",
    "regression",
    "samplers",
    "simulate",
    "state_hash",
    "tasks",
    "use_cores",
    "weights",
]

_HOMES = {
    "core.errors": "FedError",
    "core.types": """Aggregator Algorithm Batch Law Learner Mean Member Message Objective Outcome Roster RoundState Sampler Server
        Upload Variables""",
    "data": "Examples Federation Population local_work by_client from_arrays from_partition population",
    "engine": "Engine",
    "engine.federate": "federate",
    "engine.program": "Program make_round",
    "models": "Model from_functions from_linen from_nnx",
    "models.objectives": "classification regression",
    "persistence.checkpoint": "open_store state_hash",
    "report": "comparison plot_runs",
    "runtime.devices": "enable_compilation_cache use_cores",
    "simulation.callbacks": "Stop callback",
    "simulation.evaluate": "make_evaluation",
    "simulation.history": "History",
    "simulation.simulate": "simulate",
    "tasks": "Task",
}
_MODULES = {"export": "persistence.export", "weights": "persistence.weights"}
"""Modules that are public under a name of their own."""
_HOME = {name: home for home, names in _HOMES.items() for name in names.split()}
"""Which module each public name lives in; names that are not here are submodules or algorithms."""


def __getattr__(name: str) -> Any:
    """A public name, a submodule or an algorithm, on its first use. Submodules come before algorithms, which need JAX."""
    if name == "__version__":
        found = importlib.import_module("importlib.metadata").version("fedjax-sim")
    elif name in _HOME:
        found = getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
    elif not name.startswith("_"):
        found = _submodule(name) or _algorithm(name)
    else:
        found = None
    if found is None:
        raise AttributeError(
            f"module {__name__!r} has no attribute {name!r}", name=name, obj=sys.modules[__name__]
        )
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*__all__, *__getattr__("algorithms").REGISTRY})


def _submodule(name: str) -> ModuleType | None:
    wanted = f"{__name__}.{_MODULES.get(name, name)}"
    try:
        return importlib.import_module(wanted)
    except ModuleNotFoundError as error:
        if error.name != wanted:
            raise
        return None


def _algorithm(name: str) -> Any:
    entry = __getattr__("algorithms").REGISTRY.get(name)
    return entry and entry.factory
