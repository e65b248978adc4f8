import functools
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from fedjax_sim import models
from fedjax_sim.core import tree
from fedjax_sim.core.errors import FedError

LANES, STEPS, BATCH, WIDTH, CLASSES = 2, 2, 4, 6, 3
KEY = jax.random.key(0)


def close(a, b, **tolerance):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, **tolerance), a, b)


def differ(a, b):
    return any(
        not np.array_equal(x, y)
        for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    )


def loss_of(model, params, state, x, y, key):
    out, state = model.apply(params, state, x, train=True, key=key)
    return -jnp.mean(jnp.take_along_axis(jax.nn.log_softmax(out), y[..., None], -1)), state


def fit(model, x, y, keys):
    """x is [lanes, steps, B, ...]: a few SGD steps in every lane from one start."""
    start = jax.jit(model.init)(KEY, x[0, 0])

    def step(carry, row):
        params, state = carry
        x, y, key = row
        (loss, state), gradient = jax.value_and_grad(
            lambda p: loss_of(model, p, state, x, y, key), has_aux=True
        )(params)
        return (jax.tree.map(lambda p, g: p - 0.1 * g, params, gradient), state), loss

    def client(x, y, key):
        return jax.lax.scan(step, start, (x, y, jax.random.split(key, x.shape[0])))

    return start, *jax.jit(jax.vmap(client))(x, y, keys)


def labelled():
    x = np.random.default_rng(0).normal(size=(LANES, STEPS, BATCH, WIDTH)).astype(np.float32)
    return x, np.random.default_rng(1).integers(0, CLASSES, (LANES, STEPS, BATCH)).astype(np.int32)


# ----------------------------------------------------------------------------------------- adapters


class LinenNet(nn.Module):
    @nn.compact
    def __call__(self, x, train):
        x = nn.BatchNorm(use_running_average=not train, momentum=0.9)(nn.Dense(8)(x))
        return nn.Dense(CLASSES)(nn.Dropout(0.5, deterministic=not train)(nn.relu(x)))


def linen_net():
    return models.from_linen(LinenNet())


def nnx_net():
    from flax import nnx

    class Net(nnx.Module):
        def __init__(self, rngs):
            self.first = nnx.Linear(WIDTH, 8, rngs=rngs)
            self.norm = nnx.BatchNorm(8, momentum=0.9, rngs=rngs)
            self.drop = nnx.Dropout(0.5, rngs=rngs)
            self.last = nnx.Linear(8, CLASSES, rngs=rngs)

        def __call__(self, x):
            return self.last(self.drop(nnx.relu(self.norm(self.first(x)))))

    return models.from_nnx(lambda rngs: Net(rngs))


def equinox_net():
    eqx = pytest.importorskip("equinox")

    class Net(eqx.Module):
        first: eqx.nn.Linear
        norm: eqx.nn.BatchNorm
        drop: eqx.nn.Dropout
        last: eqx.nn.Linear

        def __init__(self, key):
            one, two = jax.random.split(key)
            self.first = eqx.nn.Linear(WIDTH, 8, key=one)
            self.norm = eqx.nn.BatchNorm(8, "batch", momentum=0.9, mode="ema")
            self.drop = eqx.nn.Dropout(0.5)
            self.last = eqx.nn.Linear(8, CLASSES, key=two)

        def __call__(self, x, state, *, key):
            x, state = self.norm(self.first(x), state)
            return self.last(self.drop(jax.nn.relu(x), key=key)), state

    return models.from_equinox(Net)


def haiku_net():
    hk = pytest.importorskip("haiku")

    def net(x, train):
        x = jax.nn.relu(hk.BatchNorm(True, True, 0.9)(hk.Linear(8)(x), is_training=train))
        return hk.Linear(CLASSES)(hk.dropout(hk.next_rng_key(), 0.5, x) if train else x)

    return models.from_haiku(hk.transform_with_state(net))


ADAPTED = pytest.mark.parametrize("make", [linen_net, nnx_net, equinox_net, haiku_net])


@pytest.fixture(scope="module")
def fitted():
    """Lanes 0, 1 and 2 have the same data, lanes 0, 2 and 3 the same key."""
    x, y = labelled()
    one, two = jax.random.split(KEY)
    x, y = (np.stack([a[0], a[0], a[0], a[1]]) for a in (x, y))
    return functools.cache(lambda make: fit(make(), x, y, jnp.stack([one, two, one, one])))


@ADAPTED
def test_adapter_trains_in_lanes_with_moving_statistics(make, fitted):
    (params, state), (trained, moved), losses = fitted(make)
    assert jax.tree.leaves(state)
    assert jax.tree.structure((params, state)) == jax.tree.structure((trained, moved))
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(params))
    assert differ(trained, tree.tile(params, 4))
    assert differ(moved, tree.tile(state, 4))
    assert differ(tree.take(moved, 0), tree.take(moved, 3))
    assert np.isfinite(losses).all()


@ADAPTED
def test_adapter_dropout_follows_the_key_alone(make, fitted):
    losses = fitted(make)[2]
    assert np.array_equal(losses[0], losses[2])
    assert (losses[0] != losses[1]).all()


