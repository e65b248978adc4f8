"""The queue: vmapped lanes that take clients from a shard's queue inside one compiled loop.

A lane holds one client's local state and advances it by one step per iteration. When clients have
done their steps, they are finished (lift, reduce, write memory) and their lanes take the next
clients. So unequal clients cost no padding: the steps run ``max(longest client, total steps /
lanes)`` times, and memory is ``O(lanes x model)`` for every size of the cohort.

There are three loops. The innermost one contains steps alone: it changes nothing but the lanes, so
XLA updates them in place. The loop around it draws the rows of a few batches at once, since drawing
one costs nearly as much as drawing many. The outermost loop finishes clients and starts the next;
under a ``cond`` among the steps it would copy every lane's state in every step (a branch that is
not taken still copies what it returns). An idle lane at the end of the queue continues to step on
its old state; nothing of it is read, so steps need no mask.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from fedjax_sim.core import tree
from fedjax_sim.core.types import Array, Member, Metrics, PyTree
from fedjax_sim.engine.work import (
    Client,
    ClientShapes,
    Finished,
    Reduced,
    Work,
    add_present,
    add_uploads,
    client_metrics,
    empty_reduction,
    write_memory,
)

DRAWN_AHEAD = 16
"""Batches drawn at once, over all lanes of a device. When one lane's client finishes, the batches
drawn ahead for the other lanes are drawn again, so more is not always better."""


class Lanes(NamedTuple):
    """``L`` clients in progress: ``[L, ...]`` in every leaf."""

    place: Array
    """int32, the client's place in the queue; the queue's length for an idle lane."""
    step: Array
    """int32, local steps done."""
    client: Client
    memory: PyTree
    local: PyTree
    metrics: Metrics


class Carry(NamedTuple):
    """The outermost loop's state."""

    lanes: Lanes
    head: Array
    """int32, place of the next client to start."""
    reduced: Reduced


class Queue(NamedTuple):
    """A shard's clients, longest first: ``[Q]`` in every leaf."""

    members: Member
    slots: Array
    """int32, each client's row of the memory table; past its end for an absent client."""
    count: Array
    """int32 scalar, number of present clients (they come first). If a guard has dropped clients,
    the number of places up to the last present one."""

    @property
    def length(self) -> int:
        """Q."""
        return self.slots.shape[0]


NoneDone = Callable[[Lanes], Array]
"""``lanes -> bool``: True while no lane's client has finished its steps."""
RunSteps = Callable[[NoneDone, Lanes], Lanes]
"""``(none_done, lanes) -> lanes``: runs some steps of all lanes."""
MapLanes = Callable[[Callable], Callable]
"""Turns a function of one client into one of ``[L, ...]`` clients."""


class LoopControl(NamedTuple):
    """How the loops over a queue end.

    Queues are independent (:data:`INDEPENDENT`) or keep in step with each other
    (:mod:`fedjax_sim.engine.lanes.synchronized`). Steps are checked for finished clients after each
    one (:func:`make_checked_steps`) or not (:mod:`fedjax_sim.engine.lanes.fixed_steps`).
    """

    outer_loop: Callable[[Callable[[Carry], Array], Callable[[Carry], Carry], Carry], Carry]
    """``(busy, turn, carry) -> carry``: repeats ``turn`` while ``busy`` is true."""
    none_done: Callable[[Queue, Lanes], NoneDone]
    """``(queue, lanes) -> (lanes -> bool)``: True while, from these lanes on, no client has
    finished. With and without a lane axis."""
    block_count: Callable[[Array], Array]
    """Blocks that :mod:`fedjax_sim.engine.lanes.single_step` runs, from those that the queue
    fills."""
    make_steps: Callable[[Work, int, MapLanes], RunSteps]
    """``(work, lanes, over_lanes) -> run_steps``."""


def run(
    work: Work,
    queue: Queue,
    table: PyTree,
    like: ClientShapes,
    lanes: int,
    over_lanes: MapLanes = jax.vmap,
    control: LoopControl | None = None,
) -> Reduced:
    """Runs every client of the queue through its round.

    Args:
      work: functions of one client.
      queue: the clients, longest first, ``[Q]`` in every leaf.
      table: memory rows.
      like: shapes of one client's states and results.
      lanes: L, clients that run side by side; at most Q of them are used.
      over_lanes: turns the step of one client into a step of L clients (``jax.vmap``, or a map that
        runs them one after another).
      control: how the loops end; by default :data:`INDEPENDENT`.
    """
    control = control or INDEPENDENT
    lanes = min(lanes, queue.length)
    cohort = jax.vmap(work.enrol)(queue.members)
    run_steps = control.make_steps(work, lanes, over_lanes)

    def busy(carry: Carry) -> Array:
        return jnp.any(carry.lanes.place < queue.length)

    def turn(carry: Carry) -> Carry:
        # A single lane has no lane axis in the loop: the bitcasts that add and remove it would keep
        # XLA from updating in place.
        now = tree.first(carry.lanes) if lanes == 1 else carry.lanes
        none_done = control.none_done(queue, now)
        now = lax.while_loop(none_done, partial(run_steps, none_done), now)
        after = tree.tile(now, 1) if lanes == 1 else now
        return refill(work, queue, cohort, finish(work, queue, carry._replace(lanes=after)))

    start = refill(work, queue, cohort, begin(work, queue, table, like, lanes))
    return control.outer_loop(busy, turn, start).reduced


