"""The queue: vmapped lanes that pull clients from a shard's queue inside one compiled loop.

A lane holds one client's local state and advances it by one step per iteration. When clients have done their steps, they are finished
(lift, reduce, write memory) and their lanes take the next clients, so unequal clients cost no padding: the steps run
``max(longest client, total steps / lanes)`` times, and memory is ``O(lanes x model)`` whatever the cohort.

Three loops. The innermost is of steps alone: it touches nothing but the lanes, so XLA updates them in place. Around it, one draws the
rows of a few batches at once, since to draw one costs nearly as much as to draw many. The outermost finishes clients and starts the
next; under a ``cond`` among the steps it would copy every lane's state in every step (an idle branch still copies what it returns).
An idle lane at the end of the queue goes on stepping on what it has; nothing of it is read, so nothing needs masking per step.
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
    Finished,
    Like,
    Reduced,
    Work,
    absorb,
    add_present,
    client_metrics,
    empty,
    remember,
)

DRAWN_AHEAD = 16
"""Batches drawn at once, over all lanes of a device: lanes that end at different times throw away what the others had drawn ahead."""


class Lanes(NamedTuple):
    """``L`` clients in progress: ``[L, ...]`` in every leaf."""

    place: Array
    """int32, the client's place in the queue; its length where the lane is idle."""
    step: Array
    """int32, local steps done."""
    client: Client
    memory: PyTree
    local: PyTree
    metrics: Metrics


class Carry(NamedTuple):
    """The loop's state."""

    lanes: Lanes
    head: Array
    """int32, place of the next client to start."""
    reduced: Reduced


class Queue(NamedTuple):
    """A shard's clients, longest first: ``[Q]`` in every leaf."""

    members: Member
    slots: Array
    """int32, each client's row of the memory table; past its end, none."""
    count: Array
    """int32 scalar, how many are present (they come first); where a guard has sent some of them away, with those before the last one."""

    @property
    def length(self) -> int:
        """Q."""
        return self.slots.shape[0]


Going = Callable[[Lanes], Array]
"""Whether nobody is done yet, so that all lanes may go on."""
Stretch = Callable[[Going, Lanes], Lanes]
"""``(going, lanes) -> lanes``: some steps of all lanes."""
MapLanes = Callable[[Callable], Callable]
"""Turns a function of one client into one of ``[L, ...]`` clients."""


class Pace(NamedTuple):
    """How the loops over a queue go on: by what is in it, or by what is in all of them (:mod:`fedjax_sim.engine.lanes.synchronized`); and whether
    they look after each step (:func:`make_stretch`) or not (:mod:`fedjax_sim.engine.lanes.fixed_steps`)."""

    turns: Callable[[Callable[[Carry], Array], Callable[[Carry], Carry], Carry], Carry]
    """``(busy, turn, carry) -> carry``: turns as long as somebody is busy."""
    going: Callable[[Queue, Lanes], Going]
    """``(queue, lanes) -> (lanes -> bool)``: whether, from these lanes on, nobody is done yet. With and without a lane axis."""
    blocks: Callable[[Array], Array]
    """Blocks of a sweep, from those that the queue fills."""
    stretch: Callable[[Work, int, MapLanes], Stretch]
    """``(work, lanes, over_lanes) -> stretch``."""


def run(
    work: Work,
    queue: Queue,
    table: PyTree,
    like: Like,
    lanes: int,
    over_lanes: MapLanes = jax.vmap,
    pace: Pace | None = None,
) -> Reduced:
    """Runs every client of the queue through its round.

    Args:
      work: functions of one client.
      queue: the clients, longest first.
      table: memory rows.
      like: shapes of one client's passage.
      lanes: L, how many run side by side; more than there are clients is the same as one for each.
      over_lanes: how a step becomes a step of several lanes (``jax.vmap``, or one after another).
      pace: by default the queue's own.
    """
    pace = pace or OWN
    lanes = min(lanes, queue.length)
    cohort = jax.vmap(work.enrol)(queue.members)
    stretch = pace.stretch(work, lanes, over_lanes)

    def busy(carry: Carry) -> Array:
        return jnp.any(carry.lanes.place < queue.length)

    def turn(carry: Carry) -> Carry:
        # A single lane loses its axis for the loop: the bitcasts to and from it would keep XLA from updating in place.
        now = tree.first(carry.lanes) if lanes == 1 else carry.lanes
        going = pace.going(queue, now)
        now = lax.while_loop(going, partial(stretch, going), now)
        after = tree.tile(now, 1) if lanes == 1 else now
        return refill(work, queue, cohort, finish(work, queue, carry._replace(lanes=after)))

    return pace.turns(
        busy, turn, refill(work, queue, cohort, begin(work, queue, table, like, lanes))
    ).reduced


