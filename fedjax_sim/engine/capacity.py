"""A round that fits: a program that would not fit into a device's memory, or did not, is built again with half the lanes.

Lanes say how many clients run side by side and nothing else, so a round that is tried again is the round that was asked for.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from fedjax_sim.checks import fail, require
from fedjax_sim.engine.backends import Compiled
from fedjax_sim.engine.plan import Plan
from fedjax_sim.types import Outcome, PyTree, RoundState

Load = Callable[[Plan], "Loaded"]
Run = Callable[[RoundState], tuple[RoundState, Outcome]]

EXHAUSTED = "RESOURCE_EXHAUSTED"
REMEDY = "use a smaller batch or model, more devices, or let it try with a larger engine.memory"


class FewerLanes(UserWarning):
    """Said when lanes had to be given up."""


class Loaded(NamedTuple):
    """A compiled program."""

    plan: Plan
    run: Run
    nbytes: int
    """What it takes on each device while it runs: arguments, results and everything between, by the compiler's account."""


def make_elastic(build: Callable[[Plan, int], Compiled], plan: Plan, table: PyTree) -> Callable[..., tuple[RoundState, Outcome]]:
    """``(state, rounds=1) -> (state, outcome)``, on as many lanes as fit; what did not fit once is not tried again.

    The state is one on the devices, from ``Program.init`` or ``Program.place``.

    Args:
      build: ``(plan, rounds) -> program``.
      plan: with the most lanes to use.
      table: the program's second argument.
    """
    held: dict[int, Loaded] = {}
    # With more than thirty rounds under way, a CPU's devices wait for each other's collectives forever.
    crowded = plan.platform == "cpu" and len(plan.devices) > 1

    def run(state: RoundState, rounds: int = 1) -> tuple[RoundState, Outcome]:
        require(rounds > 0, "rounds must be positive", rounds, "run at least one round")

        def at(plan: Plan) -> Loaded:
            return load(build(plan, rounds), plan, state, table)

        if crowded:
            jax.block_until_ready(state)
        if rounds in held:
            return held[rounds].run(state)
        halvings = max((other.plan.halvings for other in held.values()), default=0)
        held[rounds], first = rehearse(at, fit(at, plan._replace(halvings=halvings)), state)
        return first

    return run


def load(program: Compiled, plan: Plan, state: RoundState, table: PyTree) -> Loaded:
    """The program, compiled for arguments like these."""
    made = program.lower(state, table).compile()
    return Loaded(plan, lambda state: made(*program.arguments(state, table)), footprint(made.memory_analysis()))


def fit(at: Load, plan: Plan) -> Loaded:
    """The program with the most lanes of which the compiler says that they fit."""
    loaded = at(plan)
    has = memory(plan)
    while has is not None and loaded.nbytes > has:
        loaded = narrower(at, loaded, f"{_gb(loaded.nbytes)} where {_gb(has)} are")
    return loaded


def rehearse(at: Load, loaded: Loaded, state: RoundState) -> tuple[Loaded, tuple[RoundState, Outcome]]:
    """A program's first call, waited for, on fewer lanes where memory runs out; and the program that did it.

    A program takes the same memory in every call, so the first tells. It is given the state for good, and whether memory lasted shows
    only when it is done, so a copy is kept on the host meanwhile.
    """
    kept = jax.tree.map(lambda leaf: np.array(leaf, copy=True), state)
    places = jax.tree.map(lambda leaf: leaf.sharding, state)
    while True:
        try:
            return loaded, jax.block_until_ready(loaded.run(state))
        except jax.errors.JaxRuntimeError as error:
            if EXHAUSTED not in str(error):
                raise
            loaded = narrower(at, loaded, str(error).partition(EXHAUSTED)[2].strip(": \n").partition("\n")[0].rstrip("."))
            jax.tree.map(lambda leaf: leaf.is_deleted() or leaf.delete(), state)  # its memory is wanted for the copy
            state = jax.device_put(kept, places)


def narrower(at: Load, loaded: Loaded, got: str) -> Loaded:
    """The program on half the lanes."""
    half = at(loaded.plan._replace(halvings=loaded.plan.halvings + 1))
    what = "a round does not fit into a device's memory"
    if half.nbytes >= loaded.nbytes:
        fail(what, f"{got}, and fewer lanes take no less", REMEDY)
    warnings.warn(f"{what}: got {got}; going on with half the lanes", FewerLanes, stacklevel=2)
    return half


def footprint(analysis: Any) -> int:
    """Bytes on each device, from a compiler's ``memory_analysis()``; 0 where it gives none."""
    if analysis is None:
        return 0
    held = analysis.argument_size_in_bytes + analysis.output_size_in_bytes - analysis.alias_size_in_bytes
    return held + analysis.temp_size_in_bytes + analysis.generated_code_size_in_bytes


def memory(plan: Plan) -> int | None:
    """Bytes that each of the plan's devices has for us, where that is known. A CPU tells nothing: its devices share data and memory."""
    return plan.memory if plan.memory is not None else (plan.devices[0].memory_stats() or {}).get("bytes_limit")


def _gb(nbytes: int) -> str:
    return f"{nbytes / 1e9:.3g} GB"
