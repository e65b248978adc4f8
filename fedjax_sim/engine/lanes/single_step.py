"""The sweep: clients of a single step, block by block. Nothing is carried from step to step, so there is nothing to queue for.

A block's clients start, step and finish in one vmapped function. XLA then sees that they all step from the same anchor, and
computes with one copy of it, where the queue's lanes hold one each.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import lax

from fedjax_sim.core import tree
from fedjax_sim.core.types import Array, Metrics, PyTree
from fedjax_sim.engine.lanes.queue import OWN, MapLanes, Pace, Queue, deliver
from fedjax_sim.engine.work import Client, Finished, Like, Reduced, Work, empty


def run(
    work: Work,
    queue: Queue,
    table: PyTree,
    like: Like,
    lanes: int,
    over_lanes: MapLanes = jax.vmap,
    pace: Pace = OWN,
) -> Reduced:
    """Runs every client of the queue through its round of one step. Arguments and results as of :func:`fedjax_sim.engine.lanes.queue.run`."""
    lanes = min(lanes, queue.length)
    cohort = jax.vmap(work.enrol)(queue.members)

    def life(client: Client, memory: PyTree) -> tuple[Finished, Metrics]:
        first = jnp.int32(0)
        local, metrics = work.step(
            client, memory, work.start(client, memory), first, work.draw(client, first)
        )
        return work.finish(client, memory, local), metrics

    def block(number: Array, reduced: Reduced) -> Reduced:
        place = number * lanes + jnp.arange(lanes, dtype=jnp.int32)
        memory = tree.take(reduced.table, jnp.take(queue.slots, place, mode="clip"))
        left, steps = over_lanes(life)(tree.take(cohort, place), memory)
        return deliver(work, queue, reduced, left, steps, place < queue.count, place)

    return lax.fori_loop(
        0,
        pace.blocks(-(-queue.count // lanes)),
        block,
        empty(like, work.reduce, queue.length, table),
    )
