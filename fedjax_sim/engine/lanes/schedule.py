"""Dealing a cohort to shards: longest clients first, in snake order, so that shards finish together, and so do two, four, ... devices that
have a block of them each."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fedjax_sim.core import tree
from fedjax_sim.core.types import Array, Member, PyTree, Roster
from fedjax_sim.engine.lanes.queue import Queue


class Deal(NamedTuple):
    """A cohort in shards: ``[S, Q]`` in every leaf, absent rows last in each shard."""

    members: Member
    place: Array
    """int32, each client's row in the roster; C where there is none."""


def deal(roster: Roster, shards: int) -> Array:
    """Deals the cohort: ``Deal.place``. The order depends on clients' steps and ids, not on their places in the roster."""
    cohort = roster.id.shape[0]
    per_shard = -(-cohort // shards)
    steps = jnp.where(roster.present, roster.steps, 0)
    order = jnp.lexsort((roster.id, -steps)).astype(jnp.int32)
    order = jnp.concatenate([order, jnp.full((shards * per_shard - cohort,), cohort, jnp.int32)])
    rows = order.reshape(per_shard, shards)
    return jnp.where((jnp.arange(per_shard) % 2 == 1)[:, None], rows[:, ::-1], rows).T[
        np.array(stagger(shards))
    ]


def stagger(shards: int) -> list[int]:
    """For each shard its place in the snake: two neighbours there are in different halves of the shards, four in different quarters, and
    so on, as far as two divides their number. ``0 4 2 6 1 5 3 7`` of eight: of two clients in the snake's last row, two devices get one
    each."""
    if shards % 2:
        return list(range(shards))
    half = stagger(shards // 2)
    return [2 * place for place in half] + [2 * place + 1 for place in half]


def by_shard(roster: Roster, place: Array) -> Deal:
    """The members of a roster at their places; who is not present has no steps to take."""
    absent = Member(roster.population, jnp.int32(0), jnp.int32(0), jnp.int32(0))
    members = roster.members._replace(steps=jnp.where(roster.present, roster.steps, 0))
    there = place < roster.id.shape[0]
    return Deal(
        jax.tree.map(
            lambda leaf, none: jnp.where(there, tree.take(leaf, place), none), members, absent
        ),
        place,
    )


def queue(deal: Deal, shard: Array | int, slots: Array, gaps: bool = False) -> Queue:
    """One shard's queue; ``slots`` are int32[Q]. Gaps: whether some who were dealt may be gone."""
    members = tree.take(deal.members, jnp.asarray(shard))
    there = members.steps > 0
    last = (
        jnp.max(jnp.where(there, jnp.arange(1, len(there) + 1, dtype=jnp.int32), 0))
        if gaps
        else None
    )
    return Queue(members, slots, jnp.sum(there, dtype=jnp.int32) if last is None else last)


def to_roster_order(deal: Deal, values: PyTree, cohort: int) -> PyTree:
    """``[S, Q, ...]`` values back in roster order, ``[C, ...]``."""

    def back(leaf: Array) -> Array:
        out = jnp.zeros((cohort, *leaf.shape[2:]), leaf.dtype)
        return out.at[deal.place.reshape(-1)].set(leaf.reshape(-1, *leaf.shape[2:]), mode="drop")

    return jax.tree.map(back, values)
