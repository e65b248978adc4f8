import jax
import numpy as np
import pytest

from fedjax_sim.data.feature_noise import feature_noise
from fedjax_sim.data.population import by_client

CLIENTS = 5
EACH = 400
X = {
    "image": np.ones((CLIENTS * EACH, 4, 4), np.float32),
    "half": np.ones((CLIENTS * EACH, 8), np.float16),
}
DATA = by_client(X, np.zeros(CLIENTS * EACH), np.repeat(np.arange(CLIENTS), EACH))


def noise_of(data):
    return jax.tree.map(
        lambda leaf, old: np.asarray(leaf - old, np.float64).reshape(CLIENTS, -1), data.x, DATA.x
    )


def test_noise_grows_from_client_to_client():
    noisy = feature_noise(DATA, noise=0.4, seed=1)
    for added in noise_of(noisy).values():
        np.testing.assert_allclose(added.std(axis=1), [0, 0.1, 0.2, 0.3, 0.4], rtol=0.05)
        np.testing.assert_allclose(added.mean(axis=1), 0, atol=0.03)
    assert [leaf.dtype for leaf in jax.tree.leaves(noisy.x)] == [
        leaf.dtype for leaf in jax.tree.leaves(DATA.x)
    ]
    assert noisy.y is DATA.y
    assert noisy.offsets is DATA.offsets


def test_noise_does_not_depend_on_other_clients():
    """No two clients, leaves or seeds share their draws; the same seed gives the same noise, and
    the data stay as they were."""
    first, again, other = (
        noise_of(feature_noise(DATA, noise=0.4, seed=seed)) for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(first["image"], again["image"])
    independent = [
        first["image"][1, :3200],
        first["image"][2, :3200],
        first["half"][1],
        first["half"][4],
        other["image"][1, :3200],
    ]
    correlation = np.corrcoef(independent) - np.eye(5)
    assert np.abs(correlation).max() < 0.08
    assert np.all(DATA.x["image"] == 1)


@pytest.mark.parametrize(
    ("data", "noise"),
    [(DATA, 0.0), (by_client(X, np.zeros(CLIENTS * EACH), np.zeros(CLIENTS * EACH)), 1.0)],
)
def test_no_noise_and_a_single_client_change_nothing(data, noise):
    jax.tree.map(np.testing.assert_array_equal, feature_noise(data, noise=noise).x, data.x)