def make_checked_steps(work: Work, lanes: int, over_lanes: MapLanes) -> RunSteps:
    """Returns a function that runs a few steps of all lanes, and stops when a client has finished.

    Args:
      work: functions of one client.
      lanes: L. A single lane has no lane axis.
      over_lanes: turns the step of one client into a step of L clients.

    Returns:
      ``(none_done, lanes) -> lanes``; the batches of all its steps are drawn together.
    """
    ahead = jnp.arange(max(1, min(DRAWN_AHEAD // lanes, work.bound)), dtype=jnp.int32)
    draw = work.draw if lanes == 1 else jax.vmap(work.draw, out_axes=1)
    step = work.step if lanes == 1 else over_lanes(work.step)

    def run_steps(none_done: NoneDone, lanes: Lanes) -> Lanes:
        indices = draw(lanes.client, jnp.expand_dims(lanes.step, -1) + ahead)

        def advance(carry: tuple[Array, Lanes]) -> tuple[Array, Lanes]:
            taken, now = carry
            batch = tree.take(indices, taken)
            local, metrics = step(now.client, now.memory, now.local, now.step, batch)
            return taken + 1, now._replace(
                local=local, step=now.step + 1, metrics=tree.add(now.metrics, metrics)
            )

        def can_continue(carry: tuple[Array, Lanes]) -> Array:
            return (carry[0] < len(ahead)) & none_done(carry[1])

        return lax.while_loop(can_continue, advance, (jnp.int32(0), lanes))[1]

    return run_steps


def none_done(queue: Queue, lanes: Lanes) -> Array:
    """Returns True (a bool scalar) while no lane's client has finished its steps.

    Works with and without a lane axis.
    """
    # The first factor matters under vmap: a finished run waits here for the other runs, and none of
    # its clients will ever be done.
    return jnp.any(lanes.place < queue.length) & ~jnp.any(done(queue, lanes))


INDEPENDENT = LoopControl(
    lax.while_loop,
    lambda queue, lanes: partial(none_done, queue),
    lambda blocks: blocks,
    make_checked_steps,
)
"""The loops of a queue that is independent of other queues."""


def begin(work: Work, queue: Queue, table: PyTree, like: ClientShapes, lanes: int) -> Carry:
    """Returns the state before the first client: all lanes idle, nothing reduced."""
    idle = jnp.full((lanes,), queue.length, jnp.int32)
    blank = tree.tile(tree.zeros_like((like.client, like.memory, like.local, like.metrics)), lanes)
    return Carry(
        Lanes(idle, jnp.zeros_like(idle), *blank),
        jnp.int32(0),
        empty_reduction(like, work.reduce, queue.length, table),
    )


def done(queue: Queue, lanes: Lanes) -> Array:
    """Returns bool[L]: True for lanes whose client has taken all its steps."""
    return (lanes.place < queue.length) & (lanes.step >= lanes.client.member.steps)


def finish(work: Work, queue: Queue, carry: Carry) -> Carry:
    """Finishes the clients that have taken all their steps; their lanes become idle."""
    lanes = carry.lanes
    ended = done(queue, lanes)
    results = jax.vmap(work.finish)(lanes.client, lanes.memory, lanes.local)
    return carry._replace(
        lanes=lanes._replace(place=jnp.where(ended, queue.length, lanes.place)),
        reduced=deliver(work, queue, carry.reduced, results, lanes.metrics, ended, lanes.place),
    )


def deliver(
    work: Work,
    queue: Queue,
    reduced: Reduced,
    results: Finished,
    steps: Metrics,
    present: Array,
    place: Array,
) -> Reduced:
    """Adds the results of L clients to the reduction.

    Args:
      work: for the kind of reduction.
      queue: the shard's clients.
      reduced: the reduction so far.
      results: the clients' results, ``[L, ...]`` in every leaf.
      steps: metrics summed over each client's steps, ``[L, ...]`` in every leaf.
      present: bool[L]; the other clients change nothing.
      place: int32[L], the clients' places in the queue.
    """
    dropped = reduced.dropped
    counts = present
    if results.dropped is not None:
        active = present & (jnp.take(queue.members.steps, place, mode="clip") > 0)
        dropped = tree.put(dropped, jnp.where(active, place, queue.length), results.dropped)
        counts = active & ~results.dropped
    slots = jnp.where(counts, jnp.take(queue.slots, place, mode="clip"), tree.NOWHERE)
    return Reduced(
        add_uploads(work.reduce, reduced.upload, results.upload, counts, place),
        add_present(reduced.stats, results.stats, counts),
        tree.put(
            reduced.clients,
            jnp.where(counts, place, queue.length),
            client_metrics(steps, results.metrics),
        ),
        write_memory(reduced.table, slots, results.memory),
        dropped,
    )


def refill(work: Work, queue: Queue, cohort: Client, carry: Carry) -> Carry:
    """Starts the next clients of the queue, in order, on the idle lanes.

    Args:
      work: functions of one client.
      queue: the shard's clients.
      cohort: the same clients with their random streams, ``[Q, ...]`` in every leaf.
      carry: the outermost loop's state.
    """
    lanes = carry.lanes
    idle = lanes.place >= queue.length
    place = carry.head + jnp.cumsum(idle, dtype=jnp.int32) - 1
    takes = idle & (place < queue.count)
    client = tree.take(cohort, place)
    memory = tree.take(carry.reduced.table, jnp.take(queue.slots, place, mode="clip"))
    local = jax.vmap(work.start)(client, memory)
    step = jnp.zeros_like(place)
    fresh = Lanes(place, step, client, memory, local, tree.zeros_like(lanes.metrics))
    return carry._replace(
        lanes=tree.where(takes, fresh, lanes), head=carry.head + jnp.sum(takes, dtype=jnp.int32)
    )
