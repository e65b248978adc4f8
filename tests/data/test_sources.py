"""Every reader gives the clients of the file; the format of a path follows from its content."""

import json

import numpy as np
import pytest
import source_files as files
from shared_data import shared
from source_files import SIZES, TEST, client
from tfds_folder import write

from fedjax_sim.core.errors import FedError
from fedjax_sim.data import open_prepared, read_card
from fedjax_sim.data.sources import REGISTRY, choose, prepare
from fedjax_sim.data.sources.protos import example
from fedjax_sim.data.tfds.writer import save_tfds

ORDER = {"fedjax": tuple(SIZES), "leaf": tuple(SIZES)}
"""Formats that keep the order of the clients; others have them sorted."""


def made(name, root):
    """A source of that format with the clients of ``source_files``, its reader's options, and
    whether it has test examples.
    """
    if name == "leaf":
        return files.leaf(root / "leaf"), {}
    if name == "fedjax":
        return files.fedjax(root / "train.sqlite"), {
            "test": str(files.fedjax(root / "test.sqlite", "test"))
        }
    if name == "tff_sqlite":
        return files.tff(root / "all.sqlite"), {}
    if name == "tff_h5":
        return files.h5(root / "train.h5"), {"test": str(files.h5(root / "test.h5", "test"))}
    if name == "csv":
        held = files.table(root / "test.csv", "test")
        return files.table(root / "train.csv"), {
            "test": str(held),
            "label": "kind",
            "client": "who",
        }
    rows = {
        part: [(name, *client(name, part)) for name in names]
        for part, names in (("train", SIZES), ("test", TEST))
    }
    arrays = {}
    for part, held in rows.items():
        arrays |= {
            f"x_{part}": np.concatenate([x for _, x, _ in held]),
            f"y_{part}": np.concatenate([y for _, _, y in held]),
        }
        arrays[f"client_{part}"] = np.array([who for who, _, y in held for _ in y])
    np.savez(root / "all.npz", **arrays)
    return root / "all.npz", {}


@pytest.mark.parametrize("name", ["leaf", "fedjax", "tff_sqlite", "tff_h5", "csv", "npz"])
def test_a_reader_gives_the_clients_of_the_file(name, tmp_path):
    source, options = made(name, tmp_path)
    assert choose(source)[0] == name
    folder = prepare(source, tmp_path / "out", options=options)
    data = open_prepared(folder, verify=True)
    names = ORDER.get(name, tuple(sorted(SIZES)))
    assert data.train.names == names
    assert data.test.names == names
    assert data.train.x.dtype == np.float32
    assert data.train.y.dtype == np.int32
    for i, who in enumerate(names):
        for part, held, sizes in (("train", data.train, SIZES), ("test", data.test, TEST)):
            mine = slice(*held.offsets[i : i + 2])
            x, y = client(who, part) if who in sizes else (np.zeros((0, 4)), np.zeros(0))
            order = np.argsort(held.x[mine, 0]), np.argsort(x[:, 0])  # the rows of a csv are mixed
            np.testing.assert_array_equal(held.x[mine][order[0]], x[order[1]])
            np.testing.assert_array_equal(held.y[mine][order[0]], y[order[1]])
    np.testing.assert_array_equal(
        np.sort(data.global_test.x, 0), np.sort(client("new", "test")[0], 0)
    )
    assert read_card(folder)["about"]["made"]["format"] == name


def test_every_format_has_a_test():
    assert set(REGISTRY) == {
        "leaf",
        "fedjax",
        "tff_sqlite",
        "tff_h5",
        "csv",
        "npz",
        "images",
        "generated",
        "prepared",
        "tfds",
    }


def test_leaf_in_one_file_and_without_tests(tmp_path):
    path = files.leaf(tmp_path / "leaf") / "train" / "all_0.json"
    data = open_prepared(prepare(path, tmp_path / "out"))
    assert data.train.names == ("zoe", "abe")
    assert data.test is None
    assert data.global_test is None


def test_leaf_of_strings_becomes_bytes(tmp_path):
    held = {"users": ["r"], "user_data": {"r": {"x": ["abcd", "bcde"], "y": ["e", "f"]}}}
    (tmp_path / "plays.json").write_text(json.dumps(held))
    data = open_prepared(prepare(tmp_path / "plays.json", tmp_path / "out"))
    assert data.train.x.tobytes() == b"abcdbcde"
    assert data.train.x.shape == (2, 4)
    assert data.train.y.tolist() == [101, 102]


