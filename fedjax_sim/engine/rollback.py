"""Saves what is needed to reject a round: the cohort's memory rows, not the whole table."""

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
    """A state, and the memory rows that a round overwrites in it."""

    state: RoundState
    """The state from which the round must continue."""
    rows: PyTree = ()
    """Memory rows of the cohort's clients that are on this device, ``[C, ...]`` in every leaf;
    empty if the host keeps client memory."""
    places: Array | None = None
    """int32[C], their rows in this device's block of the table; ``NOWHERE`` for clients whose rows
    are on other devices. ``None`` if there are no rows."""


def save_cohort_rows(plan: Plan, state: RoundState, ids: Array) -> SavedRows:
    """Copies the cohort's memory rows before a round, on every device.

    Args:
      plan: the plan.
      state: the state before the round, with this device's block of the table.
      ids: int32[C], the cohort's clients.
    """
    leaves = jax.tree.leaves(state.memory)
    if not leaves or plan.client_memory == "host":  # the host still has the old rows
        return SavedRows(state)
    length = leaves[0].shape[0]
    device = lax.axis_index(AXIS) if plan.replicas > 1 else 0
    places = jnp.where(ids // length == device, ids - device * length, tree.NOWHERE)
    rows = tree.take(state.memory, places)
    # Written back so that the round depends on this read: otherwise XLA copies the whole table.
    return SavedRows(replace(state, memory=tree.put(state.memory, places, rows)), rows, places)


def roll_back(plan: Plan, saved: SavedRows, after: RoundState, roster: Roster) -> RoundState:
    """Returns the state after a round, or the state before it if the round is rejected.

    Args:
      plan: the plan.
      saved: the state before the round, from :func:`save_cohort_rows`.
      after: the state after it.
      roster: the round's cohort; a dropped client rejects the round.
    """
    dropped = jnp.zeros((), bool) if roster.dropped is None else jnp.any(roster.dropped)
    rejected = (
        dropped
        | became_nonfinite(saved.state.algorithm, after.algorithm)
        | memory_nonfinite(plan, saved, after.memory)
    )
    rest = tree.where(rejected, replace(saved.state, memory=()), replace(after, memory=()))
    if saved.places is None:
        return replace(rest, memory=after.memory)
    places = jnp.where(rejected, saved.places, tree.NOWHERE)
    return replace(rest, memory=tree.put(after.memory, places, saved.rows))


def became_nonfinite(before: PyTree, after: PyTree) -> Array:
    """Returns True (a bool scalar) if a leaf that was finite before is not finite after.

    Leaves that were not finite before are ignored: some optimizers start with an infinity.
    """
    pairs = zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=True)
    return jnp.any(jnp.array([finite(old) & ~finite(new) for old, new in pairs], bool))


def memory_nonfinite(plan: Plan, saved: SavedRows, memory: PyTree) -> Array:
    """Returns True (a bool scalar) if a memory row of the cohort on any device is not finite.

    Args:
      plan: the plan.
      saved: says which rows of the table belong to the cohort.
      memory: this device's block of the table after the round, or the cohort's rows.
    """
    if not jax.tree.leaves(memory):
        return jnp.zeros((), bool)
    if saved.places is not None:
        rows = tree.take(memory, saved.places)
        memory = tree.where(saved.places < tree.NOWHERE, rows, tree.zeros_like(rows))
    bad = ~finite(memory)
    return lax.psum(bad.astype(jnp.int32), AXIS) > 0 if plan.replicas > 1 else bad
