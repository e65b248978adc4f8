"""Label skew by client: every client has shares of the classes and draws examples one by one."""

from __future__ import annotations

from bisect import bisect_right
from typing import Any

import numpy as np

from fedjax_sim.data.partition.parts import (
    Parts,
    check_clients,
    check_whole,
    dirichlet_alphas,
    generator,
    rows_by_owner,
    rows_by_value,
    shuffled,
)
from fedjax_sim.data.partition.quantity import checked_sizes

MIN_BLOCK = 256
"""Fewest draws that :func:`hsu_dirichlet` makes at once."""
MAX_BLOCK = 65_536
"""Most draws that :func:`hsu_dirichlet` makes at once."""


def inner_dirichlet(
    labels: Any,
    clients: int | None = None,
    *,
    alpha: float | tuple[float, ...] = 0.5,
    sizes: tuple[int, ...] | None = None,
    seed: int = 0,
    shuffle: bool = True,
) -> Parts:
    """Label skew with given sizes: a client's class shares are drawn from Dirichlet(alpha).

    Then random clients that do not yet have their size draw one example each, of a class drawn by
    their shares. A class without remaining examples is removed from all shares, which are
    renormalised.

    Args:
      labels: ``[n]``, any dtype that sorts.
      clients: number of clients, N; may be left out where sizes are given.
      alpha: concentration, one number for all classes or ``[classes]``.
      sizes: examples of each client, ``[N]``; remaining rows are left out. Without it, all examples
        in sizes that differ by at most one; then the last draws have few classes left.
      seed: of all draws.
      shuffle: shuffle each client's rows at the end, instead of leaving the first row drawn last.

    Returns:
      N arrays of row numbers, ``int64[n_i]``.

    Raises:
      FedError: if the sizes need more examples than there are.

    Example:
      >>> import fedjax_sim as fs
      >>> parts = fs.data.inner_dirichlet([0, 1, 2] * 10, alpha=0.5, sizes=(12, 6, 3))
      >>> [len(part) for part in parts]
      [12, 6, 3]
    """
    kinds, rows = rows_by_value(labels)
    client_sizes = checked_sizes(len(labels), clients, sizes)
    alphas = dirichlet_alphas(alpha, len(kinds), "class")
    rng = generator(seed)
    shares = rng.dirichlet(alphas, size=len(client_sizes))
    drawers, classes = _draw_one_by_one(
        rng, shares, alphas, client_sizes.tolist(), [len(pool) for pool in rows]
    )
    drawn = _rows_of_draws([pool[::-1] for pool in rows], classes)
    return shuffled(rng, rows_by_owner(drawn[::-1], drawers[::-1], len(client_sizes)), shuffle)


def hsu_dirichlet(
    labels: Any,
    clients: int,
    *,
    alpha: float = 1.0,
    size: int | None = None,
    seed: int = 0,
    shuffle: bool = True,
) -> Parts:
    """Label skew with equal sizes: a client's class shares are drawn from Dirichlet(alpha * prior).

    The prior is the frequency of each class in the data, so that with 10 balanced classes alpha = 1
    is a concentration of 0.1 for each class. The clients draw one example each in turn, in a new
    order in each pass; a class without remaining examples is removed from all shares, which are
    renormalised. Remaining rows are left out.

    Args:
      labels: ``[n]``, any dtype that sorts.
      clients: number of clients, N.
      alpha: total concentration; the published values run from 0 (here a tiny number) to 1000.
      size: examples of each client; n / N rounded down by default.
      seed: of all draws.
      shuffle: shuffle each client's rows at the end, instead of leaving them in the order drawn.

    Returns:
      N arrays of row numbers, ``int64[size]``.

    Raises:
      FedError: if the clients need more examples than there are.

    Reference: Hsu, Qi and Brown, "Measuring the Effects of Non-Identical Data Distribution for
    Federated Visual Classification", arXiv 1909.06335, section 3; in turns as in
    google-research/federated.

    Example:
      >>> import fedjax_sim as fs
      >>> parts = fs.data.hsu_dirichlet([0, 1, 2] * 10, 4, alpha=1.0)
      >>> [len(part) for part in parts]
      [7, 7, 7, 7]
    """
    kinds, rows = rows_by_value(labels)
    n = len(labels)
    if size is not None:
        check_whole("size", size)
    check_clients(n, clients, size or 1)
    size = size or n // clients
    counts = np.array([len(pool) for pool in rows])
    rng = generator(seed)
    alphas = dirichlet_alphas(alpha, len(kinds), "class") * counts / n
    alphas = np.maximum(alphas, np.finfo(np.float64).tiny)
    shares = rng.dirichlet(alphas, size=clients)
    drawers = rng.permuted(np.tile(np.arange(clients), (size, 1)), axis=1).ravel()
    classes = _draw_in_turns(rng, shares, alphas, drawers, counts)
    drawn = _rows_of_draws([rng.permutation(pool) for pool in rows], classes)
    return shuffled(rng, rows_by_owner(drawn, drawers, clients), shuffle)


def _rows_of_draws(rows: Parts, classes: np.ndarray) -> np.ndarray:
    """Returns the row of each draw: the first row of its class that no earlier draw has.

    Args:
      rows: the rows of each class.
      classes: ``int64[draws]``, the class of each draw.
    """
    counts = np.bincount(classes, minlength=len(rows))
    drawn = np.empty(len(classes), np.int64)
    drawn[np.argsort(classes, kind="stable")] = np.concatenate(
        [pool[:k] for pool, k in zip(rows, counts, strict=True)]
    )
    return drawn


