import jax
import jax.numpy as jnp
import numpy as np
import pytest
from shared_data import shared

from fedjax_sim.core.errors import FedError
from fedjax_sim.core.types import Batch
from fedjax_sim.data import describe
from fedjax_sim.tasks import REGISTRY
from fedjax_sim.tasks.quadratic import (
    averaging_fixed_point,
    contractions,
    optimum,
    parts,
    quadratic,
)
from fedjax_sim.tasks.synthetic import generate

# ---------------------------------------------------------------------------------------- synthetic


def test_synthetic_has_the_papers_shape():
    data = REGISTRY["synthetic"]().data
    assert data.train.clients == 30
    assert (data.train.sizes + data.test.sizes).min() >= 50
    assert describe(data.train)["size"]["max"] > 5 * describe(data.train)["size"]["median"]
    assert data.train.x.shape[1:] == (60,)
    assert len(data.global_test) == data.test.sizes.sum()


def test_iid_inputs_have_the_papers_spectrum_and_one_true_model():
    data = generate(1.0, 1.0, iid=True, clients=100, seed=1)
    np.testing.assert_allclose(data.x.var(axis=0), np.arange(1, 61) ** -1.2, rtol=0.1)
    np.testing.assert_allclose(data.x.mean(axis=0), 0, atol=0.05)


def test_beta_moves_the_inputs_and_alpha_leaves_them():
    def means(alpha, beta):
        data = generate(alpha, beta, clients=400, seed=2)
        return np.add.reduceat(data.x.mean(axis=1), data.offsets[:-1]) / data.sizes

    np.testing.assert_allclose(means(0, 0).std(), 1 / np.sqrt(60), rtol=0.15)
    np.testing.assert_allclose(means(0, 2.0).std(), np.sqrt(4 + 1 / 60), rtol=0.15)
    np.testing.assert_allclose(means(3.0, 0).std(), 1 / np.sqrt(60), rtol=0.15)


def test_the_published_iid_inputs_have_the_same_spectrum():
    with np.load(shared("fedprox_synthetic_test.npz")) as arrays:
        theirs = arrays["iid_x"].var(axis=0)
    mine = generate(0, 0, iid=True, clients=30, seed=0).x.var(axis=0)
    np.testing.assert_allclose(np.log(theirs), np.log(mine), atol=0.35)


@pytest.mark.parametrize("settings", [{"alpha": -1.0}, {"clients": 0}])
def test_bad_synthetic_settings_are_refused(settings):
    with pytest.raises(FedError, match=next(iter(settings))):
        REGISTRY["synthetic"](**settings)


# ---------------------------------------------------------------------------------------- quadratic


def average(data, lr, steps, rounds):
    """FedAvg by hand in float64: full participation, full gradients."""
    a, b, p = parts(data)
    counts = np.broadcast_to(steps, len(p))
    x = np.zeros(b.shape[1])
    for _ in range(rounds):
        ends = []
        for i, count in enumerate(counts):
            y = x
            for _ in range(count):
                y = y - lr * a[i] @ (y - b[i])
            ends.append(y)
        x = p @ np.stack(ends)
    return x


@pytest.mark.parametrize("steps", [1, 7, np.array([1, 2, 3, 4, 5, 6])])
def test_averaging_ends_at_its_fixed_point(steps):
    data = quadratic(clients=6, dimension=4, copies=3, seed=1).data.train
    np.testing.assert_allclose(
        average(data, 0.5, steps, 1500), averaging_fixed_point(data, 0.5, steps), atol=1e-12
    )


def test_one_step_is_unbiased_and_more_are_not():
    data = quadratic(clients=6, copies=3, seed=1).data.train
    np.testing.assert_allclose(averaging_fixed_point(data, 0.5, 1), optimum(data), atol=1e-12)
    assert np.linalg.norm(averaging_fixed_point(data, 0.5, 10) - optimum(data)) > 0.05


def test_equal_curvature_is_unbiased():
    data = quadratic(curvature="shared", copies=3).data.train
    np.testing.assert_allclose(averaging_fixed_point(data, 0.5, 10), optimum(data), atol=1e-6)


def test_the_optimum_is_where_the_objective_is_flat():
    task = quadratic(clients=6, copies=3, seed=1)
    rows = task.data.train
    everything = Batch(
        jax.tree.map(jnp.asarray, rows.x), jnp.asarray(rows.y), jnp.ones(len(rows.y), bool)
    )
    at = {"x": jnp.asarray(optimum(rows), jnp.float32)}

    def loss(params):
        return task.objective.loss(
            task.init(jax.random.key(0))._replace(params=params),
            jax.random.key(0),
            everything,
            True,
        )[0]

    a, b, p = parts(rows)
    np.testing.assert_allclose(
        loss({"x": jnp.zeros(5)}), 0.5 * np.einsum("i,ij,ijk,ik->", p, b, a, b), rtol=1e-5
    )
    np.testing.assert_allclose(jax.grad(loss)(at)["x"], 0, atol=1e-6)
    assert np.linalg.norm(jax.grad(loss)({"x": at["x"] + 1})["x"]) > 0.1


def test_quadratic_clients_are_as_asked():
    data = quadratic(clients=5, dimension=3, condition=20.0, copies=2).data.train
    assert data.sizes.tolist() == [1, 2, 1, 2, 1]
    values = np.linalg.eigvalsh(parts(data)[0])
    assert values.min() >= 1 / 20 - 1e-6
    assert values.max() <= 1 + 1e-6
    assert contractions(data, 0.1, 3).shape == (5, 3, 3)
