"""Choices that depend on the platform: lanes, how a step is mapped over them, and their loops."""

from __future__ import annotations

import math
from collections.abc import Callable

import jax
from jax import lax

from fedjax_sim.core.types import PyTree
from fedjax_sim.engine.lanes.fixed_steps import FIXED_STEPS
from fedjax_sim.engine.lanes.queue import INDEPENDENT, LoopControl, MapLanes
from fedjax_sim.engine.lanes.synchronized import SYNCHRONIZED
from fedjax_sim.engine.plan import Plan
from fedjax_sim.engine.work import Work, row_shapes
from fedjax_sim.engine.xla import convolutions
from fedjax_sim.engine.xla.rewrite import canonical, has_convolution, native

CPU = (8, 2**15)
"""Most lanes on a CPU core, and bytes that their local state may take. Lanes amortise the loop's
overhead over tiny models; with larger models they only fill the cache (measured: 8 lanes halve the
time of a step of a 1 kB model; 2 lanes add a third to that of a 200 kB model; see
benchmarks/NOTES.md)."""
CPU_IN_STEP = (128, 2**18)
"""The same if every client takes one step: lanes then finish together, and none waits for
others."""
ACCELERATOR = (1024, 2**32)
"""The same on an accelerator, whose time hardly grows with its lanes while they are few."""


def choose_lanes(plan: Plan, nbytes: int, clients: int, bound: int) -> int:
    """Returns the number of lanes of a shard.

    Args:
      plan: its ``lanes``, if a number; they are halved ``plan.halvings`` times.
      nbytes: bytes of one client's local state.
      clients: clients of a shard; there are never more lanes.
      bound: the largest number of steps of any client.
    """
    if plan.lanes != "auto":
        lanes = int(plan.lanes)
    elif plan.platform == "cpu":
        lanes = _cpu_lanes(nbytes, bound)
    else:
        lanes = _accelerator_lanes(plan, nbytes, clients)
    return max(1, min(lanes, clients) >> plan.halvings)


def _cpu_lanes(nbytes: int, bound: int) -> int:
    most, budget = CPU_IN_STEP if bound == 1 else CPU
    return min(most, budget // max(nbytes, 1))


def _accelerator_lanes(plan: Plan, nbytes: int, clients: int) -> int:
    """Returns as many lanes as shorten the round.

    With fewer, a round takes longer than its longest client; with more, lanes are idle before that
    client has finished. If this number does not fit, the lanes are the fewest that need no more
    turns: 50 clients on at most 24 lanes need 3 turns, and 17 lanes are enough for that.
    """
    most, budget = ACCELERATOR
    useful = math.ceil(clients * plan.evenness)
    fits = max(1, min(most, budget // max(nbytes, 1), useful))
    return math.ceil(useful / math.ceil(useful / fits))


def suit_platform(plan: Plan, work: Work, separate_models: bool) -> Work:
    """Rewrites a work's step into a form that compiles well on the plan's platform.

    On a CPU see :mod:`fedjax_sim.engine.xla.rewrite`; for some gradients on a CPU, and on a GPU
    whose lanes have separate models, :mod:`fedjax_sim.engine.xla.convolutions`.

    Args:
      plan: for the platform.
      work: functions of one client.
      separate_models: True if several lanes run side by side, each with a model of its own.
    """
    if plan.platform == "cpu":
        # The images of a client that is split over devices may lie on several of them; as products,
        # XLA would copy each image to all of them.
        is_split = plan.devices_per_client > 1
        convolution = native if is_split else convolutions.convolve_gradients
        return work._replace(step=canonical(work.step, convolution))
    if plan.platform == "gpu" and separate_models:
        return work._replace(step=_with_products(work.step))
    return work


def _with_products(step: Callable) -> Callable:
    """Returns the step with its convolutions, if any, computed as matrix products."""

    def rewritten(*args: PyTree) -> PyTree:
        if has_convolution(step, *args):
            return canonical(step, convolutions.convolve)(*args)
        return step(*args)

    return rewritten


def loop_control(plan: Plan) -> LoopControl:
    """Returns how the loops of the plan's queues end."""
    if plan.devices_per_client > 1 and plan.replicas > 1:
        return SYNCHRONIZED
    return INDEPENDENT if plan.platform == "cpu" else FIXED_STEPS


def lane_mapper(plan: Plan) -> MapLanes:
    """Returns how a function of one client becomes one of ``[lanes, ...]`` clients.

    This is vmap, except that on a CPU lanes of a step with convolutions run one after another:
    vmapped kernels would become one grouped convolution, which XLA runs on a slow path there.
    """
    return _map_on_cpu if plan.platform == "cpu" else jax.vmap


def _map_on_cpu(step: Callable) -> Callable:
    def all_lanes(*args: PyTree) -> PyTree:
        if has_convolution(step, *row_shapes(args)):
            return lax.map(lambda arguments: step(*arguments), args)
        return jax.vmap(step)(*args)

    return all_lanes
