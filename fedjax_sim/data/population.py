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
    """Examples without an owner: leaves of ``x`` and ``y`` are ``[n, ...]``.

    Its length is the number of examples, n.
    """

    x: PyTree
    y: PyTree

    def __len__(self) -> int:  # a NamedTuple would count its fields
        return rows(self.x)


class Population(NamedTuple):
    """The examples of ``N`` clients on the host.

    Leaves of ``x`` and ``y`` are numpy arrays ``[examples, ...]``, sorted by client.
    """

    x: PyTree
    y: PyTree
    offsets: np.ndarray
    """int64[N + 1], ascending from 0 to the number of examples."""
    names: Sequence[str] | None = None
    """The clients' names, if they have any; :class:`Names` in a prepared data set."""

    @property
    def clients(self) -> int:
        """Number of clients, N."""
        return len(self.offsets) - 1

    @property
    def sizes(self) -> np.ndarray:
        """Examples of each client, int64[N]."""
        return np.diff(self.offsets)


class Names(Sequence[str]):
    """Strings in one buffer, each decoded when it is read: a million of them open at once.

    Args:
      text: uint8, the UTF-8 text of all strings, one after the other.
      ends: int64[n], where each string ends and the next one begins.
    """

    def __init__(self, text: np.ndarray, ends: np.ndarray) -> None:
        self.text = text
        self.ends = ends

    def __len__(self) -> int:
        return len(self.ends)

    def __getitem__(self, place: Any) -> Any:
        if isinstance(place, slice):
            return tuple(self[i] for i in range(*place.indices(len(self))))
        i = range(len(self))[place]
        start = self.ends[i - 1] if i else 0
        return self.text[start : self.ends[i]].tobytes().decode(errors="replace")

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Names):
            return self is other or (
                np.array_equal(self.ends, other.ends) and np.array_equal(self.text, other.text)
            )
        return isinstance(other, tuple) and len(self) == len(other) and tuple(self) == other

    __hash__ = None  # type: ignore[assignment]


class Table(NamedTuple):
    """Examples of clients as the round function takes them, on the host or on devices.

    It holds a whole population, or the clients of one cohort.
    """

    x: PyTree
    y: PyTree
    offset: Array
    """int32[clients], each client's first row of ``x`` and ``y``."""
    size: Array
    """int32[clients], number of rows of each client."""
    ids: Array | None = None
    """int32[clients], ascending, the ids of the clients; ``None`` in a whole population's table,
    where they are 0 .. N - 1."""

    @property
    def clients(self) -> int:
        """Number of clients in the table; N for a population's table."""
        return self.size.shape[0]

    def place(self, client: Array) -> Array:
        """Returns the index of client ids in ``offset`` and ``size``, int32.

        Args:
          client: int32[...], client ids. An id that is not in the table gets an index past the end,
            or the index of an entry of size 0.
        """
        return client if self.ids is None else jnp.searchsorted(self.ids, client).astype(jnp.int32)


def rows(tree: PyTree) -> int:
    """Returns the length of the leading axis that all leaves share.

    Args:
      tree: leaves ``[n, ...]``.

    Raises:
      FedError: if leaves differ in their first axis.

    Example:
      >>> import numpy as np
      >>> import fedjax_sim as fs
      >>> fs.data.rows({"image": np.zeros((3, 28, 28)), "age": np.zeros(3)})
      3
    """
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
      y: leaves ``[examples, ...]``, sorted by client.
      offsets: int ``[N + 1]``, each client's first row, and the number of examples.
      names: ``[N]``, the clients' names.
      empty: allow clients without an example. A test population needs this: its clients are those
        of the training population.

    Raises:
      FedError: if arrays differ in length, offsets do not ascend from 0 to that length, or a client
        has no example.

    Example:
      >>> import numpy as np
      >>> import fedjax_sim as fs
      >>> data = fs.data.population(np.zeros((5, 2)), np.zeros(5), [0, 2, 5], names=("ann", "bob"))
      >>> data.clients, data.sizes.tolist()
      (2, [2, 3])
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
    _check_sizes(np.diff(offsets), names, empty)
    return Population(x, y, offsets, names)


def _check_sizes(sizes: np.ndarray, names: Sequence[str] | None, empty: bool) -> None:
    bare = np.flatnonzero(sizes < (0 if empty else 1))
    clients = bare[:5].tolist() if names is None else [names[i] for i in bare[:5]]
    require(
        not len(bare),
        "offsets must not descend" if empty else "every client needs at least one example",
        got=f"{'fewer than none' if empty else 'none'} for clients {clients}",
        fix="drop these clients or choose a minimum size",
    )


def by_client(x: PyTree, y: PyTree, client: np.ndarray) -> Population:
    """A population from examples in any order and the client id of each example.

    Args:
      x: leaves ``[n, ...]``.
      y: leaves ``[n, ...]``.
      client: ``[n]``, client ids of any dtype that sorts. Clients are ordered by id and named after
        it; the order of a client's examples is kept.

    Raises:
      FedError: if the arrays differ in length.

    Example:
      >>> import numpy as np
      >>> import fedjax_sim as fs
      >>> data = fs.data.by_client(np.arange(4.0), np.zeros(4), np.array(["b", "a", "b", "b"]))
      >>> data.names, data.sizes.tolist(), data.x.tolist()
      (('a', 'b'), [1, 3], [1.0, 0.0, 2.0, 3.0])
    """
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
    """Returns the shapes and dtypes of a population's table, without its examples."""
    number: Any = jax.ShapeDtypeStruct((data.clients,), np.int32)
    x, y = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, jax.dtypes.canonicalize_dtype(leaf.dtype)),
        (data.x, data.y),
    )
    return Table(x, y, number, number)


def to_table(data: Population) -> Table:
    """Returns the population as a table of numpy arrays on the host; examples are not copied.

    Args:
      data: a population of at most 2**31 - 1 examples.

    Raises:
      FedError: if the examples are too many for 32-bit row numbers.

    Example:
      >>> import numpy as np
      >>> import fedjax_sim as fs
      >>> table = fs.data.to_table(fs.data.population(np.zeros((5, 2)), np.zeros(5), [0, 2, 5]))
      >>> table.offset.tolist(), table.size.tolist()
      ([0, 2], [2, 3])
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
