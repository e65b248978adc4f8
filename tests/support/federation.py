"""Helpers of the tests of the core: every registered algorithm, small populations, and compiled
rounds whose data are arguments."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import Problem, unpack

from fedjax_sim.algorithms import REGISTRY
from fedjax_sim.core.types import (
    Algorithm,
    Objective,
    Outcome,
    PyTree,
    RoundState,
    Sampler,
    Variables,
)
from fedjax_sim.data.batching import LocalWork
from fedjax_sim.data.population import Population, Table, population, to_table
from fedjax_sim.engine import Engine, Plan, make_plan
from fedjax_sim.engine.devices.backends import Compiled, make_backend
from fedjax_sim.engine.nonfinite import OFF, NonFinitePolicy
from fedjax_sim.engine.round import initial_state, make_spmd, repeat
from fedjax_sim.models.objectives import classification
from fedjax_sim.tasks import quadratic
from fedjax_sim.testing.problem import LinearModel as Linear
from fedjax_sim.testing.problem import noisy_linear as restless
from fedjax_sim.testing.problem import ragged, script, scripted, weights
from fedjax_sim.testing.program import compile_quickly

__all__ = ["Linear", "ragged", "restless", "script", "scripted", "weights"]

EVERY = [pytest.param(name, marks=pytest.mark.xdist_group(name)) for name in REGISTRY]
"""The registry as parameters; one worker runs all tests of an algorithm, so that they share its
programs."""

ONE = Engine("queue", lanes=2, devices=1)
"""The queue on one device."""


Data = Population | Table


class Machine(NamedTuple):
    """A compiled round whose data are an argument: one program serves every population of the same
    shapes."""

    first: Callable[..., RoundState]
    """``(variables, data, seed=0) -> state`` on the devices."""
    run: Callable[[RoundState, Any], tuple[RoundState, Outcome]]
    """``(state, placed data) -> (state, outcome)``. Donates the state."""
    data: Callable[[Data], Any]
    """Data, placed."""
    logical: Callable[[RoundState], RoundState]
    place: Callable[[RoundState], RoundState]
    plan: Plan


def machine(
    algorithm: Algorithm,
    sampler: Sampler,
    like: Population,
    local_work: LocalWork,
    engine: Engine = ONE,
    guard: NonFinitePolicy = OFF,
    quick: bool = True,
) -> Machine:
    """``make_round`` with the data as an argument.

    Args:
      algorithm, sampler, local_work, engine, guard: as for ``make_round``.
      like: a population of the shapes of all data that follow, and with the size of the largest
        client.
      quick: compile with few optimizations, in a third of the time; otherwise as users do.
    """
    plan = make_plan(engine, int(like.sizes.max()))
    backend = make_backend(plan)
    # A scan of one round, as make_round's: compiled without one, the last bits of a report may
    # differ.
    program = backend.advance(
        partial(repeat, make_spmd(algorithm, sampler, plan, local_work, guard), 1)
    )
    advance = quickly(program) if quick else program.run

    def run(state: RoundState, data: Table) -> tuple[RoundState, Outcome]:
        state, outcome = advance(state, data)
        return state, jax.tree.map(lambda leaf: leaf[0], jax.device_get(outcome))

    def first(variables: Variables, data: Data, seed: int = 0) -> RoundState:
        return backend.place(
            initial_state(algorithm, sampler, table(data).size, local_work, variables, seed)
        )

    return Machine(
        first,
        run,
        lambda data: backend.share(table(data)),
        lambda state: backend.logical(state, like.clients),
        backend.place,
        plan,
    )


def quickly(program: Compiled) -> Callable[..., Any]:
    """Runs a program that its first call compiles with few optimizations."""
    compiled: list[Any] = []

    def run(state: RoundState, data: Table) -> Any:
        if not compiled:
            compiled.append(compile_quickly(program.lower(state, data)))
        return compiled[0](*program.arguments(state, data))

    return run


def table(data: Data) -> Table:
    return to_table(data) if isinstance(data, Population) else data


def play(
    made: Machine, start: Variables, data: Data, rounds: int, cohorts: PyTree = None
) -> list[tuple[RoundState, Outcome]]:
    """Logical state and outcome after every round; ``cohorts`` replaces the sampler's state."""
    state = made.first(start, data)
    placed = made.data(data)
    history = []
    if cohorts is not None:
        state = made.place(made.logical(state).replace(sampler=cohorts))
    for _ in range(rounds):
        state, outcome = made.run(state, placed)
        history.append((made.logical(state), outcome))
    return history


class Case(NamedTuple):
    """A numpy problem as the simulator takes it."""

    objective: Objective
    data: Population
    start: Variables


def case(problem: Problem) -> Case:
    """The problem of an oracle, in float32."""
    x = np.concatenate(problem.x).astype(np.float32)
    y = np.concatenate(problem.y)
    offsets = np.concatenate([[0], np.cumsum(problem.sizes)])
    leaves = unpack(problem.shapes, problem.start)
    start = Variables({name: jnp.asarray(leaf, jnp.float32) for name, leaf in leaves.items()})
    if y.ndim == 2:  # a quadratic: the rows are (A_i, b_i)
        data = population({"A": x, "b": y.astype(np.float32)}, np.zeros(len(y), np.int32), offsets)
        return Case(quadratic().objective, data, start)
    return Case(classification(Linear(linear)), population(x, y.astype(np.int32), offsets), start)


def linear(
    params: PyTree, state: PyTree, x: jax.Array, *, train: bool, key: jax.Array
) -> tuple[jax.Array, PyTree]:
    return x @ params["w"] + params["b"], state


def close(a: PyTree, b: PyTree, tolerance: float = 1e-5) -> None:
    """Equal trees, leaf by leaf, relative to the largest entry of each; with tolerance 0 bit for
    bit."""
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for (path, x), y in zip(
        jax.tree_util.tree_leaves_with_path(a), jax.tree.leaves(b), strict=True
    ):
        have = np.asarray(x)
        want = np.asarray(y)
        name = jax.tree_util.keystr(path)
        assert (have.dtype, have.shape) == (want.dtype, want.shape), name
        if tolerance == 0:
            assert have.tobytes() == want.tobytes(), f"{name}: {have} is not, bit for bit, {want}"
        else:
            scale = float(np.abs(want).max(initial=0))
            np.testing.assert_allclose(
                have, want, rtol=tolerance, atol=tolerance * scale, err_msg=name
            )
