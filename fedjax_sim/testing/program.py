"""The one compiled program of an algorithm: the queue on one device, three rounds in a scan, all
numbers traced."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import lru_cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from fedjax_sim.core.errors import FedError
from fedjax_sim.core.types import Algorithm, Outcome, PyTree, RoundState
from fedjax_sim.data.batching import LocalWork
from fedjax_sim.data.population import Population, Table, to_table
from fedjax_sim.engine import Engine, make_plan
from fedjax_sim.engine.round import initial_state, make_spmd
from fedjax_sim.testing import problem
from fedjax_sim.testing.problem import COHORTS, OBJECTIVE, PEOPLE, ROUNDS, WORK, C
from fedjax_sim.testing.settings import Settings, Structure, divide

Factory = Callable[..., Algorithm]

ENGINE = Engine("queue", lanes=2, devices=1)
"""The engine of the program. Two lanes, so that lanes take several clients one after another."""

QUICK = {
    "xla_backend_optimization_level": 0,
    "xla_cpu_use_fusion_emitters": False,
    "xla_cpu_parallel_codegen_split_count": 1,
}
"""Options of XLA that compile in a third of the time; a version of XLA that does not know them
gets none."""

UNTRACEABLE = (TypeError, FedError)
"""What a factory raises for a traced number that it needs as a Python number; JAX's errors are
TypeErrors."""


class History(NamedTuple):
    """States and outcomes of :data:`ROUNDS` rounds on the host, one of each after every round."""

    states: tuple[RoundState, ...]
    outcomes: tuple[Outcome, ...]


def play(
    factory: Factory,
    settings: Mapping[str, Any] = {},
    *,
    cohorts: PyTree = COHORTS,
    data: Population | Table = PEOPLE,
    start: RoundState | None = None,
    noise: float = problem.NOISE,
    work: LocalWork = WORK,
) -> History:
    """Runs three rounds of an algorithm on the small problem.

    Args:
      factory: ``(objective, *, settings) -> algorithm``.
      settings: of the factory.
      cohorts: state of the scripted sampler, int32 ``[ROUNDS, C]`` in every leaf.
      data: the examples; shapes as those of the usual population.
      start: the state to continue from; by default the state before the first round, of seed 0.
      noise: strength of the model's noise, where the run starts from the beginning.
      work: local work; another one compiles another program.
    """
    divided = divide(factory, settings, static_numbers(factory))
    table = to_table(data) if isinstance(data, Population) else data
    if start is None:
        start = first_state(factory, divided, noise)
    run = program(factory, Structure(divided.structure), tuple(divided.numbers), work)
    states, outcomes = jax.device_get(run(divided.numbers, replace(start, sampler=cohorts), table))
    rounds = [jax.tree.map(lambda leaf, t=t: leaf[t], (states, outcomes)) for t in range(ROUNDS)]
    return History(*zip(*rounds, strict=True))


@lru_cache(maxsize=256)
def usual(factory: Factory) -> History:
    """The run that most checks compare with: default settings, usual cohorts, usual data."""
    return play(factory)


def make(factory: Factory, settings: Mapping[str, Any] = {}) -> Algorithm:
    """The algorithm itself, on the objective of the small problem."""
    return factory(OBJECTIVE, **settings)


def first_state(factory: Factory, settings: Settings, noise: float = problem.NOISE) -> RoundState:
    """The state before the first round, on the host.

    Args:
      factory: ``(objective, *, settings) -> algorithm``.
      settings: divided settings.
      noise: strength of the model's noise.
    """
    algorithm = make(factory, {**settings.structure, **settings.numbers})
    sizes = jnp.asarray(PEOPLE.sizes, jnp.int32)
    state = initial_state(
        algorithm, problem.script(C, ROUNDS), sizes, WORK, problem.weights(noise=noise), 0
    )
    return jax.tree.map(np.asarray, state)


@lru_cache(maxsize=256)
def static_numbers(factory: Factory) -> frozenset[str]:
    """Names of the factory's numbers that cannot be traced, because they decide shapes.

    Args:
      factory: ``(objective, *, settings) -> algorithm``.
    """
    everything = divide(factory, {}, frozenset())
    names = tuple(everything.numbers)
    tries = [(), *((name,) for name in names), names]
    for static in tries:
        settings = divide(factory, {}, frozenset(static))
        try:
            traced(factory, Structure(settings.structure), tuple(settings.numbers), WORK)
        except UNTRACEABLE:
            if static == names:
                raise
            continue
        return frozenset(static)
    return frozenset(names)


@lru_cache(maxsize=256)
def traced(factory: Factory, structure: Structure, names: tuple[str, ...], work: LocalWork) -> Any:
    """The program as JAX traced it, a ``jax.stages.Traced``.

    Args:
      factory: ``(objective, *, settings) -> algorithm``.
      structure: structural settings.
      names: of the settings that are arguments of the program.
      work: local work of every client.
    """
    plan = make_plan(ENGINE, int(PEOPLE.sizes.max()))
    sampler = problem.script(C, ROUNDS)

    def rounds(numbers: dict[str, Any], state: RoundState, table: Table) -> PyTree:
        spmd = make_spmd(make(factory, {**structure.values, **numbers}), sampler, plan, work)

        def one(state: RoundState, _: None) -> PyTree:
            state, outcome = spmd(state, table)
            return state, (state, outcome)

        return lax.scan(one, state, length=ROUNDS)[1]

    defaults = divide(factory, structure.values, frozenset()).numbers
    numbers = {name: defaults.get(name, 0.5) for name in names}  # only their shapes matter
    arguments = (
        numbers,
        first_state(factory, Settings(structure.values, numbers)),
        to_table(PEOPLE),
    )
    return jax.jit(rounds).trace(*arguments)


def traced_usually(factory: Factory) -> Any:
    """The traced program of an algorithm at its default structure."""
    settings = divide(factory, {}, static_numbers(factory))
    return traced(factory, Structure(settings.structure), tuple(settings.numbers), WORK)


@lru_cache(maxsize=256)
def program(
    factory: Factory, structure: Structure, names: tuple[str, ...], work: LocalWork
) -> Callable[..., tuple[RoundState, Outcome]]:
    """The compiled program, ``(numbers, state, table) -> (states, outcomes)``, leaves ``[ROUNDS,
    ...]``.

    Arguments as for :func:`traced`.
    """
    return compile_quickly(traced(factory, structure, names, work).lower())


def compile_quickly(lowered: jax.stages.Lowered) -> jax.stages.Compiled:
    """Compiles with :data:`QUICK`, or without options where XLA does not know them."""
    try:
        return lowered.compile(compiler_options=QUICK)
    except (jax.errors.JaxRuntimeError, ValueError):
        return lowered.compile()
