"""Label skew by client: every client has shares of the classes, and draws its examples one by one until it has its number."""

from __future__ import annotations

from bisect import bisect_right
from typing import Any

import numpy as np

from fedjax_sim.data.partition.parts import (
    Parts,
    collected,
    concentration,
    count,
    enough,
    generator,
    mixed,
    pools,
)
from fedjax_sim.data.partition.quantity import fitted

FEWEST, MOST = 256, 65_536
"""Draws that are made at once, in :func:`hsu_dirichlet`."""


def inner_dirichlet(
    labels: Any,
    clients: int | None = None,
    *,
    alpha: float | tuple[float, ...] = 0.5,
    sizes: tuple[int, ...] | None = None,
    seed: int = 0,
    shuffle: bool = True,
) -> Parts:
    """Label skew with known sizes: a client's shares of the classes are drawn from Dirichlet(alpha) over the classes.

    Then random clients that are not full draw one example each, of a class by their shares. A class found used up is taken from
    all shares, which are renormalised.

    Args:
      labels: ``[n]``, any dtype that sorts.
      clients: N; may be left away where sizes are given.
      alpha: concentration, the same for all classes or one each.
      sizes: examples of each client, and what is left belongs to nobody. Without them, all examples in sizes that differ by one at
        most; then the last draws have little choice.
      seed: of all draws.
      shuffle: mix each client's rows at the end, instead of leaving the first one drawn at the end.

    Raises:
      FedError: where the sizes need more examples than there are.
    """
    kinds, rows = pools(labels)
    wanted = fitted(len(labels), clients, sizes)
    alphas, rng = concentration(alpha, len(kinds), "class"), generator(seed)
    shares = rng.dirichlet(alphas, size=len(wanted))
    who, what = _one_by_one(rng, shares, alphas, wanted.tolist(), [len(pool) for pool in rows])
    drawn = _taken([pool[::-1] for pool in rows], what)
    return mixed(rng, collected(drawn[::-1], who[::-1], len(wanted)), shuffle)


def hsu_dirichlet(
    labels: Any,
    clients: int,
    *,
    alpha: float = 1.0,
    size: int | None = None,
    seed: int = 0,
    shuffle: bool = True,
) -> Parts:
    """Label skew with equal sizes: a client's shares of the classes are drawn from Dirichlet(alpha * prior).

    The prior is the classes' frequencies in the data: it is multiplied by alpha, so that with 10 balanced classes alpha = 1 is a
    concentration of 0.1 for each class. The clients draw one example each in turn, every round in a new order; a class that is used up
    is taken from all shares at once, which are renormalised. The rows that are left belong to nobody.

    Args:
      labels: ``[n]``, any dtype that sorts.
      clients: N.
      alpha: concentration in all; the published ones run from 0 (here a tiny number) to 1000.
      size: examples of each client; n / N rounded down if not given.
      seed: of all draws.
      shuffle: mix each client's rows at the end, instead of leaving them as drawn.

    Raises:
      FedError: where the clients need more examples than there are.

    Reference: Hsu, Qi and Brown, "Measuring the Effects of Non-Identical Data Distribution for Federated Visual Classification",
    arXiv 1909.06335, section 3; in turns as in google-research/federated.
    """
    (kinds, rows), n = pools(labels), len(labels)
    if size is not None:
        count("size", size)
    enough(n, clients, size or 1)
    size = size or n // clients
    counts = np.array([len(pool) for pool in rows])
    rng = generator(seed)
    alphas = np.maximum(
        concentration(alpha, len(kinds), "class") * counts / n, np.finfo(np.float64).tiny
    )
    shares = rng.dirichlet(alphas, size=clients)
    who = rng.permuted(np.tile(np.arange(clients), (size, 1)), axis=1).ravel()
    what = _in_turns(rng, shares, alphas, who, counts)
    drawn = _taken([rng.permutation(pool) for pool in rows], what)
    return mixed(rng, collected(drawn, who, clients), shuffle)


def _taken(rows: Parts, what: np.ndarray) -> np.ndarray:
    """The row of each draw of a class: the first one not taken yet."""
    counts = np.bincount(what, minlength=len(rows))
    drawn = np.empty(len(what), np.int64)
    drawn[np.argsort(what, kind="stable")] = np.concatenate(
        [pool[:k] for pool, k in zip(rows, counts, strict=True)]
    )
    return drawn


