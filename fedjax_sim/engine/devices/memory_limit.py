"""A round that fits: a program that would not fit into a device's memory, or did not, is built again with half the lanes.

Lanes say how many clients run side by side and nothing else, so a round that is tried again is the round that was asked for.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from fedjax_sim.core.errors import fail, require
from fedjax_sim.core.tree import nbytes
from fedjax_sim.core.types import Outcome, PyTree, RoundState
from fedjax_sim.data.population import Population, Table
from fedjax_sim.engine.devices.backends import Compiled
from fedjax_sim.engine.plan import Plan

Load = Callable[[Plan], "Loaded"]
Run = Callable[[RoundState, PyTree], tuple[RoundState, Outcome]]

EXHAUSTED = "RESOURCE_EXHAUSTED"
REMEDY = "use a smaller batch or model, more devices, a model over several (engine.devices_per_client), or let it try with a larger engine.memory_limit"


class FewerLanes(UserWarning):
    """Said when lanes had to be given up."""


class Loaded(NamedTuple):
    """A compiled program."""

    plan: Plan
    run: Run
    nbytes: int
    """What it takes on each device while it runs: arguments, results and everything between, by the compiler's account."""


def make_adaptive(
    build: Callable[[Plan, int], Compiled], plan: Plan
) -> Callable[..., tuple[RoundState, Outcome]]:
    """``(state, given, rounds=1) -> (state, outcome)``, on as many lanes as fit; what did not fit once is not tried again.

    The state is one on the devices, from ``Program.init`` or ``Program.place``; what is given may change its shapes from call to call.

    Args:
      build: ``(plan, rounds) -> program``.
      plan: with the most lanes to use.
    """
    held: dict[tuple[Any, ...], Loaded] = {}
    # With more than thirty rounds under way, a CPU's devices wait for each other's collectives forever.
    crowded = plan.platform == "cpu" and len(plan.devices) > 1

    def run(state: RoundState, given: PyTree, rounds: int = 1) -> tuple[RoundState, Outcome]:
        def at(plan: Plan) -> Loaded:
            return load(build(plan, rounds), plan, state, given)

        if crowded:
            jax.block_until_ready(state)
        case = (rounds, *(leaf.shape for leaf in jax.tree.leaves(given)))
        if case in held:
            return held[case].run(state, given)
        halvings = max((other.plan.halvings for other in held.values()), default=0)
        held[case], first = first_run(at, fit(at, plan._replace(halvings=halvings)), state, given)
        return first

    return run


def load(program: Compiled, plan: Plan, state: RoundState, given: PyTree) -> Loaded:
    """The program, compiled for arguments like these."""
    made = program.lower(state, given).compile()
    return Loaded(
        plan,
        lambda state, given: made(*program.arguments(state, given)),
        footprint(made.memory_analysis()),
    )


def fit(at: Load, plan: Plan) -> Loaded:
    """The program with the most lanes of which the compiler says that they fit."""
    loaded = at(plan)
    has = device_memory(plan)
    while has is not None and loaded.nbytes > has:
        loaded = halve_lanes(at, loaded, f"{_gb(loaded.nbytes)} where {_gb(has)} are")
    return loaded


def first_run(
    at: Load, loaded: Loaded, state: RoundState, given: PyTree
) -> tuple[Loaded, tuple[RoundState, Outcome]]:
    """A program's first call, waited for, on fewer lanes where memory runs out; and the program that did it.

    A program takes the same memory in every call, so the first tells. It is given the state for good, and whether memory lasted shows
    only when it is done, so a copy is kept on the host meanwhile.
    """
    if not all(leaf.is_fully_addressable for leaf in jax.tree.leaves(state)):
        return loaded, loaded.run(state, given)  # one process alone cannot try again
    kept = jax.tree.map(lambda leaf: np.array(leaf, copy=True), state)
    places = jax.tree.map(lambda leaf: leaf.sharding, state)
    while True:
        try:
            return loaded, jax.block_until_ready(loaded.run(state, given))
        except jax.errors.JaxRuntimeError as error:
            if EXHAUSTED not in str(error):
                raise
            loaded = halve_lanes(
                at,
                loaded,
                str(error).partition(EXHAUSTED)[2].strip(": \n").partition("\n")[0].rstrip("."),
            )
            jax.tree.map(
                lambda leaf: leaf.is_deleted() or leaf.delete(), state
            )  # its memory is wanted for the copy
            state = jax.device_put(kept, places)


def halve_lanes(at: Load, loaded: Loaded, got: str) -> Loaded:
    """The program on half the lanes."""
    half = at(loaded.plan._replace(halvings=loaded.plan.halvings + 1))
    what = "a round does not fit into a device's memory"
    if half.nbytes >= loaded.nbytes:
        fail(what, got=f"{got}, and fewer lanes take no less", fix=REMEDY)
    warnings.warn(f"{what}: got {got}; going on with half the lanes", FewerLanes, stacklevel=2)
    return half


def footprint(analysis: Any) -> int:
    """Bytes on each device, from a compiler's ``memory_analysis()``; 0 where it gives none."""
    if analysis is None:
        return 0
    held = (
        analysis.argument_size_in_bytes
        + analysis.output_size_in_bytes
        - analysis.alias_size_in_bytes
    )
    return held + analysis.temp_size_in_bytes + analysis.generated_code_size_in_bytes


def choose_place(plan: Plan, data: Population | Table) -> Plan:
    """The plan with the place of the examples settled: on the devices where they take no more than half of what a round has there.

    A CPU's devices have no memory of their own, and what lies in a file costs none until it is read; a copy of more than a sixteenth
    of the machine's memory is not made for them. Several processes keep examples on the host, each those of its own devices' clients.
    """
    if isinstance(data, Table):
        require(
            plan.data != "host" and plan.client_memory != "host",
            "a table is on the devices",
            got="one for the host",
            fix="pass a Population",
        )
        return plan._replace(data="device")
    if plan.data != "auto" or plan.client_memory == "host":
        return plan._replace(data="host" if plan.client_memory == "host" else plan.data)
    has = (
        os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 8
        if plan.platform == "cpu"
        else device_memory(plan)
    )
    fits = int(data.offsets[-1]) < 2**31 and (has is None or nbytes((data.x, data.y)) <= has // 2)
    together = len(plan.local_devices) == len(plan.devices)
    return plan._replace(data="device" if fits and together else "host")


def device_memory(plan: Plan) -> int | None:
    """Bytes that each of the plan's devices has for us, where that is known. A CPU tells nothing: its devices share data and memory."""
    return (
        plan.memory_limit
        if plan.memory_limit is not None
        else (plan.local_devices[0].memory_stats() or {}).get("bytes_limit")
    )


def _gb(nbytes: int) -> str:
    return f"{nbytes / 1e9:.3g} GB"
