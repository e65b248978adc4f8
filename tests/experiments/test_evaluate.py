"""Statistics over clients."""

import jax.numpy as jnp
import numpy as np
import pytest
from rigs import ENGINES, OBJECTIVE, PEOPLE, START, WORK

from fedjax_sim import samplers
from fedjax_sim.algorithms import REGISTRY
from fedjax_sim.core.types import Mean
from fedjax_sim.engine.program import make_round
from fedjax_sim.simulation.evaluate_clients import client_evaluation, client_statistics

TWENTY = Mean(np.arange(20.0), np.ones(20))


def test_the_worst_clients_are_at_the_end_that_is_bad():
    assert client_statistics("score", TWENTY)["clients/score_worst10"] == 0.5
    assert client_statistics("score", TWENTY, lower_is_better=True)["clients/score_worst10"] == 18.5


def test_clients_without_examples_are_left_out():
    some = Mean(np.array([2.0, 0.0]), np.array([4.0, 0.0]))
    assert client_statistics("score", some)["clients/score_mean"] == 0.5
    assert client_statistics("score", Mean(np.zeros(2), np.zeros(2))) == {}


@pytest.mark.parametrize("lower_is_better", [("loss",), ("loss", "error"), ()], ids=str)
def test_the_objective_says_of_which_metrics_less_is_better(lower_is_better):
    def loss(variables, key, batch, train):
        value, (state, metrics) = OBJECTIVE.loss(variables, key, batch, train)
        weight = metrics["loss"].weight
        error = Mean(jnp.sum(jnp.where(batch.mask, batch.x[:, 0], 0)), weight)
        return value, (state, {**metrics, "error": error})

    assert OBJECTIVE.lower_is_better == ("loss",)
    objective = OBJECTIVE._replace(loss=loss, lower_is_better=lower_is_better)
    algorithm = REGISTRY["fedavg"].factory(OBJECTIVE)
    made = make_round(algorithm, samplers.uniform(2), PEOPLE, WORK, ENGINES["vmap"])
    numbers = client_evaluation(algorithm, objective, PEOPLE, made, 4)(made.init(START))
    for name in ("loss", "error"):
        worst_is_high = numbers[f"clients/{name}_worst10"] > numbers[f"clients/{name}_mean"]
        assert worst_is_high == (name in lower_is_better)
