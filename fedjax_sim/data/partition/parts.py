"""Helpers of all partitions: checks of arguments, Dirichlet parameters, and assignment of rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from fedjax_sim.core.errors import fail, not_negative, positive, require

Parts = list[np.ndarray]
"""One entry per client, ``int64[n_i]``: the rows of the data set that the client holds."""

Partition = str | Callable[..., Parts]
"""A name of :data:`fedjax_sim.data.PARTITIONS`, or ``(column, clients, *, seed) -> parts``: a
partition with options bound, as in ``functools.partial(dirichlet, alpha=0.3)``, or a function of
the user."""


def generator(seed: int, *stream: int) -> np.random.Generator:
    """Returns numpy's default generator of a seed, or of one of the seed's streams.

    Args:
      seed: a whole number, 0 or above.
      stream: numbers that name a stream of the seed; streams are independent of each other.

    Raises:
      FedError: if the seed is not a whole number of 0 or above.
    """
    require(
        isinstance(seed, int | np.integer) and not isinstance(seed, bool),
        "seed must be a whole number",
        got=repr(seed),
        fix="give seed a value such as 0",
        setting="seed",
    )
    not_negative("seed", int(seed))
    return np.random.default_rng([seed, *stream] if stream else seed)


# ------------------------------------------------------------------------------------------- checks


def check_whole(name: str, value: Any, zero: bool = False) -> None:
    """Requires a whole number.

    Args:
      name: the parameter's name, for the error.
      value: the value to check.
      zero: whether 0 is allowed; otherwise the value must be 1 or above.

    Raises:
      FedError: if the value is not such a number.
    """
    require(
        isinstance(value, int | np.integer) and not isinstance(value, bool),
        f"{name} must be a whole number",
        got=repr(value),
        fix=f"give {name} a value such as 2",
        setting=name,
    )
    check = not_negative if zero else positive
    check(name, int(value))


def client_count(clients: Any) -> int:
    """Returns the number of clients as an ``int``.

    Raises:
      FedError: if it is not a whole number above 0.
    """
    whole = isinstance(clients, int | np.integer) and not isinstance(clients, bool)
    require(
        whole and int(clients) > 0,
        "clients must be a whole number above 0",
        got=repr(clients),
        fix="give clients a value such as 50",
        setting="clients",
    )
    return int(clients)


def check_clients(n: int, clients: Any, min_size: int = 1) -> int:
    """Requires enough examples for a number of clients.

    Args:
      n: number of examples in the data set.
      clients: number of clients, N.
      min_size: examples that each client needs; the data set needs at least one in any case.

    Returns:
      N as an ``int``.

    Raises:
      FedError: if N is not a whole number above 0, or there are too few examples.
    """
    clients = client_count(clients)
    needed = max(clients * min_size, 1)
    require(
        n >= needed,
        f"{clients} clients with {min_size} or more examples each need {needed} examples",
        got=n,
        fix="use fewer clients or more data",
        setting="clients",
    )
    return clients


def check_same_clients(clients: int | None, known: int, what: str) -> None:
    """Requires a given number of clients to equal the number that the data determine.

    Args:
      clients: N as the caller gave it; ``None`` passes.
      known: number of clients that the partition makes.
      what: the thing that determines it, for the error, such as ``"10 ids"``.

    Raises:
      FedError: if the two numbers differ.
    """
    require(
        clients is None or clients == known,
        f"{what} make {known} clients",
        got=repr(clients),
        fix=f"set clients to {known}, or leave it out",
        setting="clients",
    )


def vector(values: Any, name: str) -> np.ndarray:
    """Returns a partition's column as an array.

    Args:
      values: ``[n]``, one entry per example.
      name: the parameter's name, for the error.

    Raises:
      FedError: if it does not have one axis.
    """
    values = np.asarray(values)
    require(
        values.ndim == 1,
        f"{name} must be a vector with one entry per example",
        got=values.shape,
        fix=f"pass {name} of shape [n]",
        setting=name,
    )
    return values


def float_array(name: str, values: Any) -> np.ndarray:
    """Returns values as a float64 array of the same shape.

    Args:
      name: the parameter's name, for the error.
      values: a number, or nested sequences of numbers.

    Raises:
      FedError: if they are not numbers, or rows differ in length.
    """
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
    """Returns one number, or the length and range of several numbers, as text for an error."""
    if np.ndim(values) == 0:
        return str(values)
    return f"{len(values)} values from {np.min(values)} to {np.max(values)}"


def dirichlet_alphas(alpha: Any, length: int, unit: str) -> np.ndarray:
    """Returns the parameter of a Dirichlet distribution, ``float64[length]``.

    Args:
      alpha: one number for all entries, or one number per entry.
      length: number of entries.
      unit: what an entry stands for, for the error: ``"client"`` or ``"class"``.

    Raises:
      FedError: if alpha has another shape, or is not positive and finite.
    """
    alphas = float_array("alpha", alpha)
    alphas = np.full(length, alphas) if alphas.ndim == 0 else alphas
    require(
        alphas.shape == (length,),
        f"alpha is one number or one for each {unit}",
        got=alphas.shape,
        fix=f"pass {length} values",
        setting="alpha",
    )
    require(
        bool(np.all((alphas > 0) & (alphas < 1e300))),  # the bound keeps their sum finite
        "alpha must be positive and finite",
        got=brief(alpha),
        fix="give alpha a value such as 0.1; use the iid partition for no skew",
        setting="alpha",
    )
    return alphas


# --------------------------------------------------------------------------------------------- rows


def rows_by_value(values: Any, name: str = "labels") -> tuple[np.ndarray, Parts]:
    """Groups rows by the value of a column.

    Args:
      values: ``[n]``, any dtype that sorts.
      name: the column's name, for the error.

    Returns:
      The C distinct values in ascending order, and for each the rows that have it, in the order of
      the data.

    Raises:
      FedError: if the column does not have one axis, or mixes types that do not compare.
    """
    values = vector(values, name)
    try:
        kinds, group = np.unique(values, return_inverse=True)
    except TypeError:
        fail(
            f"{name} must be of one kind that sorts",
            got=f"a mixture of types in {values.dtype}",
            fix="convert them to numbers or words",
            setting=name,
        )
    return kinds, rows_by_owner(np.arange(len(values)), group, len(kinds))


def rows_by_owner(rows: np.ndarray, owner: np.ndarray, owners: int) -> Parts:
    """Groups rows by owner, keeping the given order within each owner.

    Args:
      rows: ``int[m]``.
      owner: ``int[m]``, the owner of each row, in ``0 .. owners - 1``.
      owners: number of owners; an owner without a row gets an empty part.
    """
    order = np.argsort(owner, kind="stable")
    return consecutive(rows[order], np.bincount(owner, minlength=owners))


def consecutive(rows: np.ndarray, sizes: Sequence[int] | np.ndarray) -> Parts:
    """Cuts rows into consecutive parts of the given sizes; remaining rows are left out.

    Args:
      rows: ``int[m]``.
      sizes: length of each part.
    """
    return np.split(rows, np.cumsum(sizes))[: len(sizes)]


def assign_classes(pieces: Sequence[np.ndarray], counts: np.ndarray) -> Parts:
    """Assigns the rows of each class to clients in order.

    Args:
      pieces: the rows of each class, ``int[counts[k].sum()]`` for class k.
      counts: ``int[classes, N]``, rows of each class that each client gets.

    Returns:
      Each client's rows, class after class.
    """
    classes, clients = counts.shape
    owner = np.repeat(np.tile(np.arange(clients), classes), counts.ravel())
    return rows_by_owner(np.concatenate(pieces), owner, clients)


def even_sizes(n: int, parts: int) -> np.ndarray:
    """Returns sizes that add up to n and differ by at most one, the larger ones first.

    Args:
      n: number of rows.
      parts: number of sizes.
    """
    return n // parts + (np.arange(parts) < n % parts)


def shuffled(rng: np.random.Generator, parts: Parts, shuffle: bool) -> Parts:
    """Shuffles the rows of each client in place.

    Args:
      rng: source of the random orders.
      parts: the rows of each client.
      shuffle: if false, nothing is drawn and nothing changes.
    """
    for part in parts if shuffle else ():
        rng.shuffle(part)
    return parts
