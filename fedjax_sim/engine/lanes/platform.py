"""What suits a plan's platform: how many lanes, how a step becomes a step of all lanes, and how the loops over them go on."""

from __future__ import annotations

import math
from collections.abc import Callable

import jax
from jax import lax

from fedjax_sim.core.types import PyTree
from fedjax_sim.engine.lanes.fixed_steps import MARCHING
from fedjax_sim.engine.lanes.queue import OWN, MapLanes, Pace
from fedjax_sim.engine.lanes.synchronized import TOGETHER
from fedjax_sim.engine.plan import Plan
from fedjax_sim.engine.work import Work, row
from fedjax_sim.engine.xla import convolutions
from fedjax_sim.engine.xla.rewrite import canonical, has_convolution, native

CPU = (8, 2**15)
"""Most lanes on a CPU core, and bytes their local state may take: lanes amortise the loop's overhead over tiny models, and only fill
the cache with larger ones (measured: 8 lanes halve a 1 kB model's step; 2 lanes cost a 200 kB model a third; see benchmarks/NOTES.md)."""
CPU_IN_STEP = (128, 2**18)
"""The same where every client takes one step: lanes end together then, and none pays for the others' finishing."""
ACCELERATOR = (1024, 2**32)
"""The same on an accelerator, whose time hardly grows with its lanes as long as they are few."""


def choose_lanes(plan: Plan, nbytes: int, clients: int, bound: int) -> int:
    """The plan's number of lanes, or one that suits the platform and a client's ``nbytes`` of local state and at most ``bound`` steps.

    No more than there are ``clients``, and halved as often as a round did not fit.
    """
    wanted = (
        int(plan.lanes)
        if plan.lanes != "auto"
        else _wide(plan, nbytes, clients)
        if plan.platform != "cpu"
        else _narrow(nbytes, bound)
    )
    return max(1, min(wanted, clients) >> plan.halvings)


def _narrow(nbytes: int, bound: int) -> int:
    most, budget = CPU_IN_STEP if bound == 1 else CPU
    return min(most, budget // max(nbytes, 1))


def _wide(plan: Plan, nbytes: int, clients: int) -> int:
    """As many as the longest client leaves time for: with fewer, a round takes longer than that client, with more, lanes fall idle before
    it is done. Where they do not fit, they are as many as need no more turns: of 50 clients on at most 24 lanes, 17 go at a time."""
    most, budget = ACCELERATOR
    useful = math.ceil(clients * plan.evenness)
    fits = max(1, min(most, budget // max(nbytes, 1), useful))
    return math.ceil(useful / math.ceil(useful / fits))


def suit_platform(plan: Plan, work: Work, apart: bool) -> Work:
    """The work with its step as the platform likes it: on a CPU see :mod:`fedjax_sim.engine.xla.rewrite`, on a GPU, where several lanes have
    models that are ``apart``, and for some gradients on a CPU, :mod:`fedjax_sim.engine.xla.convolutions`."""
    if plan.platform == "cpu":
        shared = (
            plan.devices_per_client > 1
        )  # then a client's images may lie on several devices, and XLA would bring each to all of them
        return work._replace(
            step=canonical(work.step, native if shared else convolutions.convolve_gradients)
        )
    if plan.platform == "gpu" and apart:
        return work._replace(step=_multiplying(work.step))
    return work


def _multiplying(step: Callable) -> Callable:
    """The step, its convolutions, if there are any."""

    def suited(*args: PyTree) -> PyTree:
        return (canonical(step, convolutions.convolve) if has_convolution(step, *args) else step)(
            *args
        )

    return suited


def pace_of(plan: Plan) -> Pace:
    """How the plan's queues go on."""
    if plan.devices_per_client > 1 and plan.replicas > 1:
        return TOGETHER
    return OWN if plan.platform == "cpu" else MARCHING


def lane_mapper(plan: Plan) -> MapLanes:
    """How a function of one client becomes one of ``[lanes, ...]`` clients: vmap, but on a CPU lanes of a convolving step run one
    after another, since vmapped kernels would become one grouped convolution, which XLA runs on a naive path there."""
    if plan.platform != "cpu":
        return jax.vmap

    def over_lanes(step: Callable) -> Callable:
        def all_lanes(*args: PyTree) -> PyTree:
            if has_convolution(step, *row(args)):
                return lax.map(lambda arguments: step(*arguments), args)
            return jax.vmap(step)(*args)

        return all_lanes

    return over_lanes