def _one_by_one(
    rng: np.random.Generator,
    shares: np.ndarray,
    alphas: np.ndarray,
    need: list[int],
    left: list[int],
) -> tuple[np.ndarray, np.ndarray]:
    """Who drew, and a row of which class. Scalar draws, because each one's range hangs on those before."""
    total, unfilled = sum(need), list(range(len(need)))
    who, what = [], []
    ladders: dict[int, list[float]] = {}
    while len(who) < total:
        slot = int(rng.integers(len(unfilled)))
        client = unfilled[slot]
        if not need[client]:  # noticed only when it is drawn again, as in flwr-datasets
            del unfilled[slot]
            continue
        need[client] -= 1
        while True:
            if client not in ladders:
                ladders[client] = _ladder(shares[client]).tolist()
            kind = bisect_right(ladders[client], rng.random())
            if left[kind]:
                break
            shares = _without(rng, shares, alphas, kind, np.array(left) > 0)
            ladders.clear()
        left[kind] -= 1
        who.append(client)
        what.append(kind)
    return np.array(who), np.array(what)


def _in_turns(
    rng: np.random.Generator,
    shares: np.ndarray,
    alphas: np.ndarray,
    who: np.ndarray,
    counts: np.ndarray,
) -> np.ndarray:
    """The class that each one draws. Many draw at once; what they drew after a class was used up is drawn again without it."""
    what, left, at, block = np.empty(len(who), np.int64), counts.copy(), 0, MOST
    ladders = _ladder(shares)
    while at < len(who):
        drawn = _by_share(rng, ladders, who[at : at + block])
        used = _until_used_up(drawn, left)
        what[at : at + used] = drawn[:used]
        left -= np.bincount(drawn[:used], minlength=len(left))
        at += used
        last = drawn[used - 1]
        if not left[last] and at < len(who):
            shares = _without(rng, shares, alphas, last, left > 0)
            ladders = _ladder(shares)
        block = min(max(2 * used, FEWEST), MOST)
    return what


def _by_share(rng: np.random.Generator, ladders: np.ndarray, who: np.ndarray) -> np.ndarray:
    """A class for each of ``who``, by its shares: bisection in its ladder."""
    height = rng.random(len(who))
    low, high = np.zeros(len(who), np.int64), np.full(len(who), ladders.shape[1] - 1)
    for _ in range(int(ladders.shape[1]).bit_length()):
        middle = (low + high) // 2
        above = ladders[who, middle] <= height
        low, high = (
            np.where(above, np.minimum(middle + 1, high), low),
            np.where(above, high, middle),
        )
    return low


def _until_used_up(drawn: np.ndarray, left: np.ndarray) -> int:
    """How many draws there are up to the first one that takes the last row of a class."""
    order = np.argsort(drawn, kind="stable")
    counts = np.bincount(drawn, minlength=len(left))
    emptied = np.flatnonzero(counts >= left)
    emptied = emptied[left[emptied] > 0]
    takers = order[(np.cumsum(counts) - counts + left - 1)[emptied]]
    return int(takers.min(initial=len(drawn) - 1)) + 1


def _ladder(shares: np.ndarray) -> np.ndarray:
    """Cumulated shares that end at exactly 1."""
    steps = np.cumsum(shares, axis=-1)
    return steps / steps[..., -1:]


def _without(
    rng: np.random.Generator, shares: np.ndarray, alphas: np.ndarray, kind: int, left: np.ndarray
) -> np.ndarray:
    """Renormalised shares without a class that is used up."""
    shares = shares.copy()
    shares[:, kind] = 0
    total = shares.sum(axis=1, keepdims=True)
    lost = np.flatnonzero(total[:, 0] <= 0)
    shares = shares / np.where(total > 0, total, 1.0)
    if len(
        lost
    ):  # tiny alpha: they had nothing else. Renormalised shares have the law of new ones over what is left
        shares[lost] = 0
        shares[np.ix_(lost, left)] = rng.dirichlet(alphas[left], size=len(lost))
    return shares
