from functools import partial

import numpy as np
import pytest
from tfds_folder import CLIENTS, ordinary, records, tensors, write

from fedjax_sim.core.errors import FedError
from fedjax_sim.data import grouped, open_tfds, read_columns, shards, tfds


@pytest.fixture(scope="module")
def by_clients(tmp_path_factory):
    return write(
        tmp_path_factory.mktemp("tfds") / "tiny",
        tensors,
        {split: records(split) for split in CLIENTS},
    )


@pytest.fixture(scope="module")
def by_examples(tmp_path_factory):
    return ordinary(tmp_path_factory.mktemp("tfds"))


# -------------------------------------------------------------------------------------- federations


def test_a_record_may_hold_a_client(by_clients):
    data = tfds(by_clients)
    assert data.train.names == ("abe", "kim", "zoe")
    np.testing.assert_array_equal(data.train.sizes, [5, 1, 3])
    np.testing.assert_array_equal(data.train.y, [3, 4, 5, 6, 7, 8, 0, 1, 2])
    np.testing.assert_array_equal(data.train.x, np.tile(data.train.y.astype(np.uint8)[:, None], 4))
    assert data.test is data.global_test is None


def test_a_record_may_hold_an_example(by_examples):
    """TFDS has shuffled them, by a hash of their keys."""
    data = tfds(by_examples, client_key="writer", test_split="test")
    assert data.train.names == ("0", "1", "2")
    assert data.train.sizes.tolist() == [3, 5, 1]
    assert [sorted(part) for part in np.split(data.train.y, [3, 8])] == [
        [0, 1, 2],
        [3, 4, 5, 6, 7],
        [8],
    ]
    np.testing.assert_array_equal(data.train.x[:, 0], data.train.y)
    assert data.test.sizes.tolist() == [2, 2, 4]


def test_a_record_may_hold_examples_of_several_clients(tmp_path):
    def talk(f):
        return {
            "utt": f.Sequence(f.Text()),
            "speaker": f.Sequence(f.Text()),
            "mood": f.Sequence(f.ClassLabel(num_classes=3)),
        }

    rows = [
        {"utt": ["aa", "b"], "speaker": ["x", "y"], "mood": [0, 1]},
        {"utt": ["c"], "speaker": ["x"], "mood": [2]},
    ]
    lengths = partial(
        tfds,
        write(tmp_path / "talk", talk, {"train": rows}),
        x_key="utt",
        label_key="mood",
        client_key="speaker",
    )
    data = lengths(convert=lambda x, y: (np.array([len(text) for text in x]), y))
    assert (data.train.names, data.train.x.tolist(), data.train.y.tolist()) == (
        ("x", "y"),
        [2, 1, 1],
        [0, 2, 1],
    )


def test_several_records_of_a_client_are_one_client(tmp_path):
    rows = [*records("train"), *records("train")]
    assert tfds(write(tmp_path / "twice", tensors, {"train": rows})).train.sizes.tolist() == [
        10,
        2,
        6,
    ]


def test_a_test_split_is_global_and_goes_to_the_clients_it_shares(by_clients):
    data = tfds(by_clients, test_split="test")
    assert sorted(data.global_test.y) == list(range(100, 108))
    assert data.test.names == data.train.names
    assert data.test.sizes.tolist() == [0, 2, 2]
    np.testing.assert_array_equal(data.test.y, [100, 101, 102, 103])
    apart = tfds(by_clients, test_split="test", global_test_split="train[:1]")
    assert (len(apart.global_test), len(apart.test.y)) == (3, 4)


def test_a_share_of_the_training_examples_instead(by_clients):
    data = tfds(by_clients, test_split="test", test_fraction=0.4)
    assert data.train.sizes.tolist() == [3, 1, 2]
    assert data.test.sizes.tolist() == [2, 0, 1]
    assert len(data.global_test) == 8
    assert tfds(by_clients, test_fraction=0.4).global_test is None


def test_examples_can_be_dealt_out_by_label_or_by_client(by_examples, by_clients):
    data = tfds(
        by_examples, partition=partial(shards, per_client=1), clients=3, test_split="test", seed=3
    )
    assert data.train.clients == 3
    assert sorted(data.train.y) == list(range(9))
    assert len(data.global_test) == 8
    pairs = tfds(by_clients, partition=partial(grouped, group_size=2, order="sorted"))
    assert pairs.train.sizes.tolist() == [6, 3]
    with pytest.raises(
        FedError,
        match=r"the client of an example: got no client_key for ordinary; "
        r"pass client_key=, or partition=",
    ):
        tfds(by_examples)
    with pytest.raises(FedError, match="needs ids"):
        tfds(by_examples, partition="grouped", clients=2)


