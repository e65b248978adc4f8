"""Partitions that do not depend on labels: clients differ in how many examples they hold."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

from fedjax_sim.core.errors import fail, lookup, require
from fedjax_sim.data.partition.parts import (
    Parts,
    brief,
    check_clients,
    check_same_clients,
    check_whole,
    consecutive,
    dirichlet_alphas,
    even_sizes,
    generator,
)

GROWTHS = {
    "linear": lambda i: i,
    "square": np.square,
    "exponential": lambda i: np.exp(np.minimum(i, 600)),
}
"""Sizes in proportion to these values of i = 1..N. The bound of 600 keeps them finite; at such an N
the first client gets no example in any case."""


def iid(labels: Any, clients: int, *, seed: int = 0, shuffle: bool = True) -> Parts:
    """Equal parts of a random permutation; sizes differ by at most one.

    Args:
      labels: ``[n]``; only its length matters.
      clients: number of clients, N.
      seed: of the permutation.
      shuffle: permute; without it, N contiguous blocks in the order of the data.

    Returns:
      N arrays of row numbers, ``int64[n_i]``; every row is in one of them.

    Raises:
      FedError: if there are more clients than examples.

    Example:
      >>> import fedjax_sim as fs
      >>> [part.tolist() for part in fs.data.iid([0] * 7, 3, shuffle=False)]
      [[0, 1, 2], [3, 4], [5, 6]]
    """
    check_clients(len(labels), clients)
    return _cut(len(labels), even_sizes(len(labels), clients), generator(seed), shuffle)


def sized(
    labels: Any,
    clients: int | None = None,
    *,
    sizes: tuple[int, ...],
    seed: int = 0,
    shuffle: bool = True,
) -> Parts:
    """Parts of given sizes of a random permutation; remaining rows are left out.

    Args:
      labels: ``[n]``; only its length matters.
      clients: number of clients, N, the number of sizes; may be left out.
      sizes: examples of each client, ``[N]``.
      seed: of the permutation.
      shuffle: permute; without it, contiguous blocks in the order of the data.

    Returns:
      N arrays of row numbers, ``int64[sizes[i]]``.

    Raises:
      FedError: if a size is below 1, or the sizes need more examples than there are.

    Example:
      >>> import fedjax_sim as fs
      >>> [part.tolist() for part in fs.data.sized([0] * 7, sizes=(3, 1), shuffle=False)]
      [[0, 1, 2], [3]]
    """
    _check_sizes(len(labels), clients, sizes)
    return _cut(len(labels), sizes, generator(seed), shuffle)


def growing(
    labels: Any,
    clients: int,
    *,
    growth: Literal["linear", "square", "exponential"] = "linear",
    seed: int = 0,
    shuffle: bool = True,
) -> Parts:
    """Parts of a random permutation, of sizes that grow with the client's number i = 1..N.

    Args:
      labels: ``[n]``; only its length matters.
      clients: number of clients, N.
      growth: sizes in proportion to i, i squared or e to the i, rounded down; the last client also
        gets the rows lost in rounding.
      seed: of the permutation.
      shuffle: permute; without it, contiguous blocks in the order of the data.

    Returns:
      N arrays of row numbers, ``int64[n_i]``; every row is in one of them.

    Raises:
      FedError: if the first client would get no example.

    Example:
      >>> import fedjax_sim as fs
      >>> [len(part) for part in fs.data.growing([0] * 60, 3, growth="linear")]
      [10, 20, 30]
    """
    n = len(labels)
    check_clients(n, clients)
    units = lookup("growth", growth, GROWTHS)(np.arange(1, clients + 1))
    sizes = (units / units.sum() * n).astype(np.int64)
    sizes[-1] += n - sizes.sum()
    require(
        sizes.min() > 0,
        f"with {growth} growth over {clients} clients the first one gets no example",
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
    """Quantity skew: parts of a random permutation, of sizes drawn from Dirichlet(alpha).

    NIID-Bench's ``iid-diff-quantity`` with ``least=0, min_size=10``.

    Args:
      labels: ``[n]``; only its length matters.
      clients: number of clients, N.
      alpha: concentration, one number for all clients or ``[N]``; smaller is more unequal.
      least: examples that each client gets first; the proportions divide the remaining examples.
        With many clients the smallest proportion is almost 0.
      min_size: the fewest examples a client may have; a draw that leaves a client with fewer is
        discarded, and the next draw continues the same random stream.
      tries: draws before the partition fails.
      seed: of the permutation and the proportions.
      shuffle: permute; without it, contiguous blocks in the order of the data.

    Returns:
      N arrays of row numbers, ``int64[n_i]``; every row is in one of them.

    Raises:
      FedError: if no draw gave every client ``min_size`` examples.

    Reference: Li et al., "Federated Learning on Non-IID Data Silos", arXiv 2102.02079, section IV
    (quantity skew).

    Example:
      >>> import fedjax_sim as fs
      >>> parts = fs.data.quantity_dirichlet([0] * 100, 4, alpha=0.5, least=5)
      >>> sum(map(len, parts)), min(map(len, parts)) >= 5
      (100, True)
    """
    n = len(labels)
    check_whole("least", least, zero=True)
    check_whole("min_size", min_size, zero=True)
    check_clients(n, clients, max(least, min_size))
    check_whole("tries", tries)
    alphas = dirichlet_alphas(alpha, clients, "client")
    rng = generator(seed)
    rows = rng.permutation(n) if shuffle else np.arange(n)
    free = n - least * clients
    for _ in range(tries):
        shares = rng.dirichlet(alphas)
        if least + shares.min() * free >= min_size:
            ends = (np.cumsum(shares) * free).astype(np.int64) + least * np.arange(1, clients + 1)
            return np.split(rows, ends[:-1])
    fail(
        f"no Dirichlet({brief(alpha)}) sizes of {n} examples left every client {min_size} or more",
        got=f"{tries} draws for {clients} clients",
        fix="raise alpha, or lower clients or min_size",
        setting="alpha",
    )


def checked_sizes(n: int, clients: int | None, sizes: tuple[int, ...] | None) -> np.ndarray:
    """Returns the sizes of all clients, ``int64[N]``.

    Args:
      n: number of examples.
      clients: number of clients, N; ``None`` if sizes are given.
      sizes: examples of each client; ``None`` divides all examples evenly.

    Raises:
      FedError: if a size is below 1, or the sizes need more examples than there are.
    """
    if sizes is None:
        return even_sizes(n, check_clients(n, clients))
    _check_sizes(n, clients, sizes)
    return np.asarray(sizes, np.int64)


def _check_sizes(n: int, clients: int | None, sizes: tuple[int, ...]) -> None:
    array = np.asarray(sizes)
    whole = array.ndim == 1 and array.size > 0 and np.issubdtype(array.dtype, np.integer)
    require(
        whole and bool(np.all(array > 0)),
        "sizes must be whole numbers above 0, one for each client",
        got=brief(array) if array.size and array.dtype.kind in "if" else "none",
        fix="give sizes a value such as [100, 200]",
        setting="sizes",
    )
    check_same_clients(clients, len(array), f"{len(array)} sizes")
    require(
        array.sum() <= n,
        f"{len(array)} sizes that add up to {array.sum()} need as many examples",
        got=n,
        fix="lower the sizes or use more data",
        setting="sizes",
    )


def _cut(n: int, sizes: Any, rng: np.random.Generator, shuffle: bool) -> Parts:
    return consecutive(rng.permutation(n) if shuffle else np.arange(n), sizes)
