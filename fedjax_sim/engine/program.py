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
from fedjax_sim.data.batching import Batching, census, evenness, most_steps
from fedjax_sim.data.population import Population, Table, to_table
from fedjax_sim.engine import Engine, Plan, make_plan
from fedjax_sim.engine.devices.backends import Backend, Compiled, make_backend
from fedjax_sim.engine.devices.memory_limit import choose_place, make_elastic
from fedjax_sim.engine.host.client_memory import Keeping, lent, make_keeping
from fedjax_sim.engine.host.examples import LAYOUT, make_supplier
from fedjax_sim.engine.nonfinite import OFF, Guard
from fedjax_sim.engine.rerun import Blame, alone, blame, rows_of
from fedjax_sim.engine.round import before, make_spmd, order, proceed, repeat

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
    keeping: Keeping | None = None
    """Client memory, where the host keeps it; the state then has none."""
    blame: Callable[[RoundState], Blame] | None = None
    """``state -> blame``: why the guard refuses the round after this state. Runs it once more, on one device of this process."""


class Parts(NamedTuple):
    """What a round is made of, but for data and machine."""

    algorithm: Algorithm
    sampler: Sampler
    work: Batching
    guard: Guard


def make_round(
    algorithm: Algorithm, sampler: Sampler, data: Population | Table, work: Batching, engine: Engine = AUTOMATIC, guard: Guard = OFF
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
    most = most_steps(work, int(sizes.max()))
    require(most < 2**31, "a client's steps in a round are counted with 32 bits", most, "lower local.epochs", "local.epochs")
    plan = choose_place(make_plan(engine, int(sizes.max())), data)
    cohort = sampler.cohort(len(sizes))  # refuses a cohort that the population cannot fill
    plan = plan._replace(evenness=evenness(work, sizes, cohort))
    backend = make_backend(plan)
    parts, supplied = Parts(algorithm, sampler, work, guard), isinstance(data, Population) and plan.data == "host"
    keeping = make_keeping(plan, backend, len(sizes)) if plan.keep == "host" else None
    steps = _supplied(parts, data, plan, backend, keeping) if supplied else _resident(parts, data, plan, backend)

    def init(variables: Variables, seed: int = 0) -> RoundState:
        state = _on_host(algorithm, sampler, sizes, work, variables, seed, backend)
        if keeping is None:
            return backend.place(state)
        keeping.begin(jax.tree.map(lambda leaf: np.array(leaf[0]), state.memory))
        return backend.place(replace(state, memory=()))

    def run(state: RoundState, rounds: int = 1) -> tuple[RoundState, Outcome]:
        require(rounds > 0, "rounds must be positive", rounds, "run at least one round")
        return steps.run(state, rounds)

    def logical(state: RoundState) -> RoundState:
        return backend.logical(state, len(sizes))

    def find(state: RoundState) -> Blame:
        one, closely = alone(plan), guard._replace(nonfinite="drop")
        again, read = partial(proceed, algorithm, sampler, one, work, closely), keeping.read if keeping else rows_of(logical(state).memory)
        return blame(partial(order, sampler, one, work), census(work, jnp.asarray(sizes)), again, data, one, state, read)

    return Program(init, run, logical, backend.place, steps.lower, plan, keeping, find)


class _Steps(NamedTuple):
    """How a program goes on, ``(state, rounds) -> (state, outcome)``, and what it looks like."""

    run: Callable[[RoundState, int], tuple[RoundState, Outcome]]
    lower: Callable[..., jax.stages.Lowered]


def _resident(parts: Parts, data: Population | Table, plan: Plan, backend: Backend) -> _Steps:
    """All examples are on the devices: rounds are a scan."""
    table = backend.share(to_table(data) if isinstance(data, Population) else data)

    def program(plan: Plan, rounds: int) -> Compiled:
        spmd = make_spmd(parts.algorithm, parts.sampler, plan, parts.work, parts.guard)
        return backend.advance(lambda state, table: repeat(spmd, rounds, state, table))

    run = make_elastic(program, plan)
    return _Steps(lambda state, rounds: run(state, table, rounds), lambda state, rounds=1: program(plan, rounds).lower(state, table))


def _supplied(parts: Parts, data: Any, plan: Plan, backend: Backend, keeping: Keeping | None) -> _Steps:
    """The host samples, and brings every round its clients' examples, and what they remember: rounds follow one another."""
    facts = census(parts.work, jnp.asarray(data.sizes, jnp.int32))
    supplier = make_supplier(partial(order, parts.sampler, plan, parts.work), facts, data, plan, backend)

    def program(plan: Plan, rounds: int) -> Compiled:
        spmd = partial(proceed, parts.algorithm, parts.sampler, plan, parts.work, parts.guard)
        return backend.advance(lambda state, supply: repeat(spmd, rounds, state, supply), LAYOUT)

    advance = make_elastic(program, plan)

    def once(state: RoundState) -> tuple[RoundState, Outcome]:
        parcel = supplier.take(state)
        if keeping is not None:
            return lent(keeping, supplier, parts.guard, advance, state, parcel)
        state, outcome = advance(state, parcel.supply)
        supplier.prepare(state)
        return state, outcome

    def run(state: RoundState, rounds: int) -> tuple[RoundState, Outcome]:
        outcomes = []
        for _ in range(rounds):
            state, outcome = once(state)
            outcomes.append(outcome)
        return state, outcomes[0] if rounds == 1 else jax.tree.map(lambda *leaves: np.concatenate(leaves), *outcomes)

    def lower(state: RoundState, rounds: int = 1) -> jax.stages.Lowered:
        parcel = supplier.take(state)
        if keeping is None:
            return program(plan, 1).lower(state, parcel.supply)
        memory = keeping.lend(state, parcel.order)
        keeping.forget()
        return program(plan, 1).lower(replace(state, memory=memory), parcel.supply)

    return _Steps(run, lower)


def _on_host(
    algorithm: Algorithm, sampler: Sampler, sizes: Any, work: Batching, variables: Variables, seed: int, backend: Backend
) -> RoundState:
    """The state before the first round, logical, with a memory that takes one row's bytes however many clients there are."""
    state = backend.first(partial(before, algorithm, sampler, work), sizes, variables, jnp.uint32(seed))
    return replace(state, memory=tree.tile_on_host(state.memory, len(sizes)))
