"""Queues in step with each other, for clients whose models are spread over several devices.

XLA's exchange between the devices that share a model is part of a step, and some of it (a collective permutation) is one operation
of all devices, whichever model they have. So all queues take as many steps as any of them has, and turn together: how long until
somebody anywhere is done is settled before the steps begin, by one number from each. A round takes as long as its longest queue
anyway; a queue that is at its end meanwhile steps on lanes of which nothing is read.
"""

from __future__ import annotations

from collections.abc import Callable

import jax.numpy as jnp
from jax import lax

from fedjax_sim.core.tree import NOWHERE
from fedjax_sim.core.types import Array
from fedjax_sim.engine.lanes.queue import Carry, Going, Lanes, Pace, Queue, make_stretch
from fedjax_sim.engine.plan import AXIS


def turns(busy: Callable[[Carry], Array], turn: Callable[[Carry], Carry], carry: Carry) -> Carry:
    """Turns as long as somebody anywhere is busy."""

    def body(state: tuple[Carry, Array]) -> tuple[Carry, Array]:
        after = turn(state[0])
        return after, _anywhere(busy(after))

    return lax.while_loop(lambda state: state[1], body, (carry, _anywhere(busy(carry))))[0]


def going(queue: Queue, lanes: Lanes) -> Going:
    """Whether nobody anywhere is done yet. All lanes count on, those that are idle, too."""
    left = jnp.where(lanes.place < queue.length, lanes.client.member.steps - lanes.step, NOWHERE)
    until = lanes.step + lax.pmin(jnp.min(left), AXIS)
    return lambda now: jnp.any(now.step < until)


def _anywhere(here: Array) -> Array:
    return lax.pmax(here.astype(jnp.int32), AXIS) > 0


TOGETHER = Pace(turns, going, lambda blocks: lax.pmax(blocks, AXIS), make_stretch)
