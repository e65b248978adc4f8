"""Files are whole: replaced in one step, or grown behind what is whole."""

import os

import pytest
from disks import file_limit

from fedjax_sim.core import files
from fedjax_sim.core.errors import FedError


def test_what_is_replaced_is_there_or_as_it_was(tmp_path):
    path = tmp_path / "deep" / "a.txt"
    files.save(path, "one")
    with (
        file_limit(2),
        pytest.raises(
            FedError, match=r"a\.txt could not be written: got File too large; make room there"
        ),
    ):
        files.save(path, "three")
    assert path.read_text() == "one"
    assert [each.name for each in path.parent.iterdir()] == ["a.txt"]
    files.save(path, "three")
    assert path.read_text() == "three"


def test_a_file_grows_by_all_or_nothing(tmp_path):
    path = tmp_path / "a"
    whole = files.append(path, 0, b"one\n")
    with file_limit(6), pytest.raises(OSError, match="File too large"):
        files.append(path, whole, b"three\n")
    assert path.read_bytes() == b"one\n"
    assert files.append(path, whole, b"three\n") == 10
    assert path.read_bytes() == b"one\nthree\n"


def test_what_is_left_of_an_attempt_is_written_over(tmp_path, monkeypatch):
    """Where the disk refuses even to cut the file back."""
    path = tmp_path / "a"
    whole = files.append(path, 0, b"one\n")
    path.write_bytes(b"one\nto")
    assert files.append(path, whole, b"\n") == 5
    assert path.read_bytes() == b"one\n\n"


def test_a_file_that_somebody_emptied_begins_again_without_a_hole(tmp_path):
    path = tmp_path / "a"
    whole = files.append(path, 0, b"one\n")
    os.truncate(path, 0)
    assert files.append(path, whole, b"two\n") == 4
    assert path.read_bytes() == b"two\n"


def test_a_missing_folder_is_an_error_of_the_system(tmp_path):
    with pytest.raises(FileNotFoundError):
        files.append(tmp_path / "gone" / "a", 0, b"x")


# ------------------------------------------------------------------------------- strangers' folders


def test_a_link_is_not_written_through(tmp_path):
    mine = tmp_path / "mine"
    mine.write_text("mine")
    for name in ("a", "a.new"):
        (tmp_path / name).symlink_to(mine)
    with pytest.raises(OSError, match="symbolic links"):
        files.append(tmp_path / "a", 0, b"x")
    with pytest.raises(
        FedError,
        match=r"a is written to, and so must not be a link: got a link to .*mine; remove it",
    ):
        files.refuse_link(tmp_path / "a")
    files.save(tmp_path / "a", "theirs")
    files.refuse_link(tmp_path / "a")
    files.refuse_link(tmp_path / "nothing")
    assert (mine.read_text(), (tmp_path / "a").read_text()) == ("mine", "theirs")


def test_of_a_link_the_link_alone_is_removed(tmp_path):
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "file").write_text("mine")
    for name in ("folder", "file"):
        (tmp_path / f"link to a {name}").symlink_to(mine if name == "folder" else mine / "file")
    (tmp_path / "deep" / "er").mkdir(parents=True)
    (tmp_path / "text").write_text("x")
    for name in ("link to a folder", "link to a file", "deep", "text", "nothing"):
        files.remove(tmp_path / name)
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]
    assert (mine / "file").read_text() == "mine"


@pytest.mark.parametrize("kind", ["pipe", "folder", "device"])
def test_what_is_no_file_is_not_waited_for(kind, tmp_path):
    path = tmp_path / "a"
    {
        "pipe": lambda: os.mkfifo(path),
        "folder": path.mkdir,
        "device": lambda: path.symlink_to("/dev/zero"),
    }[kind]()
    with pytest.raises(OSError, match="it is not a regular file"):
        files.read(path)
