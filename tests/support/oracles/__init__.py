"""Plain numpy transcriptions of each algorithm's box from its paper, named after the registry.
They import nothing of the package.

A module holds ``run(problem, *, rounds, settings) -> Result``. Beside it, where there is something
to say: ``STATE``, which tells where the simulator keeps what the paper calls by a letter
(``letter -> (algorithm state, memory table) -> leaves``, ``None`` for what is not kept), and
``VARIANTS``, settings to try besides the defaults of ``run``.
"""

from . import (
    ditto,
    error_feedback,
    fedadagrad,
    fedadam,
    fedavg,
    fedavgm,
    fedprox,
    fedsgd,
    fedyogi,
    mime,
    scaffold,
)
from .problem import Problem, Result, full, unpack
from .problems import quadratics, scripted_softmax, softmax

_MODULES = (
    ditto,
    error_feedback,
    fedadagrad,
    fedadam,
    fedavg,
    fedavgm,
    fedprox,
    fedsgd,
    fedyogi,
    mime,
    scaffold,
)
_NAMED = {module.__name__.rpartition(".")[2]: module for module in _MODULES}

ORACLES = {name: module.run for name, module in _NAMED.items()}
STATES = {name: getattr(module, "STATE", {}) for name, module in _NAMED.items()}
VARIANTS = {name: getattr(module, "VARIANTS", []) for name, module in _NAMED.items()}

__all__ = [
    "ORACLES",
    "STATES",
    "VARIANTS",
    "Problem",
    "Result",
    "full",
    "quadratics",
    "scripted_softmax",
    "softmax",
    "unpack",
]
