"""Label skew by number: every client holds so many classes and no other."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

from fedjax_sim.core.errors import lookup, not_negative, require
from fedjax_sim.data.partition.parts import (
    Parts,
    consecutive,
    count,
    dealt,
    enough,
    even,
    generator,
    mixed,
    numbers,
    pools,
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
    """Every client holds examples of exactly so many classes; each class is shared out evenly over those that hold it.

    NIID-Bench's ``noniid-#labelk`` with ``classes_per_client=k, shuffle_classes=True``.

    Args:
      labels: ``[n]``, any dtype that sorts, C different ones.
      clients: N.
      classes_per_client: k.
      mode: which classes client i gets. ``"deterministic"``: i, i + 1, ..., i + k - 1 modulo C. ``"first-deterministic"``: i modulo C
        and k - 1 further ones by chance. ``"random"``: k by chance. Rows of a class that nobody holds belong to nobody: in the first
        two modes there are none with C clients or more.
      seed: of all draws.
      shuffle_classes: mix a class's rows before it is shared out, instead of dealing them in the order of the data.
      shuffle: mix each client's rows at the end, instead of class after class.

    Raises:
      FedError: where a class has fewer examples than clients that hold it, or there are fewer than k classes.

    Reference: Li et al., arXiv 2102.02079, section IV (quantity-based label imbalance).
    """
    kinds, rows = pools(labels)
    enough(len(labels), clients)
    _classes(classes_per_client, len(kinds))
    rng = generator(seed)
    holds = _holds(rng, clients, len(kinds), classes_per_client, mode)
    counts = np.zeros((len(kinds), clients), np.int64)
    for k in np.flatnonzero(holds.any(axis=0)):
        holders = np.flatnonzero(holds[:, k])
        counts[k, holders] = even(len(rows[k]), len(holders))
        got = f"{len(rows[k])} examples of class {kinds[k]} for {len(holders)} clients"
        what = "every client that holds a class needs an example of it"
        require(
            len(rows[k]) >= len(holders),
            what,
            got=got,
            fix="use fewer clients or classes_per_client",
            setting="clients",
        )
    pieces = [rng.permutation(pool) for pool in rows] if shuffle_classes else rows
    used = [pool[:k] for pool, k in zip(pieces, counts.sum(axis=1), strict=True)]
    return mixed(rng, dealt(used, counts), shuffle)


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
    """Client i holds the classes i, i + 1, ..., i + k - 1 modulo C, each in a share that is given.

    Args:
      labels: ``[n]``, any dtype that sorts, C different ones.
      clients: N, a multiple of C.
      shares: ``[C, k * N / C]``: the shares of a class for its holders in the order of the clients.
      classes_per_client: k.
      least: examples of a class that each of its holders gets first; the shares divide what is left of the class.
      rescale: the shares are proportions, and rows lost in rounding go to one random holder of the class. Without it they are numbers
        of examples, ``least`` is not used, and what is left of a class belongs to nobody.
      seed: of the holders that get the rows lost in rounding, and the order of a client's rows.
      shuffle: mix each client's rows at the end, instead of class after class.

    Raises:
      FedError: where the clients are no multiple of C, the shares have another shape, or a class has too few examples.
    """
    kinds, rows = pools(labels)
    columns = _columns(len(labels), clients, len(kinds), classes_per_client)
    given = numbers("shares", shares)
    good = given.shape == (len(kinds), columns) and bool(
        np.all(given >= 0) and np.all(np.isfinite(given))
    )
    what = (
        f"shares must be [{len(kinds)}, {columns}] numbers from 0 on, one for each class and holder"
    )
    require(
        good,
        what,
        got=f"{given.shape} from {given.min(initial=np.inf)} on",
        fix="change shares, clients or classes_per_client",
        setting="shares",
    )
    return _distributed(
        generator(seed),
        rows,
        clients,
        given,
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
    """FedProx's MNIST: client i holds the classes i, ..., i + k - 1 modulo C, in shares with a heavy tail: lognormal(0, sigma).

    Rows lost in rounding go to one random holder of their class, where FedProx's script drops them.

    Args:
      labels: ``[n]``, any dtype that sorts, C different ones.
      clients: N, a multiple of C; 1,000 in the paper.
      classes_per_client: k.
      least: examples of a class that each of its holders gets first; the shares divide what is left of the class.
      sigma: standard deviation of the logarithm of the shares; 0 for equal ones.
      seed: of all draws.
      shuffle: mix each client's rows at the end, instead of class after class.

    Raises:
      FedError: where the clients are no multiple of C, or a class has too few examples.

    Reference: Li et al., "Federated Optimization in Heterogeneous Networks", arXiv 1812.06127, appendix C.1.
    """
    not_negative("sigma", sigma)
    kinds, rows = pools(labels)
    columns = _columns(len(labels), clients, len(kinds), classes_per_client)
    rng = generator(seed)
    logs = rng.normal(size=(len(kinds), columns))
    shares = np.exp(
        sigma * (logs - logs.max(axis=1, keepdims=True))
    )  # lognormal up to a factor of its row, and finite for any sigma
    return _distributed(rng, rows, clients, shares, classes_per_client, least, shuffle)


def _holds(
    rng: np.random.Generator, clients: int, classes: int, each: int, mode: Mode
) -> np.ndarray:
    """``bool[N, C]``: who holds what."""
    draws = {
        "deterministic": lambda i: (i + np.arange(each)) % classes,
        "first-deterministic": lambda i: _first(rng, i % classes, classes, each),
        "random": lambda i: rng.choice(classes, each, replace=False),
    }
    draw = lookup("mode", mode, draws)
    holds = np.zeros((clients, classes), bool)
    for i in range(clients):
        holds[i, draw(i)] = True
    return holds


def _first(rng: np.random.Generator, first: int, classes: int, each: int) -> list[int]:
    """A class and further ones, drawn until ``each`` are distinct. A draw is a new one with chance 1 / C or more, so there are few."""
    chosen = {first: None}
    while len(chosen) < each:
        chosen[int(rng.integers(classes))] = None
    return list(chosen)


def _classes(each: Any, classes: int) -> None:
    count("classes_per_client", each)
    require(
        each <= classes,
        f"a client cannot hold {each} classes",
        got=f"{classes} in the labels",
        fix="lower it",
        setting="classes_per_client",
    )


def _columns(n: int, clients: int, classes: int, each: int) -> int:
    """Holders of each class."""
    enough(n, clients)
    _classes(each, classes)
    require(
        clients % classes == 0,
        f"clients must be a multiple of the {classes} classes",
        got=clients,
        fix=f"use {classes * 10}",
        setting="clients",
    )
    return each * clients // classes


def _distributed(
    rng: np.random.Generator,
    rows: Parts,
    clients: int,
    shares: np.ndarray,
    each: int,
    least: int | None,
    shuffle: bool,
) -> Parts:
    counts = shares.astype(np.int64) if least is None else _counts(rows, shares, least)
    short = [k for k, pool in enumerate(rows) if counts[k].sum() > len(pool)]
    require(
        not short,
        "shares ask for more examples of a class than there are",
        got=f"classes {short[:5]}",
        fix="lower the numbers",
        setting="shares",
    )
    hands = [consecutive(pool, sizes) for pool, sizes in zip(rows, counts, strict=True)]
    if least is not None:
        for hand, pool, sizes in zip(hands, rows, counts, strict=True):
            lucky = rng.integers(len(sizes))
            hand[lucky] = np.append(hand[lucky], pool[sizes.sum() :])
    turns = [iter(hand) for hand in hands]
    parts = [
        np.concatenate([next(turns[(i + j) % len(rows)]) for j in range(each)])
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
    return mixed(rng, parts, shuffle)


def _counts(rows: Parts, shares: np.ndarray, least: int) -> np.ndarray:
    """``int64[C, holders]``: the least, and each one's share of what is left, rounded down."""
    count("least", least, zero=True)
    sizes = np.array([len(pool) for pool in rows])
    needed = least * shares.shape[1]
    what = f"{least} examples of each class for each of its {shares.shape[1]} holders need {needed}"
    require(
        sizes.min() >= needed,
        what,
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
