import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import chi2

from fedjax_sim.core.permutation import permute, words_of

LIMIT = 70


@jax.jit
def orders(key):
    """[LIMIT, LIMIT]: row n - 1 is the permutation of 0..n-1 in its first n places."""
    places = jnp.arange(LIMIT, dtype=jnp.int32)

    def one(n):
        return permute(words_of(key), jnp.minimum(places, n - 1), n)

    return jax.vmap(one)(jnp.arange(1, LIMIT + 1, dtype=jnp.int32))


@pytest.mark.parametrize("seed", range(5))
def test_a_bijection_for_every_traced_size(seed):
    for n, row in enumerate(np.asarray(orders(jax.random.key(seed))), start=1):
        np.testing.assert_array_equal(np.sort(row[:n]), np.arange(n))


def test_a_bijection_of_a_large_domain():
    n = 100_003
    places = permute(words_of(jax.random.key(0)), jnp.arange(n, dtype=jnp.int32), n)
    np.testing.assert_array_equal(np.sort(places), np.arange(n))


def test_neither_tracing_nor_batching_changes_it():
    key = jax.random.key(1)
    plain = [permute(words_of(key), jnp.arange(n, dtype=jnp.int32), n) for n in (1, 2, 37, 70)]
    for n, places in zip((1, 2, 37, 70), plain, strict=True):
        np.testing.assert_array_equal(orders(key)[n - 1, :n], places)


def permutations(n, keys, seed=0):
    many = jax.random.split(jax.random.key(seed), keys)
    places = jnp.arange(n, dtype=jnp.int32)
    return np.asarray(jax.jit(jax.vmap(lambda key: permute(words_of(key), places, n)))(many))


def epochs(n, many):
    """Permutations of one family: what a client's epochs are."""
    words = words_of(jax.random.key(3))
    places = jnp.arange(n, dtype=jnp.int32)
    return np.asarray(
        jax.jit(jax.vmap(lambda e: permute(words, places, n, e)))(jnp.arange(many, dtype=jnp.int32))
    )


def assert_uniform(counts, freedom):
    expected = counts.sum() / counts.size
    statistic = np.sum((counts - expected) ** 2) / expected
    assert 1e-4 < chi2.sf(statistic, freedom) < 1 - 1e-4  # too even would be wrong as well


@pytest.mark.parametrize("n", [2, 3, 5, 10, 50])
def test_every_element_goes_everywhere_alike(n):
    places = permutations(n, 20_000)
    for element in {0, n // 2, n - 1}:
        assert_uniform(np.bincount(places[:, element], minlength=n), n - 1)


@pytest.mark.parametrize("draw", [permutations, epochs])
@pytest.mark.parametrize("n", [3, 4, 5, 6])
def test_every_order_is_alike(n, draw):
    places = draw(n, 60_000)
    known = {order: i for i, order in enumerate(itertools.permutations(range(n)))}
    counts = np.bincount([known[tuple(row)] for row in places.tolist()], minlength=len(known))
    assert_uniform(counts, len(known) - 1)


def test_pairs_of_neighbours_land_independently():
    n = 10
    places = permutations(n, 40_000, seed=2)
    counts = np.bincount(places[:, 3] * n + places[:, 4], minlength=n * n).reshape(n, n)
    assert not np.any(np.diagonal(counts))
    assert_uniform(counts[~np.eye(n, dtype=bool)], n * (n - 1) - 1)
