import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fedjax_sim import models
from fedjax_sim.core import tree
from fedjax_sim.core.errors import FedError

CLASSES = 3
KEY = jax.random.key(0)


def count(model, shape, dtype):
    return tree.size(jax.eval_shape(model.init, KEY, jax.ShapeDtypeStruct(shape, dtype))[0])


def close(a, b, **tolerance):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, **tolerance), a, b)


def differ(a, b):
    return any(
        not np.array_equal(x, y)
        for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    )


@pytest.mark.parametrize(
    ("model", "shape", "dtype", "parameters"),
    [
        (models.logistic(10), (2, 28, 28), np.uint8, 7_850),
        (models.mlp(10), (2, 28, 28, 1), np.uint8, 199_210),
        (models.mlp(10), (2, 784), np.float32, 199_210),
        (models.cnn(10), (2, 28, 28), np.uint8, 1_663_370),
        (models.emnist_cnn(), (2, 28, 28, 1), np.float32, 1_206_590),
        (models.resnet(10), (2, 32, 32, 3), np.uint8, 11_173_962),
        (models.resnet(10, norm="batch"), (2, 32, 32, 3), np.uint8, 11_173_962),
        (models.char_lstm(), (2, 80), np.int32, 820_522),
        (models.transformer(), (2, 80), np.int32, 430_170),
        (models.series_cnn(6), (2, 128, 9), np.float32, 26_566),
        (models.word_mean(2), (2, 200), np.int32, 320_066),
    ],
)
def test_parameter_counts_are_those_of_the_papers(model, shape, dtype, parameters):
    assert count(model, shape, dtype) == parameters


SMALL = {
    "logistic": {"classes": CLASSES},
    "mlp": {"classes": CLASSES, "hidden": (5, 4)},
    "cnn": {"classes": CLASSES},
    "emnist_cnn": {"classes": CLASSES},
    "resnet": {"classes": CLASSES, "stages": (1, 1), "width": 4},
    "char_lstm": {"vocabulary": 7, "width": 5, "embedding": 3},
    "transformer": {"vocabulary": 7, "width": 8, "heads": 2, "length": 10},
    "series_cnn": {"classes": CLASSES, "width": 4},
    "word_mean": {"classes": CLASSES, "vocabulary": 7, "width": 4},
}


def sample(name):
    rng = np.random.default_rng(3)
    sequences = name in ("char_lstm", "transformer", "word_mean")
    shape = (2, 16, 4) if name == "series_cnn" else (2, 8, 8)
    return (
        rng.integers(0, 7, (2, 6)).astype(np.int32)
        if sequences
        else rng.integers(0, 256, shape).astype(np.uint8)
    )


@pytest.mark.parametrize("name", sorted(models.REGISTRY))
def test_zoo_shapes_and_names(name):
    model, x = models.REGISTRY[name](**SMALL[name]), sample(name)
    params, state = jax.eval_shape(model.init, KEY, x)
    out, after = jax.eval_shape(
        lambda p, s, x, key: model.apply(p, s, x, train=True, key=key), params, state, x, KEY
    )
    assert out.shape == ((2, 6, 7) if name in ("char_lstm", "transformer") else (2, CLASSES))
    assert {leaf.dtype for leaf in jax.tree.leaves((params, out))} == {jnp.dtype("float32")}
    assert (state, after) == ({}, {})
    assert params["head"]["kernel"].shape[-1] == out.shape[-1]


@pytest.mark.parametrize("name", ["mlp", "cnn"])
def test_bytes_are_scaled_and_a_channel_axis_is_optional(name):
    model, x = models.REGISTRY[name](**SMALL[name]), sample(name)
    params, state = jax.jit(model.init)(KEY, x)
    predict = jax.jit(lambda x: model.apply(params, state, x, train=False, key=None)[0])
    out, unscaled = predict(x), predict(x.astype(np.float32))
    scaled = predict((x / 255).astype(np.float32)[..., None])
    np.testing.assert_allclose(out, scaled, rtol=1e-5, atol=1e-6)
    assert not np.allclose(out, unscaled, rtol=1e-2)


def test_emnist_dropout_is_on_only_in_training():
    x = sample("emnist_cnn")
    model, dry = (
        models.emnist_cnn(CLASSES),
        models.emnist_cnn(CLASSES, dropout_convolution=0.0, dropout_dense=0.0),
    )
    params, state = jax.jit(model.init)(KEY, x)
    wet = jax.jit(lambda key: model.apply(params, state, x, train=True, key=key)[0])
    still = jax.jit(lambda: model.apply(params, state, x, train=False, key=None)[0])()
    assert differ(wet(jax.random.key(1)), wet(jax.random.key(2)))
    np.testing.assert_allclose(
        jax.jit(lambda: dry.apply(params, state, x, train=True, key=None)[0])(), still, rtol=1e-6
    )


def test_resnet_batch_statistics_move():
    model, x = models.resnet(CLASSES, stages=(1,), width=4, norm="batch"), sample("resnet")
    params, state = jax.jit(model.init)(KEY, x)
    moved = jax.jit(lambda *v: model.apply(*v, x, train=True, key=None)[1])(params, state)
    assert len(jax.tree.leaves(state)) == 6  # mean and variance of the stem and the block's two
    assert differ(state, moved)


