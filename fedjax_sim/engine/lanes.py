"""How many lanes, and how a step becomes a step of all lanes."""

from __future__ import annotations

from collections.abc import Callable

import jax
from jax import lax

from fedjax_sim.engine.plan import Plan
from fedjax_sim.engine.rewrite import canonical, has_convolution
from fedjax_sim.engine.work import Work, row
from fedjax_sim.types import PyTree

CPU = (8, 2**15)
"""Most lanes on a CPU core, and bytes their local state may take: lanes amortise the loop's overhead over tiny models, and only fill
the cache with larger ones (measured: 8 lanes halve a 1 kB model's step; 2 lanes cost a 200 kB model a third; see benchmarks/NOTES.md)."""
CPU_IN_STEP = (128, 2**18)
"""The same where every client takes one step: lanes end together then, and none pays for the others' finishing."""
ACCELERATOR = (64, 2**30)
"""The same on an accelerator."""


def choose_lanes(plan: Plan, nbytes: int, clients: int, bound: int) -> int:
    """The plan's number of lanes, or one that suits the platform and a client's ``nbytes`` of local state and at most ``bound`` steps.

    No more than there are ``clients``, and halved as often as a round did not fit.
    """
    most, budget = ACCELERATOR if plan.platform != "cpu" else CPU_IN_STEP if bound == 1 else CPU
    wanted = min(most, budget // max(nbytes, 1)) if plan.lanes == "auto" else int(plan.lanes)
    return max(1, min(wanted, clients) >> plan.halvings)


def suit_platform(plan: Plan, work: Work) -> Work:
    """The work with its step as the platform likes it: on a CPU rewritten, see :mod:`fedjax_sim.engine.rewrite`."""
    return work._replace(step=canonical(work.step)) if plan.platform == "cpu" else work


def lane_mapper(plan: Plan) -> Callable[[Callable], Callable]:
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
