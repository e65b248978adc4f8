"""A round that runs: ``make_round`` puts an algorithm, a sampler, data and local work on a machine."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fedjax_sim.core import tree
from fedjax_sim.core.errors import require
from fedjax_sim.core.types import Algorithm, Outcome, RoundState, Sampler, Variables
from fedjax_sim.data.batching import LocalWork, evenness, most_steps, population_info
from fedjax_sim.data.population import Population, Table, to_table
from fedjax_sim.engine import Engine, Plan, make_plan
from fedjax_sim.engine.devices.backends import Backend, Compiled, make_backend
from fedjax_sim.engine.devices.memory_limit import choose_place, make_adaptive
from fedjax_sim.engine.host.client_memory import HostMemory, make_host_memory, run_with_host_memory
from fedjax_sim.engine.host.examples import LAYOUT, make_cohort_loader
from fedjax_sim.engine.nonfinite import OFF, NonFinitePolicy
from fedjax_sim.engine.rerun import Culprits, find_culprits, rows_of, single_device_plan
from fedjax_sim.engine.round import initial_row_state, make_spmd, repeat, run_round, sample_cohort

AUTOMATIC = Engine()
"""The engine that chooses for itself."""


class Program(NamedTuple):
    """A round, ready to run."""

    init: Callable[..., RoundState]
    """``(variables, seed=0) -> state``, on the devices; the variables stay the caller's."""
    run: Callable[..., tuple[RoundState, Outcome]]
    """``(state, rounds=1) -> (state, outcome)``: so many rounds in one call. Donates the state; outcome leaves are ``[rounds, ...]``."""
    logical: Callable[[RoundState], RoundState]
    """The state on the host, memory ``[N, ...]``: the same for every backend and number of devices."""
    place: Callable[[RoundState], RoundState]
    """A logical state, on this program's devices."""
    lower: Callable[..., jax.stages.Lowered]
    """``(state, rounds=1)``: the lowered program, for its costs and memory."""
    plan: Plan
    host_memory: HostMemory | None = None
    """Client memory, where the host keeps it; the state then has none."""
    find_culprits: Callable[[RoundState], Culprits] | None = None
    """``state -> blame``: why the guard refuses the round after this state. Runs it once more, on one device of this process."""


class Parts(NamedTuple):
    """What a round is made of, but for data and machine."""

    algorithm: Algorithm
    sampler: Sampler
    local_work: LocalWork
    guard: NonFinitePolicy


def make_round(
    algorithm: Algorithm,
    sampler: Sampler,
    data: Population | Table,
    local_work: LocalWork,
    engine: Engine = AUTOMATIC,
    guard: NonFinitePolicy = OFF,
) -> Program:
    """Composes sampling, batching, learning, reduction and update into one jitted function.

    Args:
      algorithm, sampler, data, work: what a round is made of.
      engine: where it runs.
      guard: what to do about clients whose results are not finite; see :mod:`fedjax_sim.engine.nonfinite`. By default nobody looks.

    Raises:
      FedError: where the parts do not fit each other, the data or the machine.
    """
    sizes = np.asarray(data.sizes if isinstance(data, Population) else data.size, np.int32)
    most = most_steps(local_work, int(sizes.max()))
    require(
        most < 2**31,
        "a client's steps in a round are counted with 32 bits",
        got=most,
        fix="lower local_work.epochs",
        setting="local_work.epochs",
    )
    plan = choose_place(make_plan(engine, int(sizes.max())), data)
    cohort = sampler.cohort(len(sizes))  # refuses a cohort that the population cannot fill
    plan = plan._replace(evenness=evenness(local_work, sizes, cohort))
    backend = make_backend(plan)
    parts, supplied = (
        Parts(algorithm, sampler, local_work, guard),
        isinstance(data, Population) and plan.data == "host",
    )
    keeping = make_host_memory(plan, backend, len(sizes)) if plan.client_memory == "host" else None
    steps = (
        _supplied(parts, data, plan, backend, keeping)
        if supplied
        else _resident(parts, data, plan, backend)
    )

    def init(variables: Variables, seed: int = 0) -> RoundState:
        state = _on_host(algorithm, sampler, sizes, local_work, variables, seed, backend)
        if keeping is None:
            return backend.place(state)
        keeping.begin(jax.tree.map(lambda leaf: np.array(leaf[0]), state.memory))
        return backend.place(replace(state, memory=()))

    def run(state: RoundState, rounds: int = 1) -> tuple[RoundState, Outcome]:
        require(rounds > 0, "rounds must be positive", got=rounds, fix="run at least one round")
        return steps.run(state, rounds)

    def logical(state: RoundState) -> RoundState:
        return backend.logical(state, len(sizes))

    def find(state: RoundState) -> Culprits:
        one, closely = single_device_plan(plan), guard._replace(nonfinite="drop")
        again, read = (
            partial(run_round, algorithm, sampler, one, local_work, closely),
            keeping.read if keeping else rows_of(logical(state).memory),
        )
        return find_culprits(
            partial(sample_cohort, sampler, one, local_work),
            population_info(local_work, jnp.asarray(sizes)),
            again,
            data,
            one,
            state,
            read,
        )

    return Program(init, run, logical, backend.place, steps.lower, plan, keeping, find)


