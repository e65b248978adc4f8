"""Prepared data that are damaged are refused in a sentence, and a writer that cannot go on leaves
nothing behind."""

import errno
import json
import os
import re
import resource
import shutil
from pathlib import Path

import numpy as np
import pytest

from fedjax_sim.core.errors import FedError
from fedjax_sim.data import from_arrays, open_prepared, read_card, save
from fedjax_sim.data.prepared import columns
from fedjax_sim.data.prepared.columns import Column


def data():
    rng = np.random.default_rng(0)
    x = rng.random((500, 40)).astype(np.float32)
    y = rng.integers(0, 4, 500).astype(np.int32)
    return from_arrays(x, y, np.arange(500) % 9, test_fraction=0.2)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return save(data(), tmp_path_factory.mktemp("prepared") / "set", name="set")


@pytest.fixture
def folder(whole, tmp_path):
    return Path(shutil.copytree(whole, tmp_path / "copy"))


def change_card(folder, **changes):
    card = json.loads((folder / "card.json").read_text())
    (folder / "card.json").write_text(json.dumps({**card, **changes}))


def refused(folder, words, **options):
    with pytest.raises(FedError, match=words) as caught:
        open_prepared(folder, **options)
    assert "\n" not in str(caught.value)
    assert str(caught.value).count("got") >= 1


FILES = [
    "names.ends.npy",
    "names.text.npy",
    "test.offsets.npy",
    "test.x.npy",
    "train.offsets.npy",
    "train.x.npy",
    "train.y.npy",
]


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("keep", [0.0, 0.5, 0.999])
def test_truncated_files(folder, name, keep):
    path = folder / name
    size = path.stat().st_size
    os.truncate(path, int(size * keep))
    refused(
        folder,
        rf"{name} must have the {size} bytes that its card states: "
        rf"got {int(size * keep)} bytes; copy or prepare",
    )


@pytest.mark.parametrize("name", FILES)
def test_missing_files(folder, name):
    (folder / name).unlink()
    refused(folder, f"{name} must have .*: got no such file; ")


@pytest.mark.parametrize("name", FILES)
def test_a_changed_byte_is_found_where_asked(folder, name):
    path = folder / name
    with path.open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        last = file.read(1)
        file.seek(-1, os.SEEK_END)
        file.write(bytes([last[0] ^ 1]))
    refused(folder, f"{name} is damaged: its sha256 must be .*: got ", verify=True)


def test_a_changed_card_is_found_where_asked(folder):
    change_card(folder, content="0" * 64)
    assert open_prepared(folder).train.clients == 9
    refused(
        folder,
        r"card.json is damaged: its content hash must be .*: got 000000000000\.\.\.;",
        verify=True,
    )


def test_nothing_is_wrong_with_what_is_whole(folder):
    assert open_prepared(folder, verify=True).test.clients == 9


@pytest.mark.parametrize("keep", [0, 1, 300])
def test_a_truncated_card(folder, keep):
    os.truncate(folder / "card.json", keep)
    refused(
        folder,
        "card.json is damaged: got .*; prepare the data set again with `fedjax-sim data prepare`",
    )


def test_a_card_with_other_bytes(folder):
    (folder / "card.json").write_bytes(b"\xff\xfe\x00")
    refused(folder, "card.json is damaged")


@pytest.mark.parametrize("text", ["[]", '{"format": "something else"}', "3"])
def test_a_card_of_another_format(folder, text):
    (folder / "card.json").write_text(text)
    refused(folder, "not the card of a prepared data set")


def test_a_newer_version(folder):
    change_card(folder, version=2)
    refused(
        folder, "only version 1 of prepared data can be read: got version 2 .*; update fedjax-sim"
    )


def test_an_incomplete_card(folder):
    card = json.loads((folder / "card.json").read_text())
    del card["examples"]
    (folder / "card.json").write_text(json.dumps(card))
    refused(folder, r"card.json is damaged: got no \['examples'\]")


