"""What the tests of the core share: every registered algorithm, small populations, and rounds whose data are an argument."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import Problem, unpack

from fedjax_sim import samplers
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
from fedjax_sim.engine.devices.backends import make_backend
from fedjax_sim.engine.nonfinite import OFF, NonFinitePolicy
from fedjax_sim.engine.round import initial_state, make_spmd, repeat
from fedjax_sim.models.objectives import classification
from fedjax_sim.tasks import quadratic

EVERY = [pytest.param(name, marks=pytest.mark.xdist_group(name)) for name in REGISTRY]
"""The registry as parameters; one worker takes all tests of an algorithm, so that they share its programs."""

ONE = Engine("queue", lanes=2, devices=1)
"""The queue on one device."""


Data = Population | Table


class Machine(NamedTuple):
    """A compiled round whose data are an argument: one program serves every population of the same shapes."""

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
) -> Machine:
    """``make_round``, but for the data; ``like`` tells the shapes and the size of the largest client."""
    plan = make_plan(engine, int(like.sizes.max()))
    backend = make_backend(plan)
    # A scan of one round, as make_round's: compiled without one, the last bits of a report may differ.
    program = backend.advance(
        partial(repeat, make_spmd(algorithm, sampler, plan, local_work, guard), 1)
    )

    def run(state: RoundState, data: Table) -> tuple[RoundState, Outcome]:
        state, outcome = program.run(state, data)
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


def table(data: Data) -> Table:
    return to_table(data) if isinstance(data, Population) else data


def play(
    made: Machine, start: Variables, data: Data, rounds: int, cohorts: PyTree = None
) -> list[tuple[RoundState, Outcome]]:
    """Logical state and outcome after every round; ``cohorts`` replaces the sampler's state."""
    state, table, seen = made.first(start, data), made.data(data), []
    if cohorts is not None:
        state = made.place(made.logical(state).replace(sampler=cohorts))
    for _ in range(rounds):
        state, outcome = made.run(state, table)
        seen.append((made.logical(state), outcome))
    return seen


class Case(NamedTuple):
    """A numpy problem as the simulator takes it."""

    objective: Objective
    data: Population
    start: Variables


def case(problem: Problem) -> Case:
    """The problem of an oracle, in float32."""
    x, y = np.concatenate(problem.x).astype(np.float32), np.concatenate(problem.y)
    offsets = np.concatenate([[0], np.cumsum(problem.sizes)])
    leaves = unpack(problem.shapes, problem.start)
    start = Variables({name: jnp.asarray(leaf, jnp.float32) for name, leaf in leaves.items()})
    if y.ndim == 2:  # a quadratic: the rows are (A_i, b_i)
        data = population({"A": x, "b": y.astype(np.float32)}, np.zeros(len(y), np.int32), offsets)
        return Case(quadratic().objective, data, start)
    return Case(classification(Linear(linear)), population(x, y.astype(np.int32), offsets), start)


class Linear(NamedTuple):
    """Anything with the ``apply`` of a model."""

    apply: Callable[..., tuple[jax.Array, PyTree]]


def linear(
    params: PyTree, state: PyTree, x: jax.Array, *, train: bool, key: jax.Array
) -> tuple[jax.Array, PyTree]:
    return x @ params["w"] + params["b"], state


def restless(
    params: PyTree, state: PyTree, x: jax.Array, *, train: bool, key: jax.Array
) -> tuple[jax.Array, PyTree]:
    """A linear model that draws from its key, and carries statistics of what it saw."""
    noise = jax.random.key_data(key)[0].astype(jnp.float32) * 2**-32  # cheaper than a true draw
    noisy = x * (1 + 0.2 * noise) if train else x
    return linear(params, (), noisy, train=train, key=key)[0], {
        "seen": 0.9 * state["seen"] + 0.1 * noisy.mean(0)
    }


def ragged(sizes: Sequence[int], seed: int = 0) -> Population:
    """Clients of these sizes, 4 features, 3 classes, every client with a mean of its own."""
    rng = np.random.default_rng(seed)
    owner = np.repeat(np.arange(len(sizes)), sizes)
    x = rng.normal(rng.normal(size=(len(sizes), 4))[owner], 1).astype(np.float32)
    return population(
        x, rng.integers(0, 3, len(owner)).astype(np.int32), np.concatenate([[0], np.cumsum(sizes)])
    )


def weights(seed: int = 0) -> Variables:
    """Parameters and statistics of :func:`restless`."""
    rng = np.random.default_rng(seed)
    params = {"w": rng.normal(size=(4, 3)), "b": rng.normal(size=3)}
    return Variables(
        jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), params), {"seen": jnp.zeros(4)}
    )


def scripted(ids: Any, most: Any = None) -> PyTree:
    """State of :func:`script`: cohorts ``[C]`` or ``[R, C]``, taken in turn, and the most steps that each client takes."""
    ids = np.atleast_2d(np.asarray(ids, np.int32))
    return {
        "ids": ids,
        "most": np.full(ids.shape, 10**6, np.int32)
        if most is None
        else np.atleast_2d(np.asarray(most, np.int32)),
    }


def script(cohort: int, rounds: int = 1) -> Sampler:
    """A sampler that takes whom its state names, so that one program serves every cohort. Begins with the first clients."""

    def sample(key, state, info, round):
        ids, most = (jnp.take(state[name], round % rounds, axis=0) for name in ("ids", "most"))
        roster = samplers.roster(ids, info)
        return roster._replace(steps=jnp.minimum(roster.steps, most)), state

    return Sampler(
        lambda population: cohort,
        lambda info: scripted([range(cohort)] * rounds),
        sample,
        samplers.unobserved,
    )


def close(a: PyTree, b: PyTree, tolerance: float = 1e-5) -> None:
    """Equal trees, leaf by leaf, relative to the largest entry of each; with tolerance 0 bit for bit."""
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for (path, x), y in zip(
        jax.tree_util.tree_leaves_with_path(a), jax.tree.leaves(b), strict=True
    ):
        x, y = np.asarray(x), np.asarray(y)
        name = jax.tree_util.keystr(path)
        assert (x.dtype, x.shape) == (y.dtype, y.shape), name
        if tolerance == 0:
            assert x.tobytes() == y.tobytes(), f"{name}: {x} is not, bit for bit, {y}"
        else:
            scale = float(np.abs(y).max(initial=0))
            np.testing.assert_allclose(x, y, rtol=tolerance, atol=tolerance * scale, err_msg=name)
