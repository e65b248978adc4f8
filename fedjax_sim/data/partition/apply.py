"""Partitions as settings: a name or a function, applied to the columns of a data set."""

from __future__ import annotations

import inspect
from functools import partial
from typing import Any

import numpy as np

from fedjax_sim.core.errors import lookup, require
from fedjax_sim.data.partition import REGISTRY, natural
from fedjax_sim.data.partition.parts import Partition, Parts


def deal(
    partition: Partition,
    labels: np.ndarray,
    clients: int | None,
    seed: int,
    ids: np.ndarray | None = None,
) -> Parts:
    """Applies a partition to the labels or the ids of a data set.

    Args:
      partition: a name of :data:`fedjax_sim.data.PARTITIONS` or a function. It gets the ids if its
        first parameter is called ``ids``, otherwise the labels.
      labels: ``[n]``.
      clients: number of clients, N; ``None`` for a partition that determines N itself.
      seed: of the partition.
      ids: ``[n]``, the owner of each example; ``None`` if the data set has no owners.

    Returns:
      N arrays of row numbers, ``int64[n_i]``.

    Raises:
      FedError: if the partition needs ids or values that the data set does not have, and any error
        of the partition itself.

    Example:
      >>> import fedjax_sim as fs
      >>> from functools import partial
      >>> parts = fs.data.deal(partial(fs.data.iid, shuffle=False), [0, 1, 1, 0], 2, seed=0)
      >>> [part.tolist() for part in parts]
      [[0, 1], [2, 3]]
    """
    function: Any = partition
    if isinstance(partition, str):
        function = lookup("partition", partition, REGISTRY).factory
    require(
        callable(function),
        "a partition is a name or a function",
        got=repr(function),
        fix="pass for example partial(dirichlet, alpha=0.3)",
        setting="partition",
    )
    column = next(iter(inspect.signature(function).parameters))
    known = "labels" if ids is None else "labels and ids"
    require(
        column not in ("ids", "values") or (column == "ids" and ids is not None),
        f"this partition needs {column}",
        got=f"data with {known} alone",
        fix=f"choose a partition by {known}, such as iid",
        setting="partition",
    )
    return function(ids if column == "ids" else labels, clients, seed=seed)


def is_natural(partition: Partition) -> bool:
    """Whether a partition makes one client of each id: ``"natural"`` or :func:`natural`."""
    function = partition.func if isinstance(partition, partial) else partition
    return function is natural or function == "natural"
