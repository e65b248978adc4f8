"""What is prepared is what is opened, whatever its form, and however it came."""

import re
import subprocess
import sys

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedjax_sim.core.errors import FedError
from fedjax_sim.data import (
    Examples,
    Federation,
    Population,
    federation,
    from_arrays,
    is_prepared,
    open_prepared,
    population,
    read_card,
    save,
    write_blocks,
)
from fedjax_sim.data.population import Names
from fedjax_sim.data.prepared.writer import Client, in_blocks


def blocks_of(clients=7, each=4, named=True, test=True, central=True, dtype=np.float32):
    """One block for each of some clients."""
    rng = np.random.default_rng(0)
    for number in range(clients):
        x = rng.random((each + number, 3)).astype(dtype)
        y = rng.integers(0, 5, each + number).astype(np.int32)
        names = (f"näme {number}",) if named else None
        train = population(x, y, np.array([0, len(x)]), names)
        held = (
            population(x[:number] + 1, y[:number], np.array([0, number]), names, empty=True)
            if test and number % 2
            else None
        )
        yield Federation(
            train, held, Examples(x[:2] - 1, y[:2]) if central and number == 3 else None
        )


def whole(blocks):
    """The concatenation, by hand."""
    blocks = list(blocks)
    leaves = [(b.train.x, b.train.y) for b in blocks]
    sizes = [len(b.train.x) for b in blocks]
    held = [0 if b.test is None else len(b.test.x) for b in blocks]
    names = None if blocks[0].train.names is None else tuple(b.train.names[0] for b in blocks)
    train = population(
        *(np.concatenate(part) for part in zip(*leaves, strict=True)), np.cumsum([0, *sizes]), names
    )
    tests = [(b.test.x, b.test.y) for b in blocks if b.test is not None]
    central = next((b.global_test for b in blocks if b.global_test is not None), None)
    if not tests:
        return federation(train, None, central)
    test = population(
        *(np.concatenate(part) for part in zip(*tests, strict=True)),
        np.cumsum([0, *held]),
        names,
        empty=True,
    )
    return federation(train, test, central)


def same(one, other):
    assert jax.tree.structure((one.train.x, one.train.y)) == jax.tree.structure(
        (other.train.x, other.train.y)
    )
    for mine, theirs in (
        (one.train, other.train),
        (one.test, other.test),
        (one.global_test, other.global_test),
    ):
        assert (mine is None) == (theirs is None)
        if mine is not None:
            for a, b in zip(
                jax.tree.leaves((mine.x, mine.y)),
                jax.tree.leaves((theirs.x, theirs.y)),
                strict=True,
            ):
                assert a.dtype == b.dtype
                np.testing.assert_array_equal(a, b)
    for mine, theirs in ((one.train, other.train), (one.test, other.test)):
        if mine is not None:
            np.testing.assert_array_equal(mine.offsets, theirs.offsets)
            assert mine.names == theirs.names


@pytest.mark.parametrize("named", [True, False])
@pytest.mark.parametrize("test", [True, False])
@pytest.mark.parametrize("central", [True, False])
def test_blocks_become_their_concatenation(tmp_path, named, test, central):
    given = {"named": named, "test": test, "central": central}
    opened = open_prepared(
        write_blocks(blocks_of(**given), tmp_path / "set", name="set"), verify=True
    )
    same(opened, whole(blocks_of(**given)))


def test_one_block_or_many_are_the_same_files(tmp_path):
    one = save(whole(blocks_of()), tmp_path / "one", name="set")
    many = write_blocks(blocks_of(), tmp_path / "many", name="another", source="elsewhere")
    assert read_card(one)["content"] == read_card(many)["content"]
    assert {p.name for p in one.iterdir()} == {p.name for p in many.iterdir()}
    for path in one.iterdir():
        assert path.name == "card.json" or path.read_bytes() == (many / path.name).read_bytes()


@pytest.mark.parametrize(
    "dtype", ["uint8", "int16", "int32", "float16", "float32", "bool", "complex64", ">f4"]
)
def test_types_stay(tmp_path, dtype):
    x = (np.arange(24).reshape(6, 2, 2) % 2).astype(dtype)
    data = federation(population(x, np.arange(6, dtype=np.int32) % 3, np.array([0, 2, 6])))
    opened = open_prepared(save(data, tmp_path / "set", name="set"))
    assert opened.train.x.dtype == np.dtype(dtype).newbyteorder("=")
    np.testing.assert_array_equal(opened.train.x, x)


def test_examples_may_be_trees(tmp_path):
    x = {"dtype": np.arange(6.0), "a": [np.zeros((6, 2), np.int8), (np.ones((6, 1), np.uint8),)]}
    y = (np.arange(6), {"z": np.arange(6) * 2.0})
    data = from_arrays(x, y, np.arange(6) % 2, test_fraction=0.4)
    folder = save(data, tmp_path / "set", name="set")
    opened = open_prepared(folder, verify=True)
    same(opened, data)
    assert read_card(folder)["classes"] is None


