"""What all partitions are made with: checks of what goes in, draws of proportions, and rows dealt to their clients."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from fedjax_sim.core.errors import fail, not_negative, positive, require

Parts = list[np.ndarray]
"""One entry per client, ``int64[n_i]``: the rows of the data set that it holds."""


def generator(seed: int, *stream: int) -> np.random.Generator:
    """Numpy's default generator of a seed, or of one of its streams.

    Raises:
      FedError: where the seed is not a whole number from 0 on.
    """
    whole = isinstance(seed, int | np.integer) and not isinstance(seed, bool)
    require(
        whole,
        "seed must be a whole number",
        got=repr(seed),
        fix="give seed a value such as 0",
        setting="seed",
    )
    not_negative("seed", int(seed))
    return np.random.default_rng([seed, *stream] if stream else seed)


# ----------------------------------------------------------------------------------------------------------------- checks


def count(name: str, value: Any, zero: bool = False) -> None:
    """Requires a whole number above 0, or from 0 on."""
    whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
    require(
        whole,
        f"{name} must be a whole number",
        got=repr(value),
        fix=f"give {name} a value such as 2",
        setting=name,
    )
    (not_negative if zero else positive)(name, int(value))


def several(clients: Any) -> int:
    """Requires a number of clients."""
    whole = (
        isinstance(clients, int | np.integer) and not isinstance(clients, bool) and int(clients) > 0
    )
    require(
        whole,
        "clients must be a whole number above 0",
        got=repr(clients),
        fix="give clients a value such as 50",
        setting="clients",
    )
    return int(clients)


def enough(n: int, clients: Any, each: int = 1) -> int:
    """Requires a number of clients, and examples for them: at least one, and ``each`` for everybody."""
    clients = several(clients)
    what = f"{clients} clients with {each} or more examples each need {max(clients * each, 1)} examples"
    require(
        n >= max(clients * each, 1),
        what,
        got=n,
        fix="use fewer clients or more data",
        setting="clients",
    )
    return clients


def agreed(clients: int | None, known: int, what: str) -> None:
    """Requires of a number of clients, where one is given, that it is the one that the partition makes by itself."""
    require(
        clients is None or clients == known,
        f"{what} make {known} clients",
        got=repr(clients),
        fix=f"say {known}, or leave clients away",
        setting="clients",
    )


def column(values: Any, name: str) -> np.ndarray:
    """What a partition goes by, as a vector with one entry per example."""
    values = np.asarray(values)
    require(
        values.ndim == 1,
        f"{name} must be a vector with one entry per example",
        got=values.shape,
        fix=f"pass {name} of shape [n]",
        setting=name,
    )
    return values


def numbers(name: str, values: Any) -> np.ndarray:
    """float64, as many axes as there are."""
    try:
        return np.asarray(values, np.float64)
    except (TypeError, ValueError):
        fail(
            f"{name} must be numbers, in rows of equal length",
            got=repr(values)[:60],
            fix=f"give {name} a value such as 0.1 or [0.1, 0.2]",
            setting=name,
        )


def brief(values: Any) -> str:
    """One number, or the range of many, for an error."""
    return (
        str(values)
        if np.ndim(values) == 0
        else f"{len(values)} values from {np.min(values)} to {np.max(values)}"
    )


def concentration(alpha: Any, length: int, whose: str) -> np.ndarray:
    """``float64[length]``: a Dirichlet distribution's parameter from one number, or from one for each client or class."""
    alphas = numbers("alpha", alpha)
    alphas = np.full(length, alphas) if alphas.ndim == 0 else alphas
    require(
        alphas.shape == (length,),
        f"alpha is one number or one for each {whose}",
        got=alphas.shape,
        fix=f"pass {length} values",
        setting="alpha",
    )
    good = bool(np.all((alphas > 0) & (alphas < 1e300)))  # so that their sum is finite, too
    do = "give alpha a value such as 0.1; use the iid partition for no skew"
    require(good, "alpha must be positive and finite", got=brief(alpha), fix=do, setting="alpha")
    return alphas


# ------------------------------------------------------------------------------------------------------------------- rows


def pools(values: Any, name: str = "labels") -> tuple[np.ndarray, Parts]:
    """The values that occur, ascending, and the rows of each in the order of the data."""
    values = column(values, name)
    try:
        kinds, which = np.unique(values, return_inverse=True)
    except TypeError:
        fail(
            f"{name} must be of one kind that sorts",
            got=f"a mixture of types in {values.dtype}",
            fix="convert them to numbers or words",
            setting=name,
        )
    return kinds, collected(np.arange(len(values)), which, len(kinds))


def collected(rows: np.ndarray, owner: np.ndarray, clients: int) -> Parts:
    """Rows by owner, each client's in the order given. Whoever owns nothing has an empty part."""
    order = np.argsort(owner, kind="stable")
    return consecutive(rows[order], np.bincount(owner, minlength=clients))


def consecutive(rows: np.ndarray, sizes: Sequence[int] | np.ndarray) -> Parts:
    """The first ``sizes[0]`` rows, the next ``sizes[1]``, ...; what is left belongs to nobody."""
    return np.split(rows, np.cumsum(sizes))[: len(sizes)]


def dealt(pieces: Sequence[np.ndarray], counts: np.ndarray) -> Parts:
    """Class after class over the clients: of piece ``k``, client ``i`` gets the next ``counts[k, i]`` rows. The counts add up."""
    clients = counts.shape[1]
    owner = np.repeat(np.tile(np.arange(clients), len(pieces)), counts.ravel())
    return collected(np.concatenate(pieces), owner, clients)


def even(n: int, clients: int) -> np.ndarray:
    """``int64[clients]``: n in whole numbers that differ by one at most, the larger ones first."""
    return n // clients + (np.arange(clients) < n % clients)


def mixed(rng: np.random.Generator, parts: Parts, shuffle: bool) -> Parts:
    """Each client's rows in a random order, where asked."""
    for part in parts if shuffle else ():
        rng.shuffle(part)
    return parts
