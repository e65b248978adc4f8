"""Label skew by number: every client holds a given number of classes."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

from fedjax_sim.core.errors import lookup, not_negative, require
from fedjax_sim.data.partition.parts import (
    Parts,
    assign_classes,
    check_clients,
    check_whole,
    consecutive,
    even_sizes,
    float_array,
    generator,
    rows_by_value,
    shuffled,
)

Mode = Literal["random", "deterministic", "first-deterministic"]


def pathological(
    labels: Any,
    clients: int,
    *,
    classes_per_client: int = 2,
    mode: Mode = "first-deterministic",
    seed: int = 0,
    shuffle_classes: bool = False,
    shuffle: bool = True,
) -> Parts:
    """Every client holds exactly k classes; each class is divided evenly over its holders.

    NIID-Bench's ``noniid-#labelk`` with ``classes_per_client=k, shuffle_classes=True``.

    Args:
      labels: ``[n]``, any dtype that sorts, C distinct ones.
      clients: number of clients, N.
      classes_per_client: k.
      mode: which classes client i gets. ``"deterministic"``: i, i + 1, ..., i + k - 1 modulo C.
        ``"first-deterministic"``: i modulo C and k - 1 random other classes. ``"random"``: k random
        classes. Rows of a class without a holder are left out; in the first two modes every class
        has one if N is C or more.
      seed: of all draws.
      shuffle_classes: shuffle a class's rows before they are divided, instead of taking them in the
        order of the data.
      shuffle: shuffle each client's rows at the end, instead of leaving them class after class.

    Returns:
      N arrays of row numbers, ``int64[n_i]``.

    Raises:
      FedError: if a class has fewer examples than holders, or there are fewer than k classes.

    Reference: Li et al., arXiv 2102.02079, section IV (quantity-based label imbalance).

    Example:
      >>> import fedjax_sim as fs
      >>> labels = [0, 1, 2, 3] * 6
      >>> parts = fs.data.pathological(labels, 4, classes_per_client=2, mode="deterministic")
      >>> [sorted({labels[row] for row in part}) for part in parts]
      [[0, 1], [1, 2], [2, 3], [0, 3]]
    """
    kinds, rows = rows_by_value(labels)
    check_clients(len(labels), clients)
    _check_classes(classes_per_client, len(kinds))
    rng = generator(seed)
    holds = _holds(rng, clients, len(kinds), classes_per_client, mode)
    counts = np.zeros((len(kinds), clients), np.int64)
    for k in np.flatnonzero(holds.any(axis=0)):
        holders = np.flatnonzero(holds[:, k])
        counts[k, holders] = even_sizes(len(rows[k]), len(holders))
        require(
            len(rows[k]) >= len(holders),
            "every client that holds a class needs an example of it",
            got=f"{len(rows[k])} examples of class {kinds[k]} for {len(holders)} clients",
            fix="use fewer clients or classes_per_client",
            setting="clients",
        )
    pieces = [rng.permutation(pool) for pool in rows] if shuffle_classes else rows
    used = [pool[:k] for pool, k in zip(pieces, counts.sum(axis=1), strict=True)]
    return shuffled(rng, assign_classes(used, counts), shuffle)


def distribution(
    labels: Any,
    clients: int,
    *,
    shares: tuple[tuple[float, ...], ...] | np.ndarray,
    classes_per_client: int = 2,
    least: int = 5,
    rescale: bool = True,
    seed: int = 0,
    shuffle: bool = True,
) -> Parts:
    """Client i holds the classes i, i + 1, ..., i + k - 1 modulo C, each in a given share.

    Args:
      labels: ``[n]``, any dtype that sorts, C distinct ones.
      clients: number of clients, N, a multiple of C.
      shares: ``[C, k * N / C]``, the shares of a class for its holders in the order of the clients.
      classes_per_client: k.
      least: examples of a class that each of its holders gets first; the shares divide the
        remaining examples of the class.
      rescale: the shares are proportions, and rows lost in rounding go to one random holder of the
        class. Without it they are numbers of examples, ``least`` is not used, and the remaining
        rows of a class are left out.
      seed: of the holders that get the rows lost in rounding, and of the order of a client's rows.
      shuffle: shuffle each client's rows at the end, instead of leaving them class after class.

    Returns:
      N arrays of row numbers, ``int64[n_i]``.

    Raises:
      FedError: if N is no multiple of C, the shares have another shape, or a class has too few
        examples.

    Example:
      >>> import fedjax_sim as fs
      >>> labels = [0, 1] * 20
      >>> parts = fs.data.distribution(
      ...     labels, 4, shares=((3, 1), (1, 1)), classes_per_client=1, least=0
      ... )
      >>> [len(part) for part in parts]
      [15, 10, 5, 10]
    """
    kinds, rows = rows_by_value(labels)
    columns = _holders_per_class(len(labels), clients, len(kinds), classes_per_client)
    table = float_array("shares", shares)
    require(
        table.shape == (len(kinds), columns)
        and bool(np.all(table >= 0) and np.all(np.isfinite(table))),
        f"shares must be [{len(kinds)}, {columns}] numbers from 0 on, "
        "one for each class and holder",
        got=f"{table.shape} from {table.min(initial=np.inf)} on",
        fix="change shares, clients or classes_per_client",
        setting="shares",
    )
    return _by_shares(
        generator(seed),
        rows,
        clients,
        table,
        classes_per_client,
        least if rescale else None,
        shuffle,
    )


def power_law(
    labels: Any,
    clients: int,
    *,
    classes_per_client: int = 2,
    least: int = 5,
    sigma: float = 2.0,
    seed: int = 0,
    shuffle: bool = True,
) -> Parts:
    """FedProx's MNIST: client i holds the classes i, ..., i + k - 1 modulo C, in lognormal shares.

    The shares are drawn from lognormal(0, sigma), which has a heavy tail. Rows lost in rounding go
    to one random holder of their class, where FedProx's script drops them.

    Args:
      labels: ``[n]``, any dtype that sorts, C distinct ones.
      clients: number of clients, N, a multiple of C; 1,000 in the paper.
      classes_per_client: k.
      least: examples of a class that each of its holders gets first; the shares divide the
        remaining examples of the class.
      sigma: standard deviation of the logarithm of the shares; 0 for equal shares.
      seed: of all draws.
      shuffle: shuffle each client's rows at the end, instead of leaving them class after class.

    Returns:
      N arrays of row numbers, ``int64[n_i]``; every row is in one of them.

    Raises:
      FedError: if N is no multiple of C, or a class has too few examples.

    Reference: Li et al., "Federated Optimization in Heterogeneous Networks", arXiv 1812.06127,
    appendix C.1.

    Example:
      >>> import fedjax_sim as fs
      >>> parts = fs.data.power_law([0, 1, 2] * 40, 6, classes_per_client=1, least=5)
      >>> sum(map(len, parts)), min(map(len, parts)) >= 5
      (120, True)
    """
    not_negative("sigma", sigma)
    kinds, rows = rows_by_value(labels)
    columns = _holders_per_class(len(labels), clients, len(kinds), classes_per_client)
    rng = generator(seed)
    logs = rng.normal(size=(len(kinds), columns))
    # Lognormal up to a factor of its row, which _share_counts divides out; finite for any sigma.
    shares = np.exp(sigma * (logs - logs.max(axis=1, keepdims=True)))
    return _by_shares(rng, rows, clients, shares, classes_per_client, least, shuffle)


def _holds(
    rng: np.random.Generator, clients: int, classes: int, per_client: int, mode: Mode
) -> np.ndarray:
    """Returns ``bool[N, C]``, whether a client holds a class."""
    draws = {
        "deterministic": lambda i: (i + np.arange(per_client)) % classes,
        "first-deterministic": lambda i: _with_others(rng, i % classes, classes, per_client),
        "random": lambda i: rng.choice(classes, per_client, replace=False),
    }
    draw = lookup("mode", mode, draws)
    holds = np.zeros((clients, classes), bool)
    for i in range(clients):
        holds[i, draw(i)] = True
    return holds


def _with_others(rng: np.random.Generator, first: int, classes: int, per_client: int) -> list[int]:
    """Draws classes until there are ``per_client`` distinct ones, the first one included.

    A draw gives a new class with probability 1 / C or more, so few draws are needed.
    """
    chosen = {first: None}
    while len(chosen) < per_client:
        chosen[int(rng.integers(classes))] = None
    return list(chosen)


def _check_classes(per_client: Any, classes: int) -> None:
    check_whole("classes_per_client", per_client)
    require(
        per_client <= classes,
        f"a client cannot hold {per_client} classes",
        got=f"{classes} in the labels",
        fix="lower classes_per_client",
        setting="classes_per_client",
    )


def _holders_per_class(n: int, clients: int, classes: int, per_client: int) -> int:
    check_clients(n, clients)
    _check_classes(per_client, classes)
    require(
        clients % classes == 0,
        f"clients must be a multiple of the {classes} classes",
        got=clients,
        fix=f"use {classes * 10}",
        setting="clients",
    )
    return per_client * clients // classes


def _by_shares(
    rng: np.random.Generator,
    rows: Parts,
    clients: int,
    shares: np.ndarray,
    per_client: int,
    least: int | None,
    shuffle: bool,
) -> Parts:
    """Divides each class over its holders.

    Args:
      rng: source of all draws.
      rows: the rows of each class.
      clients: number of clients, N.
      shares: ``float64[C, holders]``.
      per_client: k, classes of each client.
      least: examples of a class that each of its holders gets first; ``None`` if the shares are
        numbers of examples.
      shuffle: shuffle each client's rows at the end.
    """
    counts = shares.astype(np.int64) if least is None else _share_counts(rows, shares, least)
    short = [k for k, pool in enumerate(rows) if counts[k].sum() > len(pool)]
    require(
        not short,
        "shares ask for more examples of a class than there are",
        got=f"classes {short[:5]}",
        fix="lower the numbers",
        setting="shares",
    )
    holdings = [consecutive(pool, sizes) for pool, sizes in zip(rows, counts, strict=True)]
    if least is not None:
        for holding, pool, sizes in zip(holdings, rows, counts, strict=True):
            holder = rng.integers(len(sizes))
            holding[holder] = np.append(holding[holder], pool[sizes.sum() :])
    turns = [iter(holding) for holding in holdings]
    parts = [
        np.concatenate([next(turns[(i + j) % len(rows)]) for j in range(per_client)])
        for i in range(clients)
    ]
    bare = [i for i, part in enumerate(parts) if not len(part)]
    require(
        not bare,
        "every client needs an example",
        got=f"none for clients {bare[:5]}",
        fix="raise least, or the shares",
        setting="least",
    )
    return shuffled(rng, parts, shuffle)


def _share_counts(rows: Parts, shares: np.ndarray, least: int) -> np.ndarray:
    """Returns ``int64[C, holders]``: least plus the share of the remaining rows, rounded down."""
    check_whole("least", least, zero=True)
    sizes = np.array([len(pool) for pool in rows])
    holders = shares.shape[1]
    needed = least * holders
    require(
        sizes.min() >= needed,
        f"{least} examples of each class for each of its {holders} holders need {needed}",
        got=f"a class of {sizes.min()}",
        fix="use fewer clients, or lower least",
        setting="least",
    )
    total = shares.sum(axis=1, keepdims=True)
    require(
        bool(np.all(total > 0)),
        "every class needs a share above 0",
        got="a row of zeros",
        fix="raise one of its shares",
        setting="shares",
    )
    return np.floor(shares / total * (sizes - needed)[:, None]).astype(np.int64) + least
