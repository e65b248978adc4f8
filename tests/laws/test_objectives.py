"""Losses and scores against plain numpy."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fedjax_sim.core.errors import FedError
from fedjax_sim.core.types import Batch, Variables
from fedjax_sim.models import Model
from fedjax_sim.models.objectives import classification, cross_entropy, is_largest, regression

SAME = Model(lambda key, x: ((), ()), lambda params, state, x, *, train, key: (x, state))


def scores(objective, x, y, mask):
    loss, (_, metrics) = objective.loss(Variables(()), jax.random.key(0), Batch(x, y, mask), True)
    return loss, metrics


@pytest.mark.parametrize("shape", [(50, 4), (6, 7, 3)])
def test_the_largest_is_that_of_argmax_ties_included(shape):
    rng = np.random.default_rng(0)
    logits = rng.integers(0, 3, shape).astype(np.float32)  # few values, so that many tie
    for label in range(shape[-1]):
        labels = np.full(shape[:-1], label)
        np.testing.assert_array_equal(
            is_largest(jnp.asarray(logits), jnp.asarray(labels)), logits.argmax(-1) == labels
        )


def test_cross_entropy_is_that_of_numpy_also_far_out():
    logits = np.array([[1.0, 2.0, 3.0], [1000.0, 0.0, -1000.0]], np.float32)
    wanted = [np.log(np.exp(logits[0]).sum()) - 1.0, 1000.0]
    np.testing.assert_allclose(
        cross_entropy(jnp.asarray(logits), jnp.array([0, 1])), wanted, rtol=1e-6
    )


def test_masked_examples_and_ignored_labels_do_not_count():
    x = jnp.array([[[9.0, 0.0], [0.0, 9.0]], [[9.0, 0.0], [9.0, 0.0]]])
    y, mask = jnp.array([[0, 0], [1, 1]]), jnp.array([True, False])
    loss, metrics = scores(classification(SAME), x, y, mask)
    assert (metrics["accuracy"].total, metrics["accuracy"].weight) == (1, 2)
    np.testing.assert_allclose(
        loss, (np.log1p(np.exp(-9)) + 9 + np.log1p(np.exp(-9))) / 2, rtol=1e-6
    )
    _, metrics = scores(
        classification(SAME, ignore=1), x, jnp.array([[0, 1], [0, 1]]), jnp.array([True, True])
    )
    assert (metrics["accuracy"].total, metrics["accuracy"].weight) == (2, 2)


def test_a_fully_masked_batch_has_no_loss_and_no_gradient():
    def loss(x):
        return scores(classification(SAME), x, jnp.zeros(2, jnp.int32), jnp.zeros(2, bool))[0]

    assert loss(jnp.ones((2, 3))) == 0
    np.testing.assert_array_equal(jax.grad(loss)(jnp.ones((2, 3))), 0)


def test_regression_is_half_the_squared_error():
    loss, metrics = scores(
        regression(SAME),
        jnp.array([[1.0, 2.0], [5.0, 5.0]]),
        jnp.zeros((2, 2)),
        jnp.array([True, False]),
    )
    assert loss == 2.5
    assert metrics["loss"].weight == 1


def test_an_unknown_policy_is_refused():
    with pytest.raises(FedError, match="choose one of average, frozen, local"):
        classification(SAME, "averaged")