class _Steps(NamedTuple):
    """How a program goes on, ``(state, rounds) -> (state, outcome)``, and what it looks like."""

    run: Callable[[RoundState, int], tuple[RoundState, Outcome]]
    lower: Callable[..., jax.stages.Lowered]


def _resident(parts: Parts, data: Population | Table, plan: Plan, backend: Backend) -> _Steps:
    """All examples are on the devices: rounds are a scan."""
    table = backend.share(to_table(data) if isinstance(data, Population) else data)

    def program(plan: Plan, rounds: int) -> Compiled:
        spmd = make_spmd(parts.algorithm, parts.sampler, plan, parts.local_work, parts.guard)
        return backend.advance(lambda state, table: repeat(spmd, rounds, state, table))

    run = make_adaptive(program, plan)
    return _Steps(
        lambda state, rounds: run(state, table, rounds),
        lambda state, rounds=1: program(plan, rounds).lower(state, table),
    )


def _supplied(
    parts: Parts, data: Any, plan: Plan, backend: Backend, keeping: HostMemory | None
) -> _Steps:
    """The host samples, and brings every round its clients' examples, and what they remember: rounds follow one another."""
    facts = population_info(parts.local_work, jnp.asarray(data.sizes, jnp.int32))
    supplier = make_cohort_loader(
        partial(sample_cohort, parts.sampler, plan, parts.local_work), facts, data, plan, backend
    )

    def program(plan: Plan, rounds: int) -> Compiled:
        spmd = partial(
            run_round, parts.algorithm, parts.sampler, plan, parts.local_work, parts.guard
        )
        return backend.advance(lambda state, supply: repeat(spmd, rounds, state, supply), LAYOUT)

    advance = make_adaptive(program, plan)

    def once(state: RoundState) -> tuple[RoundState, Outcome]:
        parcel = supplier.take(state)
        if keeping is not None:
            return run_with_host_memory(keeping, supplier, parts.guard, advance, state, parcel)
        state, outcome = advance(state, parcel.inputs)
        supplier.prepare(state)
        return state, outcome

    def run(state: RoundState, rounds: int) -> tuple[RoundState, Outcome]:
        outcomes = []
        for _ in range(rounds):
            state, outcome = once(state)
            outcomes.append(outcome)
        return state, outcomes[0] if rounds == 1 else jax.tree.map(
            lambda *leaves: np.concatenate(leaves), *outcomes
        )

    def lower(state: RoundState, rounds: int = 1) -> jax.stages.Lowered:
        parcel = supplier.take(state)
        if keeping is None:
            return program(plan, 1).lower(state, parcel.inputs)
        memory = keeping.fetch(state, parcel.cohort)
        keeping.cancel()
        return program(plan, 1).lower(replace(state, memory=memory), parcel.inputs)

    return _Steps(run, lower)


def _on_host(
    algorithm: Algorithm,
    sampler: Sampler,
    sizes: Any,
    local_work: LocalWork,
    variables: Variables,
    seed: int,
    backend: Backend,
) -> RoundState:
    """The state before the first round, logical, with a memory that takes one row's bytes however many clients there are."""
    state = backend.first(
        partial(initial_row_state, algorithm, sampler, local_work),
        sizes,
        variables,
        jnp.uint32(seed),
    )
    return replace(state, memory=tree.tile_on_host(state.memory, len(sizes)))