def test_leaf_of_mixed_numbers_becomes_one_type(tmp_path):
    users = {"a": {"x": [[0, 1]], "y": [2.0]}, "b": {"x": [[0.5, 1]], "y": [1]}}
    (tmp_path / "mixed.json").write_text(json.dumps({"users": list(users), "user_data": users}))
    data = open_prepared(prepare(tmp_path / "mixed.json", tmp_path / "out"))
    assert (data.train.x.dtype, data.train.y.dtype) == (np.float32, np.int32)
    assert data.train.y.tolist() == [2, 1]


def test_shapes_can_be_given(tmp_path):
    source = files.fedjax(tmp_path / "f.sqlite")
    assert open_prepared(
        prepare(source, tmp_path / "out", options={"shape": "2,2,1"})
    ).train.x.shape == (9, 2, 2, 1)


TEXTS = {"anne": [b"To be", b"or not"], "bob": [b"x\xc3\xa9"]}


@pytest.mark.parametrize("kind", ["sqlite", "h5"])
def test_strings_alone_become_a_clients_text(tmp_path, kind):
    source = (
        files.tff(tmp_path / "t.sqlite", **TEXTS)
        if kind == "sqlite"
        else files.h5(tmp_path / "t.h5", text=TEXTS)
    )
    data = open_prepared(prepare(source, tmp_path / "out", options={"x": "snippets"})).train
    assert data.y == ()
    assert [text.tobytes() for text in np.split(data.x, data.offsets[1:-1])] == [
        b"To be\nor not",
        b"x\xc3\xa9",
    ]


@pytest.mark.parametrize("packed", [True, False])
def test_protos_of_every_kind(packed):
    given = {
        "f": np.array([1.5, -2, 3e30], np.float32),
        "i": np.array([0, 1, -1, 2**40, -(2**62), 300]),
        "b": [b"", b"ab\x00"],
    }
    found = example(files.proto(packed, **given))
    np.testing.assert_array_equal(found["f"], given["f"])
    np.testing.assert_array_equal(found["i"], given["i"])
    assert found["b"] == given["b"]
    # fields that are not known are passed over, whatever their type
    odd = (
        files.field(7, b"??")
        + files.varint(8 << 3 | 1)
        + b"8bytes!!"
        + files.varint(9 << 3 | 5)
        + b"four"
        + files.varint(10 << 3)
        + b"\x05"
    )
    np.testing.assert_array_equal(example(odd + files.proto(packed, **given))["f"], given["f"])


def test_csv_labels_may_be_words(tmp_path):
    options = {"label": "kind", "client": "who", "features": "b,d"}
    folder = prepare(files.table(tmp_path / "t.csv", words=True), tmp_path / "out", options=options)
    data, names = open_prepared(folder).train, read_card(folder)["about"]["class_names"]
    assert data.x.shape == (9, 2)
    colours = ("red", "green", "blue")
    wanted = np.concatenate([client(who)[1] for who in sorted(SIZES)])
    assert sorted(names[y] for y in data.y) == sorted(colours[y] for y in wanted)
    assert names == sorted(names)


def test_csv_of_tabs_and_fractions(tmp_path):
    (tmp_path / "t.tsv").write_text("\ufeffu\tv\ty\n1\t2\t0.5\n\n3\t4\t1\n", encoding="utf-8")
    options = {"label": "y"}
    data = open_prepared(
        prepare(tmp_path / "t.tsv", tmp_path / "out", options=options, partition="iid", clients=1)
    ).train
    assert data.x[np.argsort(data.y)].tolist() == [[1, 2], [3, 4]]
    assert sorted(data.y) == [0.5, 1]


@pytest.mark.parametrize("colour", [False, True])
@pytest.mark.parametrize("clients", [False, True])
def test_images_in_folders(tmp_path, clients, colour):
    source = files.images(tmp_path / "pets", clients, ("train", "test"), colour)
    assert choose(source)[0] == "images"
    dealt = {} if clients else {"partition": "iid", "clients": 3}
    folder = prepare(source, tmp_path / "out", **dealt)
    data = open_prepared(folder)
    assert data.train.x.shape == (12 if clients else 6, 5, 6, 3 if colour else 1)
    assert data.train.names == (("ann", "bob") if clients else None)
    assert read_card(folder)["about"]["class_names"] == ["cat", "dog"]
    assert (data.test is not None, data.global_test is not None) == (clients, not clients)
    if clients:
        from PIL import Image

        pixels = np.asarray(Image.open(source / "train" / "bob" / "dog" / "2.png")).reshape(
            5, 6, -1
        )
        np.testing.assert_array_equal(data.train.x[-1], pixels)
        assert data.train.y.tolist() == [0, 0, 0, 1, 1, 1] * 2


def test_images_can_be_scaled_and_without_colour(tmp_path):
    source = files.images(tmp_path / "pets", True, colour=True)
    data = open_prepared(
        prepare(source, tmp_path / "out", options={"size": [3, 4], "colour": False})
    )
    assert data.train.x.shape == (12, 3, 4, 1)


