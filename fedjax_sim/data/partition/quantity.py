"""Partitions that look at no label: clients differ in how much they hold, and not in what."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

from fedjax_sim.core.errors import fail, lookup, require
from fedjax_sim.data.partition.parts import (
    Parts,
    agreed,
    brief,
    concentration,
    consecutive,
    count,
    enough,
    even,
    generator,
)

GROWTHS = {
    "linear": lambda i: i,
    "square": np.square,
    "exponential": lambda i: np.exp(np.minimum(i, 600)),
}
"""Where the bound keeps the numbers finite, the first client gets nothing with it or without it."""


def iid(labels: Any, clients: int, *, seed: int = 0, shuffle: bool = True) -> Parts:
    """Equal parts of a random permutation; sizes differ by one at most.

    Args:
      labels: anything with one entry per example; only its length matters.
      clients: N.
      seed: of the permutation.
      shuffle: without it, N contiguous blocks in the order of the data.

    Raises:
      FedError: where there are more clients than examples.
    """
    enough(len(labels), clients)
    return _cut(len(labels), even(len(labels), clients), generator(seed), shuffle)


def sized(
    labels: Any,
    clients: int | None = None,
    *,
    sizes: tuple[int, ...],
    seed: int = 0,
    shuffle: bool = True,
) -> Parts:
    """Parts of given sizes of a random permutation; the rows that are left belong to nobody.

    Args:
      labels: anything with one entry per example; only its length matters.
      clients: the number of sizes, or nothing.
      sizes: examples of each client.
      seed: of the permutation.
      shuffle: without it, contiguous blocks in the order of the data.

    Raises:
      FedError: where a size is below 1, or the sizes need more examples than there are.
    """
    _fit(len(labels), clients, sizes)
    return _cut(len(labels), sizes, generator(seed), shuffle)


def growing(
    labels: Any,
    clients: int,
    *,
    growth: Literal["linear", "square", "exponential"] = "linear",
    seed: int = 0,
    shuffle: bool = True,
) -> Parts:
    """Sizes that grow with the client's number i = 1..N, of a random permutation.

    Args:
      labels: anything with one entry per example; only its length matters.
      clients: N.
      growth: sizes in proportion to i, i squared or e to the i, rounded down; the last client gets what is left.
      seed: of the permutation.
      shuffle: without it, contiguous blocks in the order of the data.

    Raises:
      FedError: where the first client would get nothing.
    """
    n = len(labels)
    enough(n, clients)
    units = lookup("growth", growth, GROWTHS)(np.arange(1, clients + 1))
    sizes = (units / units.sum() * n).astype(np.int64)
    sizes[-1] += n - sizes.sum()
    what = f"with {growth} growth over {clients} clients the first one gets no example"
    require(
        sizes.min() > 0,
        what,
        got=f"{n} examples",
        fix="use fewer clients, more data or slower growth",
        setting="clients",
    )
    return _cut(n, sizes, generator(seed), shuffle)


def quantity_dirichlet(
    labels: Any,
    clients: int,
    *,
    alpha: float | tuple[float, ...] = 0.5,
    least: int = 1,
    min_size: int = 1,
    tries: int = 100,
    seed: int = 0,
    shuffle: bool = True,
) -> Parts:
    """Quantity skew: sizes in proportions drawn from Dirichlet(alpha), of a random permutation.

    NIID-Bench's ``iid-diff-quantity`` with ``least=0, min_size=10``.

    Args:
      labels: anything with one entry per example; only its length matters.
      clients: N.
      alpha: concentration, the same for all clients or one each; smaller is more unequal.
      least: examples that each client gets first; the proportions divide what is left. Among many clients somebody's proportion is
        almost nothing.
      min_size: the fewest examples a client may have; a draw that leaves somebody fewer is thrown away and the stream goes on.
      tries: draws before giving up.
      seed: of the permutation and the proportions.
      shuffle: without it, contiguous blocks in the order of the data.

    Raises:
      FedError: where no draw gave every client ``min_size`` examples.

    Reference: Li et al., "Federated Learning on Non-IID Data Silos", arXiv 2102.02079, section IV (quantity skew).
    """
    n = len(labels)
    for name, value in (("least", least), ("min_size", min_size)):
        count(name, value, zero=True)
    enough(n, clients, max(least, min_size))
    count("tries", tries)
    alphas, rng = concentration(alpha, clients, "client"), generator(seed)
    rows = rng.permutation(n) if shuffle else np.arange(n)
    for _ in range(tries):
        shares, free = rng.dirichlet(alphas), n - least * clients
        if least + shares.min() * free >= min_size:
            ends = (np.cumsum(shares) * free).astype(np.int64) + least * np.arange(1, clients + 1)
            return np.split(rows, ends[:-1])
    what = (
        f"no Dirichlet({brief(alpha)}) sizes of {n} examples left every client {min_size} or more"
    )
    fail(
        what,
        got=f"{tries} draws for {clients} clients",
        fix="raise alpha, or lower clients or min_size",
        setting="alpha",
    )


def fitted(n: int, clients: int | None, sizes: tuple[int, ...] | None) -> np.ndarray:
    """The given sizes, checked; or all examples shared out evenly."""
    if sizes is None:
        return even(n, enough(n, clients))
    _fit(n, clients, sizes)
    return np.asarray(sizes, np.int64)


def _fit(n: int, clients: int | None, sizes: tuple[int, ...]) -> None:
    given = np.asarray(sizes)
    whole = (
        given.ndim == 1
        and given.size > 0
        and np.issubdtype(given.dtype, np.integer)
        and bool(np.all(given > 0))
    )
    got = brief(given) if given.size and given.dtype.kind in "if" else "none"
    require(
        whole,
        "sizes must be whole numbers above 0, one for each client",
        got=got,
        fix="give sizes a value such as [100, 200]",
        setting="sizes",
    )
    agreed(clients, len(given), f"{len(given)} sizes")
    what = f"{len(given)} sizes that add up to {given.sum()} need as many examples"
    require(given.sum() <= n, what, got=n, fix="lower the sizes or use more data", setting="sizes")


def _cut(n: int, sizes: Any, rng: np.random.Generator, shuffle: bool) -> Parts:
    return consecutive(rng.permutation(n) if shuffle else np.arange(n), sizes)
