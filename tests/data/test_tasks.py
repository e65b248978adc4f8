import inspect
import subprocess
import sys
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from task_sources import sources

from fedjax_sim.core.errors import FedError
from fedjax_sim.core.types import Batch
from fedjax_sim.data import dirichlet, to_table
from fedjax_sim.tasks import REGISTRY


def first_batch(data, n=4):
    x, y = jax.tree.map(lambda leaf: jnp.asarray(leaf[:n]), (data.train.x, data.train.y))
    return Batch(x, y, jnp.ones(n, bool))


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    return sources(tmp_path_factory.mktemp("tasks"))


@pytest.fixture(scope="module", params=REGISTRY)
def task(request, settings):
    return REGISTRY[request.param](**settings.get(request.param, {}))


@pytest.fixture(scope="module")
def variables(task):
    return jax.jit(task.init)(jax.random.key(0))


def test_every_task_can_be_trained_on(task, variables):
    assert task.name in REGISTRY
    batch = first_batch(task.data)

    def loss(params):
        return task.objective.loss(
            variables._replace(params=params), jax.random.key(1), batch, True
        )

    (value, (_, metrics)), slope = jax.jit(jax.value_and_grad(loss, has_aux=True))(variables.params)
    assert np.isfinite(value)
    assert sum(float(np.sum(np.square(leaf))) for leaf in jax.tree.leaves(slope)) > 0
    np.testing.assert_allclose(metrics["loss"].value, value, rtol=1e-5)
    assert to_table(task.data.train).clients == task.data.train.clients


def test_padding_rows_do_not_count(task, variables):
    batch = first_batch(task.data)
    few = jax.tree.map(lambda leaf: leaf[:2], batch)
    half = batch._replace(mask=jnp.array([True, True, False, False]))

    @jax.jit
    def values(variables, *batches):
        return [
            task.objective.loss(variables, jax.random.key(1), each, False)[0] for each in batches
        ]

    np.testing.assert_allclose(*values(variables, few, half), rtol=1e-4)


@pytest.mark.parametrize("name", REGISTRY)
def test_settings_are_keywords_with_defaults(name):
    for setting in inspect.signature(REGISTRY[name].factory).parameters.values():
        assert setting.kind is inspect.Parameter.KEYWORD_ONLY
        assert setting.default is not inspect.Parameter.empty


@pytest.mark.parametrize("name", ["digits", "synthetic", "quadratic"])
def test_the_seed_decides(name):
    one, same, other = (REGISTRY[name](seed=seed).data.train for seed in (5, 5, 6))
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(same), strict=True):
        np.testing.assert_array_equal(a, b)
    assert any(
        not np.array_equal(a, b)
        for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
    )


@pytest.mark.parametrize(
    ("name", "file"),
    [("mnist", "mnist.npz"), ("har", "uci_har.npz"), ("shakespeare", "shakespeare_roles.npz")],
)
def test_absent_data_names_the_command(name, file, tmp_path):
    with pytest.raises(
        FedError,
        match=rf"got nothing in .*nothing; make one with "
        rf"`fedjax-sim data prepare {file} --out .*nothing`$",
    ):
        REGISTRY[name](source=str(tmp_path / "nothing"))


@pytest.mark.parametrize("name", ["emnist", "cifar10", "cifar100", "imdb"])
def test_absent_data_of_tfds_name_its_command(name, tmp_path):
    with pytest.raises(
        FedError,
        match=rf"prepare it once, .*tfds.builder\('{name}.*file_format='array_record'\)"
        r".download_and_prepare",
    ) as caught:
        REGISTRY[name](data_dir=str(tmp_path))
    assert caught.value.setting == "source"


def test_the_package_imports_no_data_library():
    code = "import sys, fedjax_sim.tasks\nslow = {'sklearn', 'tensorflow_datasets'}\n"
    code += "sys.exit(len(slow & sys.modules.keys()))"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


@pytest.mark.parametrize("partition", ["dirichlet", "iid", "shards"])
def test_digits_are_all_there(partition):
    from sklearn.datasets import load_digits

    data = REGISTRY["digits"](partition=partition, clients=50).data
    every = [data.train.x, data.test.x, data.global_test.x]
    assert data.train.clients == 50
    assert [len(x) for x in (every[2], np.concatenate(every))] == [359, 1797]
    assert every[0].dtype == np.float32
    assert every[0].min() == 0
    assert every[0].max() == 1
    mine = np.concatenate(every).reshape(-1, 64).sum(axis=1)
    np.testing.assert_allclose(
        np.sort(mine), np.sort(load_digits(return_X_y=True)[0].sum(axis=1) / 16), rtol=1e-5
    )


def test_nothing_held_out_is_no_global_test_set():
    data = REGISTRY["digits"](global_test_fraction=0.0).data
    assert data.global_test is None
    assert len(data.train.y) + len(data.test.y) == 1797
    assert REGISTRY["digits"](test_fraction=0.0).data.test is None


@pytest.mark.parametrize("name", ["digits", "synthetic", "quadratic"])
@pytest.mark.parametrize("seed", [-1, 0.5, True])
def test_a_seed_is_a_whole_number_from_0_on(name, seed):
    with pytest.raises(FedError, match="seed must") as caught:
        REGISTRY[name](seed=seed)
    assert caught.value.setting == "seed"


def test_alpha_is_what_makes_digits_skewed():
    def labels_held(alpha):
        train = REGISTRY["digits"](partition=partial(dirichlet, alpha=alpha)).data.train
        return np.mean(
            [len(np.unique(labels)) for labels in np.split(train.y, train.offsets[1:-1])]
        )

    assert labels_held(0.1) < 5 < 8 < labels_held(100.0)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"partition": "dirichle"}, "did you mean 'dirichlet'"),
        ({"partition": "natural"}, "needs ids: got data with labels alone"),
        ({"partition": 0.1}, "a partition is a name or a function: got 0.1"),
        ({"partition": partial(dirichlet, alpha=-1.0)}, "alpha must be positive"),
        ({"model": "mpl"}, "did you mean 'mlp'"),
    ],
)
def test_what_cannot_be_is_named(wrong, words):
    with pytest.raises(FedError, match=words):
        REGISTRY["digits"](**wrong)
