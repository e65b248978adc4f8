"""A federation: the clients' training examples, their test examples, and a global test set."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from fedjax_sim.core.errors import require
from fedjax_sim.core.types import PyTree
from fedjax_sim.data.partition import generator
from fedjax_sim.data.population import Examples, Population, by_client, population, rows

HOLD_OUT = 1
"""Stream of a data set's seed for :func:`hold_out`; partitions use the seed itself."""
SPLIT = 2
"""Stream of a data set's seed for :func:`split`."""


class Federation(NamedTuple):
    """Everything a simulation trains and evaluates on.

    Make one with :func:`federation`, :func:`from_arrays` or :func:`from_partition`.

    Client ``i`` of ``test`` is client ``i`` of ``train``: both have the same ``N``, order and
    names, so that a client's memory and its test examples have one id. A client may therefore have
    no test example (``test.sizes[i] == 0``); it takes no step of an evaluation and is absent there,
    exactly like a padding row of a roster.
    """

    train: Population
    test: Population | None = None
    global_test: Examples | None = None
    """Test examples without an owner."""


def federation(
    train: Population, test: Population | None = None, global_test: Examples | None = None
) -> Federation:
    """A checked :class:`Federation`.

    Args:
      train: the clients' training examples.
      test: the same clients' test examples; becomes ``None`` if no client has one.
      global_test: test examples without an owner; becomes ``None`` if it is empty.

    Raises:
      FedError: if test clients are not the training clients, or the parts differ in structure,
        shape or dtype of an example.

    Example:
      >>> import numpy as np
      >>> import fedjax_sim as fs
      >>> train = fs.data.population(np.zeros((5, 2)), np.zeros(5), [0, 2, 5])
      >>> data = fs.data.federation(train, global_test=fs.data.Examples(train.x[:1], train.y[:1]))
      >>> data.train.clients, data.test, len(data.global_test)
      (2, None, 1)
    """
    test = None if test is None or not test.offsets[-1] else test
    global_test = None if global_test is None or not len(global_test) else global_test
    for name, part in (("test", test), ("global_test", global_test)):
        if part is not None:
            require(
                kind(train) == kind(part),
                f"examples of {name} must be like those of train ({kind(train)})",
                got=kind(part),
                fix=f"convert {name} the same way as train",
            )
    if test is not None:
        require(
            test.clients == train.clients and test.names == train.names,
            "test must have the training clients, in the same order and under the same names",
            got=f"{test.clients} test and {train.clients} training clients",
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
    """A federation from examples in any order and the client of each example.

    Args:
      x: leaves ``[n, ...]``.
      y: leaves ``[n, ...]``.
      client: ``[n]``, ids of any dtype that sorts; clients are ordered by id and named after it.
      test_fraction: share of each client's examples to set apart for testing, see :func:`split`; 0
        for no test clients.
      global_test: test examples without an owner.
      seed: of the split.

    Raises:
      FedError: if the arrays differ in length, the fraction is not in ``[0, 1)``, or the global
        test set has other examples than ``x`` and ``y``.

    Example:
      >>> import numpy as np
      >>> import fedjax_sim as fs
      >>> x, y, client = np.zeros((8, 2)), np.zeros(8), np.repeat(["ann", "bob"], 4)
      >>> data = fs.data.from_arrays(x, y, client, test_fraction=0.25)
      >>> data.train.sizes.tolist(), data.test.sizes.tolist(), data.train.names
      ([3, 3], [1, 1], ('ann', 'bob'))
    """
    train, test = split(by_client(x, y, client), test_fraction, seed)
    return federation(train, test, global_test)


def from_partition(
    x: PyTree,
    y: PyTree,
    parts: Sequence[np.ndarray],
    *,
    test_fraction: float = 0.0,
    global_test: Examples | None = None,
    seed: int = 0,
) -> Federation:
    """A federation from a partition (:mod:`fedjax_sim.data.partition`).

    Args:
      x: leaves ``[n, ...]``.
      y: leaves ``[n, ...]``.
      parts: N arrays of row numbers, ``int64[n_i]``; client ``i`` holds the rows ``parts[i]``, in
        that order.
      test_fraction: share of each client's examples to set apart for testing, see :func:`split`; 0
        for no test clients.
      global_test: test examples without an owner.
      seed: of the split.

    Raises:
      FedError: if a client has no row, a row is in two parts, or a row does not exist.

    Example:
      >>> import numpy as np
      >>> import fedjax_sim as fs
      >>> x, y = np.zeros((9, 2)), np.arange(9) % 3
      >>> data = fs.data.from_partition(x, y, fs.data.shards(y, 3, per_client=1, seed=1))
      >>> data.train.clients, data.train.sizes.tolist()
      (3, [3, 3, 3])
    """
    order = np.concatenate(parts)
    n = rows((x, y))
    require(
        bool(np.all((order >= 0) & (order < n))),
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
    train, test = split(data, test_fraction, seed)
    return federation(train, test, global_test)


def split(data: Population, fraction: float, seed: int = 0) -> tuple[Population, Population | None]:
    """Splits each client's examples into training and test examples.

    Of ``n`` examples, ``round(fraction * n)`` drawn without replacement are for testing, but at
    least one and at most ``n - 1``. A client with a single example trains on it and has no test
    example. The order of a client's examples is kept.

    Args:
      data: the population.
      fraction: share of test examples, in ``[0, 1)``.
      seed: of the draws.

    Returns:
      ``(train, test)`` with the same clients in the same order; ``test`` is ``None`` at a fraction
      of 0.

    Raises:
      FedError: if the fraction is not in ``[0, 1)``.

    Example:
      >>> import numpy as np
      >>> import fedjax_sim as fs
      >>> data = fs.data.population(np.zeros((12, 2)), np.zeros(12), [0, 1, 2, 12])
      >>> train, test = fs.data.split(data, 0.2)
      >>> train.sizes.tolist(), test.sizes.tolist()
      ([1, 1, 8], [0, 0, 2])
    """
    share("test_fraction", fraction)
    if fraction == 0:
        return data, None
    sizes = data.sizes
    tested = np.minimum(np.maximum(np.round(fraction * sizes), 1), sizes - 1)
    draws = generator(seed, SPLIT).random(int(data.offsets[-1]))
    owner = np.repeat(np.arange(data.clients), sizes)
    # Sorted by client, then by the draws: the first examples of each client are for testing.
    order = np.lexsort((draws, owner))
    rank = np.arange(len(order)) - np.repeat(data.offsets[:-1], sizes)
    chosen = np.zeros(len(order), bool)
    chosen[order] = rank < np.repeat(tested, sizes)
    return _select(data, ~chosen), _select(data, chosen)


def hold_out(x: PyTree, y: PyTree, fraction: float, seed: int = 0) -> tuple[Examples, Examples]:
    """Sets random examples apart before any partition, as a global test set.

    Args:
      x: leaves ``[n, ...]``.
      y: leaves ``[n, ...]``.
      fraction: share of examples to set apart, in ``[0, 1)``; ``round(fraction * n)`` of them.
      seed: of the draw.

    Returns:
      ``(rest, held)``, both in the order of the data.

    Raises:
      FedError: if the fraction is not in ``[0, 1)``.

    Example:
      >>> import numpy as np
      >>> import fedjax_sim as fs
      >>> rest, held = fs.data.hold_out(np.zeros((10, 2)), np.arange(10), 0.3)
      >>> len(rest), len(held), sorted([*rest.y.tolist(), *held.y.tolist()]) == list(range(10))
      (7, 3, True)
    """
    share("global_test_fraction", fraction)
    n = rows((x, y))
    chosen = np.zeros(n, bool)
    chosen[generator(seed, HOLD_OUT).permutation(n)[: round(fraction * n)]] = True
    return Examples(*_take((x, y), ~chosen)), Examples(*_take((x, y), chosen))


def pool(data: Population | None) -> Examples | None:
    """Returns the examples of all clients as one set.

    The pooled test clients are the usual global test set of natural partitions.

    Args:
      data: a population; ``None`` gives ``None``.

    Example:
      >>> import numpy as np
      >>> import fedjax_sim as fs
      >>> len(fs.data.pool(fs.data.population(np.zeros((5, 2)), np.zeros(5), [0, 2, 5])))
      5
    """
    return None if data is None else Examples(data.x, data.y)


def describe(data: Population) -> dict[str, Any]:
    """Returns plain facts about a population.

    Args:
      data: the population.

    Returns:
      ``clients``, ``examples``, and ``size`` (examples of a client) as ``min``, ``p10``,
      ``median``, ``p90``, ``max`` and ``mean``.

    Example:
      >>> import numpy as np
      >>> import fedjax_sim as fs
      >>> facts = fs.data.describe(fs.data.population(np.zeros(5), np.zeros(5), [0, 2, 5]))
      >>> facts["clients"], facts["examples"], facts["size"]["median"]
      (2, 5, 2.5)
    """
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


def share(name: str, value: float) -> None:
    """Requires ``0 <= value < 1``, so that a rest remains.

    Args:
      name: the setting's name, for the error.
      value: the value to check.

    Raises:
      FedError: if the value is not in that range.
    """
    require(
        0 <= value < 1,
        f"{name} is a share and must lie in [0, 1)",
        got=value,
        fix=f"give {name} a value such as 0.2",
        setting=name,
    )


def kind(data: Population | Examples) -> str:
    """Returns structure, shape and dtype of one example as text.

    The texts of two data sets are equal if and only if both can be in one federation.
    """
    return str(jax.tree.map(lambda leaf: f"{leaf.dtype}{list(leaf.shape[1:])}", (data.x, data.y)))


def _select(data: Population, chosen: np.ndarray) -> Population:
    counts = np.add.reduceat(chosen, data.offsets[:-1], dtype=np.int64)
    x, y = _take((data.x, data.y), chosen)
    return population(x, y, np.cumsum([0, *counts]), data.names, empty=True)


def _take(tree: PyTree, chosen: np.ndarray) -> PyTree:
    return jax.tree.map(lambda leaf: np.asarray(leaf)[chosen], tree)
