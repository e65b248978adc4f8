"""Moves memory rows between the device that stores them and the device that trains their client.

The table ``[N, ...]`` is split over the devices in blocks of ``R`` rows. On one device the queue
reads and writes it in place. On several, each device has a buffer for the rows of its own clients.
Before a trip the buffers travel once around a ring, and every device writes the rows that it stores
into each; after the trip they travel around it once more, and every device copies its rows back
into its block. So a device holds the rows of ``C / D`` clients (and the same number in transit).
Since rows are moved and never added up, every bit arrives unchanged.
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
    """A table that a device's queues may read and write, and the rows of its clients in it."""

    table: PyTree
    slots: Array
    """int32[S / D, Q], the row of each of this device's clients; past the end for absent clients on
    one device."""


def gather_rows(memory: PyTree, ids: Array, devices: int, on_host: bool = False) -> LocalRows:
    """Fetches the memory rows of this device's clients.

    Args:
      memory: this device's block of the table, ``[R, ...]`` in every leaf.
      ids: int32[S, Q], every shard's clients, shards in device order; the population size for an
        absent client.
      devices: D; the number of replicas if several devices share one client's model.
      on_host: True if the host keeps client memory: ``memory`` then is the rows of this device's
        clients already, in the order of its shards.
    """
    if devices == 1 and not on_host:
        return LocalRows(memory, ids)
    ids_by_device = ids.reshape(devices, -1)
    width = ids_by_device.shape[1]
    slots = jnp.arange(width, dtype=jnp.int32).reshape(-1, ids.shape[1])
    if on_host:
        return LocalRows(memory, slots)
    empty = jax.tree.map(lambda leaf: jnp.zeros((width, *leaf.shape[1:]), leaf.dtype), memory)
    if not jax.tree.leaves(memory):
        return LocalRows(memory, slots)

    def fill(hop: Array, rows: PyTree) -> PyTree:
        place, stored_here = _stored_rows(memory, ids_by_device, hop)
        return _pass_on(tree.where(stored_here, tree.take(memory, place), rows), devices)

    return LocalRows(lax.fori_loop(0, devices, fill, empty), slots)


def scatter_rows(
    memory: PyTree,
    rows: LocalRows,
    ids: Array,
    devices: int,
    population: Array,
    on_host: bool = False,
) -> PyTree:
    """Writes the memory rows of all devices' clients back into the table.

    Args:
      memory: this device's block of the table, ``[R, ...]`` in every leaf.
      rows: this device's rows, from :func:`gather_rows`, with their new values.
      ids: int32[S, Q], as for :func:`gather_rows`.
      devices: D.
      population: int32 scalar, N; clients with this id are absent and write nothing.
      on_host: True if the host keeps client memory.

    Returns:
      This device's block, with new rows; the rows themselves if the host keeps client memory.
    """
    if devices == 1 or on_host:
        return rows.table
    ids_by_device = jnp.where(ids < population, ids, tree.NOWHERE).reshape(devices, -1)
    if not jax.tree.leaves(memory):
        return memory

    def write(hop: Array, carry: tuple[PyTree, PyTree]) -> tuple[PyTree, PyTree]:
        buffer, block = carry
        place, stored_here = _stored_rows(block, ids_by_device, hop)
        passed_on = _pass_on(buffer, devices)
        return passed_on, tree.put(block, jnp.where(stored_here, place, tree.NOWHERE), buffer)

    return lax.fori_loop(0, devices, write, (rows.table, memory))[1]


def _stored_rows(block: PyTree, ids_by_device: Array, hop: Array) -> tuple[Array, Array]:
    """Returns which rows of a buffer this device stores.

    Args:
      block: this device's block of the table.
      ids_by_device: int32[D, W], the clients of each device's buffer.
      hop: int32 scalar, how often the buffers have been passed on.

    Returns:
      int32[W], each row's place in this device's block, and bool[W], True for rows stored here.
    """
    device = lax.axis_index(AXIS)
    length = jax.tree.leaves(block)[0].shape[0]
    ids = ids_by_device[(device - hop) % ids_by_device.shape[0]]
    stored_here = ids // length == device
    return jnp.where(stored_here, ids - device * length, 0), stored_here


def _pass_on(rows: PyTree, devices: int) -> PyTree:
    """Sends every device's buffer to its neighbour in the ring."""
    ring = [(i, (i + 1) % devices) for i in range(devices)]
    return jax.tree.map(lambda leaf: lax.ppermute(leaf, AXIS, ring), rows)