def test_there_need_be_no_labels(tmp_path):
    text = np.frombuffer(b"to be or not", np.uint8)
    opened = open_prepared(
        save(
            federation(population(text, (), np.array([0, 5, 12]), ("a", "b"))),
            tmp_path / "set",
            name="set",
        )
    )
    assert opened.train.y == ()
    assert opened.train.x[5:].tobytes() == b" or not"


def test_the_card_says_what_there_is(tmp_path):
    folder = write_blocks(
        blocks_of(),
        tmp_path / "set",
        name="set",
        source="made up",
        about={"class_names": ["a", "b"]},
    )
    card = read_card(folder)
    assert (card["name"], card["source"], card["version"], card["classes"]) == (
        "set",
        "made up",
        1,
        5,
    )
    assert (card["clients"], card["examples"]) == (7, {"train": 49, "test": 9, "central": 2})
    assert card["x"] == {"dtype": "float32", "shape": [3]}
    assert card["about"] == {"class_names": ["a", "b"]}
    assert set(card["files"]) == {path.name for path in folder.iterdir()} - {"card.json"}
    assert card["files"]["train.y.npy"]["bytes"] == (folder / "train.y.npy").stat().st_size
    hashed = subprocess.run(
        ["sha256sum", folder / "train.y.npy"], capture_output=True, text=True, check=False
    ).stdout
    assert not hashed or hashed.split()[0] == card["files"]["train.y.npy"]["sha256"]


def test_classes_may_be_more_than_occur(tmp_path):
    assert (
        read_card(write_blocks(blocks_of(), tmp_path / "set", name="set", classes=62))["classes"]
        == 62
    )


def test_content_is_that_of_the_data_alone(tmp_path):
    hashes = {
        key: read_card(write_blocks(blocks_of(**given), tmp_path / key, name=key))["content"]
        for key, given in {
            "a": {},
            "b": {},
            "c": {"named": False},
            "d": {"test": False},
            "e": {"dtype": np.float64},
        }.items()
    }
    assert hashes["a"] == hashes["b"]
    assert len(set(hashes.values())) == 4


def test_examples_are_mapped_and_read_only(tmp_path):
    opened = open_prepared(write_blocks(blocks_of(), tmp_path / "set", name="set"))
    assert type(opened.train.x) is np.ndarray
    assert isinstance(opened.train.x.base, np.memmap)
    with pytest.raises(ValueError, match="read-only"):
        opened.train.x[0] = 0


def test_what_numpy_reads_is_what_was_written(tmp_path):
    folder = write_blocks(blocks_of(), tmp_path / "set", name="set")
    np.testing.assert_array_equal(np.load(folder / "train.x.npy"), whole(blocks_of()).train.x)


def test_folders_are_told_apart(tmp_path):
    assert is_prepared(write_blocks(blocks_of(), tmp_path / "set", name="set"))
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "card.json").write_text("[1]")
    assert not any(
        map(
            is_prepared,
            [tmp_path, tmp_path / "other", tmp_path / "nothing", tmp_path / "set" / "card.json"],
        )
    )


def test_clients_one_by_one_make_blocks():
    clients = [
        Client(str(i), np.full((i + 1, 2), i, np.uint8), np.zeros(i + 1, np.int32))
        for i in range(10)
    ]
    clients[4] = clients[4]._replace(test=Examples(clients[1].x, clients[1].y))
    blocks = list(in_blocks(clients, size=60))
    assert len(blocks) > 3
    assert [name for block in blocks for name in block.train.names] == [str(i) for i in range(10)]
    np.testing.assert_array_equal(
        np.concatenate([block.train.sizes for block in blocks]), np.arange(1, 11)
    )
    (tested,) = (block for block in blocks if block.test is not None)
    assert tested.test.sizes.sum() == 2
    assert tested.test.sizes[tested.train.names.index("4")] == 2
    assert list(in_blocks([])) == []


def test_a_client_with_more_labels_than_examples_is_no_match_for_the_next():
    clients = [
        Client("a", np.zeros((3, 1)), np.zeros(2, np.int32)),
        Client("b", np.zeros((2, 1)), np.zeros(3, np.int32)),
    ]
    with pytest.raises(FedError, match="one row per example"):
        list(in_blocks(clients))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.text(max_size=5), min_size=1, max_size=9))
