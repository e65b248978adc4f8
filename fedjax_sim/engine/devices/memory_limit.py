"""Fits a round into device memory: a program that does not fit is built again with half the lanes.

Lanes only say how many clients run side by side, so a round on fewer lanes computes the same
results.
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

Run = Callable[[RoundState, PyTree], tuple[RoundState, Outcome]]

EXHAUSTED = "RESOURCE_EXHAUSTED"
DOES_NOT_FIT = "a round does not fit into a device's memory"
REMEDY = (
    "use a smaller batch or model, more devices, a model split over several devices"
    " (engine.devices_per_client), or raise engine.memory_limit"
)


class FewerLanes(UserWarning):
    """Warns that a round runs on fewer lanes than planned because it did not fit."""


class Loaded(NamedTuple):
    """A compiled program."""

    plan: Plan
    run: Run
    nbytes: int
    """Bytes that it uses on each device while it runs - arguments, results and temporaries - as the
    compiler reports them."""


Load = Callable[[Plan], Loaded]
"""Builds and compiles the program of a plan."""


def make_adaptive(
    build: Callable[[Plan, int], Compiled], plan: Plan
) -> Callable[..., tuple[RoundState, Outcome]]:
    """Returns a function that runs rounds on as many lanes as fit.

    A number of lanes that did not fit once is not tried again.

    Args:
      build: ``(plan, rounds) -> program``.
      plan: with the most lanes to use.

    Returns:
      ``(state, inputs, rounds=1) -> (state, outcome)``. The state is on the devices, from
      ``Program.init`` or ``Program.place``; the shapes of the inputs may change from call to call.
    """
    programs: dict[tuple[Any, ...], Loaded] = {}
    # With more than about thirty rounds enqueued, a CPU's devices deadlock in their collectives.
    must_wait = plan.platform == "cpu" and len(plan.devices) > 1

    def run(state: RoundState, inputs: PyTree, rounds: int = 1) -> tuple[RoundState, Outcome]:
        def load_plan(plan: Plan) -> Loaded:
            return load(build(plan, rounds), plan, state, inputs)

        if must_wait:
            jax.block_until_ready(state)
        case = (rounds, *(leaf.shape for leaf in jax.tree.leaves(inputs)))
        if case in programs:
            return programs[case].run(state, inputs)
        halvings = max((other.plan.halvings for other in programs.values()), default=0)
        loaded = fit(load_plan, plan._replace(halvings=halvings))
        programs[case], results = first_run(load_plan, loaded, state, inputs)
        return results

    return run


def load(program: Compiled, plan: Plan, state: RoundState, inputs: PyTree) -> Loaded:
    """Compiles a program for arguments of these shapes.

    Args:
      program: built for the plan.
      plan: the plan.
      state: a state on the devices.
      inputs: the inputs of a round.
    """
    compiled = program.lower(state, inputs).compile()
    return Loaded(
        plan,
        lambda state, inputs: compiled(*program.arguments(state, inputs)),
        footprint(compiled.memory_analysis()),
    )


def fit(load_plan: Load, plan: Plan) -> Loaded:
    """Returns the program with the most lanes that fits according to the compiler.

    Args:
      load_plan: builds and compiles the program of a plan.
      plan: with the most lanes to use.
    """
    loaded = load_plan(plan)
    available = device_memory(plan)
    while available is not None and loaded.nbytes > available:
        loaded = halve_lanes(
            load_plan, loaded, f"{_gb(loaded.nbytes)} with {_gb(available)} available"
        )
    return loaded


def first_run(
    load_plan: Load, loaded: Loaded, state: RoundState, inputs: PyTree
) -> tuple[Loaded, tuple[RoundState, Outcome]]:
    """Runs a program for the first time, on fewer lanes if device memory runs out.

    A program uses the same memory in every call, so a first call that succeeds is enough. The call
    donates the state and must be waited for before it is known to succeed, so a copy of the state
    is kept on the host until then.

    Args:
      load_plan: builds and compiles the program of a plan.
      loaded: the program to try first.
      state: the state on the devices; it is donated.
      inputs: the inputs of the round.

    Returns:
      The program that fits, and its results.
    """
    if not all(leaf.is_fully_addressable for leaf in jax.tree.leaves(state)):
        return loaded, loaded.run(state, inputs)  # one process alone cannot repeat the call
    copied = jax.tree.map(lambda leaf: np.array(leaf, copy=True), state)
    targets = jax.tree.map(lambda leaf: leaf.sharding, state)
    while True:
        try:
            return loaded, jax.block_until_ready(loaded.run(state, inputs))
        except jax.errors.JaxRuntimeError as error:
            if EXHAUSTED not in str(error):
                raise
            loaded = halve_lanes(load_plan, loaded, _reason(error))
            # The old state's memory is needed for its copy.
            jax.tree.map(lambda leaf: leaf.is_deleted() or leaf.delete(), state)
            state = jax.device_put(copied, targets)


def _reason(error: Exception) -> str:
    """Returns the first line of an out-of-memory error, without its code."""
    _, _, text = str(error).partition(EXHAUSTED)
    return text.strip(": \n").partition("\n")[0].rstrip(".")


def halve_lanes(load_plan: Load, loaded: Loaded, got: str) -> Loaded:
    """Returns the program on half the lanes, and warns.

    Args:
      load_plan: builds and compiles the program of a plan.
      loaded: the program that does not fit.
      got: what the warning or the error reports.

    Raises:
      FedError: if half the lanes need as much memory.
    """
    half = load_plan(loaded.plan._replace(halvings=loaded.plan.halvings + 1))
    if half.nbytes >= loaded.nbytes:
        fail(DOES_NOT_FIT, got=f"{got}, and fewer lanes take no less", fix=REMEDY)
    warnings.warn(
        f"{DOES_NOT_FIT}: got {got}; continuing with half the lanes", FewerLanes, stacklevel=2
    )
    return half


def footprint(analysis: Any) -> int:
    """Returns a program's bytes on each device, from its ``memory_analysis()``; 0 if unknown."""
    if analysis is None:
        return 0
    held = (
        analysis.argument_size_in_bytes
        + analysis.output_size_in_bytes
        - analysis.alias_size_in_bytes
    )
    return held + analysis.temp_size_in_bytes + analysis.generated_code_size_in_bytes