def test_splits_may_be_parts_and_sums(by_clients):
    assert tfds(by_clients, "train[:2]").train.names == ("abe", "zoe")
    data = open_tfds(by_clients)
    assert [
        len(read_columns(data, split, "label")[0])
        for split in ("train[:1]+test[:1]", "all", "train[34%:]")
    ] == [2, 6, 2]


# ------------------------------------------------------------------------------------------- values


def test_examples_are_converted_before_anything_else(by_clients):
    data = tfds(
        by_clients, convert=lambda x, y: (x.astype(np.float64) / 2, y % 2), test_split="test"
    )
    assert data.train.x.dtype == data.global_test.x.dtype == np.float32
    np.testing.assert_array_equal(np.sort(data.train.x[:, 0]), np.arange(9) / 2)


def test_whole_number_ids_sort_as_numbers(tmp_path):
    def numbered(f):
        return {
            "who": f.Scalar(dtype=np.int32),
            "image": f.Scalar(dtype=np.int64),
            "label": f.Scalar(dtype=np.bool_),
        }

    rows = [{"who": who, "image": who, "label": True} for who in (10, 9, 2, 10)]
    data = tfds(write(tmp_path / "tiny", numbered, {"train": rows}), client_key="who").train
    assert data.names == ("2", "9", "10")
    assert (data.x.dtype, data.y.dtype) == (np.int32, np.bool_)


def nested(f):
    kinds = {
        "deep": {"who": f.Text(), "series": f.Sequence({"a": np.float64, "b": np.float64})},
        "label": f.ClassLabel(num_classes=2),
    }
    return {**kinds, "image": f.Image(shape=(3, 5, 1)), "image/name": f.Text()}


@pytest.fixture(scope="module")
def deep(tmp_path_factory):
    from PIL import Image

    rng = np.random.default_rng(0)
    rows = [
        {
            "deep": {"who": f"ü{i % 2}", "series": {"a": np.arange(4.0), "b": np.full(4, i)}},
            "label": i % 2,
            "image": Image.fromarray(rng.integers(0, 256, (3, 5)).astype(np.uint8)),
            "image/name": f"n{i}",
        }
        for i in range(4)
    ]
    return write(tmp_path_factory.mktemp("deep") / "deep", nested, {"train": rows})


def test_features_inside_others_are_reached_by_a_path(deep):
    data = tfds(deep, x_key=("deep/series/a", "deep/series/b"), client_key="deep/who").train
    assert data.names == ("ü0", "ü1")
    assert data.x.shape == (4, 4, 2)
    np.testing.assert_array_equal(data.x[:, :, 0], np.tile(np.arange(4), (4, 1)))
    assert data.x[:, 0, 1].tolist() == [0, 2, 1, 3]
    assert read_columns(open_tfds(deep), "train", "image/name") == [[b"n0", b"n1", b"n2", b"n3"]]


def test_pictures_are_decoded_only_where_they_are_wanted(deep, monkeypatch, caplog):
    data = tfds(deep, client_key="deep/who").train
    assert (data.x.shape, data.x.dtype) == ((4, 3, 5, 1), np.uint8)
    assert not caplog.records
    import tensorflow_datasets

    monkeypatch.setattr(
        tensorflow_datasets.features.Image, "decode_example_np", lambda *_: pytest.fail("decoded")
    )
    assert read_columns(open_tfds(deep), "train", "label") == [[0, 1, 0, 1]]


@pytest.mark.parametrize(
    ("keys", "what"),
    [
        ({"x_key": "image/name"}, "x must be numbers"),
        ({"label_key": "deep/who"}, "y must be numbers"),
    ],
)
def test_text_must_become_numbers(deep, keys, what):
    with pytest.raises(FedError, match=rf"{what}.* with text; pass convert="):
        tfds(deep, client_key="deep/who", **keys)


def test_examples_of_several_shapes_need_a_conversion(by_clients):
    with pytest.raises(FedError, match=r"x must be numbers, of one shape .*; pass convert="):
        tfds(by_clients, records="example")
