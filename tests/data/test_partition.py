"""What every partition does, and what none of them can do."""

import inspect
import types
import typing

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedjax_sim.core.errors import FedError
from fedjax_sim.data.federation import from_partition, hold_out, split
from fedjax_sim.data.partition import (
    REGISTRY,
    dirichlet,
    generator,
    grouped,
    iid,
    natural,
    shards,
    sized,
)
from fedjax_sim.data.population import by_client

LABELS = np.random.default_rng(0).integers(0, 10, 1003)
MAKES_ITS_CLIENTS = {"natural"}


def needed(name, column, clients):
    """Options without a default, and the like."""
    if name == "sized":
        return {"sizes": tuple(len(part) for part in np.array_split(column, clients or 1))}
    if name == "distribution":
        classes = len(np.unique(column))
        return {"shares": np.ones((classes, 2 * (clients or 1) // max(classes, 1)))}
    return {}


def make(name, column, clients, seed, **options):
    clients = clients if clients and name not in MAKES_ITS_CLIENTS else None
    return REGISTRY[name](
        column, clients, seed=seed, **{**needed(name, column, clients), **options}
    )


def keywords(name):
    hints = typing.get_type_hints(REGISTRY[name].factory)
    return {
        key: (hints[key], p.default)
        for key, p in inspect.signature(REGISTRY[name].factory).parameters.items()
        if p.kind is p.KEYWORD_ONLY
    }


def leaves_rows(name, column, options):
    """Whether the docstring allows rows that no client holds."""
    if name in ("hsu_dirichlet", "sized", "pathological"):
        return True
    return (
        bool(options.get("shard_size"))
        or options.get("rest") == "drop"
        or options.get("rescale") is False
    )


def assert_exact_cover(parts, n):
    np.testing.assert_array_equal(np.sort(np.concatenate(parts)), np.arange(n))


def assert_partition(parts, n, clients):
    rows = np.concatenate(parts)
    assert clients is None or len(parts) == clients
    assert {part.dtype for part in parts} == {np.dtype(np.int64)}
    assert len(np.unique(rows)) == len(rows)
    assert rows.min() >= 0
    assert rows.max() < n


# -------------------------------------------------------------------------------------- all of them


@pytest.mark.parametrize("name", REGISTRY)
def test_every_row_belongs_to_exactly_one_client(name):
    column = np.arange(len(LABELS)) // 11 if REGISTRY[name].metadata["column"] == "ids" else LABELS
    parts = make(name, column, 20, 3)
    assert_partition(parts, len(LABELS), None if name == "natural" else 20)
    assert min(map(len, parts)) >= 1
    left = len(LABELS) - sum(map(len, parts))
    assert left == (len(LABELS) % 20 if name == "hsu_dirichlet" else 0)
    data = from_partition(np.zeros((len(LABELS), 2)), LABELS, parts)
    assert data.train.sizes.tolist() == [len(part) for part in parts]


@pytest.mark.parametrize("name", sorted(set(REGISTRY) - {"natural"}))
def test_the_seed_decides(name):
    options = {"grouped": {"order": "random"}}.get(name, {})
    column = np.arange(1003) if name == "grouped" else LABELS
    first, again, other = (make(name, column, 10, seed, **options) for seed in (3, 3, 4))
    for a, b in zip(first, again, strict=True):
        np.testing.assert_array_equal(a, b)
    assert any(not np.array_equal(a, b) for a, b in zip(first, other, strict=True))


def values_of(key, hint):
    """Values to try for an option, from its annotation; extreme ones among them."""
    if typing.get_origin(hint) is typing.Literal:
        return st.sampled_from(typing.get_args(hint))
    members = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    kinds = {
        bool: st.booleans(),
        int: st.integers(0, 5),
        float: st.sampled_from([1e-320, 1e-6, 0.1, 0.5, 1.0, 1e3, 1e200]),
    }
    kinds[type(None)] = st.none()
    known = [kinds[member] for member in members if member in kinds]
    return st.one_of(known) if known else None


def options_of(name):
    hints = {
        key: values_of(key, hint) for key, (hint, _) in keywords(name).items() if key != "seed"
    }
    return st.fixed_dictionaries(
        {}, optional={key: kind for key, kind in hints.items() if kind is not None}
    )


@pytest.mark.parametrize("name", REGISTRY)
@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_a_partition_is_one_or_refuses(name, data):
    column = np.array(data.draw(st.lists(st.integers(0, 4), max_size=60)), np.int64)
    clients = data.draw(st.integers(0, 8))
    options = data.draw(options_of(name))
    try:
        parts = make(name, column, clients, data.draw(st.integers(0, 2**32 - 1)), **options)
    except FedError as error:
        what, _, do = str(error).partition(": got ")
        assert what
        assert "; " in do
        return
    assert_partition(
        parts, len(column), clients if clients and name not in MAKES_ITS_CLIENTS else None
    )
    assert min(map(len, parts)) >= max(
        options.get("min_size", 1), options.get("least", 1) if name == "quantity_dirichlet" else 0
    )
    if not leaves_rows(name, column, options):
        assert_exact_cover(parts, len(column))


@pytest.mark.parametrize("name", REGISTRY)
def test_a_file_can_say_and_explain_every_option(name):
    text = inspect.getdoc(REGISTRY[name].factory)
    assert REGISTRY[name].metadata["column"] in ("labels", "ids", "values")
    assert list(inspect.signature(REGISTRY[name].factory).parameters)[1] == "clients"
    assert "seed" in keywords(name)
    for key, (hint, _) in keywords(name).items():
        members = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
        assert any(
            m in (int, float, bool) or typing.get_origin(m) in (tuple, typing.Literal)
            for m in members
        ), key
        assert f"\n  {key}: " in text, key


@pytest.mark.parametrize("name", REGISTRY)
def test_an_unknown_word_is_refused(name):
    for key, (hint, _) in keywords(name).items():
        if typing.get_origin(hint) is typing.Literal:
            with pytest.raises(FedError, match=f"unknown {key}: got 'wrong'"):
                make(
                    name,
                    LABELS,
                    10,
                    0,
                    **{key: "wrong", **({"group_size": 2} if key == "rest" else {})},
                )


@pytest.mark.parametrize("name", REGISTRY)
def test_data_without_examples_are_refused(name):
    for options in ({}, {"min_size": 0}) if "min_size" in keywords(name) else ({},):
        with pytest.raises(FedError, match=r"examples|sizes"):
            make(name, np.zeros(0, int), None if name == "natural" else 2, 0, **options)


# ------------------------------------------------------------------------------------- each of them


def test_iid_sizes_differ_by_one_at_most():
    sizes = [len(part) for part in iid(LABELS, 13, seed=1)]
    assert max(sizes) - min(sizes) == 1


def test_shards_give_few_labels():
    labels = np.repeat(np.arange(10), 100)
    parts = shards(labels, 50, per_client=2, seed=0)
    assert {len(part) for part in parts} == {20}
    assert max(len(np.unique(labels[part])) for part in parts) <= 2


def test_remaining_rows_are_left_out():
    for parts in (
        shards(LABELS, 10, per_client=2, shard_size=40, seed=0),
        sized(LABELS, sizes=(300, 500), seed=0),
    ):
        rows = np.concatenate(parts)
        assert len(rows) == len(set(rows.tolist())) == 800


def test_natural_ids_may_be_words():
    parts = natural(np.array(["bo", "al", "bo", "cy"]))
    assert [part.tolist() for part in parts] == [[1], [0, 2], [3]]


@pytest.mark.parametrize(
    ("options", "groups"),
    [
        ({"clients": 2}, [[1, 2, 5, 3], [0, 4]]),
        ({"clients": 2, "order": "found"}, [[0, 4, 1, 2, 5], [3]]),
        ({"group_size": 2}, [[1, 2, 5, 3], [0, 4]]),
        ({"group_size": 2, "rest": "bigger"}, [[1, 2, 5, 3, 0, 4]]),
        ({"group_size": 2, "rest": "drop", "clients": 1}, [[1, 2, 5, 3]]),
        ({"group_size": 5}, [[1, 2, 5, 3, 0, 4]]),
        ({"group_size": 3, "rest": "refuse"}, [[1, 2, 5, 3, 0, 4]]),
    ],
)
def test_ids_make_groups(options, groups):
    parts = grouped(np.array([9, 1, 1, 5, 9, 1]), options.pop("clients", None), **options)
    assert [part.tolist() for part in parts] == groups


def test_random_groups_are_a_deal_of_whole_ids():
    ids = np.repeat(np.arange(30), 7)
    parts = grouped(ids, 4, order="random", seed=3)
    assert_exact_cover(parts, len(ids))
    assert [len(part) for part in parts] == [56, 56, 49, 49]
    held = [np.unique(ids[part]) for part in parts]
    assert sum(map(len, held)) == 30
    assert not np.array_equal(np.concatenate(held), np.arange(30))


@pytest.mark.parametrize("alpha", [1e-3, 1e-6, 1e-320])
@pytest.mark.parametrize("balance", ["above", "at"])
def test_the_balanced_modes_survive_shares_that_all_underflow(alpha, balance):
    parts = dirichlet(LABELS, 5, alpha=alpha, balance=balance, min_size=0, seed=0)
    assert_exact_cover(parts, len(LABELS))
    assert min(map(len, parts)) > 0


def test_hold_out_partition_and_split_draw_from_streams_of_their_own():
    """All three from one seed: what one of them drew must tell nothing about another."""
    n = len(LABELS)
    rows = np.arange(n)
    dealt = generator(5).permutation(n)[: round(0.2 * n)]
    held = hold_out(rows, LABELS, 0.2, seed=5)[1].x
    tested = split(by_client(rows, LABELS, np.zeros(n, int)), 0.2, seed=5)[1].x
    for one, other in ((dealt, held), (dealt, tested), (held, tested)):
        assert len(np.intersect1d(one, other)) == pytest.approx(0.04 * n, abs=25)
    drawn = np.argsort(generator(5).random(n))[: len(tested)]
    assert len(np.intersect1d(drawn, tested)) == pytest.approx(0.04 * n, abs=25)