def _draw_one_by_one(
    rng: np.random.Generator,
    shares: np.ndarray,
    alphas: np.ndarray,
    needed: list[int],
    left: list[int],
) -> tuple[np.ndarray, np.ndarray]:
    """Draws until every client has its size; scalar draws, as each depends on the draws before.

    Args:
      rng: source of all draws.
      shares: ``float64[N, classes]``.
      alphas: ``float64[classes]``.
      needed: examples that each client still needs; changed in place.
      left: remaining examples of each class; changed in place.

    Returns:
      The client of each draw, and its class, both ``int64[draws]``.
    """
    total = sum(needed)
    unfilled = list(range(len(needed)))
    drawers: list[int] = []
    classes: list[int] = []
    ladders: dict[int, list[float]] = {}
    while len(drawers) < total:
        slot = int(rng.integers(len(unfilled)))
        client = unfilled[slot]
        if not needed[client]:  # removed when it is drawn again, as in flwr-datasets
            del unfilled[slot]
            continue
        needed[client] -= 1
        while True:
            if client not in ladders:
                ladders[client] = _ladder(shares[client]).tolist()
            kind = bisect_right(ladders[client], rng.random())
            if left[kind]:
                break
            shares = _without(rng, shares, alphas, kind, np.array(left) > 0)
            ladders.clear()
        left[kind] -= 1
        drawers.append(client)
        classes.append(kind)
    return np.array(drawers), np.array(classes)


def _draw_in_turns(
    rng: np.random.Generator,
    shares: np.ndarray,
    alphas: np.ndarray,
    drawers: np.ndarray,
    counts: np.ndarray,
) -> np.ndarray:
    """Draws in blocks; draws after a class is used up are repeated without that class.

    Args:
      rng: source of all draws.
      shares: ``float64[N, classes]``.
      alphas: ``float64[classes]``.
      drawers: ``int64[draws]``, the client of each draw.
      counts: ``int64[classes]``, examples of each class.

    Returns:
      The class of each draw, ``int64[draws]``.
    """
    classes = np.empty(len(drawers), np.int64)
    left = counts.copy()
    start = 0
    block = MAX_BLOCK
    ladders = _ladder(shares)
    while start < len(drawers):
        drawn = _draw_by_share(rng, ladders, drawers[start : start + block])
        used = _until_used_up(drawn, left)
        classes[start : start + used] = drawn[:used]
        left -= np.bincount(drawn[:used], minlength=len(left))
        start += used
        last = drawn[used - 1]
        if not left[last] and start < len(drawers):
            shares = _without(rng, shares, alphas, last, left > 0)
            ladders = _ladder(shares)
        block = min(max(2 * used, MIN_BLOCK), MAX_BLOCK)
    return classes


def _draw_by_share(
    rng: np.random.Generator, ladders: np.ndarray, drawers: np.ndarray
) -> np.ndarray:
    """Draws a class for each drawer by bisection in its cumulated shares."""
    height = rng.random(len(drawers))
    low = np.zeros(len(drawers), np.int64)
    high = np.full(len(drawers), ladders.shape[1] - 1)
    for _ in range(int(ladders.shape[1]).bit_length()):
        middle = (low + high) // 2
        above = ladders[drawers, middle] <= height
        low = np.where(above, np.minimum(middle + 1, high), low)
        high = np.where(above, high, middle)
    return low


def _until_used_up(drawn: np.ndarray, left: np.ndarray) -> int:
    """Counts the draws up to the first one that takes the last row of a class."""
    order = np.argsort(drawn, kind="stable")
    counts = np.bincount(drawn, minlength=len(left))
    emptied = np.flatnonzero(counts >= left)
    emptied = emptied[left[emptied] > 0]
    takers = order[(np.cumsum(counts) - counts + left - 1)[emptied]]
    return int(takers.min(initial=len(drawn) - 1)) + 1


def _ladder(shares: np.ndarray) -> np.ndarray:
    """Cumulates shares so that they end at exactly 1."""
    steps = np.cumsum(shares, axis=-1)
    return steps / steps[..., -1:]


def _without(
    rng: np.random.Generator, shares: np.ndarray, alphas: np.ndarray, kind: int, left: np.ndarray
) -> np.ndarray:
    """Returns renormalised shares without one class.

    Args:
      rng: source of new shares, for clients whose share of all remaining classes is 0.
      shares: ``float64[N, classes]``.
      alphas: ``float64[classes]``.
      kind: the class to remove.
      left: ``bool[classes]``, the classes with remaining examples.
    """
    shares = shares.copy()
    shares[:, kind] = 0
    total = shares.sum(axis=1, keepdims=True)
    lost = np.flatnonzero(total[:, 0] <= 0)
    shares = shares / np.where(total > 0, total, 1.0)
    if len(lost):
        # At a tiny alpha these clients had shares of this class alone. Renormalised Dirichlet
        # shares are distributed as a new draw over the remaining classes.
        shares[lost] = 0
        shares[np.ix_(lost, left)] = rng.dirichlet(alphas[left], size=len(lost))
    return shares
