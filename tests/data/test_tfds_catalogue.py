import socket

import numpy as np
import pytest
from tfds_folder import fake, write

from fedjax_sim.data import CATALOGUE, tfds
from fedjax_sim.data.tfds.catalogue import command

SOME_OWNER = {
    "user",
    "author",
    "participant",
    "speaker",
    "writer",
    "client_id",
    "subject",
    "customer_id",
}


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    def refuse(*_, **__):
        raise OSError("no network in tests")

    monkeypatch.setattr(socket.socket, "connect", refuse)


def builder(name, tmp_path):
    """TFDS's own, which knows its features without the data."""
    import tensorflow_datasets

    return tensorflow_datasets.builder(name, data_dir=str(tmp_path / "none"))


@pytest.mark.parametrize("name", CATALOGUE)
def test_a_data_set_with_tfds_own_features_becomes_a_federation(name, tmp_path):
    entry = CATALOGUE[name]
    info = builder(name, tmp_path).info
    rng = np.random.default_rng(0)
    rows = {
        split: [fake(info.features, rng) for _ in range(n)]
        for split, n in (("train", 30), ("test", 6))
    }
    write(tmp_path / info.full_name, info.features, rows, name)
    settings = {} if entry.client else {"partition": "iid", "clients": 3}
    data = tfds(name, data_dir=tmp_path, test_split="test", **settings).train
    assert data.clients >= 3
    assert {leaf.dtype.name for leaf in (data.x, data.y)} <= {"uint8", "int32", "float32"}
    assert len(data.x) == len(data.y) >= 30
    assert (entry.client is None) == (data.names is None)
    assert (entry.client is None) == (not SOME_OWNER & set(info.features))
    assert (entry.x == "image") == (data.x.dtype == np.uint8)


def test_emnist_is_turned_upright(tmp_path):
    from PIL import Image

    info = builder("emnist/byclass", tmp_path).info
    as_written = np.zeros((28, 28), np.uint8)
    as_written[2, :] = 200  # a bar across the top
    rows = [{"image": Image.fromarray(as_written.T), "label": label} for label in (61, 0)]
    write(tmp_path / info.full_name, info.features, {"train": rows}, "emnist")
    data = tfds("emnist", data_dir=tmp_path, partition="iid", clients=1).train
    np.testing.assert_array_equal(data.x[..., 0], [as_written, as_written])
    assert sorted(data.y) == [0, 61]


def test_tweets_are_happy_or_not_and_series_are_cut_or_padded():
    x, y = CATALOGUE["sentiment140"].convert([b"Good good FILM", b""], np.array([4, 0]))
    assert (x.shape, y.tolist()) == ((2, 40), [1, 0])
    assert x[0, 0] == x[0, 1] != x[0, 2] > 0 == x[0, 3] == x[1].max()
    short = np.ones((3, 3))
    long = np.full((70, 3), 2.0)
    x, _ = CATALOGUE["smartwatch_gestures"].convert([short, long], None)
    assert x.shape == (2, 50, 3)
    assert (x[0].sum(), x[1].sum()) == (9, 300)


def test_the_command_is_python_that_names_the_data_set():
    said = command("emnist/byclass", "/here")
    code = said.partition('python -c "')[2].removesuffix('"')
    compile(code, "command", "exec")
    assert "tfds.builder('emnist/byclass', data_dir='/here', file_format='array_record')" in code
