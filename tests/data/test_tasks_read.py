from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from shared_data import shared
from task_sources import pictures, roles, sources
from tfds_folder import write

from fedjax_sim.core.errors import FedError
from fedjax_sim.data import grouped, open_prepared, save
from fedjax_sim.data.sources import prepare
from fedjax_sim.data.text import UNKNOWN
from fedjax_sim.data.tfds.writer import save_tfds
from fedjax_sim.models import logistic
from fedjax_sim.tasks import REGISTRY
from fedjax_sim.tasks.base import standardised
from fedjax_sim.tasks.shakespeare import roles as cut


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    return sources(tmp_path_factory.mktemp("tasks"))


@pytest.fixture(scope="module", params=["prepared", "tfds"])
def writers(request, tmp_path_factory):
    """The same writers' digits in both forms."""
    home, data = tmp_path_factory.mktemp("writers"), pictures(np.random.default_rng(0))
    form = {"prepared": save, "tfds": save_tfds}[request.param]
    return str(form(data, home / "mnist", name="mnist"))


# -------------------------------------------------------------------------------------------- mnist


def test_mnist_is_by_writer(writers):
    data = REGISTRY["mnist"](source=writers).data
    assert tuple(data.train.names) == tuple(f"w{i}" for i in range(7))
    assert (len(data.train.y) + len(data.test.y), len(data.global_test)) == (90, 20)
    assert data.train.x.dtype == np.uint8
    whole = REGISTRY["mnist"](source=writers, test_fraction=0.0, clients=7).data
    np.testing.assert_array_equal(whole.train.x, pictures(np.random.default_rng(0)).train.x)
    with pytest.raises(FedError, match="make 7 clients") as caught:
        REGISTRY["mnist"](source=writers, clients=8)
    assert caught.value.setting == "clients"


@pytest.mark.parametrize(
    "partition", ["dirichlet", "iid", "shards", partial(grouped, order="random")]
)
def test_mnist_can_be_dealt_out(writers, partition):
    data = REGISTRY["mnist"](source=writers, partition=partition, clients=4, test_fraction=0.0).data
    assert data.train.clients == 4
    assert sorted(data.train.y) == sorted(np.arange(90) % 10)
    assert len(data.global_test) == 20


def test_a_group_of_writers_has_all_that_they_wrote(writers):
    data = REGISTRY["mnist"](source=writers, partition="grouped", clients=7, test_fraction=0.0).data
    assert sorted(data.train.sizes) == sorted(
        REGISTRY["mnist"](source=writers, test_fraction=0.0).data.train.sizes
    )


def test_mnist_of_tfds_does_not_say_who_wrote(tmp_path):
    def features(f):
        return {
            "image": f.Tensor(shape=(28, 28, 1), dtype=np.uint8),
            "label": f.ClassLabel(num_classes=10),
        }

    rows = [{"image": np.full((28, 28, 1), i, np.uint8), "label": i % 10} for i in range(40)]
    folder = str(write(tmp_path / "mnist", features, {"train": rows, "test": rows[:5]}, "mnist"))
    with pytest.raises(
        FedError, match=r"do not state the client of .*partition= and clients="
    ) as caught:
        REGISTRY["mnist"](source=folder)
    assert caught.value.setting == "partition"
    data = REGISTRY["mnist"](source=folder, partition="iid", clients=4).data
    assert (data.train.clients, len(data.global_test)) == (4, 5)


# -------------------------------------------------------------------------------------- shakespeare


@pytest.fixture(params=["prepared", "tfds"])
def plays(request, tmp_path):
    data = roles()
    if request.param == "prepared":
        return str(save(data, tmp_path / "roles", name="roles"))
    texts = np.split(data.train.x, data.train.offsets[1:-1])
    rows = [
        {"client_id": name, "text": text}
        for name, text in zip(data.train.names, texts, strict=True)
    ]

    def features(f):
        return {
            "client_id": f.Text(),
            "text": f.Tensor(shape=(None,), dtype=np.uint8, encoding="bytes"),
        }

    return str(write(tmp_path / "roles", features, {"train": rows}))