def test_prepared_data_can_be_prepared_again(tmp_path):
    first = prepare(files.leaf(tmp_path / "leaf"), tmp_path / "first")
    assert choose(first)[0] == "prepared"
    second = prepare(first, tmp_path / "second")
    assert read_card(first)["content"] == read_card(second)["content"]


def test_tfds_of_our_own(tmp_path):
    data = open_prepared(prepare(files.leaf(tmp_path / "leaf"), tmp_path / "first"))
    folder = save_tfds(data, tmp_path / "tfds", name="tiny")
    assert choose(folder)[0] == "tfds"
    again = open_prepared(prepare(folder, tmp_path / "again"))
    assert tuple(again.train.names) == tuple(sorted(SIZES))
    for i, who in enumerate(again.train.names):
        for part, held, sizes in (("train", again.train, SIZES), ("test", again.test, TEST)):
            mine = slice(*held.offsets[i : i + 2])
            if who in sizes:
                np.testing.assert_array_equal(held.x[mine], client(who, part)[0])
                np.testing.assert_array_equal(held.y[mine], client(who, part)[1])
    np.testing.assert_array_equal(again.global_test.x, data.global_test.x)
    with pytest.raises(FedError, match="must not exist yet"):
        save_tfds(data, folder, name="tiny")
    with pytest.raises(FedError, match="holds one array of examples"):
        save_tfds(data._replace(train=data.train._replace(y=())), tmp_path / "text", name="tiny")


def test_tfds_without_clients(tmp_path):
    def features(f):
        return {
            "image": f.Tensor(shape=(2,), dtype=np.uint8, encoding="bytes"),
            "label": f.ClassLabel(num_classes=7),
        }

    rows = [{"image": np.array([i, i], np.uint8), "label": i % 3} for i in range(20)]
    folder = write(tmp_path / "plain", features, {"train": rows, "test": rows[:5]})
    with pytest.raises(FedError, match="does not record the owner of each example"):
        prepare(folder, tmp_path / "none")
    out = prepare(folder, tmp_path / "out", partition="iid", clients=4)
    data = open_prepared(out)
    assert (data.train.clients, len(data.global_test), read_card(out)["classes"]) == (4, 5, 7)
    assert sorted(data.train.x[:, 0]) == list(range(20))


# ---------------------------------------------------------------------------------------- real data


def test_real_mnist_by_writer(tmp_path):
    folder = prepare(shared("mnist.npz"), tmp_path / "mnist")
    data = open_prepared(folder)
    with np.load(shared("mnist.npz")) as arrays:
        writer = arrays["writer_train"]
        first = writer == writer.min()
        np.testing.assert_array_equal(data.train.x[: first.sum(), ..., 0], arrays["x_train"][first])
        np.testing.assert_array_equal(data.train.y[: first.sum()], arrays["y_train"][first])
        np.testing.assert_array_equal(np.sort(data.global_test.y), np.sort(arrays["y_test"]))
    assert data.train.clients == 539
    assert data.train.x.shape == (60000, 28, 28, 1)
    assert data.test is None
    assert read_card(folder)["classes"] == 10


def test_real_sensors_by_subject(tmp_path):
    data = open_prepared(prepare(shared("uci_har.npz"), tmp_path / "har"))
    assert (data.train.clients, data.train.x.shape, len(data.global_test)) == (
        21,
        (7352, 128, 9),
        2947,
    )
    assert data.train.names[0] == "subject00001"
    with np.load(shared("uci_har.npz")) as arrays:
        row = np.flatnonzero((arrays["subject"] == 1) & ~arrays["official_test"])[0]
        np.testing.assert_array_equal(data.train.x[0], arrays["x_i16"][row].T / np.float32(4096))
    everybody = open_prepared(
        prepare(shared("uci_har.npz"), tmp_path / "merged", options={"merge": True})
    )
    assert (everybody.train.clients, everybody.global_test) == (30, None)


def test_real_roles(tmp_path):
    data = open_prepared(prepare(shared("shakespeare_roles.npz"), tmp_path / "plays")).train
    assert data.clients == 1344
    assert data.names[0] == "1henryiv|KING HENRY IV"
    assert (
        data.x[: data.offsets[1]]
        .tobytes()
        .startswith(b"So shaken as we are, so wan with care,\nFind we a time")
    )


def test_nothing_is_changed_in_a_source(tmp_path):
    source = files.tff(tmp_path / "all.sqlite")
    before = source.read_bytes()
    prepare(source, tmp_path / "out")
    assert source.read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["all.sqlite", "out"]
