"""Assigns a cohort to shards: longest clients first, in snake order.

All shards then finish at about the same time, and so do two, four, ... devices that have a block of
the shards each.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fedjax_sim.core import tree
from fedjax_sim.core.types import Array, Member, PyTree, Roster
from fedjax_sim.engine.lanes.queue import Queue


class ShardedCohort(NamedTuple):
    """A cohort in shards: ``[S, Q]`` in every leaf, absent rows last in each shard."""

    members: Member
    place: Array
    """int32, each client's row in the roster; C for an absent row."""


def assign_to_shards(roster: Roster, shards: int) -> Array:
    """Assigns the cohort's clients to shards.

    The order depends on the clients' steps and ids, not on their rows in the roster.

    Args:
      roster: ``[C]`` in every leaf.
      shards: S.

    Returns:
      int32[S, Q], the roster row of each shard's clients: :attr:`ShardedCohort.place`.
    """
    cohort = roster.id.shape[0]
    per_shard = -(-cohort // shards)
    steps = jnp.where(roster.present, roster.steps, 0)
    order = jnp.lexsort((roster.id, -steps)).astype(jnp.int32)
    order = jnp.concatenate([order, jnp.full((shards * per_shard - cohort,), cohort, jnp.int32)])
    rows = order.reshape(per_shard, shards)
    odd = (jnp.arange(per_shard) % 2 == 1)[:, None]
    return jnp.where(odd, rows[:, ::-1], rows).T[np.array(stagger(shards))]


def stagger(shards: int) -> list[int]:
    """Returns for each shard its place in the snake.

    Two neighbours in the snake are in different halves of the shards, four in different quarters,
    and so on, as far as the number of shards can be halved. For eight shards: ``0 4 2 6 1 5 3 7``.
    Of two clients in the snake's last row, two devices get one each.
    """
    if shards % 2:
        return list(range(shards))
    half = stagger(shards // 2)
    return [2 * place for place in half] + [2 * place + 1 for place in half]


def by_shard(roster: Roster, place: Array) -> ShardedCohort:
    """Returns the roster's members in shards; clients that are not present have 0 steps.

    Args:
      roster: ``[C]`` in every leaf.
      place: int32[S, Q], from :func:`assign_to_shards`.
    """
    absent = Member(roster.population, jnp.int32(0), jnp.int32(0), jnp.int32(0))
    members = roster.members._replace(steps=jnp.where(roster.present, roster.steps, 0))
    exists = place < roster.id.shape[0]
    return ShardedCohort(
        jax.tree.map(
            lambda leaf, none: jnp.where(exists, tree.take(leaf, place), none), members, absent
        ),
        place,
    )


def queue(shards: ShardedCohort, shard: Array | int, slots: Array, gaps: bool = False) -> Queue:
    """Returns one shard's queue.

    Args:
      shards: the cohort, ``[S, Q]`` in every leaf.
      shard: which of the S shards.
      slots: int32[Q], its clients' rows of the memory table.
      gaps: True if clients may have been dropped since the cohort was sharded.
    """
    members = tree.take(shards.members, jnp.asarray(shard))
    active = members.steps > 0
    if gaps:
        ends = jnp.arange(1, len(active) + 1, dtype=jnp.int32)
        count = jnp.max(jnp.where(active, ends, 0))
    else:
        count = jnp.sum(active, dtype=jnp.int32)
    return Queue(members, slots, count)


def to_roster_order(shards: ShardedCohort, values: PyTree, cohort: int) -> PyTree:
    """Brings values of a sharded cohort back into roster order.

    Args:
      shards: the cohort, ``[S, Q]`` in every leaf.
      values: ``[S, Q, ...]`` in every leaf.
      cohort: C.

    Returns:
      ``[C, ...]`` in every leaf.
    """

    def reorder(leaf: Array) -> Array:
        zeros = jnp.zeros((cohort, *leaf.shape[2:]), leaf.dtype)
        places = shards.place.reshape(-1)
        return zeros.at[places].set(leaf.reshape(-1, *leaf.shape[2:]), mode="drop")

    return jax.tree.map(reorder, values)