def choose_place(plan: Plan, data: Population | Table) -> Plan:
    """Returns the plan with the place of the examples decided.

    Examples are stored on the devices if they take at most half of the memory that a round may use
    there. A CPU's devices have no memory of their own, and examples in a file take none until they
    are read; there, at most a sixteenth of the machine's memory is used for a copy. With several
    processes, examples are stored on the host, each process those of its own devices' clients.

    Args:
      plan: its place of the examples may be ``"auto"``.
      data: the examples; a ``Table`` is on the devices already.

    Raises:
      FedError: for a table if the plan keeps examples or client memory on the host.
    """
    if isinstance(data, Table):
        require(
            plan.data != "host" and plan.client_memory != "host",
            "a Table is on the devices, but the engine keeps examples on the host",
            got=f"engine.data = {plan.data!r}, engine.client_memory = {plan.client_memory!r}",
            fix="pass a Population",
            setting="engine.data",
        )
        return plan._replace(data="device")
    if plan.client_memory == "host":
        return plan._replace(data="host")
    if plan.data != "auto":
        return plan
    if plan.platform == "cpu":
        available = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 8
    else:
        available = device_memory(plan)
    fits = available is None or nbytes((data.x, data.y)) <= available // 2
    countable = int(data.offsets[-1]) < 2**31
    one_process = len(plan.local_devices) == len(plan.devices)
    return plan._replace(data="device" if countable and fits and one_process else "host")


def device_memory(plan: Plan) -> int | None:
    """Returns the bytes that a round may use on each device, or ``None`` if this is not known.

    It is not known for a CPU, whose devices share the machine's memory.
    """
    if plan.memory_limit is not None:
        return plan.memory_limit
    return (plan.local_devices[0].memory_stats() or {}).get("bytes_limit")


def _gb(nbytes: int) -> str:
    return f"{nbytes / 1e9:.3g} GB"
