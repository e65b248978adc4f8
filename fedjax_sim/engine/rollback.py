"""A round that may be refused: what it needs to leave no trace, at the cost of the cohort's memory rows, not of the whole table."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from fedjax_sim.core import tree
from fedjax_sim.core.types import Array, PyTree, Roster, RoundState
from fedjax_sim.engine.nonfinite import finite
from fedjax_sim.engine.plan import AXIS, Plan


class SavedRows(NamedTuple):
    """A state, and what is written over in it by a round."""

    state: RoundState
    """The one to go on from."""
    rows: PyTree = ()
    """Memory of those clients of the cohort whose rows are on this device, ``[C, ...]``; nothing where the host lends them."""
    places: Array | None = None
    """int32[C], where they are in its block of the table; nowhere for others. ``None`` where there are no rows."""


def save_cohort_rows(plan: Plan, state: RoundState, ids: Array) -> SavedRows:
    """To be called before a round of these clients (int32[C]), on every device."""
    leaves = jax.tree.leaves(state.memory)
    if not leaves or plan.client_memory == "host":  # who keeps what it lent
        return SavedRows(state)
    length = leaves[0].shape[0]
    me = lax.axis_index(AXIS) if plan.replicas > 1 else 0
    places = jnp.where(ids // length == me, ids - me * length, tree.NOWHERE)
    rows = tree.take(state.memory, places)
    # Written back, so that the round waits until they are read: else it would work on a copy of the whole table.
    return SavedRows(replace(state, memory=tree.put(state.memory, places, rows)), rows, places)


def roll_back(plan: Plan, aside: SavedRows, after: RoundState, roster: Roster) -> RoundState:
    """The state after a round that left this roster, or, where the round is to be refused, the one before it. On every device."""
    lost = jnp.zeros((), bool) if roster.dropped is None else jnp.any(roster.dropped)
    bad = (
        lost
        | became_nonfinite(aside.state.algorithm, after.algorithm)
        | memory_nonfinite(plan, aside, after.memory)
    )
    rest = tree.where(bad, replace(aside.state, memory=()), replace(after, memory=()))
    if aside.places is None:
        return replace(rest, memory=after.memory)
    return replace(
        rest, memory=tree.put(after.memory, jnp.where(bad, aside.places, tree.NOWHERE), aside.rows)
    )


def became_nonfinite(before: PyTree, after: PyTree) -> Array:
    """bool: whether any leaf that was finite is not any more. Some optimizers begin with an infinity on purpose."""
    pairs = zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=True)
    return jnp.any(jnp.array([finite(old) & ~finite(new) for old, new in pairs], bool))


def memory_nonfinite(plan: Plan, aside: SavedRows, memory: PyTree) -> Array:
    """bool, the same on all devices: whether the memory row of any client of the cohort is not finite."""
    if not jax.tree.leaves(memory):
        return jnp.zeros((), bool)
    if aside.places is not None:
        rows = tree.take(memory, aside.places)
        memory = tree.where(aside.places < tree.NOWHERE, rows, tree.zeros_like(rows))
    bad = ~finite(memory)
    return lax.psum(bad.astype(jnp.int32), AXIS) > 0 if plan.replicas > 1 else bad
