"""Marching: a fixed number of steps of all lanes without a look at who is done, for accelerators.

Whether a loop goes on is decided on the host there: after every turn of :func:`fedjax_sim.engine.lanes.queue.make_stretch` the device would
wait until the host has read one boolean and launched the next turn. A loop of a fixed length needs no answer. A lane whose client is
done before the march is over stands still; since standing still is part of the write that a step makes anyway, it costs no pass over
the lane's state.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from jax import lax

from fedjax_sim.core import tree
from fedjax_sim.data.batching import BatchIndices
from fedjax_sim.engine.lanes.queue import OWN, Going, Lanes, MapLanes, Stretch
from fedjax_sim.engine.work import Work

STEPS = 8
"""Of a march: what lanes that end in the middle of it lose at most, against what a look costs (see benchmarks/NOTES.md)."""


def paces(bound: int) -> int:
    """Steps of a march where no client takes more than so many: no more marches than needed, none longer than it must be."""
    return math.ceil(bound / math.ceil(bound / STEPS))


def make_march(work: Work, lanes: int, over_lanes: MapLanes) -> Stretch:
    """A few steps of all lanes, on batches drawn together. A single lane comes without its axis."""
    ahead = jnp.arange(paces(work.bound), dtype=jnp.int32)
    draw, step = (
        (work.draw, work.step)
        if lanes == 1
        else (jax.vmap(work.draw, out_axes=1), over_lanes(work.step))
    )

    def advance(now: Lanes, drawn: BatchIndices) -> tuple[Lanes, None]:
        local, metrics = step(now.client, now.memory, now.local, now.step, drawn)
        due = now.step < now.client.member.steps
        local, metrics = tree.where(
            due, (local, tree.add(now.metrics, metrics)), (now.local, now.metrics)
        )
        return now._replace(local=local, step=now.step + due, metrics=metrics), None

    def march(going: Going, begun: Lanes) -> Lanes:
        return lax.scan(
            advance, begun, draw(begun.client, jnp.expand_dims(begun.step, -1) + ahead)
        )[0]

    return march


MARCHING = OWN._replace(stretch=make_march)
"""The pace of an accelerator's queue that nobody else waits for."""
