import json
import os
import shutil
import socket
import subprocess
import sys

import pytest
from tfds_folder import CLIENTS, ordinary, records, tensors, write

from fedjax_sim.core.errors import FedError
from fedjax_sim.data import is_tfds, tfds
from fedjax_sim.data.tfds.reader import locate


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


@pytest.fixture
def no_network(monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


# ------------------------------------------------------------------------------------------- places


def put(source, home, *way):
    return shutil.copytree(source, home.joinpath(*way))


def test_names_are_found_where_tfds_keeps_its_data(by_clients, tmp_path, monkeypatch):
    for version in ("1.0.0", "1.9.0", "1.10.0", "1.11.0.incompleteX"):
        put(by_clients, tmp_path, "tiny", "small", version)
    (tmp_path / "tiny/small/1.11.0.incompleteX/dataset_info.json").unlink()
    assert locate("tiny", tmp_path) == tmp_path / "tiny/small/1.10.0"
    assert locate("tiny/small:1.9.0", tmp_path) == tmp_path / "tiny/small/1.9.0"
    assert tfds("tiny/small", data_dir=tmp_path).train.clients == 3
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    assert tfds("tiny").train.clients == 3
    monkeypatch.delenv("TFDS_DATA_DIR")
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "tensorflow_datasets").symlink_to(tmp_path)
    assert tfds("tiny").train.clients == 3
    put(by_clients, tmp_path, "tiny", "large", "1.0.0")
    with pytest.raises(
        FedError,
        match=r"several TFDS data sets: got \[.*large/1.0.0.*small/1.10.0.*name one of them",
    ):
        locate("tiny", tmp_path)


def test_a_folder_will_do_and_those_above_it(by_examples):
    assert (
        locate(by_examples)
        == locate(by_examples.parent)
        == locate(by_examples.parent.parent)
        == by_examples
    )
    assert is_tfds(by_examples.parent)
    assert not is_tfds(by_examples / "nothing")


@pytest.mark.parametrize(
    ("source", "advice"),
    [
        (
            "emnist/byclass",
            r"prepare it once.*pip install tensorflow .*"
            r"tfds.builder\('emnist/byclass', data_dir=.*file_format='array_record'",
        ),
        ("emnst", r"check the name \(did you mean 'emnist'\?\), or prepare it once"),
        (
            "./data/mnst",
            "give the folder of a prepared one, or a name that `fedjax-sim list datasets` knows",
        ),
    ],
)
@pytest.mark.usefixtures("no_network")
def test_absent_data_fails_at_once_with_what_to_do(source, advice, tmp_path):
    with pytest.raises(
        FedError, match=rf"^no prepared TFDS data set: got no dataset_info.json in .*; {advice}"
    ) as caught:
        tfds(source, data_dir=tmp_path)
    assert "\n" not in str(caught.value)


def test_absent_data_fails_before_tfds_is_imported(tmp_path):
    code = f"""
import sys
from fedjax_sim.data import tfds
try:
    tfds("mnist", data_dir={str(tmp_path)!r})
except ValueError as error:
    assert "dataset_info.json" in str(error)
assert "tensorflow_datasets" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


@pytest.mark.usefixtures("no_network")
def test_reading_prints_nothing_and_uses_no_network(by_clients, capfd):
    tfds(by_clients)
    assert capfd.readouterr().out == ""


# ------------------------------------------------------------------------------------------- damage


def test_parquet_can_be_read(tmp_path):
    pytest.importorskip("pyarrow")
    data = tfds(ordinary(tmp_path, "parquet"), client_key="writer", test_split="test")
    assert (sorted(data.train.y), len(data.global_test)) == (list(range(9)), 8)


@pytest.mark.parametrize("info", [{"fileFormat": "tfrecord"}, {}])
def test_files_that_need_tensorflow_are_refused(tmp_path, info):
    (tmp_path / "dataset_info.json").write_text(json.dumps(info))
    with pytest.raises(
        FedError,
        match=r"without TensorFlow: got tfrecord in .*; "
        r"prepare it again with file_format='array_record'",
    ):
        tfds(tmp_path)


def test_a_missing_reader_is_named(by_clients, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(
        FedError, match=r"needs the package array_record: .*pip install array_record"
    ):
        tfds(by_clients)


@pytest.mark.parametrize(
    ("lost", "words"),
    [
        ("features.json", "needs its features.json"),
        ("tiny-test", "a file .* is missing: .*tiny-test"),
    ],
)
def test_half_a_folder_is_refused(by_clients, tmp_path, lost, words):
    half = put(by_clients, tmp_path, "half")
    for name in os.listdir(half):
        if name.startswith(lost):
            (half / name).unlink()
    with pytest.raises(FedError, match=rf"{words}.*; copy the whole folder"):
        tfds(half, test_split="test")


def test_damaged_files_are_told(by_clients, tmp_path):
    bad = put(by_clients, tmp_path, "bad")
    (shard,) = bad.glob("*train*")
    whole = shard.read_bytes()
    for damaged in (whole[: len(whole) // 2], b"", whole[:200] + bytes(100) + whole[300:]):
        shard.write_bytes(damaged)
        with pytest.raises(
            FedError, match=r"/bad cannot be read: got \w+Error: .*; .*copy the whole folder"
        ):
            tfds(bad)
    (bad / "dataset_info.json").write_text("{")
    with pytest.raises(FedError, match="/bad cannot be read: got JSONDecodeError"):
        tfds(bad)


OWN = "tensorflow_datasets.core.features.features_dict.FeaturesDict"


@pytest.mark.parametrize(
    "features",
    [
        {"pythonClassName": "trap.Feature", "text": {}},
        {"python_class_name": "trap.Feature", "text": {}},
        {"type": "trap.Feature", "content": {}},
        {
            "pythonClassName": OWN,
            "featuresDict": {"features": {"a": {"pythonClassName": "trap.Feature", "text": {}}}},
        },
        {
            "pythonClassName": OWN,
            "jsonFeature": {"json": json.dumps({"a": {"type": "trap.Feature", "content": {}}})},
        },
    ],
)
def test_no_code_is_imported_because_a_folder_says_so(features, by_clients, tmp_path, monkeypatch):
    """TFDS would import whatever module a folder calls that of a feature's class."""
    (tmp_path / "trap.py").write_text(f"open({str(tmp_path / 'sprung')!r}, 'w')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    bad = put(by_clients, tmp_path, "bad")
    (bad / "features.json").write_text(json.dumps(features))
    try:
        with pytest.raises(
            FedError, match=r"TFDS's own classes: got \['trap\.Feature'\] in .*/bad; "
        ):
            tfds(bad)
    finally:
        sys.modules.pop("trap", None)
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("split", ["train[:", "train[:50 apples]", "", "train[9:]"])
def test_no_split_is_told(by_clients, split):
    with pytest.raises(FedError, match="split"):
        tfds(by_clients, split)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"x_key": "imag"}, "did you mean 'image'"),
        ({"client_key": "client"}, "unknown feature .*'client_id'"),
        ({"split": "trian"}, "did you mean 'train'"),
        ({"test_split": "valid"}, "unknown split"),
        ({"records": "example"}, "x must be numbers, of one shape"),
        ({"records": "examples", "x_key": "client_id"}, "an axis of them"),
    ],
)
def test_what_the_folder_lacks_is_named(by_clients, settings, words):
    with pytest.raises(FedError, match=words):
        tfds(by_clients, **settings)
