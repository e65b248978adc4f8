"""The reference engine: a vmap over clients of a scan over steps, every client padded to the longest and masked.

Slow on unequal clients and hungry for memory, but obvious, and differentiable in reverse. The queue is tested against it.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import lax

from fedjax_sim.core import tree
from fedjax_sim.core.types import Array, Metrics, PyTree
from fedjax_sim.engine.lanes.queue import Queue, deliver
from fedjax_sim.engine.work import Client, Finished, Like, Reduced, Work, empty


def run(work: Work, queue: Queue, table: PyTree, like: Like) -> Reduced:
    """Runs every client of the queue through its round, all at once. Same results as :func:`fedjax_sim.engine.lanes.queue.run`."""
    place = jnp.arange(queue.length, dtype=jnp.int32)
    cohort = jax.vmap(work.enrol)(queue.members)
    left, steps = jax.vmap(lambda client, memory: _client(work, like.metrics, client, memory))(
        cohort, tree.take(table, queue.slots)
    )
    return deliver(
        work,
        queue,
        empty(like, work.reduce, queue.length, table),
        left,
        steps,
        place < queue.count,
        place,
    )


def _client(work: Work, like: Metrics, client: Client, memory: PyTree) -> tuple[Finished, Metrics]:
    """One client: ``bound`` steps, of which those past its own number leave everything as it is."""

    def step(carry: tuple[PyTree, Metrics], k: Array) -> tuple[tuple[PyTree, Metrics], None]:
        local, total = carry
        after, metrics = work.step(client, memory, local, k, work.draw(client, k))
        return tree.where(k < client.member.steps, (after, tree.add(total, metrics)), carry), None

    start = (work.start(client, memory), tree.zeros_like(like))
    (local, metrics), _ = lax.scan(step, start, jnp.arange(work.bound, dtype=jnp.int32))
    return work.finish(client, memory, local), metrics