def test_roles_that_say_little_are_left_out(plays):
    data = REGISTRY["shakespeare"](source=plays).data
    assert data.train.names == ("a|KING", "b|QUEEN")
    assert data.train.sizes.tolist() == [4, 3]
    assert data.test.sizes.tolist() == [1, 1]
    assert REGISTRY["shakespeare"](source=plays, clients=1).data.train.names == ("a|KING",)
    with pytest.raises(FedError, match="lower min_windows"):
        REGISTRY["shakespeare"](source=plays, min_windows=50)
    with pytest.raises(FedError, match="clients must be positive"):
        REGISTRY["shakespeare"](source=plays, clients=-1)


def test_min_windows_counts_windows():
    text = np.full(9, ord("a"), np.uint8)
    assert cut(["r"], [text], 4, 2).sizes.tolist() == [2]
    with pytest.raises(FedError, match="no role"):
        cut(["r"], [text], 4, 3)


# ------------------------------------------------------------------------------------------- others


def test_the_number_of_classes_is_that_of_the_data(settings):
    outputs = {"emnist": 62, "cifar10": 10, "cifar100": 100, "imdb": 2, "har": 6, "prepared": 6}
    for name, classes in outputs.items():
        task = REGISTRY[name](
            **{**settings[name], "model": "word_mean" if name == "imdb" else "logistic"}
        )
        params = task.init(jax.random.key(0)).params
        assert params["head"]["bias"].shape == (classes,), name


def test_a_set_without_its_number_of_classes_cannot_be_classified(tmp_path):
    with pytest.raises(FedError, match=r"needs its number of labels") as caught:
        REGISTRY["prepared"](
            source=str(save(roles(), tmp_path / "roles", name="roles")), test_fraction=0.0
        )
    assert caught.value.setting == "source"


def test_clients_of_prepared_data_that_have_tests_keep_them(tmp_path):
    mine = REGISTRY["digits"](clients=5).data
    folder = save(mine, tmp_path / "digits", name="digits", classes=10)
    data = REGISTRY["prepared"](source=str(folder), test_fraction=0.5).data
    assert data.test.sizes.tolist() == mine.test.sizes.tolist()
    assert isinstance(open_prepared(folder).train.x.base, np.ndarray) == isinstance(
        data.train.x.base, np.ndarray
    )
    dealt = REGISTRY["prepared"](
        source=str(folder), partition="iid", clients=3, test_fraction=0.0
    ).data
    assert len(dealt.train.y) == len(mine.train.y) + len(mine.test.y)


def test_channels_are_standardised_on_the_way_into_the_model():
    x = np.random.default_rng(0).integers(0, 256, (5, 4, 4, 3)).astype(np.uint8)
    plain, mean, deviation = logistic(3), (100.0, 110.0, 120.0), (50.0, 60.0, 70.0)
    model = standardised(plain, mean, deviation)
    params, _ = model.init(jax.random.key(0), x)
    params = jax.tree.map(
        lambda leaf: leaf + jnp.arange(leaf.size, dtype=jnp.float32).reshape(leaf.shape), params
    )
    mine, _ = model.apply(params, {}, jnp.asarray(x), train=False, key=None)
    theirs, _ = plain.apply(
        params,
        {},
        jnp.asarray((x - np.array(mean)) / np.array(deviation), jnp.float32),
        train=False,
        key=None,
    )
    np.testing.assert_allclose(mine, theirs, rtol=1e-5)


# ---------------------------------------------------------------------------------------- real data


def ready(name: str, home: Path, **more) -> str:
    return str(prepare(shared(name), home / "out", **more))


def test_real_mnist(tmp_path):
    data = REGISTRY["mnist"](source=ready("mnist.npz", tmp_path)).data
    assert (data.train.clients, len(data.global_test)) == (539, 10_000)
    assert len(data.train.y) + len(data.test.y) == 60_000


def test_real_sensors(tmp_path):
    data = REGISTRY["har"](source=ready("uci_har.npz", tmp_path)).data
    assert (data.train.clients, data.train.x.shape[1:], len(data.global_test)) == (
        21,
        (128, 9),
        2947,
    )
    np.testing.assert_allclose(
        np.linalg.norm(data.train.x[..., 6:].mean(axis=1), axis=1).mean(), 1.0, atol=0.05
    )  # gravity


def test_real_shakespeare(tmp_path):
    data = REGISTRY["shakespeare"](source=ready("shakespeare_roles.npz", tmp_path), clients=5).data
    assert data.train.names[0] == "1henryiv|KING HENRY IV"
    assert np.mean(data.train.y == UNKNOWN) < 0.01