def test_names_are_strings_in_a_buffer(strings):
    pieces = [each.encode(errors="backslashreplace") for each in strings]
    names = Names(
        np.frombuffer(b"".join(pieces), np.uint8), np.cumsum([len(piece) for piece in pieces])
    )
    plain = tuple(piece.decode() for piece in pieces)
    assert tuple(names) == plain
    assert names == plain
    assert plain == names
    assert names[-1] == plain[-1]
    assert names[1:4] == plain[1:4]
    assert names != (*plain, "more")
    assert names.index(plain[0]) == 0
    with pytest.raises(IndexError):
        names[len(plain)]


def test_opening_imports_and_reads_nothing_else(tmp_path):
    folder = write_blocks(blocks_of(), tmp_path / "set", name="set")
    code = (
        "import sys; from fedjax_sim.data import open_prepared; "
        f"open_prepared({str(folder)!r}); print(*sys.modules)"
    )
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120
    ).stdout.split()
    assert not {"tensorflow_datasets", "h5py", "PIL", "msgpack", "sqlite3"} & set(loaded)


# ------------------------------------------------------------------------------------------ refused


def one(x, y, **more):
    return federation(
        population(np.asarray(x), np.asarray(y), np.array([0, len(x)]), ("ann",)), **more
    )


FINE = np.zeros((3, 2), np.float32), np.zeros(3, np.int32)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (
            lambda: [one([[1.0], [np.nan]], [0, 1])],
            "must be finite: got nan or infinity in train.x, row 1; ",
        ),
        (lambda: [one(*FINE), one([[1.0, np.inf]], [0])], "must be (alike|finite)"),
        (lambda: [one([[1.0], [2.0]], [0, -1])], "in 0 to 4: got -1 in train.y, row 1; "),
        (
            lambda: [one([[1.0], [2.0]], [3, 9])],
            "labels of 5 classes lie in 0 to 4: got 9 in train.y, row 1; ",
        ),
        (
            lambda: [one(*FINE, global_test=Examples(FINE[0], FINE[1] + 7))],
            "labels of 5 classes lie in 0 to 4: got 7 in central.y, row 0; ",
        ),
        (
            lambda: [one(*FINE), one(FINE[0].astype(np.float64), FINE[1])],
            "alike .*float32.*: got .*float64.* in a later client",
        ),
        (lambda: [one(*FINE), one(FINE[0][:, :1], FINE[1])], "alike"),
        (
            lambda: [one(*FINE), Federation(one(*FINE).train._replace(names=None))],
            "all clients have names or none",
        ),
        (
            lambda: [Federation(Population(*FINE, np.array([0, 0, 3]), ("ann", "bob")))],
            r"at least one example: got none for clients \['ann'\]",
        ),
        (lambda: [], "at least one client"),
        (
            lambda: [Federation(Population([1, 2], FINE[1], np.array([0, 2])))],
            "must be arrays, or .*: got int;",
        ),
        (lambda: [one(np.array(["a", "b"]), [0, 1])], "only plain numbers can be saved"),
        (lambda: [one(np.zeros((2, *[1] * 30)), [0, 1]), one([[1.0]], [0])], "alike"),
    ],
)
def test_bad_examples_are_refused_and_nothing_is_left(tmp_path, make, words):
    with pytest.raises(FedError, match=words) as caught:
        write_blocks(make(), tmp_path / "set", name="set", classes=5)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_blocks_that_break_off_leave_nothing(tmp_path):
    def broken():
        yield from blocks_of(2)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_blocks(broken(), tmp_path / "deep" / "set", name="set")
    assert list((tmp_path / "deep").iterdir()) == []


def test_a_folder_that_is_there_stays_as_it_is(tmp_path):
    folder = write_blocks(blocks_of(), tmp_path / "set", name="set")
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(FedError, match=re.escape(f"must not exist yet: got {folder}; ")):
        write_blocks(blocks_of(3), folder, name="set")
    assert before == {path.name: path.read_bytes() for path in folder.iterdir()}
    assert [path.name for path in tmp_path.iterdir()] == ["set"]


def test_two_writers_do_not_mix(tmp_path):
    def slow():
        yield from blocks_of(2)
        with pytest.raises(FedError, match="is being prepared"):
            write_blocks(blocks_of(3), tmp_path / "set", name="second")
        yield from blocks_of(2)

    assert read_card(write_blocks(slow(), tmp_path / "set", name="first"))["clients"] == 4


@pytest.mark.parametrize("value", [float("nan"), object()])
def test_what_json_cannot_say_is_refused(tmp_path, value):
    with pytest.raises(FedError, match="about must be JSON data"):
        write_blocks(blocks_of(), tmp_path / "set", name="set", about={"value": value})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("classes", [None, 5])
def test_negative_labels_are_refused_whatever_the_number(tmp_path, classes):
    with pytest.raises(FedError, match=r"got -3 in train\.y, row 0; number the classes from 0"):
        write_blocks([one([[1.0]], [-3])], tmp_path / "set", name="set", classes=classes)
