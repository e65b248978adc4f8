"""Half-precision models: sums over clients and batches are in float32 all the same, and no dtype
changes on the way."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import optax
import pytest

from fedjax_sim import aggregators, samplers
from fedjax_sim.algorithms import REGISTRY
from fedjax_sim.clients.learner import full_gradient
from fedjax_sim.core.types import Mean, Objective, Variables
from fedjax_sim.data.batching import local_work
from fedjax_sim.data.population import population
from fedjax_sim.engine import Engine
from fedjax_sim.engine.federate import federate
from fedjax_sim.engine.program import make_round
from fedjax_sim.servers.optimizer import optimizer_server

CLIENTS = 600
COUNTER = 5


def linear(variables, key, batch, train):
    """Gradient 1 everywhere; the state counts the batches of a round."""
    value = jnp.sum(variables.params["w"].astype(jnp.float32))
    return value, ({"seen": variables.state["seen"] + 1}, {"loss": Mean(value, jnp.float32(1))})


def setting(dtype, algorithm, sizes, engine=None):
    n = int(np.sum(sizes))
    data = population(
        np.zeros((n, 1), np.float32), np.zeros(n, np.int32), np.concatenate([[0], np.cumsum(sizes)])
    )
    program = make_round(
        algorithm, samplers.full(), data, local_work(1), engine or Engine(devices=2, lanes=8)
    )
    start = Variables({"w": jnp.zeros(3, dtype)}, {"seen": jnp.int32(COUNTER)})
    return program.run(program.init(start))[0], program


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
@pytest.mark.parametrize("aggregator", [aggregators.mean, aggregators.unweighted_mean])
def test_the_mean_of_equal_clients_is_each_of_them(dtype, aggregator):
    algorithm = federate(
        full_gradient(Objective(linear)), aggregator(), optimizer_server(optax.sgd(1.0))
    )
    state, _ = setting(dtype, algorithm, np.ones(CLIENTS, int))
    w = algorithm.variables(state.algorithm).params["w"]
    assert w.dtype == dtype
    np.testing.assert_array_equal(np.asarray(w, np.float32), -1.0)


def test_a_long_client_sums_its_batches_in_float32():
    algorithm = federate(
        full_gradient(Objective(linear)), aggregators.mean(), optimizer_server(optax.sgd(1.0))
    )
    state, _ = setting(jnp.bfloat16, algorithm, np.array([700, 700]))
    np.testing.assert_array_equal(
        np.asarray(algorithm.variables(state.algorithm).params["w"], np.float32), -1.0
    )


def test_whole_numbers_in_a_models_state_survive_the_mean():
    algorithm = federate(
        full_gradient(Objective(linear)), aggregators.mean(), optimizer_server(optax.sgd(1.0))
    )
    for size in (61, 122, 3):
        state, _ = setting(jnp.float32, algorithm, np.array([size, size]))
        seen = algorithm.variables(state.algorithm).state["seen"]
        assert seen.dtype == jnp.int32
        assert seen == COUNTER + size


@pytest.mark.slow  # tests/laws/test_laws.py checks it abstractly for every algorithm
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16, jnp.float32])
@pytest.mark.parametrize("name", REGISTRY)
def test_every_algorithm_keeps_its_dtypes_in_a_whole_program(name, dtype):
    algorithm = REGISTRY[name].factory(Objective(linear))
    data = population(np.zeros((6, 1), np.float32), np.zeros(6, np.int32), np.array([0, 2, 6]))
    program = make_round(algorithm, samplers.full(), data, local_work(2), Engine(devices=1))
    # A scan over rounds refuses a state whose dtypes change.
    program.lower(program.init(Variables({"w": jnp.zeros(3, dtype)}, {"seen": jnp.int32(0)})), 2)
