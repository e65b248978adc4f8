"""``make_round`` compiles an algorithm, a sampler, data and local work into a program."""

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
from fedjax_sim.engine.rerun import Culprits, find_culprits, single_device_plan, table_reader
from fedjax_sim.engine.round import initial_row_state, make_spmd, repeat, run_round, sample_cohort

AUTOMATIC = Engine()
"""The engine with every choice left to the program."""


class ProgramArguments(NamedTuple):
    """What :func:`make_round` was called with."""

    algorithm: Algorithm
    sampler: Sampler
    data: Population | Table
    local_work: LocalWork
    engine: Engine
    guard: NonFinitePolicy


class Program(NamedTuple):
    """A compiled round. Make one with :func:`make_round`."""

    init: Callable[..., RoundState]
    """``(variables, seed=0) -> state``, on the devices. The variables are copied."""
    run: Callable[..., tuple[RoundState, Outcome]]
    """``(state, rounds=1) -> (state, outcome)``: runs this number of rounds. Donates the state;
    outcome leaves are ``[rounds, ...]``."""
    logical: Callable[[RoundState], RoundState]
    """The state on the host, memory ``[N, ...]``: the same for every backend and number of
    devices."""
    place: Callable[[RoundState], RoundState]
    """Copies a logical state to this program's devices."""
    lower: Callable[..., jax.stages.Lowered]
    """``(state, rounds=1)``: the lowered program, for its costs and memory."""
    plan: Plan
    host_memory: HostMemory | None = None
    """Client memory kept on the host; the state then has none. ``None`` if the devices keep it."""
    find_culprits: Callable[[RoundState], Culprits] | None = None
    """``state -> culprits``: the clients that cause the guard to reject the round after this state.
    Runs the round once more, on one device of this process."""
    arguments: ProgramArguments | None = None
    """What it was made from."""


class RoundParts(NamedTuple):
    """The parts of a round that do not depend on data or devices."""

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
      algorithm: what clients and server compute.
      sampler: which clients take part in each round.
      data: the clients' training examples.
      local_work: batch size, epochs and steps of each client.
      engine: devices, lanes, and where examples and client memory are stored.
      guard: the policy for clients whose results are not finite, see
        :mod:`fedjax_sim.engine.nonfinite`. By default nothing is checked.

    Returns:
      The program. It compiles at its first call.

    Raises:
      FedError: if the parts do not fit each other, the data or the machine.

    Example:
      >>> import numpy as np
      >>> import fedjax_sim as fs
      >>> model = fs.from_functions(
      ...     lambda key, x: {"w": x[0] * 0}, lambda params, x: x @ params["w"]
      ... )
      >>> data = fs.population(np.ones((6, 2), "f4"), np.ones(6, "f4"), offsets=np.array([0, 2, 6]))
      >>> program = fs.make_round(
      ...     fs.fedavg(fs.regression(model), lr=0.1),
      ...     fs.samplers.uniform(2),
      ...     data,
      ...     fs.local_work(batch_size=2),
      ...     fs.Engine(devices=1),
      ... )
      >>> program.plan.backend, program.plan.limit
      ('vmap', 4)
    """
    sizes = np.asarray(data.sizes if isinstance(data, Population) else data.size, np.int32)
    plan = _plan(sampler, data, sizes, local_work, engine)
    backend = make_backend(plan)
    parts = RoundParts(algorithm, sampler, local_work, guard)
    memory = make_host_memory(plan, backend, len(sizes)) if plan.client_memory == "host" else None
    if isinstance(data, Population) and plan.data == "host":
        steps = _host_data_steps(parts, data, plan, backend, memory)
    else:
        steps = _device_data_steps(parts, data, plan, backend)

    def init(variables: Variables, seed: int = 0) -> RoundState:
        state = _initial_host_state(parts, sizes, variables, seed, backend)
        if memory is None:
            return backend.place(state)
        memory.begin(jax.tree.map(lambda leaf: np.array(leaf[0]), state.memory))
        return backend.place(replace(state, memory=()))

    def run(state: RoundState, rounds: int = 1) -> tuple[RoundState, Outcome]:
        require(rounds > 0, "rounds must be positive", got=rounds, fix="run at least one round")
        return steps.run(state, rounds)

    def logical(state: RoundState) -> RoundState:
        return backend.logical(state, len(sizes))

    def culprits(state: RoundState) -> Culprits:
        read = memory.read if memory else table_reader(logical(state).memory)
        return _find_culprits(parts, data, sizes, plan, state, read)

    arguments = ProgramArguments(algorithm, sampler, data, local_work, engine, guard)
    return Program(
        init, run, logical, backend.place, steps.lower, plan, memory, culprits, arguments
    )


def _plan(
    sampler: Sampler,
    data: Population | Table,
    sizes: np.ndarray,
    local_work: LocalWork,
    engine: Engine,
) -> Plan:
    limit = int(sizes.max())
    most = most_steps(local_work, limit)
    require(
        most < 2**31,
        "a client's steps in a round are counted with 32 bits",
        got=most,
        fix="lower local_work.epochs",
        setting="local_work.epochs",
    )
    plan = choose_place(make_plan(engine, limit), data)
    cohort = sampler.cohort(len(sizes))  # raises if the population is smaller than the cohort
    return plan._replace(evenness=evenness(local_work, sizes, cohort))


def _initial_host_state(
    parts: RoundParts, sizes: np.ndarray, variables: Variables, seed: int, backend: Backend
) -> RoundState:
    """Returns the logical state before the first round; its memory occupies one row's bytes."""
    make = partial(initial_row_state, parts.algorithm, parts.sampler, parts.local_work)
    state = backend.first(make, sizes, variables, jnp.uint32(seed))
    return replace(state, memory=tree.tile_on_host(state.memory, len(sizes)))


