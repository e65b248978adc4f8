"""Algorithms, one file each.

To add one: write its file, import it here, and add it to the list that is registered.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

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
from fedjax_sim.core import registry
from fedjax_sim.core.types import Algorithm, Objective


def with_local_statistics(factory: Callable[..., Algorithm]) -> Callable[..., Algorithm]:
    """Makes a factory respect ``Objective.statistics``.

    Args:
      factory: ``(objective, *, settings) -> algorithm``.

    Returns:
      The same factory, whose algorithms keep batch statistics in client memory if the objective
      says ``"local"``.
    """

    @wraps(factory)
    def make(objective: Objective, **settings: Any) -> Algorithm:
        algorithm = factory(objective, **settings)
        return private_statistics(algorithm) if objective.statistics == "local" else algorithm

    return make


registry.declare(
    registry.Kind(
        "algorithm",
        "algorithms",
        "how clients and server learn",
        key="name",
        section="algorithm",
        provided=1,
        adapt=with_local_statistics,
    )
)
for module in (
    fedavg,
    fedsgd,
    fedprox,
    fedavgm,
    fedadagrad,
    fedadam,
    fedyogi,
    scaffold,
    mime,
    ditto,
    error_feedback,
):
    registry.register("algorithm", module)

REGISTRY = registry.entries("algorithm")
"""Algorithms by name."""

__all__ = ["REGISTRY", "with_local_statistics"]
