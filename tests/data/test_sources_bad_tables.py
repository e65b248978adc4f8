"""Archives, tables and images that are wrong are refused in one sentence, and nothing is left
behind.
"""

import os
import pickle

import numpy as np
import pytest
import source_files as files
from source_files import refused

# ---------------------------------------------------------------------------------------------- npz


class Evil:
    """Would leave a file behind if it were unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (self.path, "w"))


def test_pickles_are_never_loaded(tmp_path):
    trap = tmp_path / "trap"
    np.savez(tmp_path / "p.npz", x=np.zeros((2, 3)), y=np.array([Evil(str(trap)), None], object))
    refused(
        tmp_path,
        tmp_path / "p.npz",
        "must hold plain arrays: got pickled objects, which could run any code",
    )
    (tmp_path / "q.npz").write_bytes(pickle.dumps(Evil(str(trap))))
    refused(tmp_path, tmp_path / "q.npz", "an .npz file is a zip archive")
    assert not trap.exists()


@pytest.mark.parametrize("keep", [0.3, 0.7, 0.98])
def test_an_archive_that_is_cut_off(tmp_path, keep):
    np.savez(tmp_path / "p.npz", x=np.zeros((200, 3)), y=np.zeros(200, int))
    os.truncate(tmp_path / "p.npz", int(keep * (tmp_path / "p.npz").stat().st_size))
    refused(tmp_path, tmp_path / "p.npz", "an .npz file is a zip archive")


def test_an_archive_with_other_bytes_in_it(tmp_path):
    np.savez(tmp_path / "p.npz", x=np.zeros((200, 3)), y=np.zeros(200, int))
    content = bytearray((tmp_path / "p.npz").read_bytes())
    content[1000] ^= 1
    (tmp_path / "p.npz").write_bytes(content)
    refused(tmp_path, tmp_path / "p.npz", "is damaged: got Bad CRC-32")


@pytest.mark.parametrize(
    ("arrays", "words", "options"),
    [
        (
            {"a": np.zeros(3)},
            "needs the arrays x and y, or x_train and y_train: got no x_train; select .*, of a",
            {},
        ),
        (
            {"x": np.zeros((3, 2)), "y": np.zeros(4, int), "client": np.zeros(3, int)},
            "the same length",
            {},
        ),
        (
            {"x": np.zeros((3, 2)), "y": np.zeros(3, int), "client": np.zeros(2, int)},
            "the same length",
            {},
        ),
        (
            {"x": np.zeros((3, 2)), "y": np.zeros(3, int)},
            "does not record the owner of each example: .*--partition dirichlet",
            {},
        ),
        (
            {"x": np.zeros((3, 2)), "y": np.zeros(3, int)},
            "no array has the owners of the examples: got none called who",
            {"client": "who"},
        ),
        (
            {"x": np.full((3, 2), np.nan), "y": np.zeros(3, int), "client": np.arange(3)},
            "must be finite: got nan",
            {},
        ),
        (
            {"x": np.zeros((3, 2)), "y": np.array([0, -1, 0]), "client": np.arange(3)},
            "must not be negative: got -1",
            {},
        ),
        (
            {"x": np.zeros((3, 2), complex), "y": np.zeros(3, int), "client": np.arange(3)},
            "must be numbers: got complex",
            {},
        ),
        (
            {"x": np.zeros((0, 2)), "y": np.zeros(0, int), "client": np.zeros(0, int)},
            "at least one client",
            {},
        ),
        (
            {
                "text_utf8": np.zeros(4, np.uint8),
                "offsets": np.array([0, 9]),
                "role": np.array([0]),
                "role_names": np.array([b"a"]),
            },
            "fit",
            {},
        ),
    ],
)
def test_arrays_that_make_no_data_set(tmp_path, arrays, words, options):
    np.savez(tmp_path / "a.npz", **arrays)
    refused(tmp_path, tmp_path / "a.npz", words, options=options)


# ---------------------------------------------------------------------------------------------- csv


@pytest.mark.parametrize(
    ("text", "words", "options"),
    [
        ("a,b,y\n1,2,0\n", "unknown column of t.csv: got 'who'", {"label": "y", "client": "who"}),
        ("a,b,y\n1,2,0\n", "unknown column of t.csv: got 'z'", {"label": "z"}),
        ("a,b,y\n1,2,0\n", "unknown column of t.csv: got 'c'", {"label": "y", "features": "a,c"}),
        (
            "a,b,y\n1,2,0\n1,two,0\n",
            "must be a finite number: got 'two' in line 3, column 'b', of t.csv",
            {"label": "y"},
        ),
        ("a,b,y\n1,,0\n", "must be a finite number: got '' in line 2", {"label": "y"}),
        ("a,b,y\n1,nan,0\n", "must be a finite number: got 'nan' in line 2", {"label": "y"}),
        (
            "a,b,y\n1,2,0\n1,2\n",
            "one cell for each of the 3 columns: got 2 in line 3",
            {"label": "y"},
        ),
        ("a,b,y\n1,2,nan\n", "every row needs a label", {"label": "y"}),
        ("a,b,y\n", "needs rows: got a header only", {"label": "y"}),
        ("", "needs a line that names its columns", {"label": "y"}),
        ("y\n1\n", "needs a column of features", {"label": "y"}),
        ('a,y\n"1,2\n', "is not a table of text", {"label": "y"}),
        ("a,y\n1,0\n", "cannot be read", {"label": "y", "test": "/nowhere/t.csv"}),
    ],
)
def test_tables(tmp_path, text, words, options):
    (tmp_path / "t.csv").write_text(text)
    refused(tmp_path, tmp_path / "t.csv", words, options=options, partition="iid", clients=1)


# ------------------------------------------------------------------------------------------- images


def test_images_at_several_depths(tmp_path):
    source = files.images(tmp_path / "pets", True)
    files.images(tmp_path / "pets" / "more" / "still")
    refused(tmp_path, source, r"all at one depth: got depths \[3, 4\]")


def test_an_image_of_another_size(tmp_path):
    from PIL import Image

    source = files.images(tmp_path / "pets", True)
    Image.new("L", (2, 2)).save(source / "bob" / "dog" / "1.png")
    refused(
        tmp_path, source, r"one size: got \(2, 2\) and \(5, 6\) \(1.png\); scale them with size="
    )


@pytest.mark.parametrize("keep", [0, 20, 60])
def test_images_that_are_damaged(tmp_path, keep):
    source = files.images(tmp_path / "pets", True, size=40)
    os.truncate(source / "bob" / "dog" / "1.png", keep)
    refused(tmp_path, source, "1.png is (not an image|a damaged image): got ")


def test_folders_without_images(tmp_path):
    source = files.images(tmp_path / "pets", True)
    for path in source.rglob("*.png"):
        path.unlink()
    refused(tmp_path, source, "has no known format")
    refused(
        tmp_path,
        source,
        "a folder of images needs at least one image: got none below .*; "
        "arrange them as pets/class/image",
        form="images",
    )


@pytest.mark.parametrize("options", [{"size": [3]}, {"size": "a,b"}, {"colour": "perhaps"}])
def test_options_of_images(tmp_path, options):
    refused(tmp_path, files.images(tmp_path / "pets", True), "size|colour", options=options)


def test_images_of_more_than_8_bits(tmp_path):
    from PIL import Image

    source = files.images(tmp_path / "pets", True)
    Image.fromarray(np.full((5, 6), 40_000, np.uint16)).save(source / "bob" / "dog" / "1.png")
    refused(
        tmp_path, source, r"only images of 8 bits per channel can be read: got mode I.* in 1\.png"
    )
