"""A partition as a setting: of a task, or of a data set that is read."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial

import numpy as np

from fedjax_sim.core.errors import lookup, require
from fedjax_sim.data.partition import REGISTRY, Parts, natural

Partition = str | Callable[..., Parts]
"""A name of :data:`fedjax_sim.data.PARTITIONS`, or ``(column, clients, *, seed) -> parts``: one of them with options bound, as in
``functools.partial(dirichlet, alpha=0.3)``, or a function of your own."""


def deal(
    partition: Partition,
    labels: np.ndarray,
    clients: int | None,
    seed: int,
    ids: np.ndarray | None = None,
) -> Parts:
    """The rows of each client.

    Args:
      partition: gets the labels or, if its first parameter is called ``ids``, those.
      labels: ``[n]``.
      clients: N; ``None`` for a partition that knows by itself.
      seed: of the partition.
      ids: ``[n]``, whose each example is, where the data say so.

    Raises:
      FedError: where the partition goes by something that is not there, and whatever the partition itself refuses.
    """
    made = lookup("partition", partition, REGISTRY) if isinstance(partition, str) else partition
    require(
        callable(made),
        "a partition is a name or a function",
        got=repr(made),
        fix="pass partial(dirichlet, alpha=0.3), say",
        setting="partition",
    )
    goes_by = next(iter(inspect.signature(made).parameters))
    there = goes_by not in ("ids", "values") or (goes_by == "ids" and ids is not None)
    known = "labels" if ids is None else "labels and ids"
    require(
        there,
        f"this partition goes by {goes_by}",
        got=f"data with {known} alone",
        fix=f"choose one by {known}, such as iid",
        setting="partition",
    )
    return made(ids if goes_by == "ids" else labels, clients, seed=seed)


def is_natural(partition: Partition) -> bool:
    """Whether each of the data's own clients is a client."""
    made = partition.func if isinstance(partition, partial) else partition
    return made is natural or made == "natural"
