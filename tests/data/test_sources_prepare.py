"""From a source to clients: kept, shortened, partitioned, split - in one block or in many."""

import importlib

import numpy as np
import pytest
import source_files as files
from source_files import SIZES

from fedjax_sim.core.errors import FedError
from fedjax_sim.data import (
    Federation,
    dirichlet,
    from_partition,
    hold_out,
    open_prepared,
    population,
    read_card,
    split,
)
from fedjax_sim.data.sources import base, generated, prepare


def arrays(path, n=300, clients=12, test=0):
    """An archive whose examples have a number each, so that nobody can be mistaken for another."""
    rng = np.random.default_rng(0)
    held = {
        "x": np.arange(n)[:, None],
        "y": rng.integers(0, 5, n),
        "client": rng.integers(0, clients, n),
    }
    if test:
        held |= {"x_test": -1 - np.arange(test)[:, None], "y_test": rng.integers(0, 5, test)}
        held = {
            key if key.endswith("_test") else f"{key}_train": value for key, value in held.items()
        }
    np.savez(path, **held)
    return path, {key.removesuffix("_train"): value for key, value in held.items()}


def numbers(part):
    return [] if part is None else sorted(np.ravel(part.x).tolist())


def test_a_partition_deals_out_everybodys_examples(tmp_path):
    source, held = arrays(tmp_path / "a.npz", test=40)
    given = {"partition_options": {"alpha": 0.3}, "clients": 6, "test_fraction": 0.2, "seed": 3}
    data = open_prepared(prepare(source, tmp_path / "out", partition="dirichlet", **given))
    order = np.argsort(held["client"], kind="stable")
    y = held["y"][order].astype(np.int32)
    wanted = from_partition(
        held["x"][order].astype(np.int32),
        y,
        dirichlet(y, 6, alpha=0.3, seed=3),
        test_fraction=0.2,
        seed=3,
    )
    np.testing.assert_array_equal(data.train.x, wanted.train.x)
    np.testing.assert_array_equal(data.test.x, wanted.test.x)
    assert numbers(data.global_test) == sorted(range(-40, 0))


def test_a_partition_may_go_by_the_sources_own_clients(tmp_path):
    source, held = arrays(tmp_path / "a.npz")
    data = open_prepared(
        prepare(source, tmp_path / "out", partition="grouped", partition_options={"group_size": 4})
    )
    assert data.train.clients == 3
    first = np.isin(held["client"], np.arange(4))
    assert (
        numbers(data.train._replace(x=data.train.x[: data.train.offsets[1]]))
        == np.flatnonzero(first).tolist()
    )


def test_a_partition_takes_the_clients_test_examples_too(tmp_path):
    data = open_prepared(
        prepare(files.leaf(tmp_path / "leaf"), tmp_path / "out", partition="iid", clients=2)
    )
    assert data.train.sizes.sum() == sum(SIZES.values()) + 3
    assert data.test is None
    assert len(data.global_test) == 4


def test_examples_are_held_out_before_they_are_dealt(tmp_path):
    x, y = np.arange(100)[:, None].astype(np.int32), (np.arange(100) % 5).astype(np.int32)
    np.savez(tmp_path / "plain.npz", x=x, y=y)
    given = {
        "partition": "iid",
        "clients": 4,
        "global_test_fraction": 0.1,
        "test_fraction": 0.2,
        "seed": 5,
    }
    data = open_prepared(prepare(tmp_path / "plain.npz", tmp_path / "out", **given))
    np.testing.assert_array_equal(data.global_test.x, hold_out(x, y, 0.1, 5)[1].x)
    assert sorted(numbers(data.train) + numbers(data.test) + numbers(data.global_test)) == list(
        range(100)
    )


def test_what_is_held_out_first_may_have_clients(tmp_path):
    source, held = arrays(tmp_path / "a.npz")
    data = open_prepared(
        prepare(source, tmp_path / "out", partition="natural", global_test_fraction=0.2)
    )
    assert len(data.global_test) == 60
    owner = np.repeat(np.arange(12), data.train.sizes)
    np.testing.assert_array_equal(held["client"][data.train.x[:, 0]], owner)


def test_clients_of_the_source_are_split(tmp_path):
    source, held = arrays(tmp_path / "a.npz")
    data = open_prepared(prepare(source, tmp_path / "out", test_fraction=0.3, seed=7))
    order = np.argsort(held["client"], kind="stable")
    whole = population(
        held["x"][order], held["y"][order], np.append(0, np.cumsum(np.bincount(held["client"])))
    )
    train, test = split(whole, 0.3, 7)
    np.testing.assert_array_equal(data.train.x, train.x)
    np.testing.assert_array_equal(data.test.x, test.x)
    assert data.train.names == data.test.names


