"""Whatever is wrong with a source is said in one sentence, and nothing is left behind."""

import contextlib
import json
import os
import sqlite3

import numpy as np
import pytest
import source_files as files
from source_files import refused

from fedjax_sim.data.sources import prepare
from fedjax_sim.data.sources.protos import DecodeError, example

# --------------------------------------------------------------------------------------- any format


def test_a_source_that_is_not_there(tmp_path):
    refused(tmp_path, tmp_path / "nothing", "the source must exist: got .*nothing")


@pytest.mark.parametrize("make", ["file", "folder"])
def test_a_source_of_no_known_format(tmp_path, make):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_bytes(b"hello")
    refused(tmp_path, tmp_path / make, "no known format: got .*; name its format with --format")


def test_a_format_that_is_none(tmp_path):
    refused(
        tmp_path,
        files.table(tmp_path / "t.csv"),
        "unknown format: got 'cvs'; did you mean 'csv'",
        form="cvs",
    )


@pytest.mark.parametrize(
    "form", ["leaf", "fedjax", "tff_sqlite", "tff_h5", "npz", "csv", "images", "tfds", "prepared"]
)
@pytest.mark.parametrize("what", ["nothing", "bytes", "empty", "folder"])
def test_no_format_takes_what_it_is_not(tmp_path, form, what):
    (tmp_path / "bytes").write_bytes(b"\x80\x04hello\n" * 20)
    (tmp_path / "empty").write_bytes(b"")
    (tmp_path / "folder").mkdir()
    options = {"label": "y"} if form == "csv" else {}
    refused(tmp_path, tmp_path / what, ".", form=form, options=options)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (
            {"colum": "a"},
            "unknown option of the format csv: got 'colum'; "
            "choose one of: client, features, label, test",
        ),
        ({"labl": "a", "label": "b"}, "did you mean 'label'"),
        ({}, "the format csv needs the option label: got no options; add label="),
        ({"label": [1]}, "label of the format csv must be text"),
        (
            {"label": "kind", "features": [1, {}]},
            "features of the format csv must be names with commas",
        ),
    ],
)
def test_options_that_a_format_has_not(tmp_path, options, words):
    refused(tmp_path, files.table(tmp_path / "t.csv"), words, options=options)


def test_a_format_without_options(tmp_path):
    first = prepare(files.leaf(tmp_path / "leaf"), tmp_path / "first")
    refused(tmp_path, first, "the format prepared has no options: got x", options={"x": 1})


# --------------------------------------------------------------------------------------------- LEAF


GOOD = {
    "users": ["a", "b"],
    "user_data": {"a": {"x": [[1, 2]], "y": [0]}, "b": {"x": [[3, 4], [5, 6]], "y": [1, 0]}},
}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            {"users": ["a", "c"]},
            "every user of f.json needs lists x and y in user_data: got none for 'c'",
        ),
        ({"users": "a"}, "has the keys users and user_data"),
        ({"user_data": None}, "has the keys users and user_data"),
        ({"users": ["a", "a"]}, "'a' twice"),
        ({"users": []}, "at least one client"),
        (
            {"user_data": {**GOOD["user_data"], "b": {"x": [[1, 2]]}}},
            "lists x and y in user_data: got none for 'b'",
        ),
        (
            {"user_data": {**GOOD["user_data"], "b": {"x": [], "y": []}}},
            "at least one example: got none for 'b'",
        ),
        (
            {"user_data": {**GOOD["user_data"], "b": {"x": [[1, 2]], "y": [1, 2]}}},
            "the same length",
        ),
        (
            {"user_data": {**GOOD["user_data"], "b": {"x": [[1, 2], [3]], "y": [1, 2]}}},
            "one shape for all examples",
        ),
        ({"user_data": {**GOOD["user_data"], "b": {"x": [[1, 2, 3]], "y": [1]}}}, "must be alike"),
        (
            {"user_data": {**GOOD["user_data"], "b": {"x": [[1, None]], "y": [1]}}},
            "numbers or strings",
        ),
        (
            {"user_data": {**GOOD["user_data"], "b": {"x": [[1, float("nan")]], "y": [1]}}},
            "must be finite: got nan",
        ),
        (
            {"user_data": {**GOOD["user_data"], "b": {"x": [[1, 2]], "y": [-1]}}},
            "labels must not be negative: got -1",
        ),
        (
            {"user_data": {**GOOD["user_data"], "b": {"x": [[1, 10**12]], "y": [1]}}},
            "must fit into 32 bits",
        ),
        (
            {"user_data": {**GOOD["user_data"], "b": {"x": [[1, 10**30]], "y": [1]}}},
            "x of user 'b'",
        ),
        (
            {"user_data": {**GOOD["user_data"], "b": {"x": ["ab", "abc"], "y": [1, 2]}}},
            "must have one length",
        ),
        (
            {"user_data": {**GOOD["user_data"], "b": {"x": [["a", "b"]], "y": [1]}}},
            "numbers or strings",
        ),
    ],
)
def test_leaf(tmp_path, change, words):
    (tmp_path / "f.json").write_text(json.dumps({**GOOD, **change}))
    refused(tmp_path, tmp_path / "f.json", words)


