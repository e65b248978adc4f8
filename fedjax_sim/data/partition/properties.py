"""Partitions by something else than the label: by whose example it is, or by a number that belongs to it."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

from fedjax_sim.core.errors import fraction, lookup, require
from fedjax_sim.data.partition.parts import (
    Parts,
    agreed,
    column,
    consecutive,
    count,
    enough,
    even,
    generator,
    mixed,
    pools,
    several,
)

Rest = Literal["smaller", "bigger", "drop", "refuse"]


def natural(ids: Any, clients: int | None = None, *, seed: int = 0) -> Parts:
    """One client for each id, in ascending order, with its rows in the order of the data.

    Args:
      ids: ``[n]``, whose example it is: a writer, a user, a device; any dtype that sorts.
      clients: the number of ids, or nothing; :func:`grouped` makes fewer clients.
      seed: not used; here so that all partitions are called alike.

    Raises:
      FedError: where a number of clients is given that is not the number of ids.
    """
    kinds, parts = pools(ids, "ids")
    enough(len(ids), 1)
    agreed(clients, len(kinds), f"{len(kinds)} ids")
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
    """Several ids to a client: evenly over a number of clients, or so many ids each.

    NIID-Bench's ``real`` with a number of clients and ``order="random"``.

    Args:
      ids: ``[n]``, whose example it is: a writer, a user, a device; any dtype that sorts.
      clients: N, for ids shared out evenly; nothing where a group size is given, or the number of groups that it makes.
      group_size: ids of each client.
      rest: what becomes of ids that fill no group of ``group_size``: they make a smaller one, they make others bigger, they belong to
        nobody, or they are refused.
      order: of the ids before they are grouped: ascending, as first found in the data, or random.
      seed: of the random order.

    Raises:
      FedError: where there are too few ids, or neither a number of clients nor a group size.
    """
    _, parts = pools(ids, "ids")
    enough(len(ids), 1)
    orders = {
        "found": lambda: np.argsort([part[0] for part in parts]),
        "sorted": lambda: np.arange(len(parts)),
        "random": lambda: generator(seed).permutation(len(parts)),
    }
    ordered = lookup("order", order, orders)()
    sizes = _groups(len(parts), clients, group_size, rest)
    return [np.concatenate([parts[i] for i in group]) for group in consecutive(ordered, sizes)]


def continuous(
    values: Any, clients: int, *, strictness: float = 0.5, seed: int = 0, shuffle: bool = True
) -> Parts:
    """By a number that each example has: sorted by ``strictness * standardised value + (1 - strictness) * N(0, 1)`` and cut evenly.

    Values are compared in float32; of large ones that differ little, such as times, subtract the smallest first.

    Args:
      values: ``[n]``, numbers: a brightness, an age, a time.
      clients: N.
      strictness: 0 for iid, 1 for examples strictly in the order of the values.
      seed: of the noise.
      shuffle: mix each client's rows at the end, instead of leaving them in order.

    Raises:
      FedError: where a value is not finite or very large, or all are equal.
    """
    fraction("strictness", strictness, zero=True)
    given = column(values, "values")
    require(
        given.dtype.kind in "iuf",
        "values must be numbers",
        got=given.dtype,
        fix="convert them first",
        setting="values",
    )
    enough(len(given), clients)
    bad = int(np.sum(~(np.abs(given) < 1e18)))  # the square of what is larger is no float32
    require(
        not bad,
        "values must be finite and below 1e18",
        got=f"{bad} that are not",
        fix="leave out these examples, or scale them",
        setting="values",
    )
    given = given.astype(np.float32)
    spread = np.std(given)
    require(
        bool(spread > 0),
        "values must differ",
        got=f"a standard deviation of {spread}",
        fix="use the iid partition",
        setting="values",
    )
    rng = generator(seed)
    blend = strictness * ((given - np.mean(given)) / spread) + (1 - strictness) * rng.normal(
        size=len(given)
    )
    return mixed(
        rng, consecutive(np.argsort(blend, kind="stable"), even(len(given), clients)), shuffle
    )


def _groups(ids: int, clients: int | None, size: int | None, rest: Rest) -> np.ndarray:
    """How many ids each client gets."""
    if size is None:
        wanted = several(clients)
        require(
            wanted <= ids,
            f"{wanted} clients need as many ids",
            got=ids,
            fix="use fewer clients",
            setting="clients",
        )
        return even(ids, wanted)
    count("group_size", size)
    full, over = divmod(ids, size)
    require(
        full > 0 or rest == "smaller",
        f"a group of {size} ids needs as many",
        got=ids,
        fix="lower it, or make rest 'smaller'",
        setting="group_size",
    )
    got = f"{over} of {ids} left"
    require(
        not over or rest != "refuse",
        f"groups of {size} must use up all ids",
        got=got,
        fix="change group_size or rest",
        setting="group_size",
    )
    same = [size] * full
    rests = {
        "smaller": [*same, over] if over else same,
        "bigger": even(ids, max(full, 1)),
        "drop": same,
        "refuse": same,
    }
    sizes = lookup("rest", rest, rests)
    agreed(clients, len(sizes), f"{ids} ids in groups of {size}")
    return np.asarray(sizes)