def _find_culprits(
    parts: RoundParts,
    data: Population | Table,
    sizes: np.ndarray,
    plan: Plan,
    state: RoundState,
    read: Callable[[np.ndarray], Any],
) -> Culprits:
    algorithm, sampler, local_work, guard = parts
    single = single_device_plan(plan)
    check_clients = guard._replace(nonfinite="drop")
    return find_culprits(
        partial(sample_cohort, sampler, single, local_work),
        population_info(local_work, jnp.asarray(sizes)),
        partial(run_round, algorithm, sampler, single, local_work, check_clients),
        data,
        single,
        state,
        read,
    )


class _Steps(NamedTuple):
    """The two functions of a program that depend on where the examples are stored."""

    run: Callable[[RoundState, int], tuple[RoundState, Outcome]]
    """``(state, rounds) -> (state, outcome)``."""
    lower: Callable[..., jax.stages.Lowered]
    """``(state, rounds=1) -> lowered program``."""


def _device_data_steps(
    parts: RoundParts, data: Population | Table, plan: Plan, backend: Backend
) -> _Steps:
    """All examples are on the devices: several rounds are one scan."""
    table = backend.share(to_table(data) if isinstance(data, Population) else data)

    def program(plan: Plan, rounds: int) -> Compiled:
        spmd = make_spmd(parts.algorithm, parts.sampler, plan, parts.local_work, parts.guard)
        return backend.advance(lambda state, table: repeat(spmd, rounds, state, table))

    run = make_adaptive(program, plan)
    return _Steps(
        lambda state, rounds: run(state, table, rounds),
        lambda state, rounds=1: program(plan, rounds).lower(state, table),
    )


def _host_data_steps(
    parts: RoundParts, data: Any, plan: Plan, backend: Backend, memory: HostMemory | None
) -> _Steps:
    """The host samples each cohort and loads its examples, and its memory rows, round by round."""
    facts = population_info(parts.local_work, jnp.asarray(data.sizes, jnp.int32))
    sample = partial(sample_cohort, parts.sampler, plan, parts.local_work)
    loader = make_cohort_loader(sample, facts, data, plan, backend)

    def program(plan: Plan, rounds: int) -> Compiled:
        spmd = partial(
            run_round, parts.algorithm, parts.sampler, plan, parts.local_work, parts.guard
        )
        return backend.advance(lambda state, inputs: repeat(spmd, rounds, state, inputs), LAYOUT)

    advance = make_adaptive(program, plan)

    def run_one(state: RoundState) -> tuple[RoundState, Outcome]:
        loaded = loader.take(state)
        if memory is not None:
            return run_with_host_memory(memory, loader, parts.guard, advance, state, loaded)
        state, outcome = advance(state, loaded.inputs)
        loader.prepare(state)
        return state, outcome

    def run(state: RoundState, rounds: int) -> tuple[RoundState, Outcome]:
        outcomes = []
        for _ in range(rounds):
            state, outcome = run_one(state)
            outcomes.append(outcome)
        if rounds == 1:
            return state, outcomes[0]
        return state, jax.tree.map(lambda *leaves: np.concatenate(leaves), *outcomes)

    def lower(state: RoundState, rounds: int = 1) -> jax.stages.Lowered:
        loaded = loader.take(state)
        if memory is None:
            return program(plan, 1).lower(state, loaded.inputs)
        rows = memory.fetch(state, loaded.cohort)
        memory.cancel()
        return program(plan, 1).lower(replace(state, memory=rows), loaded.inputs)

    return _Steps(run, lower)
