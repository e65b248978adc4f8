"""Label skew by class: every class is divided over all clients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import numpy as np

from fedjax_sim.core.errors import fail, lookup
from fedjax_sim.data.partition.parts import (
    Parts,
    assign_classes,
    brief,
    check_clients,
    check_whole,
    dirichlet_alphas,
    generator,
    rows_by_value,
    shuffled,
)

Balance = Literal["never", "above", "at"]

MAY_GET = {
    "never": lambda held, fair: held >= 0,
    "above": lambda held, fair: held <= fair,
    "at": lambda held, fair: held < fair,
}
"""Clients that may get more rows. At least one client always may: until the last row is assigned,
some client holds fewer than n / N."""


def dirichlet(
    labels: Any,
    clients: int,
    *,
    alpha: float | tuple[float, ...] = 0.1,
    min_size: int = 1,
    balance: Balance = "never",
    tries: int = 100,
    seed: int = 0,
    shuffle_classes: bool = False,
    shuffle: bool = True,
) -> Parts:
    """Label skew: each class is divided in proportions drawn from Dirichlet(alpha).

    NIID-Bench's ``noniid-labeldir`` (and FedML's and PFNM's) with ``min_size=10, balance="at",
    shuffle_classes=True``; flwr-datasets' with ``min_size=10, tries=11`` and, where self-balancing,
    ``balance="above"``.

    Args:
      labels: ``[n]``, any dtype that sorts.
      clients: number of clients, N.
      alpha: concentration, one number for all clients or ``[N]``. Small is skewed: at 0.1 most
        clients hold two or three classes.
      min_size: the fewest examples a client may have.
      balance: clients that get no share of further classes, which the other clients divide in
        proportion to their shares: clients with more than n / N examples (``"above"``), clients
        with n / N or more (``"at"``), or none (``"never"``). A row lost in rounding goes to the
        last client in all cases.
      tries: draws before the partition fails.
      seed: of all draws; a draw that leaves a client with fewer than ``min_size`` examples is
        discarded, and the next draw continues the same random stream.
      shuffle_classes: shuffle a class's rows before they are divided, instead of taking them in the
        order of the data.
      shuffle: shuffle each client's rows at the end, instead of leaving them class after class.

    Returns:
      N arrays of row numbers, ``int64[n_i]``; every row is in one of them.

    Raises:
      FedError: if no draw gave every client ``min_size`` examples.

    Reference: Yurochkin et al., arXiv 1905.12022, section 4; Li et al., arXiv 2102.02079, section
    IV.

    Example:
      >>> import fedjax_sim as fs
      >>> labels = [0, 1, 2, 3] * 25
      >>> parts = fs.data.dirichlet(labels, 5, alpha=0.3, min_size=5)
      >>> len(parts), sum(map(len, parts)), min(map(len, parts)) >= 5
      (5, 100, True)
    """
    _, rows = rows_by_value(labels)
    n = len(labels)
    check_whole("min_size", min_size, zero=True)
    check_clients(n, clients, min_size)
    check_whole("tries", tries)
    may_get = lookup("balance", balance, MAY_GET)
    alphas = dirichlet_alphas(alpha, clients, "client")
    rng = generator(seed)
    for _ in range(tries):
        pieces, counts = _draw(
            rng, rows, alphas, lambda held: may_get(held, n / clients), shuffle_classes
        )
        if counts.sum(axis=0).min() >= min_size:
            return shuffled(rng, assign_classes(pieces, counts), shuffle)
    fail(
        f"no Dirichlet({brief(alpha)}) partition of {n} examples left every client "
        f"{min_size} or more",
        got=f"{tries} draws for {clients} clients",
        fix="raise alpha, or lower clients or min_size",
        setting="alpha",
    )


def _draw(
    rng: np.random.Generator,
    rows: Parts,
    alphas: np.ndarray,
    may_get: Callable[[np.ndarray], np.ndarray],
    shuffle_classes: bool,
) -> tuple[Parts, np.ndarray]:
    """Draws once.

    Args:
      rng: source of all draws.
      rows: the rows of each class.
      alphas: ``float64[N]``.
      may_get: ``int64[N] -> bool[N]``, from the examples that clients hold to whether they may get
        more.
      shuffle_classes: shuffle each class's rows first.

    Returns:
      The rows of each class, and ``int64[classes, N]``, how many of them each client gets.
    """
    counts = np.zeros((len(rows), len(alphas)), np.int64)
    held = np.zeros(len(alphas), np.int64)
    pieces = []
    for k, class_rows in enumerate(rows):
        pieces.append(rng.permutation(class_rows) if shuffle_classes else class_rows)
        share = _shares(rng, alphas, may_get(held))
        cuts = (np.cumsum(share) * len(class_rows)).astype(np.int64)[:-1]
        counts[k] = np.diff(cuts, prepend=0, append=len(class_rows))
        held += counts[k]
    return pieces, counts


def _shares(rng: np.random.Generator, alphas: np.ndarray, may_get: np.ndarray) -> np.ndarray:
    share = np.where(may_get, rng.dirichlet(alphas), 0.0)
    # Summed left to right: a pairwise or compensated sum sometimes moves a cut by one row.
    total = np.cumsum(share)[-1]
    if total > 0:
        return share / total
    # At a tiny alpha all of the draw can fall on clients that may not get more. Renormalised
    # Dirichlet shares are distributed as a new draw over the remaining clients.
    share[may_get] = rng.dirichlet(alphas[may_get])
    return share
