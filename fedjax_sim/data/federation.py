"""A federation: the clients' training examples, their test examples, and a test set that belongs to nobody."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from fedjax_sim.core.errors import require
from fedjax_sim.core.types import PyTree
from fedjax_sim.data.partition import generator
from fedjax_sim.data.population import Examples, Population, by_client, population, rows

HOLD_OUT, SPLIT = 1, 2
"""Streams of a data set's seed; partitions take the seed itself."""


class Federation(NamedTuple):
    """Everything a simulation trains and evaluates on. Make one with :func:`federation` or a ``from_`` function.

    Row ``i`` of ``test`` is the client of row ``i`` of ``train``: both have the same ``N``, order and names, so that a client's
    memory and its test examples meet under one id. A client may therefore have no test example (``test.sizes[i] == 0``); it takes
    no step of an evaluation and is absent there, exactly like a padding row of a roster.
    """

    train: Population
    test: Population | None = None
    global_test: Examples | None = None


def federation(
    train: Population, test: Population | None = None, global_test: Examples | None = None
) -> Federation:
    """A checked :class:`Federation`; a ``test`` in which nobody has an example becomes ``None``, and so does an empty ``central``.

    Raises:
      FedError: where test clients are not the training clients, or the parts differ in structure, shape or dtype of an example.
    """
    test = None if test is None or not test.offsets[-1] else test
    global_test = None if global_test is None or not len(global_test) else global_test
    for name, part in (("test", test), ("central", global_test)):
        if part is not None:
            mine, theirs = kind(train), kind(part)
            require(
                mine == theirs,
                f"examples of {name} must be like those of train ({mine})",
                got=theirs,
                fix=f"convert {name} the same way as train",
            )
    if test is not None:
        same = test.clients == train.clients and test.names == train.names
        got = f"{test.clients} test and {train.clients} training clients"
        require(
            same,
            "test must have the training clients, in the same order and under the same names",
            got=got,
            fix="use split(), or align the two",
        )
    return Federation(train, test, global_test)


def from_arrays(
    x: PyTree,
    y: PyTree,
    client: np.ndarray,
    *,
    test_fraction: float = 0.0,
    global_test: Examples | None = None,
    seed: int = 0,
) -> Federation:
    """A federation from examples in any order and each example's client.

    Args:
      x: leaves ``[n, ...]``.
      y: leaves ``[n, ...]``.
      client: ``[n]``, ids of any dtype that sorts; clients are ordered by it and named after it.
      test_fraction: share of each client's examples set apart, see :func:`split`; 0 for no test clients.
      central: a test set that belongs to nobody.
      seed: of the split.
    """
    return federation(*split(by_client(x, y, client), test_fraction, seed), global_test)


def from_partition(
    x: PyTree,
    y: PyTree,
    parts: Sequence[np.ndarray],
    *,
    test_fraction: float = 0.0,
    global_test: Examples | None = None,
    seed: int = 0,
) -> Federation:
    """A federation from a partition (:mod:`fedjax_sim.data.partition`): client ``i`` holds the rows ``parts[i]``, in that order.

    Raises:
      FedError: where a client has no row, a row is held twice, or a row does not exist.
    """
    order = np.concatenate(parts)
    n = rows((x, y))
    known = bool(np.all((order >= 0) & (order < n)))
    require(
        known,
        "a partition's rows must exist",
        got=f"rows up to {order.max(initial=-1)} of {n}",
        fix="partition the labels of this data set",
    )
    twice = np.flatnonzero(np.bincount(order, minlength=n) > 1)
    require(
        not len(twice),
        "a row may belong to one client only",
        got=f"rows {twice[:5].tolist()} twice",
        fix="make the parts disjoint",
    )
    x, y = _take((x, y), order)
    data = population(x, y, np.cumsum([0, *map(len, parts)]))
    return federation(*split(data, test_fraction, seed), global_test)


def split(data: Population, fraction: float, seed: int = 0) -> tuple[Population, Population | None]:
    """Each client's examples in two: ``(train, test)`` with the same clients in the same order.

    Of ``n`` examples, ``round(fraction * n)`` drawn without replacement are for testing, but at least one and at most ``n - 1``. A
    client with a single example trains on it and has no test example. Within a client the order of the data is kept.

    Raises:
      FedError: where the fraction is not in ``[0, 1)``.
    """
    share("test_fraction", fraction)
    if fraction == 0:
        return data, None
    sizes = data.sizes
    wanted = np.minimum(np.maximum(np.round(fraction * sizes), 1), sizes - 1)
    draws = generator(seed, SPLIT).random(int(data.offsets[-1]))
    owner = np.repeat(np.arange(data.clients), sizes)
    order = np.lexsort(
        (draws, owner)
    )  # by client, then by chance: the first of each client are its test examples
    chosen = np.zeros(len(order), bool)
    chosen[order] = np.arange(len(order)) - np.repeat(data.offsets[:-1], sizes) < np.repeat(
        wanted, sizes
    )
    return _select(data, ~chosen), _select(data, chosen)


def hold_out(x: PyTree, y: PyTree, fraction: float, seed: int = 0) -> tuple[Examples, Examples]:
    """``(rest, held)``: ``round(fraction * n)`` random examples set apart before any partition, both in the order of the data.

    Raises:
      FedError: where the fraction is not in ``[0, 1)``.
    """
    share("global_test_fraction", fraction)
    n = rows((x, y))
    chosen = np.zeros(n, bool)
    chosen[generator(seed, HOLD_OUT).permutation(n)[: round(fraction * n)]] = True
    return Examples(*_take((x, y), ~chosen)), Examples(*_take((x, y), chosen))


def pool(data: Population | None) -> Examples | None:
    """All clients' examples as one set: with the test clients', the usual global test set of natural partitions."""
    return None if data is None else Examples(data.x, data.y)


def describe(data: Population) -> dict[str, Any]:
    """Plain facts: ``clients``, ``examples``, and ``size`` (examples of a client) as minimum, deciles 10, 50, 90, maximum, mean."""
    sizes = data.sizes
    quantiles = np.quantile(sizes, (0, 0.1, 0.5, 0.9, 1))
    facts = {
        name: float(value)
        for name, value in zip(("min", "p10", "median", "p90", "max"), quantiles, strict=True)
    }
    return {
        "clients": data.clients,
        "examples": int(sizes.sum()),
        "size": {**facts, "mean": float(sizes.mean())},
    }


def _select(data: Population, chosen: np.ndarray) -> Population:
    counts = np.add.reduceat(chosen, data.offsets[:-1], dtype=np.int64)
    x, y = _take((data.x, data.y), chosen)
    return population(x, y, np.cumsum([0, *counts]), data.names, empty=True)


def share(name: str, value: float) -> None:
    """Requires ``0 <= value < 1``: something must be left."""
    require(
        0 <= value < 1,
        f"{name} is a share and must lie in [0, 1)",
        got=value,
        fix=f"give {name} a value such as 0.2",
        setting=name,
    )


def _take(tree: PyTree, chosen: np.ndarray) -> PyTree:
    return jax.tree.map(lambda leaf: np.asarray(leaf)[chosen], tree)


def kind(data: Population | Examples) -> str:
    """Structure, shape and dtype of one example, in words: equal for data sets that can stand in one federation."""
    return str(jax.tree.map(lambda leaf: f"{leaf.dtype}{list(leaf.shape[1:])}", (data.x, data.y)))
