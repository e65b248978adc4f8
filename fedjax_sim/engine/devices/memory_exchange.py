"""Memory rows on their way between the device that owns them and the device that trains their client.

The table ``[N, ...]`` is spread over the devices in blocks of ``R`` rows. On one device the queue reads and writes it in place.
On several, each device keeps a buffer for the rows of its own clients. Before a trip the buffers travel once round a ring, and every
device fills in the rows that it owns; after it they travel once more, and every device takes its rows home. So a device holds the
rows of ``C / D`` clients (and as many in transit), and since rows are moved, never added up, every bit arrives as it left.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from fedjax_sim.core import tree
from fedjax_sim.core.types import Array, PyTree
from fedjax_sim.engine.plan import AXIS


class LocalRows(NamedTuple):
    """A table that a device's queues may read and write, and which of its rows belong to whom."""

    table: PyTree
    slots: Array
    """int32[S / D, Q], row of each of this device's clients; past the end for absent ones on one device."""


def gather_rows(memory: PyTree, ids: Array, devices: int, on_host: bool = False) -> LocalRows:
    """Rows for this device's shards.

    Args:
      memory: this device's block of the table, ``[R, ...]`` in every leaf.
      ids: int32[S, Q], every shard's clients, shards in device order; the population size where absent.
      devices: D; where some share a model, how many such groups there are.
      lent: whether the host has lent the memory: it is the rows of this device's clients already, in the order of its shards.
    """
    if devices == 1 and not on_host:
        return LocalRows(memory, ids)
    wanted = ids.reshape(devices, -1)
    slots = jnp.arange(wanted.shape[1], dtype=jnp.int32).reshape(-1, ids.shape[1])
    if on_host:
        return LocalRows(memory, slots)
    rows = jax.tree.map(
        lambda leaf: jnp.zeros((wanted.shape[1], *leaf.shape[1:]), leaf.dtype), memory
    )

    def fill(hop: Array, rows: PyTree) -> PyTree:
        place, mine = _owned(memory, wanted, hop)
        return _pass_on(tree.where(mine, tree.take(memory, place), rows), devices)

    return LocalRows(
        lax.fori_loop(0, devices, fill, rows) if jax.tree.leaves(memory) else memory, slots
    )


def scatter_rows(
    memory: PyTree,
    loan: LocalRows,
    ids: Array,
    devices: int,
    population: Array,
    on_host: bool = False,
) -> PyTree:
    """This device's block of the table with every shard's rows written; absent clients write nothing."""
    if devices == 1 or on_host:
        return loan.table
    wanted = jnp.where(ids < population, ids, tree.NOWHERE).reshape(devices, -1)

    def write(hop: Array, carry: tuple[PyTree, PyTree]) -> tuple[PyTree, PyTree]:
        rows, block = carry
        place, mine = _owned(block, wanted, hop)
        return _pass_on(rows, devices), tree.put(block, jnp.where(mine, place, tree.NOWHERE), rows)

    return (
        lax.fori_loop(0, devices, write, (loan.table, memory))[1]
        if jax.tree.leaves(memory)
        else memory
    )


def _owned(block: PyTree, wanted: Array, hop: Array) -> tuple[Array, Array]:
    """Of the buffer that is here after so many hops: the place of each row in this device's block, and whether it is owned here."""
    me, length = lax.axis_index(AXIS), jax.tree.leaves(block)[0].shape[0]
    ids = wanted[(me - hop) % wanted.shape[0]]
    mine = ids // length == me
    return jnp.where(mine, ids - me * length, 0), mine


def _pass_on(rows: PyTree, devices: int) -> PyTree:
    """Every device's buffer to its neighbour."""
    ring = [(i, (i + 1) % devices) for i in range(devices)]
    return jax.tree.map(lambda leaf: lax.ppermute(leaf, AXIS, ring), rows)
