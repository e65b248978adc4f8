"""The reference engine: a vmap over clients of a scan over steps, padded to the longest client.

It is slow on unequal clients and needs much memory, but it is obvious, and differentiable in
reverse. The queue is tested against it.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import lax

from fedjax_sim.core import tree
from fedjax_sim.core.types import Array, Metrics, PyTree
from fedjax_sim.engine.lanes.queue import Queue, deliver
from fedjax_sim.engine.work import Client, ClientShapes, Finished, Reduced, Work, empty_reduction


def run(work: Work, queue: Queue, table: PyTree, like: ClientShapes) -> Reduced:
    """Runs every client of the queue through its round, all at once.

    The results are those of :func:`fedjax_sim.engine.lanes.queue.run`.

    Args:
      work: functions of one client.
      queue: the clients, ``[Q]`` in every leaf.
      table: memory rows.
      like: shapes of one client's states and results.
    """
    place = jnp.arange(queue.length, dtype=jnp.int32)
    clients = jax.vmap(work.enrol)(queue.members)
    results, steps = jax.vmap(
        lambda client, memory: _run_client(work, like.metrics, client, memory)
    )(clients, tree.take(table, queue.slots))
    empty = empty_reduction(like, work.reduce, queue.length, table)
    return deliver(work, queue, empty, results, steps, place < queue.count, place)


def _run_client(
    work: Work, like: Metrics, client: Client, memory: PyTree
) -> tuple[Finished, Metrics]:
    """Runs ``work.bound`` steps, of which those past the client's own number change nothing."""

    def step(carry: tuple[PyTree, Metrics], k: Array) -> tuple[tuple[PyTree, Metrics], None]:
        local, total = carry
        after, metrics = work.step(client, memory, local, k, work.draw(client, k))
        return tree.where(k < client.member.steps, (after, tree.add(total, metrics)), carry), None

    start = (work.start(client, memory), tree.zeros_like(like))
    (local, metrics), _ = lax.scan(step, start, jnp.arange(work.bound, dtype=jnp.int32))
    return work.finish(client, memory, local), metrics
