from functools import partial
from itertools import chain

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fedjax_sim.core.errors import FedError
from fedjax_sim.core.permutation import words_of
from fedjax_sim.data import draw, fetch, local_steps, local_work, population, to_table

SIZES = (1, 7, 12, 0, 5)
LIMIT = max(SIZES)


def table():
    n = sum(SIZES)
    y = np.arange(n, dtype=np.int32)
    return to_table(
        population(y[:, None].astype(np.float32), y, np.cumsum([0, *SIZES]), empty=True)
    )


def batch(work, key, rows, client, step):
    return fetch(rows, draw(work, LIMIT, words_of(key), rows, client, step))


def owned(client):
    start = sum(SIZES[:client])
    return list(range(start, start + SIZES[client]))


@partial(jax.jit, static_argnums=(0, 3))
def batches(work, client, key, count):
    """The batches of a client's first steps, ``[count, B, ...]``."""
    rows = table()
    return jax.vmap(lambda step: batch(work, key, rows, client, step))(
        jnp.arange(count, dtype=jnp.int32)
    )


def steps(work, client, key, count):
    """What a client sees: one list of unmasked labels per step."""
    seen = batches(work, jnp.int32(client), key, count)
    np.testing.assert_array_equal(seen.x[..., 0], seen.y)
    return [
        y[mask].tolist() for y, mask in zip(np.asarray(seen.y), np.asarray(seen.mask), strict=True)
    ]


@pytest.mark.parametrize("size", [None, 1, 2, 5, 7, 12, 15])
def test_an_epoch_is_a_permutation_of_the_clients_examples(size):
    work = local_work(size, epochs=2)
    most = int(max(local_steps(work, jnp.array(SIZES))))
    for client in (0, 1, 2, 4):
        half = int(local_steps(work, jnp.int32(SIZES[client]))) // 2
        for seed in range(5):
            seen = steps(work, client, jax.random.key(seed), most)
            for epoch in (seen[:half], seen[half : 2 * half]):
                assert sorted(chain(*epoch)) == owned(client)


def test_the_last_batch_is_partial_and_masked():
    seen = steps(local_work(5), 2, jax.random.key(0), 3)
    assert [len(step) for step in seen] == [5, 5, 2]


def test_no_batch_size_means_all_examples():
    work = local_work(None, epochs=3)
    np.testing.assert_array_equal(local_steps(work, jnp.array(SIZES)), [3, 3, 3, 0, 3])
    for step in steps(work, 1, jax.random.key(0), 3):
        assert sorted(step) == owned(1)


def test_epochs_and_keys_have_orders_of_their_own():
    work = local_work(6, epochs=2)
    once = len(steps(local_work(6), 2, jax.random.key(0), 2))
    seen = steps(work, 2, jax.random.key(0), 2 * once)
    assert seen[:once] != seen[once:]
    assert steps(work, 2, jax.random.key(1), once) != seen[:once]
    assert steps(work, 2, jax.random.key(0), once) == seen[:once]


def test_a_batch_that_holds_everything_keeps_the_order_of_the_data():
    assert steps(local_work(None), 2, jax.random.key(0), 1) == [owned(2)]


def test_without_shuffling_the_order_of_the_data():
    assert list(chain(*steps(local_work(5, shuffle=False), 2, jax.random.key(0), 3))) == owned(2)


def test_a_fixed_number_of_steps_passes_over_the_examples_again_and_again():
    work = local_work(4, steps=7)
    np.testing.assert_array_equal(local_steps(work, jnp.array(SIZES)), [7, 7, 7, 0, 7])
    seen = steps(work, 1, jax.random.key(0), 7)
    assert [len(step) for step in seen] == [4, 3, 4, 3, 4, 3, 4]
    for start in (0, 2, 4):
        assert sorted(seen[start] + seen[start + 1]) == owned(1)


def test_steps_of_whole_epochs():
    np.testing.assert_array_equal(
        local_steps(local_work(5, epochs=2), jnp.array(SIZES)), [2, 4, 6, 0, 2]
    )


@pytest.mark.parametrize("client", [3, len(SIZES), len(SIZES) + 4])
@pytest.mark.parametrize("size", [1, 4, None])
def test_a_client_that_is_absent_or_has_nothing_is_fully_masked(client, size):
    rows = batch(local_work(size), jax.random.key(0), table(), jnp.int32(client), jnp.int32(0))
    assert not np.any(rows.mask)
    assert np.all((np.asarray(rows.y) >= 0) & (np.asarray(rows.y) < sum(SIZES)))
    np.testing.assert_array_equal(rows.x[:, 0], rows.y)


def test_many_clients_at_once_are_each_alone():
    work = local_work(4)
    key = jax.random.key(0)
    clients = jnp.arange(len(SIZES), dtype=jnp.int32)
    keys = jax.vmap(jax.random.fold_in, (None, 0))(key, clients)
    together = jax.vmap(lambda key, client: batch(work, key, table(), client, jnp.int32(1)))(
        keys, clients
    )
    for client in range(len(SIZES)):
        alone = batch(work, keys[client], table(), jnp.int32(client), jnp.int32(1))
        np.testing.assert_array_equal(together.y[client], alone.y)
        np.testing.assert_array_equal(together.mask[client], alone.mask)


@pytest.mark.parametrize(
    "settings", [{"batch_size": 0}, {"batch_size": 2.5}, {"epochs": 0}, {"steps": -1}]
)
def test_bad_settings_are_refused(settings):
    with pytest.raises(FedError, match=next(iter(settings))):
        local_work(**settings)
