"""Wrappers: what a client keeps to itself, and what a codec leaves out."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn
from rigs import REPRESENTATIVES, parameters

from fedjax_sim import aggregators, samplers
from fedjax_sim import clients as wrappers
from fedjax_sim.algorithms import REGISTRY
from fedjax_sim.clients.learner import gradient_learner
from fedjax_sim.core import tree
from fedjax_sim.core.errors import FedError
from fedjax_sim.core.types import Member, Variables
from fedjax_sim.data.batching import local_work
from fedjax_sim.data.population import population
from fedjax_sim.engine import Engine
from fedjax_sim.engine.federate import federate
from fedjax_sim.engine.program import make_round
from fedjax_sim.models import from_linen
from fedjax_sim.models.objectives import classification
from fedjax_sim.optimizers.corrections import local_optimizer
from fedjax_sim.servers.optimizer import optimizer_server

NOBODY = Member(*(jnp.int32(0) for _ in range(4)))
SIZES = np.array([8, 4, 8, 4])


class Normed(nn.Module):
    @nn.compact
    def __call__(self, x, train):
        return nn.Dense(3)(nn.BatchNorm(use_running_average=not train, momentum=0.5)(x))


def setting(statistics):
    rng = np.random.default_rng(0)
    # Client i's inputs lie around i, so that its statistics tell who it is.
    x = (rng.normal(size=(SIZES.sum(), 2)) + np.repeat(np.arange(4), SIZES)[:, None]).astype(
        np.float32
    )
    data = population(
        x, rng.integers(0, 3, SIZES.sum()).astype(np.int32), np.concatenate([[0], np.cumsum(SIZES)])
    )
    model = from_linen(Normed())
    objective = classification(model, statistics)
    return data, objective, Variables(*model.init(jax.random.key(0), x[:1]))


def one_round(algorithm, data, variables, cohort=2):
    program = make_round(algorithm, samplers.cyclic(cohort), data, local_work(4), Engine(devices=1))
    state, _ = program.run(program.init(variables))
    return program.logical(state)


def means(state):
    return jax.tree.leaves(state)[0]


@pytest.fixture(scope="module")
def factory():
    return next(iter(REGISTRY.values())).factory


def test_average_moves_the_servers_statistics(factory):
    data, objective, variables = setting("average")
    algorithm = factory(objective)
    after = algorithm.variables(one_round(algorithm, data, variables).algorithm)
    assert np.abs(means(after.state) - means(variables.state)).max() > 0.05


def test_frozen_statistics_never_move(factory):
    data, objective, variables = setting("frozen")
    algorithm = factory(objective)
    after = algorithm.variables(one_round(algorithm, data, variables).algorithm)
    jax.tree.map(np.testing.assert_array_equal, after.state, variables.state)
    assert np.abs(jax.tree.leaves(after.params)[0] - jax.tree.leaves(variables.params)[0]).max() > 0


@pytest.mark.parametrize("name", parameters(REPRESENTATIVES, list(REGISTRY)))
def test_private_statistics_stay_at_home_under_every_algorithm(name):
    data, objective, variables = setting("local")
    algorithm = REGISTRY[name].factory(objective)  # which minds the objective's policy
    state = one_round(algorithm, data, variables)
    jax.tree.map(
        np.testing.assert_array_equal, algorithm.variables(state.algorithm).state, variables.state
    )
    kept = means(state.memory.own)
    assert np.all(kept[2:] == 0), "absent clients keep what they had"
    assert kept[1].mean() > kept[0].mean() + 0.2, "each client has its own"
    personal = algorithm.personal(
        algorithm.broadcast(state.algorithm, NOBODY),
        jax.tree.map(lambda rows: rows[1], state.memory),
    )
    if not jax.tree.leaves(state.memory.inner):  # a personal model brings its own
        np.testing.assert_array_equal(means(personal.state), kept[1])


def test_a_personal_model_is_judged_with_its_own_statistics():
    data, objective, variables = setting("local")
    learner = wrappers.ditto(
        gradient_learner(objective, local_optimizer(0.1)), objective, local_optimizer(0.1)
    )
    algorithm = wrappers.private_statistics(
        federate(learner, aggregators.mean(), optimizer_server(optax.sgd(1.0)))
    )
    state = one_round(algorithm, data, variables)
    mine = jax.tree.map(lambda rows: rows[1], state.memory)
    personal = algorithm.personal(algorithm.broadcast(state.algorithm, NOBODY), mine)
    jax.tree.map(np.testing.assert_array_equal, personal, mine.inner.own)


def test_top_k_keeps_the_largest_magnitudes_of_each_leaf():
    codec = wrappers.top_k(0.5)
    sent = codec.transmit(
        jax.random.key(0), {"a": jnp.array([3.0, -5.0, 1.0, 2.0]), "b": jnp.array([[0.1]])}
    )
    np.testing.assert_array_equal(sent["a"], [3, -5, 0, 0])
    np.testing.assert_array_equal(sent["b"], np.float32([[0.1]]))
    assert codec.nbytes(sent) == 8 * 2 + 8 * 1


def test_top_k_refuses_a_share_above_one():
    with pytest.raises(FedError, match=r"fraction.*got 1\.5"):
        wrappers.top_k(1.5)


def test_tree_norm_is_over_all_leaves():
    assert tree.norm({"a": jnp.array([3.0]), "b": jnp.array([[4.0]])}) == 5