@ADAPTED
def test_adapter_evaluates_without_chance_or_change(make):
    model = make()
    x = labelled()[0][0, 0]
    start = jax.jit(model.init)(KEY, x)
    params, state = start[0], jax.jit(lambda *v: model.apply(*v, x, train=True, key=KEY)[1])(*start)
    evaluate = jax.jit(lambda x, key: model.apply(params, state, x, train=False, key=key))
    (out, kept), (again, _), (single, _) = (
        evaluate(x, None),
        evaluate(x, jax.random.key(5)),
        evaluate(x[:1], None),
    )
    assert out.shape == (BATCH, CLASSES)
    assert np.array_equal(out, again)
    np.testing.assert_allclose(
        single, out[:1], rtol=1e-5, atol=1e-6
    )  # the running statistics, not the batch's own
    assert not differ(kept, state)


@pytest.mark.parametrize("make", [linen_net, nnx_net])
def test_adapter_batch_statistics_are_the_running_mean(make):
    model = make()
    x = labelled()[0][0, 0]
    params, state = jax.jit(model.init)(KEY, x)
    layers = {name.lower(): value for name, value in params.items()}
    first = layers.get("dense_0") or layers["first"]
    moved = jax.jit(lambda *v: model.apply(*v, x, train=True, key=KEY)[1])(params, state)
    means = [
        leaf
        for path, leaf in jax.tree_util.tree_leaves_with_path(moved)
        if tree.name(path).endswith("mean")
    ]
    assert len(means) == 1
    np.testing.assert_allclose(
        means[0], 0.1 * np.mean(x @ first["kernel"] + first["bias"], axis=0), rtol=1e-4, atol=1e-6
    )


def test_linen_logistic_equals_a_bare_pair():
    def init(key, x):
        return {"w": jnp.zeros((x.shape[-1], CLASSES)), "b": jnp.zeros(CLASSES)}

    x, y = labelled()
    keys = jax.random.split(KEY, LANES)
    bare = models.from_functions(init, lambda params, x: x @ params["w"] + params["b"])
    _, (mine, state), losses = fit(bare, x, y, keys)
    _, (theirs, _), expected = fit(models.logistic(CLASSES), x, y, keys)
    assert state == {}
    np.testing.assert_allclose(losses, expected, rtol=1e-6)
    close(
        (mine["w"], mine["b"]),
        (theirs["head"]["kernel"], theirs["head"]["bias"]),
        rtol=1e-5,
        atol=1e-7,
    )


def test_bare_pair_is_given_what_it_asks_for():
    model = models.from_functions(lambda key, x: {}, lambda params, x, train, key: (train, key))
    assert model.apply({}, {}, None, train=True, key=7)[0] == (True, 7)


def test_stateless_modules_of_every_library_agree():
    from flax import nnx

    eqx, hk = pytest.importorskip("equinox"), pytest.importorskip("haiku")
    x = labelled()[0][0, 0]
    made = [
        models.from_linen(nn.Sequential([nn.Dense(CLASSES)])),
        models.from_nnx(lambda rngs: nnx.Linear(WIDTH, CLASSES, rngs=rngs)),
        models.from_equinox(lambda key: eqx.nn.Linear(WIDTH, CLASSES, key=key)),
        models.from_haiku(hk.transform(lambda x, train: hk.Linear(CLASSES)(x))),
    ]
    for model in made:
        params, state = model.init(KEY, x)
        ramp = jax.tree.map(
            lambda leaf: jnp.ones_like(leaf) * (jnp.arange(CLASSES) if leaf.ndim == 1 else 1),
            params,
        )
        out, after = model.apply(ramp, state, x, train=True, key=None)
        assert tree.size(params) == (WIDTH + 1) * CLASSES
        assert not jax.tree.leaves((state, after))
        np.testing.assert_allclose(
            out, x.sum(-1, keepdims=True) + np.arange(CLASSES), rtol=1e-5, atol=1e-6
        )


def test_linen_serves_any_stream_and_drops_what_is_sown():
    class Noisy(nn.Module):
        @nn.compact
        def __call__(self, x):
            self.sow("intermediates", "seen", x)
            return x + jax.random.normal(self.make_rng("noise"), x.shape)

    model = models.from_linen(Noisy())
    x = jnp.zeros((2, 3))
    params, state = model.init(KEY, x)
    one, two = (model.apply(params, state, x, train=True, key=jax.random.key(i))[0] for i in (1, 2))
    assert (params, state) == ({}, {})
    assert differ(one, two)


def test_linen_adapter_refuses_a_class():
    with pytest.raises(FedError, match="LinenNet"):
        models.from_linen(LinenNet)


def test_importing_models_imports_no_library_but_linen():
    heavy = "[name for name in ('flax.nnx', 'equinox', 'haiku', 'optax') if name in sys.modules]"
    code = f"import sys, fedjax_sim.models; assert not {heavy}, {heavy}"
    subprocess.run([sys.executable, "-c", code], check=True)
