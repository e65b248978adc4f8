import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedjax_sim.core.errors import FedError
from fedjax_sim.data import (
    Examples,
    by_client,
    describe,
    dirichlet,
    federation,
    from_arrays,
    from_partition,
    hold_out,
    pool,
    population,
    split,
    to_table,
)


def labelled(n=200, seed=0):
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 4, n).astype(np.int32)
    return np.stack([np.arange(n), y], 1).astype(np.float32), y


def clients_of(data):
    return np.repeat(np.arange(data.clients), data.sizes)


def test_examples_are_grouped_by_client_and_named():
    x, y = labelled(6)
    data = by_client(x, y, np.array(["b", "a", "b", "c", "a", "b"]))
    assert data.names == ("a", "b", "c")
    np.testing.assert_array_equal(data.sizes, [2, 3, 1])
    np.testing.assert_array_equal(data.x[:, 0], [1, 4, 0, 2, 5, 3])
    np.testing.assert_array_equal(data.y, y[[1, 4, 0, 2, 5, 3]])


def test_examples_may_be_trees():
    x, y = labelled(6)
    data = by_client({"a": x, "b": y}, (), np.array([1, 0, 1, 0, 1, 0]))
    np.testing.assert_array_equal(data.x["b"], y[[1, 3, 5, 0, 2, 4]])
    train, test = split(data, 0.4)
    assert jax.tree.structure(train.x) == jax.tree.structure(test.x)
    assert to_table(data).clients == 2


@pytest.mark.parametrize(
    ("offsets", "words"),
    [
        ([0, 3, 3, 6], "at least one example: got none for clients"),
        ([0, 4], "run from 0"),
        ([6], "N \\+ 1"),
        ([0, 4, 2, 6], "clients \\[1\\]"),
    ],
)
def test_bad_offsets_are_refused(offsets, words):
    with pytest.raises(FedError, match=words):
        population(*labelled(6), np.array(offsets))


def test_only_a_test_population_may_have_empty_clients():
    assert population(*labelled(6), np.array([0, 3, 3, 6]), empty=True).sizes.tolist() == [3, 0, 3]
    with pytest.raises(FedError, match="not descend"):
        population(*labelled(6), np.array([0, 4, 2, 6]), empty=True)


def test_arrays_of_unequal_length_are_refused():
    x, y = labelled(6)
    with pytest.raises(FedError, match="one row per example"):
        by_client(x, y[:5], np.zeros(6))
    with pytest.raises(FedError, match="one client id per example"):
        by_client(x, y, np.zeros(5))


@settings(max_examples=50, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 9), min_size=1, max_size=12),
    fraction=st.floats(0.01, 0.99),
    seed=st.integers(0, 99),
)
def test_a_split_divides_every_client(sizes, fraction, seed):
    x, y = labelled(sum(sizes))
    data = population(x, y, np.cumsum([0, *sizes]))
    train, test = split(data, fraction, seed)
    assert test is not None
    assert train.clients == test.clients == len(sizes)
    for client, n in enumerate(sizes):
        parts = [part.x[clients_of(part) == client, 0].tolist() for part in (train, test)]
        assert sorted(parts[0] + parts[1]) == x[clients_of(data) == client, 0].tolist()
        assert parts[0] == sorted(parts[0])
        assert len(parts[1]) == (0 if n == 1 else min(max(round(fraction * n), 1), n - 1))
    np.testing.assert_array_equal(train.x[:, 1], train.y)


def test_the_seed_of_a_split_decides():
    data = by_client(*labelled(), np.arange(200) % 7)
    one, same, other = (split(data, 0.3, seed)[1] for seed in (0, 0, 1))
    np.testing.assert_array_equal(one.x, same.x)
    assert not np.array_equal(one.x, other.x)


def test_a_split_chooses_all_places_alike():
    data = population(*labelled(5), np.array([0, 5]))
    counts = np.zeros(5)
    for seed in range(2000):
        counts[split(data, 0.4, seed)[1].x[:, 0].astype(int)] += 1
    np.testing.assert_allclose(counts, 800, atol=5 * np.sqrt(2000 * 0.4 * 0.6))


def test_a_federation_from_arrays():
    x, y = labelled(40)
    client = np.arange(40) % 4
    client[0] = 9  # a client of one example
    data = from_arrays(x, y, client, test_fraction=0.25, global_test=Examples(x[:3], y[:3]), seed=1)
    assert data.train.names == ("0", "1", "2", "3", "9") == data.test.names
    assert data.test.sizes.tolist() == [2, 2, 2, 2, 0]
    assert len(data.global_test) == 3
    assert from_arrays(x, y, client).test is None


def test_a_federation_from_a_partition_keeps_its_rows_and_order():
    x, y = labelled()
    parts = dirichlet(y, 5, alpha=0.5, seed=2)
    data = from_partition(x, y, parts)
    for client, part in enumerate(parts):
        np.testing.assert_array_equal(data.train.x[clients_of(data.train) == client, 0], part)


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        ([[0, 1], [1, 2]], "one client only"),
        ([[0, 6]], "must exist"),
        ([[-1]], "must exist"),
        ([[0], []], "at least one"),
    ],
)
def test_a_partition_of_something_else_is_refused(parts, words):
    with pytest.raises(FedError, match=words):
        from_partition(*labelled(6), [np.array(part, np.int64) for part in parts])


def test_parts_of_a_federation_must_fit():
    x, y = labelled(6)
    train = by_client(x, y, np.arange(6) % 2)
    with pytest.raises(FedError, match="like those of train"):
        federation(train, global_test=Examples(x.astype(np.float64), y))
    with pytest.raises(FedError, match="like those of train"):
        federation(train, by_client(x[:, :1], y, np.arange(6) % 2))
    with pytest.raises(FedError, match="3 test and 2 training clients"):
        federation(train, by_client(x, y, np.arange(6) % 3))
    with pytest.raises(FedError, match="same names"):
        federation(train, by_client(x, y, np.arange(6) % 2 + 1))


def test_a_test_without_examples_is_none():
    data = from_arrays(*labelled(3), np.arange(3), test_fraction=0.5)
    assert data.test is None
    assert data.train.sizes.tolist() == [1, 1, 1]


@pytest.mark.parametrize("fraction", [-0.1, 1.0])
def test_shares_out_of_range_are_refused(fraction):
    with pytest.raises(FedError, match="test_fraction"):
        from_arrays(*labelled(6), np.arange(6) % 2, test_fraction=fraction)
    with pytest.raises(FedError, match="global_test_fraction"):
        hold_out(*labelled(6), fraction)


def test_what_is_held_out_and_the_rest_are_everything():
    x, y = labelled()
    rest, held = hold_out(x, y, 0.25, seed=3)
    assert (len(rest), len(held)) == (150, 50)
    np.testing.assert_array_equal(np.sort(np.concatenate([rest.x, held.x])[:, 0]), np.arange(200))
    np.testing.assert_array_equal(held.x[:, 1], held.y)


def test_plain_facts():
    data = population(*labelled(10), np.array([0, 1, 4, 10]))
    assert describe(data) == {
        "clients": 3,
        "examples": 10,
        "size": {
            "min": 1.0,
            "p10": pytest.approx(1.4),
            "median": 3.0,
            "p90": pytest.approx(5.4),
            "max": 6.0,
            "mean": pytest.approx(10 / 3),
        },
    }


def test_a_pool_has_the_examples_of_all_clients():
    data = by_client(*labelled(), np.arange(200) % 7)
    assert len(pool(data)) == 200
    assert pool(None) is None
