"""A population of clients as flat arrays and offsets: no padding, whatever the clients' sizes.

Client ``i`` owns the rows ``offsets[i]:offsets[i + 1]`` of every leaf of ``x`` and ``y``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fedjax_sim.core.errors import require
from fedjax_sim.core.types import Array, PyTree


class Examples(NamedTuple):
    """Examples that belong to nobody: leaves of ``x`` and ``y`` are ``[n, ...]``."""

    x: PyTree
    y: PyTree

    def __len__(self) -> int:  # a NamedTuple would count its fields
        return rows(self.x)


class Population(NamedTuple):
    """``N`` clients' examples on the host. Leaves of ``x`` and ``y`` are numpy ``[examples, ...]``, sorted by client."""

    x: PyTree
    y: PyTree
    offsets: np.ndarray
    """int64[N + 1], ascending from 0 to the number of examples."""
    names: Sequence[str] | None = None
    """The clients' own names, where they have any; of a prepared data set :class:`Names`."""

    @property
    def clients(self) -> int:
        """N."""
        return len(self.offsets) - 1

    @property
    def sizes(self) -> np.ndarray:
        """int64[N], examples of each client."""
        return np.diff(self.offsets)


class Names(Sequence[str]):
    """Strings in one buffer, decoded one by one when they are asked for: a million need no second to open."""

    def __init__(self, text: np.ndarray, ends: np.ndarray) -> None:
        """UTF-8 ``text`` uint8, and ``ends`` int64[n], where in it each string ends and the next one begins."""
        self.text, self.ends = text, ends

    def __len__(self) -> int:
        return len(self.ends)

    def __getitem__(self, place: Any) -> Any:
        if isinstance(place, slice):
            return tuple(self[i] for i in range(*place.indices(len(self))))
        i = range(len(self))[place]
        return (
            self.text[self.ends[i - 1] if i else 0 : self.ends[i]]
            .tobytes()
            .decode(errors="replace")
        )

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Names):
            return self is other or (
                np.array_equal(self.ends, other.ends) and np.array_equal(self.text, other.text)
            )
        return isinstance(other, tuple) and len(self) == len(other) and tuple(self) == other

    __hash__ = None  # type: ignore[assignment]


class Table(NamedTuple):
    """Clients' examples as the round function takes them, on the host or on devices: a whole population's, or a cohort's."""

    x: PyTree
    y: PyTree
    offset: Array
    """int32, each client's first row of ``x`` and ``y``."""
    size: Array
    """int32, how many rows it has."""
    ids: Array | None = None
    """int32, ascending: the clients that are here, each of which a table of the whole population has at its own number."""

    @property
    def clients(self) -> int:
        """How many clients are here; N for a population's."""
        return self.size.shape[0]

    def place(self, client: Array) -> Array:
        """int32, where in ``offset`` and ``size`` a client is; for one that does not exist, past the end or at a size of 0."""
        return client if self.ids is None else jnp.searchsorted(self.ids, client).astype(jnp.int32)


def rows(tree: PyTree) -> int:
    """Length of the leading axis that all leaves share."""
    lengths = {leaf.shape[0] for leaf in jax.tree.leaves(tree)}
    require(
        len(lengths) == 1,
        "all arrays of a data set must have one row per example",
        got=sorted(lengths),
        fix="make their first axes equal",
    )
    return lengths.pop()


def population(
    x: PyTree,
    y: PyTree,
    offsets: np.ndarray,
    names: Sequence[str] | None = None,
    empty: bool = False,
) -> Population:
    """A checked :class:`Population`.

    Args:
      x: leaves ``[examples, ...]``, sorted by client.
      y: as ``x``.
      offsets: ``[N + 1]``, each client's first row and the end.
      names: the clients' own names.
      empty: allow clients without an example, as a test population must, whose clients are those of the training population.

    Raises:
      FedError: where arrays disagree in length, offsets do not ascend from 0 to that length, or a client has no example.
    """
    offsets = np.asarray(offsets, np.int64)
    n = rows((x, y))
    require(
        offsets.ndim == 1 and len(offsets) > 1,
        "offsets must be a vector of N + 1 row numbers",
        got=offsets.shape,
        fix="pass at least one client",
    )
    require(
        offsets[0] == 0 and offsets[-1] == n,
        "offsets must run from 0 to the number of examples",
        got=(int(offsets[0]), int(offsets[-1]), n),
        fix="start at 0 and end at the number of rows",
    )
    require(
        names is None or len(names) == len(offsets) - 1,
        "one name per client",
        got=None if names is None else len(names),
        fix=f"pass {len(offsets) - 1} names or none",
    )
    bare = np.flatnonzero(np.diff(offsets) < (0 if empty else 1))
    require(
        not len(bare),
        "offsets must not descend" if empty else "every client needs at least one example",
        got=f"{'fewer than none' if empty else 'none'} for clients {bare[:5].tolist() if names is None else [names[i] for i in bare[:5]]}",
        fix="drop these clients or choose a minimum size",
    )
    return Population(x, y, offsets, names)


def by_client(x: PyTree, y: PyTree, client: np.ndarray) -> Population:
    """A population from examples in any order and each example's client id (``[n]``, anything that sorts)."""
    client = np.asarray(client)
    require(
        client.ndim == 1 and len(client) == rows((x, y)),
        "one client id per example",
        got=client.shape,
        fix=f"pass a vector of {rows((x, y))} ids",
    )
    order = np.argsort(client, kind="stable")
    ids, start = np.unique(client[order], return_index=True)
    x, y = jax.tree.map(lambda leaf: np.asarray(leaf)[order], (x, y))
    return population(x, y, np.append(start, len(client)), tuple(str(i) for i in ids))


def outline(data: Population) -> Table:
    """Shapes and dtypes of a population's table."""
    number: Any = jax.ShapeDtypeStruct((data.clients,), np.int32)
    x, y = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, jax.dtypes.canonicalize_dtype(leaf.dtype)),
        (data.x, data.y),
    )
    return Table(x, y, number, number)


def to_table(data: Population) -> Table:
    """The population as a table, still on the host: numpy, with the caller's own arrays.

    Raises:
      FedError: where the examples are too many for 32-bit row numbers.
    """
    total = int(data.offsets[-1])
    require(
        total < 2**31,
        "a resident population has at most 2**31 - 1 examples",
        got=total,
        fix="use fewer clients or examples",
    )
    leaves: Any = (data.x, data.y, data.offsets[:-1].astype(np.int32), data.sizes.astype(np.int32))
    return Table(*jax.tree.map(np.asarray, leaves))