@pytest.mark.parametrize("text", ["[1, 2]", "3", '{"users": [', ""])
def test_json_of_another_kind(tmp_path, text):
    (tmp_path / "f.json").write_text(text)
    refused(tmp_path, tmp_path / "f.json", "is not JSON|has the keys users and user_data")


def test_a_shape_that_does_not_fit(tmp_path):
    (tmp_path / "f.json").write_text(json.dumps(GOOD))
    refused(
        tmp_path, tmp_path / "f.json", r"shape \[2\] cannot be reshaped", options={"shape": "3,1"}
    )


# ------------------------------------------------------------------------------------------- SQLite


@pytest.mark.parametrize("form", ["fedjax", "tff_sqlite"])
def test_sqlite_that_is_cut_off(tmp_path, form):
    source = (files.fedjax if form == "fedjax" else files.tff)(tmp_path / "f.sqlite")
    os.truncate(source, source.stat().st_size - 5000)
    refused(tmp_path, source, "cannot be read as an SQLite database", form=form)


@pytest.mark.parametrize("form", ["fedjax", "tff_sqlite"])
def test_sqlite_of_another_kind(tmp_path, form):
    source = (files.tff if form == "fedjax" else files.fedjax)(tmp_path / "f.sqlite")
    refused(tmp_path, source, "a database of this format has the table", form=form)


def replace(source, statement, *values):
    with contextlib.closing(sqlite3.connect(source)) as database:
        database.execute(statement, values)
        database.commit()
    return source


@pytest.mark.parametrize("data", [b"", b"no zip", b"x\x9c\x03\x00\x00\x00\x00\x01"])
def test_fedjax_data_that_are_damaged(tmp_path, data):
    source = replace(
        files.fedjax(tmp_path / "f.sqlite"),
        "UPDATE federated_data SET data = ? WHERE client_id = ?",
        data,
        b"abe",
    )
    refused(tmp_path, source, "the data of client 'abe'")


def test_fields_that_are_not_there(tmp_path):
    source = files.fedjax(tmp_path / "f.sqlite")
    refused(
        tmp_path,
        source,
        "unknown field of client 'zoe': got 'pixel'; did you mean 'pixels'",
        options={"x": "pixel"},
    )
    source = files.tff(tmp_path / "t.sqlite", ann=[b"to be"])
    refused(
        tmp_path,
        source,
        "no field is known to hold examples.*; select them with x= and y=, of snippets",
    )


def test_tff_protos_that_are_damaged(tmp_path):
    source = replace(
        files.tff(tmp_path / "t.sqlite"),
        "UPDATE examples SET serialized_example_proto = ? WHERE client_id = 'abe'",
        b"\x0a\x7fx",
    )
    refused(tmp_path, source, "an example of client 'abe' cannot be read: got it ends too early")