def test_words_that_are_padding_count_for_nothing():
    model = models.word_mean(CLASSES, vocabulary=9, width=4)
    x = np.array([[3, 5, 0, 0], [0, 0, 0, 0]], np.int32)
    params, state = model.init(KEY, x)
    out, short = (
        np.asarray(model.apply(params, state, tokens, train=False, key=None)[0])
        for tokens in (x, x[:, :2])
    )
    np.testing.assert_allclose(out, short, rtol=1e-6)
    table, head = params["embedding_of_words"]["embedding"], params["head"]
    np.testing.assert_allclose(
        out[0], (table[3] + table[5]) / 2 @ head["kernel"] + head["bias"], rtol=1e-5
    )
    np.testing.assert_allclose(out[1], head["bias"])


def test_the_layers_over_time_are_convolutions():
    x = np.random.default_rng(0).normal(size=(2, 16, 3)).astype(np.float32)
    model = models.series_cnn(CLASSES, width=4, span=3)
    params, _ = model.init(KEY, x)
    y = x
    for layer in ("conv_0", "conv_1"):
        kernel = np.asarray(params[layer]["kernel"]).reshape(3, y.shape[-1], 4)
        wide = np.pad(y, ((0, 0), (1, 1), (0, 0)))
        y = np.maximum(
            sum(wide[:, k : k + y.shape[1]] @ kernel[k] for k in range(3)) + params[layer]["bias"],
            0,
        )
        y = y.reshape(2, -1, 4, 4).max(axis=2)
    out, _ = model.apply(params, {}, x, train=False, key=None)
    np.testing.assert_allclose(
        out,
        y.reshape(2, -1) @ params["head"]["kernel"] + params["head"]["bias"],
        rtol=1e-4,
        atol=1e-5,
    )
    with pytest.raises(FedError, match=r"T of 16 or more: got \[2, 15, 3\]"):
        model.init(KEY, x[:, :15])
    with pytest.raises(FedError, match="span must be odd"):
        models.series_cnn(CLASSES, span=4)


@pytest.mark.parametrize("name", ["char_lstm", "transformer"])
def test_sequence_models_do_not_look_ahead(name):
    model, x = models.REGISTRY[name](**SMALL[name]), sample(name)
    params, state = jax.jit(model.init)(KEY, x)
    later = x.copy()
    later[:, 3] = (x[:, 3] + 1) % 7
    predict = jax.jit(lambda tokens: model.apply(params, state, tokens, train=False, key=None)[0])
    before, after = np.asarray(predict(x)), np.asarray(predict(later))
    np.testing.assert_allclose(before[:, :3], after[:, :3], rtol=1e-5, atol=1e-6)
    assert (
        np.abs(before[:, 3:] - after[:, 3:]).max(-1) > 1e-6
    ).all()  # and every later place has seen the change


@pytest.mark.parametrize(
    ("build", "says"),
    [
        (lambda: models.mlp(0), "positive"),
        (lambda: models.emnist_cnn(dropout_dense=1.5), "dropout_dense"),
        (lambda: models.resnet(10, width=5), "groups must divide width"),
        (lambda: models.resnet(10, norm="layer"), "'layer'"),
        (lambda: models.resnet(10, stages=()), "stage"),
        (lambda: models.transformer(width=10, heads=4), "heads must divide width"),
        (lambda: models.cnn(10).init(KEY, np.zeros((2, 784), np.float32)), r"\[2, 784\]"),
        (lambda: models.emnist_cnn().init(KEY, np.zeros((2, 5, 5), np.float32)), "6x6"),
        (lambda: models.char_lstm().init(KEY, np.zeros((2, 5), np.float32)), "float32"),
        (lambda: models.transformer(length=4).init(KEY, np.zeros((2, 5), np.int32)), "length=5"),
    ],
)
def test_mistakes_are_named(build, says):
    with pytest.raises(FedError, match=says):
        build()


def operands(jaxpr):
    """Dtypes of everything that is multiplied in a program."""
    for equation in jaxpr.eqns:
        if equation.primitive.name in ("dot_general", "conv_general_dilated"):
            yield from (variable.aval.dtype for variable in equation.invars)
        for value in equation.params.values():
            for inner in value if isinstance(value, (tuple, list)) else [value]:
                yield from (
                    operands(inner.jaxpr)
                    if hasattr(inner, "jaxpr")
                    else operands(inner)
                    if hasattr(inner, "eqns")
                    else ()
                )


LONG = {"transformer", "resnet", "cnn", "emnist_cnn", "series_cnn"}
"""Models whose two programs take ten seconds and more to compile."""


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow) if name in LONG else name for name in SMALL]
)
def test_mixed_precision_computes_narrowly_and_keeps_its_parameters_wide(name):
    plain = models.REGISTRY[name](**SMALL[name])
    mixed, x = models.mixed_precision(plain), sample(name)
    params, state = jax.jit(mixed.init)(KEY, x)
    params = jax.tree.map(
        lambda leaf: leaf + 0.0123, params
    )  # some begin at zero, which every float can tell

    def total(model, params):
        out, after = model.apply(params, state, x, train=False, key=None)
        assert out.dtype == jnp.float32
        close(after, state)
        return jnp.sum(jnp.square(out))

    wide, narrow = (
        jax.jit(jax.value_and_grad(lambda p, m=model: total(m, p)))(params)
        for model in (plain, mixed)
    )
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(narrow[1]))
    assert narrow[0] != wide[0]
    np.testing.assert_allclose(narrow[0], wide[0], rtol=0.1)
    products = list(operands(jax.make_jaxpr(lambda p: total(mixed, p))(params).jaxpr))
    assert products
    assert all(dtype == jnp.bfloat16 for dtype in products)


def test_float32_is_the_model_itself_and_odd_floats_are_errors():
    plain = models.logistic(3)
    assert models.mixed_precision(plain, "float32") is plain
    with pytest.raises(FedError, match=r"compute.*'int8'.*bfloat16"):
        models.mixed_precision(plain, "int8")
