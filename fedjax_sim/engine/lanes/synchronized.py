"""Loops that keep all queues in step, for clients whose models are split over several devices.

XLA's exchange between the devices of one model is part of a step, and some of it (a collective
permutation) is a single operation of all devices, whichever model they have. So all queues take the
same number of steps, and finish and refill their lanes together: before the steps begin, one number
from each queue decides how many steps there are until the first client anywhere has finished. A
round takes as long as its longest queue anyway; a queue that has ended continues to step on lanes
whose results are never read.
"""

from __future__ import annotations

from collections.abc import Callable

import jax.numpy as jnp
from jax import lax

from fedjax_sim.core.tree import NOWHERE
from fedjax_sim.core.types import Array
from fedjax_sim.engine.lanes.queue import (
    Carry,
    Lanes,
    LoopControl,
    NoneDone,
    Queue,
    make_checked_steps,
)
from fedjax_sim.engine.plan import AXIS


def outer_loop(
    busy: Callable[[Carry], Array], turn: Callable[[Carry], Carry], carry: Carry
) -> Carry:
    """Repeats ``turn`` while ``busy`` is true on any device."""

    def body(state: tuple[Carry, Array]) -> tuple[Carry, Array]:
        after = turn(state[0])
        return after, _on_any_device(busy(after))

    return lax.while_loop(lambda state: state[1], body, (carry, _on_any_device(busy(carry))))[0]


def none_done(queue: Queue, lanes: Lanes) -> NoneDone:
    """Returns a function that is true while no client of any device has finished its steps.

    All lanes continue to count their steps, idle lanes too.
    """
    left = jnp.where(lanes.place < queue.length, lanes.client.member.steps - lanes.step, NOWHERE)
    until = lanes.step + lax.pmin(jnp.min(left), AXIS)
    return lambda now: jnp.any(now.step < until)


def _on_any_device(flag: Array) -> Array:
    return lax.pmax(flag.astype(jnp.int32), AXIS) > 0


SYNCHRONIZED = LoopControl(
    outer_loop, none_done, lambda blocks: lax.pmax(blocks, AXIS), make_checked_steps
)
"""The loops of queues that keep in step with each other."""