def test_tff_clients_without_examples(tmp_path):
    source = replace(
        files.tff(tmp_path / "t.sqlite"), "INSERT INTO client_metadata VALUES ('nil', 'train', 0)"
    )
    refused(tmp_path, source, "at least one example: got none for 'nil' in split 'train'")


def test_tff_splits_that_are_not_there(tmp_path):
    refused(
        tmp_path,
        files.tff(tmp_path / "t.sqlite"),
        "unknown split of the database: got 'trian'",
        options={"split": "trian"},
    )


@pytest.mark.parametrize("cut", range(1, 40, 3))
def test_no_cut_off_proto_is_anything_else_than_damaged(cut):
    whole = files.proto(f=np.arange(3.0), i=np.arange(5), b=[b"abc"])
    with contextlib.suppress(DecodeError):
        example(whole[:-cut])
    with pytest.raises(DecodeError):
        example(b"\xff" * cut)


# --------------------------------------------------------------------------------------------- HDF5


def test_h5_that_is_cut_off_or_something_else(tmp_path):
    source = files.h5(tmp_path / "t.h5")
    import h5py

    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["numbers"] = np.arange(3)
    refused(tmp_path, tmp_path / "other.h5", "needs the group examples")
    os.truncate(source, 900)
    refused(tmp_path, source, "cannot be read as an HDF5 file")


def test_a_test_file_that_is_not_there(tmp_path):
    refused(
        tmp_path,
        files.h5(tmp_path / "t.h5"),
        "cannot be read as an HDF5 file",
        options={"test": str(tmp_path / "none.h5")},
    )
    refused(
        tmp_path,
        files.fedjax(tmp_path / "t.sqlite"),
        "SQLite",
        options={"test": str(tmp_path / "none.sqlite")},
    )


@pytest.mark.parametrize(
    ("make", "library"),
    [(files.h5, "h5py"), (files.fedjax, "msgpack"), (files.images, "PIL.Image")],
)
def test_a_library_that_is_not_installed(tmp_path, monkeypatch, make, library):
    source = make(tmp_path / "source")
    monkeypatch.setitem(__import__("sys").modules, library, None)
    refused(
        tmp_path,
        source,
        f"needs {library.partition('.')[0]}: got not installed; pip install 'fedjax-sim\\[data\\]'",
    )


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda f: f.__setitem__("examples", np.arange(3)), "needs the group examples"),
        (
            lambda f: f.__setitem__("examples/ann", np.arange(3)),
            "every client must be a group of arrays: got another kind of entry called 'ann'",
        ),
        (
            lambda f: f.create_group("examples/ann/deep"),
            "every client must be a group of arrays: got another kind of entry called 'ann'",
        ),
        (lambda f: f.create_group("examples/ann"), "no field is known to hold examples"),
        (lambda f: f.create_group("examples"), "at least one client"),
        (
            lambda f: f.__setitem__("examples/ann/x", np.float32(3)),
            "no field is known to hold labels",
        ),
        (
            lambda f: [f.__setitem__(f"examples/ann/{name}", np.float32(3)) for name in "xy"],
            "one value for each example: got 3.0",
        ),
        (
            lambda f: [
                f.__setitem__(f"examples/ann/{name}", np.zeros(n))
                for name, n in (("x", 3), ("y", 2))
            ],
            r"the same length: got \(3, 2\)",
        ),
    ],
)
def test_h5_of_other_groups(tmp_path, make, words):
    import h5py

    with h5py.File(tmp_path / "t.h5", "w") as file:
        make(file)
    refused(tmp_path, tmp_path / "t.h5", words)


def test_unknown_clients_with_other_examples(tmp_path):
    import h5py

    with h5py.File(tmp_path / "held.h5", "w") as file:
        for name, width in (("ann", 4), ("eve", 5)):
            file[f"examples/{name}/pixels"], file[f"examples/{name}/label"] = (
                np.zeros((2, width), np.float32),
                np.zeros(2, int),
            )
    refused(
        tmp_path,
        files.h5(tmp_path / "t.h5"),
        "must be alike",
        options={"test": str(tmp_path / "held.h5")},
    )
