"""Every algorithm against a plain numpy transcription of its paper: model, server state and client memory after every round."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from federation import EVERY, case, machine, play
from oracles import ORACLES, STATES, VARIANTS, quadratics, softmax
from oracles.theory import instance

from fedjax_sim import samplers
from fedjax_sim.aggregators import unweighted_mean
from fedjax_sim.algorithms import REGISTRY
from fedjax_sim.core.types import PopulationInfo
from fedjax_sim.data.batching import local_work

ROUNDS, COHORT = 4, 3
RAGGED = {"batch_size": 4, "epochs": 2}
REPEATED = {"batch_size": 2, "steps": 5}
TRIED = [
    pytest.param(*name.values, settings, marks=name.marks)
    for name in EVERY
    for settings in VARIANTS.get(name.values[0], [])
]


def ours(name, settings):
    """Settings of a transcription as those of the factory."""
    known = inspect.signature(REGISTRY[name].factory).parameters
    defaults = {
        key: p.default
        for key, p in inspect.signature(ORACLES[name]).parameters.items()
        if p.default is not p.empty
    }
    wanted, told = defaults | settings, {}
    for key, value in wanted.items():
        if key in known:
            told[key] = value
        elif key == "weighting":
            told |= {"aggregator": unweighted_mean()} if value == "uniform" else {}
        elif key == "server_lr":
            told |= {"server_optimizer": optax.sgd(value)}
        else:
            assert value == defaults[key], f"{name} has no setting {key!r}"
    return told


def compare(name, problem, work, settings):
    it = case(problem)
    algorithm = REGISTRY[name].factory(it.objective, **ours(name, settings))
    made = machine(algorithm, samplers.cyclic(COHORT), it.data, local_work(**work, shuffle=False))
    said = ORACLES[name](problem, rounds=ROUNDS, **settings)
    for t, (state, _) in enumerate(play(made, it.start, it.data, ROUNDS)):
        same(algorithm.variables(state.algorithm).params, said.params[t], f"params after round {t}")
        for letter, values in said.state.items():
            where = STATES[name][letter]
            if where is not None:
                same(where(state.algorithm, state.memory), values[t], f"{letter} after round {t}")


def same(have, want, what):
    assert have.keys() == want.keys(), what
    for leaf, value in want.items():
        np.testing.assert_allclose(
            have[leaf], value, rtol=2e-5, atol=2e-6, err_msg=f"{what}: {leaf}"
        )


def theirs():
    A, b, start = instance(clients=5)
    return quadratics(A, b, start, (2, 6, 3, 5, 1), rounds=ROUNDS, cohort=COHORT, **REPEATED)


def test_every_algorithm_has_an_oracle():
    assert set(ORACLES) == set(REGISTRY)


@pytest.mark.parametrize("name", EVERY)
def test_an_algorithm_does_what_its_paper_says_on_ragged_clients(name):
    compare(name, softmax(rounds=ROUNDS, cohort=COHORT, **RAGGED), RAGGED, {})


@pytest.mark.parametrize("name", EVERY)
def test_an_algorithm_does_what_its_paper_says_on_quadratics(name):
    compare(name, theirs(), REPEATED, {})


@pytest.mark.parametrize(("name", "settings"), TRIED)
def test_an_algorithm_does_what_its_paper_says_with_other_settings(name, settings):
    compare(name, softmax(rounds=ROUNDS, cohort=COHORT, **RAGGED), RAGGED, settings)


def test_the_sampler_takes_the_cohorts_of_the_oracles():
    facts = PopulationInfo(jnp.arange(1, 6), jnp.ones(5, jnp.int32))
    sampler = samplers.cyclic(COHORT)
    state, taken = sampler.init(facts), []
    for t in range(5):
        chosen, state = sampler.sample(jax.random.key(0), state, facts, jnp.int32(t))
        taken.append(chosen.id.tolist())
    assert taken == softmax().cohorts
