"""Partitions by something other than the label: by owner, or by a number of each example."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

from fedjax_sim.core.errors import fraction, lookup, require
from fedjax_sim.data.partition.parts import (
    Parts,
    check_clients,
    check_same_clients,
    check_whole,
    client_count,
    consecutive,
    even_sizes,
    generator,
    rows_by_value,
    shuffled,
    vector,
)

Rest = Literal["smaller", "bigger", "drop", "refuse"]


def natural(ids: Any, clients: int | None = None, *, seed: int = 0) -> Parts:
    """One client for each id, in ascending order of the ids, with its rows in the order of the
    data.

    Args:
      ids: ``[n]``, the owner of each example (a writer, a user, a device); any dtype that sorts.
      clients: number of clients, N, the number of distinct ids; may be left out. :func:`grouped`
        makes fewer clients.
      seed: not used; all partitions have this parameter.

    Returns:
      N arrays of row numbers, ``int64[n_i]``; every row is in one of them.

    Raises:
      FedError: if the given number of clients is not the number of ids.

    Example:
      >>> import fedjax_sim as fs
      >>> parts = fs.data.natural(["bob", "ann", "bob", "eve"])
      >>> [part.tolist() for part in parts]
      [[1], [0, 2], [3]]
    """
    owners, parts = rows_by_value(ids, "ids")
    check_clients(len(ids), 1)
    check_same_clients(clients, len(owners), f"{len(owners)} ids")
    return parts


def grouped(
    ids: Any,
    clients: int | None = None,
    *,
    group_size: int | None = None,
    rest: Rest = "smaller",
    order: Literal["sorted", "found", "random"] = "sorted",
    seed: int = 0,
) -> Parts:
    """Several ids to a client: divided evenly over N clients, or ``group_size`` ids each.

    NIID-Bench's ``real`` with a number of clients and ``order="random"``.

    Args:
      ids: ``[n]``, the owner of each example (a writer, a user, a device); any dtype that sorts.
      clients: number of clients, N, to divide the ids evenly; with ``group_size``, the number of
        groups or ``None``.
      group_size: ids of each client.
      rest: what to do with ids that do not fill a group of ``group_size``: they make a smaller
        group (``"smaller"``), make other groups bigger (``"bigger"``), are left out (``"drop"``),
        or are an error (``"refuse"``).
      order: of the ids before they are grouped: ascending, as first found in the data, or random.
      seed: of the random order.

    Returns:
      N arrays of row numbers, ``int64[n_i]``.

    Raises:
      FedError: if there are too few ids, or neither a number of clients nor a group size.

    Example:
      >>> import fedjax_sim as fs
      >>> parts = fs.data.grouped([7, 8, 9, 7, 8], group_size=2)
      >>> [part.tolist() for part in parts]
      [[0, 3, 1, 4], [2]]
    """
    _, parts = rows_by_value(ids, "ids")
    check_clients(len(ids), 1)
    orders = {
        "found": lambda: np.argsort([part[0] for part in parts]),
        "sorted": lambda: np.arange(len(parts)),
        "random": lambda: generator(seed).permutation(len(parts)),
    }
    ordered = lookup("order", order, orders)()
    sizes = _group_sizes(len(parts), clients, group_size, rest)
    return [np.concatenate([parts[i] for i in group]) for group in consecutive(ordered, sizes)]


def continuous(
    values: Any, clients: int, *, strictness: float = 0.5, seed: int = 0, shuffle: bool = True
) -> Parts:
    """By a number that each example has: sorted by the number plus noise, and cut evenly.

    The sort key is ``strictness * standardised value + (1 - strictness) * N(0, 1)``. Values are
    compared in float32; of large values that differ little, such as times, subtract the smallest
    first.

    Args:
      values: ``[n]``, numbers: a brightness, an age, a time.
      clients: number of clients, N.
      strictness: 0 for iid, 1 for examples strictly in the order of the values.
      seed: of the noise.
      shuffle: shuffle each client's rows at the end, instead of leaving them in order.

    Returns:
      N arrays of row numbers, ``int64[n_i]``; every row is in one of them.

    Raises:
      FedError: if a value is not finite or is 1e18 or above, or all values are equal.

    Example:
      >>> import fedjax_sim as fs
      >>> parts = fs.data.continuous([5.0, 1.0, 4.0, 2.0], 2, strictness=1.0, shuffle=False)
      >>> [part.tolist() for part in parts]
      [[1, 3], [2, 0]]
    """
    fraction("strictness", strictness, zero=True)
    column = _checked_values(values, clients)
    deviation = np.std(column)
    require(
        bool(deviation > 0),
        "values must differ",
        got=f"a standard deviation of {deviation}",
        fix="use the iid partition",
        setting="values",
    )
    rng = generator(seed)
    noise = rng.normal(size=len(column))
    blend = strictness * ((column - np.mean(column)) / deviation) + (1 - strictness) * noise
    order = np.argsort(blend, kind="stable")
    return shuffled(rng, consecutive(order, even_sizes(len(column), clients)), shuffle)


def _checked_values(values: Any, clients: int) -> np.ndarray:
    column = vector(values, "values")
    require(
        column.dtype.kind in "iuf",
        "values must be numbers",
        got=column.dtype,
        fix="convert them first",
        setting="values",
    )
    check_clients(len(column), clients)
    bad = int(np.sum(~(np.abs(column) < 1e18)))  # the square of a larger one overflows float32
    require(
        not bad,
        "values must be finite and below 1e18",
        got=f"{bad} that are not",
        fix="leave out these examples, or scale them",
        setting="values",
    )
    return column.astype(np.float32)


def _group_sizes(ids: int, clients: int | None, size: int | None, rest: Rest) -> np.ndarray:
    """Returns how many ids each client gets, ``int64[N]``."""
    if size is None:
        number = client_count(clients)
        require(
            number <= ids,
            f"{number} clients need as many ids",
            got=ids,
            fix="use fewer clients",
            setting="clients",
        )
        return even_sizes(ids, number)
    check_whole("group_size", size)
    full, over = divmod(ids, size)
    require(
        full > 0 or rest == "smaller",
        f"a group of {size} ids needs as many",
        got=ids,
        fix="lower group_size, or set rest to 'smaller'",
        setting="group_size",
    )
    require(
        not over or rest != "refuse",
        f"groups of {size} must use up all ids",
        got=f"{over} of {ids} left",
        fix="change group_size or rest",
        setting="group_size",
    )
    same = [size] * full
    rests = {
        "smaller": [*same, over] if over else same,
        "bigger": even_sizes(ids, max(full, 1)),
        "drop": same,
        "refuse": same,
    }
    sizes = lookup("rest", rest, rests)
    check_same_clients(clients, len(sizes), f"{ids} ids in groups of {size}")
    return np.asarray(sizes)
