"""Loops of a fixed number of steps, for accelerators.

There the host decides whether a loop continues: after every iteration of the loop in
:func:`fedjax_sim.engine.lanes.queue.make_checked_steps` the device would wait until the host has
read one boolean and has launched the next iteration. A loop of a fixed length needs no decision. A
lane whose client finishes before the loop ends keeps its state; since this is part of the write
that a step makes anyway, it costs no pass over the lane's state.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from jax import lax

from fedjax_sim.core import tree
from fedjax_sim.data.batching import BatchIndices
from fedjax_sim.engine.lanes.queue import INDEPENDENT, Lanes, MapLanes, NoneDone, RunSteps
from fedjax_sim.engine.work import Work

STEPS = 8
"""Steps of a loop. A lane that finishes in the middle idles for at most this number of steps; each
further loop costs one decision on the host (see benchmarks/NOTES.md)."""


def loop_length(bound: int) -> int:
    """Returns the steps of a loop if no client takes more than ``bound`` steps.

    The number of loops is the smallest for loops of at most :data:`STEPS` steps, and no loop is
    longer than it must be.
    """
    return math.ceil(bound / math.ceil(bound / STEPS))


def make_fixed_steps(work: Work, lanes: int, over_lanes: MapLanes) -> RunSteps:
    """Returns a function that runs a fixed number of steps of all lanes.

    Args:
      work: functions of one client.
      lanes: L. A single lane has no lane axis.
      over_lanes: turns the step of one client into a step of L clients.

    Returns:
      ``(none_done, lanes) -> lanes``; the batches of all its steps are drawn together.
    """
    ahead = jnp.arange(loop_length(work.bound), dtype=jnp.int32)
    draw = work.draw if lanes == 1 else jax.vmap(work.draw, out_axes=1)
    step = work.step if lanes == 1 else over_lanes(work.step)

    def advance(now: Lanes, indices: BatchIndices) -> tuple[Lanes, None]:
        local, metrics = step(now.client, now.memory, now.local, now.step, indices)
        active = now.step < now.client.member.steps
        local, metrics = tree.where(
            active, (local, tree.add(now.metrics, metrics)), (now.local, now.metrics)
        )
        return now._replace(local=local, step=now.step + active, metrics=metrics), None

    def run_steps(none_done: NoneDone, lanes: Lanes) -> Lanes:
        indices = draw(lanes.client, jnp.expand_dims(lanes.step, -1) + ahead)
        return lax.scan(advance, lanes, indices)[0]

    return run_steps


FIXED_STEPS = INDEPENDENT._replace(make_steps=make_fixed_steps)
"""The loops of an accelerator's queue that is independent of other queues."""
