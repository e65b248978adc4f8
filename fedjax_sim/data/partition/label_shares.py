"""Label skew by class: every class is shared out over all clients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import numpy as np

from fedjax_sim.core.errors import fail, lookup
from fedjax_sim.data.partition.parts import (
    Parts,
    brief,
    concentration,
    count,
    dealt,
    enough,
    generator,
    mixed,
    pools,
)

Balance = Literal["never", "above", "at"]

MAY_GET = {
    "never": lambda held, fair: held >= 0,
    "above": lambda held, fair: held <= fair,
    "at": lambda held, fair: held < fair,
}
"""Who may get more; somebody always may, for before the last row is dealt not everybody can hold a fair part."""


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
    """Label skew: each class is cut over the clients in proportions drawn from Dirichlet(alpha).

    NIID-Bench's ``noniid-labeldir`` (and FedML's and PFNM's) with ``min_size=10, balance="at", shuffle_classes=True``; flwr-datasets'
    with ``min_size=10, tries=11`` and, where self-balancing, ``balance="above"``.

    Args:
      labels: ``[n]``, any dtype that sorts.
      clients: N.
      alpha: concentration, the same for all clients or one each. Small is skewed: at 0.1 most clients hold two or three classes.
      min_size: the fewest examples a client may have.
      balance: who gets no further class, and leaves it to the others in proportion to their shares: clients that hold more
        than n / N examples (``"above"``), clients that hold n / N or more (``"at"``), or nobody (``"never"``). A row lost in rounding
        goes to the last client all the same.
      tries: draws before giving up.
      seed: of all draws; a draw that leaves somebody under ``min_size`` is thrown away and the stream goes on.
      shuffle_classes: mix a class's rows before it is cut, instead of dealing them in the order of the data.
      shuffle: mix each client's rows at the end, instead of class after class.

    Raises:
      FedError: where no draw gave every client ``min_size`` examples.

    Reference: Yurochkin et al., arXiv 1905.12022, section 4; Li et al., arXiv 2102.02079, section IV.
    """
    (_, rows), n = pools(labels), len(labels)
    count("min_size", min_size, zero=True)
    enough(n, clients, min_size)
    count("tries", tries)
    may_get = lookup("balance", balance, MAY_GET)
    alphas, rng = concentration(alpha, clients, "client"), generator(seed)
    for _ in range(tries):
        pieces, counts = _draw(
            rng, rows, alphas, lambda held: may_get(held, n / clients), shuffle_classes
        )
        if counts.sum(axis=0).min() >= min_size:
            return mixed(rng, dealt(pieces, counts), shuffle)
    what = f"no Dirichlet({brief(alpha)}) partition of {n} examples left every client {min_size} or more"
    fail(
        what,
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
    """One draw: each class's rows, and ``int64[classes, N]`` how many of them go to whom."""
    counts = np.zeros((len(rows), len(alphas)), np.int64)
    held = np.zeros(len(alphas), np.int64)
    pieces = []
    for k, pool in enumerate(rows):
        pieces.append(rng.permutation(pool) if shuffle_classes else pool)
        share = _shares(rng, alphas, may_get(held))
        cuts = (np.cumsum(share) * len(pool)).astype(np.int64)[:-1]
        counts[k] = np.diff(cuts, prepend=0, append=len(pool))
        held += counts[k]
    return pieces, counts


def _shares(rng: np.random.Generator, alphas: np.ndarray, may: np.ndarray) -> np.ndarray:
    """Dirichlet proportions of those who may get some."""
    share = np.where(may, rng.dirichlet(alphas), 0.0)
    total = np.cumsum(share)[
        -1
    ]  # left to right: a pairwise or compensated sum moves a cut by one now and then
    if total > 0:
        return share / total
    share[may] = rng.dirichlet(
        alphas[may]
    )  # tiny alpha: all went to those who may not. Renormalised shares have this very law
    return share
