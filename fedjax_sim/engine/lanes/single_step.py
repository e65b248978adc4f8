"""Runs clients of a single step, block by block, without a queue.

Nothing is carried from step to step. A block's clients start, step and finish in one vmapped
function. XLA then sees that all of them step from the same anchor and computes with one copy of it,
where the queue's lanes hold one each.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import lax

from fedjax_sim.core import tree
from fedjax_sim.core.types import Array, Metrics, PyTree
from fedjax_sim.engine.lanes.queue import INDEPENDENT, LoopControl, MapLanes, Queue, deliver
from fedjax_sim.engine.work import Client, ClientShapes, Finished, Reduced, Work, empty_reduction


def run(
    work: Work,
    queue: Queue,
    table: PyTree,
    like: ClientShapes,
    lanes: int,
    over_lanes: MapLanes = jax.vmap,
    control: LoopControl = INDEPENDENT,
) -> Reduced:
    """Runs every client of the queue through its round of one step.

    The arguments and results are those of :func:`fedjax_sim.engine.lanes.queue.run`; ``lanes`` is
    the number of clients in a block.
    """
    lanes = min(lanes, queue.length)
    clients = jax.vmap(work.enrol)(queue.members)

    def run_client(client: Client, memory: PyTree) -> tuple[Finished, Metrics]:
        k = jnp.int32(0)
        local = work.start(client, memory)
        local, metrics = work.step(client, memory, local, k, work.draw(client, k))
        return work.finish(client, memory, local), metrics

    def run_block(number: Array, reduced: Reduced) -> Reduced:
        place = number * lanes + jnp.arange(lanes, dtype=jnp.int32)
        memory = tree.take(reduced.table, jnp.take(queue.slots, place, mode="clip"))
        results, steps = over_lanes(run_client)(tree.take(clients, place), memory)
        return deliver(work, queue, reduced, results, steps, place < queue.count, place)

    blocks = control.block_count(-(-queue.count // lanes))
    empty = empty_reduction(like, work.reduce, queue.length, table)
    return lax.fori_loop(0, blocks, run_block, empty)