@pytest.mark.parametrize(
    "changes",
    [
        {"x": {"dtype": "float32", "shape": [41]}},
        {"x": {"dtype": "int32", "shape": [40]}},
        {"y": {"tuple": [{"dtype": "int32", "shape": []}]}},
        {"examples": {"train": 399, "test": 100, "central": 0}},
        {"examples": {"train": 400, "test": 100, "central": 3}},
        {"files": {}, "x": {"dict": {"a": {"dtype": "float32", "shape": [40]}}}},
        {"named": None, "examples": {}},
    ],
)
def test_a_card_that_is_not_of_these_files(folder, changes):
    change_card(folder, **changes)
    refused(folder, "is damaged: its card and its files disagree")


def test_a_file_that_is_no_array(folder):
    path = folder / "train.y.npy"
    path.write_bytes(b"x" * path.stat().st_size)
    refused(folder, "is damaged: its card and its files disagree")


def test_offsets_that_are_none(folder):
    path = folder / "train.offsets.npy"
    offsets = np.load(path)
    content = path.read_bytes()
    path.write_bytes(content[: -offsets.nbytes] + offsets[::-1].tobytes())
    refused(folder, "is damaged: its card and its files disagree: got offsets must run from 0")


@pytest.mark.parametrize("place", ["nothing", "file"])
def test_no_folder(tmp_path, place):
    (tmp_path / "file").write_text("hello")
    refused(
        tmp_path / place,
        "no prepared data set: got no card.json in .*; make one with `fedjax-sim data prepare`",
    )


# ------------------------------------------------------------------------------------------ no room


@pytest.fixture
def small_disk():
    """Files cannot grow beyond so many bytes: writes fail as they do on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)

    def limit(size):
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))

    yield limit
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("size", [100, 511, 700, 2000, 20_000, 63_000])
def test_where_files_cannot_grow_nothing_is_left(tmp_path, small_disk, size):
    kept = save(data(), tmp_path / "kept", name="kept")
    made = data()
    small_disk(size)
    with pytest.raises(
        FedError, match=r"could not be written: got File too large; make room there"
    ) as caught:
        save(made, tmp_path / "set", name="set")
    assert "\n" not in str(caught.value)
    small_disk(10**9)
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]
    assert open_prepared(kept, verify=True).train.clients == 9
    assert read_card(save(made, tmp_path / "set", name="set"))["clients"] == 9


@pytest.mark.parametrize("rows", [10, 100_000])
def test_a_full_disk_is_said_in_a_sentence(rows):
    """Small writes fail when the file is flushed, large ones at once."""
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full on this system")
    column = Column(Path("/dev/full"), np.dtype(np.int64))
    words = re.escape(
        "/dev/full could not be written: got No space left on device; make room there"
    )

    def write():
        column.append(np.arange(rows))
        column.finish()

    with pytest.raises(FedError, match=words):
        write()
    column.close()


@pytest.mark.parametrize("call", ["write_text", "sync"])
def test_a_disk_that_is_full_at_the_very_end(tmp_path, monkeypatch, call):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    if call == "sync":
        monkeypatch.setattr(columns, "sync", full)
    else:
        monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(FedError, match="could not be written: got No space left on device"):
        save(data(), tmp_path / "set", name="set")
    assert list(tmp_path.iterdir()) == []


def test_a_place_where_nothing_can_be_made(tmp_path):
    (tmp_path / "file").write_text("hello")
    with pytest.raises(FedError, match="could not be written"):
        save(data(), tmp_path / "file" / "set", name="set")
    assert (tmp_path / "file").read_text() == "hello"


def test_what_a_killed_writer_left_is_told(tmp_path):
    (tmp_path / ".set.partial").mkdir()
    with pytest.raises(
        FedError,
        match=r"its preparation was interrupted: got .*\.set\.partial; "
        r"wait for the other command, or remove it",
    ):
        save(data(), tmp_path / "set", name="set")
    (tmp_path / ".set.partial").rmdir()
    assert save(data(), tmp_path / "set", name="set").is_dir()