def test_a_share_of_each_client_becomes_central(tmp_path):
    source, _ = arrays(tmp_path / "a.npz")
    data = open_prepared(
        prepare(source, tmp_path / "out", test_fraction=0.3, global_test_fraction=0.1)
    )
    assert data.train.clients == 12
    assert sorted(numbers(data.train) + numbers(data.test) + numbers(data.global_test)) == list(
        range(300)
    )
    assert 20 < len(data.global_test) < 40


@pytest.fixture
def small_blocks(monkeypatch):
    monkeypatch.setattr(base, "in_blocks", lambda clients: _in_blocks(clients, 40))
    monkeypatch.setattr(generated, "BLOCK", 2000)


_in_blocks = base.in_blocks


def test_blocks_are_split_alike_but_not_the_same(tmp_path, small_blocks):
    source = files.leaf(tmp_path / "leaf")
    plain = open_prepared(prepare(source / "train", tmp_path / "whole"))
    data = open_prepared(prepare(source / "train", tmp_path / "out", test_fraction=0.4))
    assert plain.train.names == data.train.names == tuple(SIZES)
    assert data.train.sizes.tolist() == [2, 3, 1]
    assert data.test.sizes.tolist() == [1, 2, 0]


def test_equal_clients_in_different_blocks_are_split_differently(tmp_path, small_blocks):
    given = {"options": {"examples": 40, "shape": 2}, "clients": 30, "test_fraction": 0.5}
    data = open_prepared(prepare("generated", tmp_path / "out", **given))
    plain = open_prepared(prepare("generated", tmp_path / "plain", **{**given, "test_fraction": 0}))
    chosen = []
    for i in range(30):
        mine = plain.train.x[slice(*plain.train.offsets[i : i + 2])]
        chosen.append(
            tuple(
                np.isin(mine[:, 0], data.test.x[slice(*data.test.offsets[i : i + 2]), 0]).tolist()
            )
        )
    assert {sum(each) for each in chosen} == {20}
    assert len(set(chosen)) == 30


def test_test_examples_of_others_are_central_once(tmp_path, small_blocks):
    data = open_prepared(prepare(files.leaf(tmp_path / "leaf"), tmp_path / "out"))
    assert data.train.names == tuple(SIZES)
    assert data.test.sizes.tolist() == [2, 0, 1]
    assert len(data.global_test) == 4


@pytest.mark.parametrize("clients", [1, 2, 3])
def test_the_first_clients(tmp_path, small_blocks, clients):
    folder = prepare(files.leaf(tmp_path / "leaf"), tmp_path / "out", clients=clients)
    data = open_prepared(folder)
    assert data.train.names == tuple(SIZES)[:clients]
    assert data.test.sizes.tolist() == [2, 0, 1][:clients]


def test_more_clients_than_there_are(tmp_path):
    assert (
        open_prepared(
            prepare(files.leaf(tmp_path / "leaf"), tmp_path / "out", clients=9)
        ).train.clients
        == 3
    )


def test_no_more_is_read_than_the_first_clients(tmp_path):
    folder = prepare(
        "generated", tmp_path / "out", clients=3, options={"clients": 10**12, "examples": 5}
    )
    assert read_card(folder)["clients"] == 3


def test_small_clients_are_left_out(tmp_path, small_blocks):
    source = files.leaf(tmp_path / "leaf")
    data = open_prepared(prepare(source, tmp_path / "out", min_size=3))
    assert data.train.names == data.test.names == ("zoe", "abe")
    assert data.test.sizes.tolist() == [2, 0]
    with pytest.raises(FedError, match="at least one client"):
        prepare(source, tmp_path / "none", min_size=99)


def test_settings_and_source_are_on_the_card(tmp_path):
    card = read_card(
        prepare(
            "generated", tmp_path / "out", name="mine", clients=4, options={"classes": 3}, seed=2
        )
    )
    assert (card["name"], card["source"], card["classes"]) == ("mine", "generated", 3)
    made = card["about"]["made"]
    assert (made["clients"], made["seed"], made["options"], made["format"]) == (
        4,
        2,
        {"classes": 3},
        "generated",
    )
    assert (
        read_card(
            prepare("generated", tmp_path / "same", clients=4, options={"classes": 3}, seed=2)
        )["content"]
        == card["content"]
    )
    assert (
        read_card(
            prepare("generated", tmp_path / "other", clients=4, options={"classes": 3}, seed=1)
        )["content"]
        != card["content"]
    )


