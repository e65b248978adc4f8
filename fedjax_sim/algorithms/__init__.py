"""Algorithms: one file each, one line each in the registry; documentation, command line, tests and benchmarks iterate over it."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from types import ModuleType
from typing import Any, NamedTuple

from fedjax_sim.algorithms import (
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
from fedjax_sim.clients import private_statistics
from fedjax_sim.core.types import Algorithm, Law, Objective


def with_policy(factory: Callable[..., Algorithm]) -> Callable[..., Algorithm]:
    """The factory, minding what the objective says about batch statistics: where they are local, clients keep them."""

    @wraps(factory)
    def make(objective: Objective, **settings: Any) -> Algorithm:
        algorithm = factory(objective, **settings)
        return private_statistics(algorithm) if objective.statistics == "local" else algorithm

    return make


class Entry(NamedTuple):
    """A registered algorithm."""

    factory: Callable[..., Algorithm]
    """``(objective, *, settings) -> algorithm``."""
    law: Law
    card: str
    """The docstring card: memory, upload, server, law, reference."""


def entry(module: ModuleType) -> Entry:
    """What an algorithm's file brings: a factory of the file's own name, ``LAW``, and the card."""
    return Entry(
        with_policy(getattr(module, module.__name__.rpartition(".")[2])),
        module.LAW,
        (module.__doc__ or "").strip(),
    )


REGISTRY: dict[str, Entry] = {
    "fedavg": entry(fedavg),
    "fedsgd": entry(fedsgd),
    "fedprox": entry(fedprox),
    "fedavgm": entry(fedavgm),
    "fedadagrad": entry(fedadagrad),
    "fedadam": entry(fedadam),
    "fedyogi": entry(fedyogi),
    "scaffold": entry(scaffold),
    "mime": entry(mime),
    "ditto": entry(ditto),
    "error_feedback": entry(error_feedback),
}
