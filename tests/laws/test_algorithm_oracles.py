"""Every algorithm against a plain numpy transcription of its paper: model, server state and client
memory after every round.

On the one program that all checks of an algorithm run; other objectives, cohorts and compositions
are slow tests.
"""

import inspect
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from federation import EVERY, case, machine, play
from oracles import ORACLES, STATES, VARIANTS, quadratics, scripted_softmax, softmax
from oracles.theory import instance

from fedjax_sim import samplers
from fedjax_sim.aggregators import unweighted_mean
from fedjax_sim.algorithms import REGISTRY
from fedjax_sim.core.types import PopulationInfo
from fedjax_sim.data.batching import local_work
from fedjax_sim.testing import problem, program

ROUNDS = 4
COHORT = 3
RAGGED = {"batch_size": 4, "epochs": 2}
REPEATED = {"batch_size": 2, "steps": 5}
COMPOSED = {"aggregator", "server_optimizer"}
"""Settings that compose an algorithm with other parts."""


def ours(name, settings):
    """Settings of a transcription as those of the factory."""
    known = inspect.signature(REGISTRY[name].factory).parameters
    defaults = {
        key: p.default
        for key, p in inspect.signature(ORACLES[name]).parameters.items()
        if p.default is not p.empty
    }
    translated = {}
    for key, value in (defaults | settings).items():
        if key in known:
            translated[key] = value
        elif value == defaults[key]:
            continue
        elif key == "weighting":
            translated["aggregator"] = unweighted_mean()
        else:
            assert key == "server_lr", f"{name} has no setting {key!r}"
            translated["server_optimizer"] = optax.sgd(value)
    return translated


def variants():
    """Other settings to try; those that compose are slow tests."""
    for param in EVERY:
        (name,) = param.values
        for settings in VARIANTS.get(name, []):
            composed = COMPOSED & ours(name, settings).keys()
            marks = [*param.marks, *([pytest.mark.slow] if composed else [])]
            yield pytest.param(name, settings, marks=marks)


@cache
def transcribed():
    """The problem of the one program, for the transcriptions."""
    people = problem.PEOPLE
    cuts = people.offsets[1:-1]
    start = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), problem.weights().params)
    return scripted_softmax(
        np.split(people.x.astype(np.float64), cuts),
        np.split(people.y, cuts),
        start,
        problem.COHORTS["ids"],
        problem.COHORTS["most"],
        **RAGGED,
    )


def compare(name, algorithm, states, result):
    """Compares states after every round with what a transcription says."""
    for t, state in enumerate(states):
        params = algorithm.variables(state.algorithm).params
        same(params, result.params[t], f"params after round {t}")
        for letter, values in result.state.items():
            where = STATES[name][letter]
            if where is not None:
                same(where(state.algorithm, state.memory), values[t], f"{letter} after round {t}")


def same(have, want, what):
    assert have.keys() == want.keys(), what
    for leaf, value in want.items():
        np.testing.assert_allclose(
            have[leaf], value, rtol=2e-5, atol=2e-6, err_msg=f"{what}: {leaf}"
        )


def compare_on_the_program(name, settings):
    factory = REGISTRY[name].factory
    translated = ours(name, settings)
    run = program.play(factory, translated, noise=0.0)
    result = ORACLES[name](transcribed(), rounds=problem.ROUNDS, **settings)
    compare(name, program.make(factory, translated), run.states, result)


def compare_on(name, numbers, work, settings):
    """On another problem, in a program of its own."""
    it = case(numbers)
    algorithm = REGISTRY[name].factory(it.objective, **ours(name, settings))
    made = machine(
        algorithm, samplers.cyclic(COHORT), it.data, local_work(**work, shuffle=False), quick=False
    )
    states = [state for state, _ in play(made, it.start, it.data, ROUNDS)]
    compare(name, algorithm, states, ORACLES[name](numbers, rounds=ROUNDS, **settings))


def test_every_algorithm_has_an_oracle():
    assert set(ORACLES) == set(REGISTRY)


@pytest.mark.parametrize("name", EVERY)
def test_an_algorithm_does_what_its_paper_says(name):
    compare_on_the_program(name, {})


@pytest.mark.parametrize(("name", "settings"), list(variants()))
def test_an_algorithm_does_what_its_paper_says_with_other_settings(name, settings):
    compare_on_the_program(name, settings)


@pytest.mark.slow
@pytest.mark.parametrize("name", EVERY)
def test_an_algorithm_does_what_its_paper_says_in_turn(name):
    compare_on(name, softmax(rounds=ROUNDS, cohort=COHORT, **RAGGED), RAGGED, {})


@pytest.mark.slow
@pytest.mark.parametrize("name", EVERY)
def test_an_algorithm_does_what_its_paper_says_on_quadratics(name):
    A, b, start = instance(clients=5)
    numbers = quadratics(A, b, start, (2, 6, 3, 5, 1), rounds=ROUNDS, cohort=COHORT, **REPEATED)
    compare_on(name, numbers, REPEATED, {})


def test_the_sampler_takes_the_cohorts_of_the_oracles():
    facts = PopulationInfo(jnp.arange(1, 6), jnp.ones(5, jnp.int32))
    sampler = samplers.cyclic(COHORT)
    state = sampler.init(facts)
    cohorts = []
    for t in range(5):
        chosen, state = sampler.sample(jax.random.key(0), state, facts, jnp.int32(t))
        cohorts.append(chosen.id.tolist())
    assert cohorts == softmax().cohorts