# ---------------------------------------------------------------------------------------- generated


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_generated_clients(tmp_path, small_blocks, dtype):
    options = {"examples": 30, "shape": "4,2", "classes": 5, "dtype": dtype}
    data = open_prepared(prepare("generated", tmp_path / "out", clients=50, options=options)).train
    assert (data.clients, set(data.sizes), data.x.shape, data.x.dtype) == (
        50,
        {30},
        (1500, 4, 2),
        dtype,
    )
    assert set(data.y) == set(range(5))
    # each class is a cloud: examples are nearer to their own class's mean than to the others'
    means = np.stack([data.x[data.y == label].mean(0) for label in range(5)])
    distance = np.sum((data.x[:, None].astype(float) - means) ** 2, axis=(2, 3))
    assert np.mean(distance.argmin(1) == data.y) > 0.6


def test_generated_sizes_and_labels_may_be_skewed(tmp_path, small_blocks):
    options = {"examples": 100, "shape": 1, "sizes": "lognormal", "spread": 0.5, "alpha": 0.1}
    data = open_prepared(prepare("generated", tmp_path / "out", clients=200, options=options)).train
    assert 80 < np.median(data.sizes) < 125
    assert 0.4 < np.std(np.log(data.sizes)) < 0.6
    held = [len(set(data.y[slice(*data.offsets[i : i + 2])])) for i in range(200)]
    assert 1 < np.mean(held) < 5
    assert min(np.bincount(data.y, minlength=10)) > 0


# ------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (
            {"partition": "dirichlt", "clients": 3},
            "unknown partition: got 'dirichlt'; did you mean 'dirichlet'",
        ),
        (
            {"partition": "dirichlet", "partition_options": {"alfa": 1}, "clients": 3},
            "unknown option of the partition dirichlet: got 'alfa'",
        ),
        (
            {"partition": "dirichlet", "partition_options": {"alpha": "x"}, "clients": 3},
            "alpha of the partition dirichlet must be a number",
        ),
        (
            {"partition": "dirichlet", "partition_options": {"seed": 1}, "clients": 3},
            "has the seed of the data set: got seed=1",
        ),
        ({"partition": "iid"}, "clients must be a whole number above 0: got None"),
        ({"partition": "iid", "clients": 301}, "need 301 examples: got 300"),
        (
            {
                "partition": "dirichlet",
                "partition_options": {"min_size": 70, "tries": 2},
                "clients": 4,
            },
            "raise alpha, or lower",
        ),
        ({"partition": "continuous", "clients": 3}, "needs values"),
        ({"clients": 0}, "clients must be positive"),
        ({"min_size": 0}, "min_size must be positive"),
        ({"test_fraction": 1.0}, "test_fraction is a share"),
        ({"global_test_fraction": -0.1}, "global_test_fraction is a share"),
        ({"test_fraction": 0.1, "seed": -1}, "seed must not be negative"),
    ],
)
def test_settings_that_cannot_be(tmp_path, given, words):
    source, _ = arrays(tmp_path / "a.npz")
    with pytest.raises(FedError, match=words) as caught:
        prepare(source, tmp_path / "out", **given)
    assert "\n" not in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["a.npz"]


@pytest.mark.parametrize(
    "given",
    [{"test_fraction": 0.1}, {"global_test_fraction": 0.1}, {"partition": "iid", "clients": 2}],
)
def test_text_is_neither_split_nor_partitioned(tmp_path, given):
    source = files.tff(tmp_path / "t.sqlite", anne=[b"To be"], bob=[b"or not"])
    with pytest.raises(FedError, match="only labelled examples can be partitioned or split"):
        prepare(source, tmp_path / "out", options={"x": "snippets"}, **given)


@pytest.mark.parametrize("part", ["test", "global_test"])
def test_what_is_there_is_not_split_off_again(tmp_path, part):
    words = f"the source has {part} examples already: got {part}_fraction; leave --{part}"
    with pytest.raises(FedError, match=words.replace("--global_test", "--global-test")):
        prepare(files.leaf(tmp_path / "leaf"), tmp_path / "out", **{f"{part}_fraction": 0.1})


def test_nothing_is_read_where_the_folder_is_there(tmp_path, monkeypatch):
    module = importlib.import_module("fedjax_sim.data.sources.prepare")
    monkeypatch.setattr(module, "choose", lambda *_: pytest.fail("the source was looked at"))
    with pytest.raises(FedError, match="must not exist yet"):
        prepare("generated", tmp_path)


@pytest.mark.parametrize(
    "options",
    [
        {"clients": "many"},
        {"sizes": "odd"},
        {"shape": "0"},
        {"alpha": 0},
        {"dtype": "int8"},
        {"examples": 1.5},
    ],
)
def test_options_of_generated(tmp_path, options):
    with pytest.raises(FedError, match=f"{next(iter(options))}|one number"):
        prepare("generated", tmp_path / "out", options=options)


def test_a_block_is_a_federation(tmp_path):
    (block,) = generated.read(tmp_path, clients=3, examples=2).blocks
    assert isinstance(block, Federation)