def make_stretch(work: Work, lanes: int, over_lanes: MapLanes) -> Stretch:
    """A few steps of all lanes, on batches drawn together; fewer where a client is done before. A single lane comes without its axis."""
    ahead = jnp.arange(max(1, min(DRAWN_AHEAD // lanes, work.bound)), dtype=jnp.int32)
    draw, step = (
        (work.draw, work.step)
        if lanes == 1
        else (jax.vmap(work.draw, out_axes=1), over_lanes(work.step))
    )

    def stretch(waiting: Going, begun: Lanes) -> Lanes:
        drawn = draw(begun.client, jnp.expand_dims(begun.step, -1) + ahead)

        def advance(carry: tuple[Array, Lanes]) -> tuple[Array, Lanes]:
            taken, now = carry
            local, metrics = step(
                now.client, now.memory, now.local, now.step, tree.take(drawn, taken)
            )
            return taken + 1, now._replace(
                local=local, step=now.step + 1, metrics=tree.add(now.metrics, metrics)
            )

        def going(carry: tuple[Array, Lanes]) -> Array:
            return (carry[0] < len(ahead)) & waiting(carry[1])

        return lax.while_loop(going, advance, (jnp.int32(0), begun))[1]

    return stretch


def waiting(queue: Queue, lanes: Lanes) -> Array:
    """Whether nobody is done yet. Works with and without a lane axis."""
    # The first half matters under vmap: a run that is over waits here for the others, and nobody in it will ever be done.
    return jnp.any(lanes.place < queue.length) & ~jnp.any(done(queue, lanes))


OWN = Pace(
    lax.while_loop,
    lambda queue, lanes: partial(waiting, queue),
    lambda blocks: blocks,
    make_stretch,
)
"""The pace of a queue that nobody else waits for."""


def begin(work: Work, queue: Queue, table: PyTree, like: Like, lanes: int) -> Carry:
    """All lanes idle, nothing reduced."""
    idle = jnp.full((lanes,), queue.length, jnp.int32)
    blank = tree.tile(tree.zeros_like((like.client, like.memory, like.local, like.metrics)), lanes)
    return Carry(
        Lanes(idle, jnp.zeros_like(idle), *blank),
        jnp.int32(0),
        empty(like, work.reduce, queue.length, table),
    )


def done(queue: Queue, lanes: Lanes) -> Array:
    """bool[L]: lanes whose client has taken all its steps."""
    return (lanes.place < queue.length) & (lanes.step >= lanes.client.member.steps)


def finish(work: Work, queue: Queue, carry: Carry) -> Carry:
    """Clients that are done deliver; their lanes fall idle."""
    lanes = carry.lanes
    ended = done(queue, lanes)
    left = jax.vmap(work.finish)(lanes.client, lanes.memory, lanes.local)
    return carry._replace(
        lanes=lanes._replace(place=jnp.where(ended, queue.length, lanes.place)),
        reduced=deliver(work, queue, carry.reduced, left, lanes.metrics, ended, lanes.place),
    )


def deliver(
    work: Work,
    queue: Queue,
    reduced: Reduced,
    left: Finished,
    steps: Metrics,
    present: Array,
    place: Array,
) -> Reduced:
    """The reduction with what more clients left behind.

    Args:
      left, steps: of these clients, what their finish gave and their steps' metrics added up, ``[L, ...]`` in every leaf.
      present: bool[L]; the others change nothing.
      place: int32[L], their places in the queue.
    """
    lost, counts = reduced.dropped, present
    if left.dropped is not None:
        here = present & (jnp.take(queue.members.steps, place, mode="clip") > 0)
        lost, counts = (
            tree.put(lost, jnp.where(here, place, queue.length), left.dropped),
            here & ~left.dropped,
        )
    slots = jnp.where(counts, jnp.take(queue.slots, place, mode="clip"), tree.NOWHERE)
    return Reduced(
        absorb(work.reduce, reduced.upload, left.upload, counts, place),
        add_present(reduced.stats, left.stats, counts),
        tree.put(
            reduced.clients,
            jnp.where(counts, place, queue.length),
            client_metrics(steps, left.metrics),
        ),
        remember(reduced.table, slots, left.memory),
        lost,
    )


def refill(work: Work, queue: Queue, cohort: Client, carry: Carry) -> Carry:
    """Idle lanes take the next clients of the queue, in order, as long as there are any."""
    lanes = carry.lanes
    idle = lanes.place >= queue.length
    place = carry.head + jnp.cumsum(idle, dtype=jnp.int32) - 1
    takes = idle & (place < queue.count)
    client = tree.take(cohort, place)
    memory = tree.take(carry.reduced.table, jnp.take(queue.slots, place, mode="clip"))
    local = jax.vmap(work.start)(client, memory)
    fresh = Lanes(
        place, jnp.zeros_like(place), client, memory, local, tree.zeros_like(lanes.metrics)
    )
    return carry._replace(
        lanes=tree.where(takes, fresh, lanes), head=carry.head + jnp.sum(takes, dtype=jnp.int32)
    )
