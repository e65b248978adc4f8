"""The LSTM layer: its derivative, written by hand, is that of a plain scan, wherever and however
often it is taken.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from jax import lax

from fedjax_sim import models, samplers
from fedjax_sim.algorithms import REGISTRY
from fedjax_sim.core import tree
from fedjax_sim.core.errors import FedError
from fedjax_sim.core.types import Variables
from fedjax_sim.data.batching import local_work
from fedjax_sim.data.population import population
from fedjax_sim.engine import Engine
from fedjax_sim.engine.program import make_round
from fedjax_sim.engine.xla.rewrite import equations
from fedjax_sim.models import LSTM, lstm
from fedjax_sim.models.adapters import from_linen
from fedjax_sim.models.objectives import classification

T, B, D, H = 7, 4, 3, 5
KEY = jax.random.key(0)
DTYPES = {"float32": (1e-4, 1e-5), "float64": (1e-12, 1e-12)}
"""Relative and absolute tolerances."""


def plain(drive, recurrent):
    """The equations as they are written, left to automatic differentiation."""

    def step(state, drive):
        hidden, cell = state
        i, f, g, o = jnp.split(drive + hidden @ recurrent, 4, axis=-1)
        cell = jax.nn.sigmoid(f) * cell + jax.nn.sigmoid(i) * jnp.tanh(g)
        hidden = jax.nn.sigmoid(o) * jnp.tanh(cell)
        return (hidden, cell), hidden

    zero = jnp.zeros((drive.shape[1], recurrent.shape[0]), drive.dtype)
    return lax.scan(step, (zero, zero), drive)[1]


def example(dtype="float32", steps=T, lanes=()):
    """Gates large enough that some are shut and some are open."""
    rng = np.random.default_rng(1)
    drive, recurrent = (
        3 * rng.standard_normal((*lanes, steps, B, 4 * H)),
        rng.standard_normal((*lanes, H, 4 * H)),
    )
    return jnp.asarray(drive, dtype), jnp.asarray(recurrent, dtype)


def scalar(out):
    """One number that every element of the output has its own part in."""
    return jnp.sum(jnp.sin(jnp.arange(out.size, dtype=out.dtype).reshape(out.shape)) * out)


def slope(layer):
    return jax.value_and_grad(
        lambda drive, recurrent: scalar(layer(drive, recurrent)), argnums=(0, 1)
    )


def close(have, want, dtype="float32"):
    rtol, atol = DTYPES[dtype]
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=rtol, atol=atol), have, want)


@pytest.fixture(params=DTYPES)
def dtype(request):
    jax.config.update("jax_enable_x64", request.param == "float64")
    yield request.param
    jax.config.update("jax_enable_x64", False)


@pytest.mark.parametrize("steps", [1, 2, T])
def test_value_and_gradient_are_those_of_the_plain_scan(dtype, steps):
    inputs = example(dtype, steps)
    have = jax.jit(slope(lstm))(*inputs)
    assert {leaf.dtype for leaf in jax.tree.leaves(have)} == {jnp.dtype(dtype)}
    close(have, jax.jit(slope(plain))(*inputs), dtype)
    close(lstm(*inputs), plain(*inputs), dtype)


@pytest.mark.parametrize("shared", [False, True])
def test_lanes_are_as_one_at_a_time(dtype, shared):
    """With kernels of their own or one for all.

    The plain scan is not vmapped: jaxlib 0.10.2 gets that wrong in float64 on a CPU.
    """
    drive, recurrent = example(dtype, lanes=(3,))
    together = jax.jit(jax.vmap(slope(lstm), in_axes=(0, None if shared else 0)))(
        drive, recurrent[0] if shared else recurrent
    )
    alone = jax.jit(slope(plain))
    for lane in range(3):
        close(
            tree.take(together, jnp.int32(lane)),
            alone(drive[lane], recurrent[0 if shared else lane]),
            dtype,
        )


def test_second_derivatives_are_those_of_the_plain_scan(dtype):
    inputs, direction = example(dtype), tree.scale(0.1, example(dtype))

    def along(layer, *inputs):
        return jax.tree.reduce(jnp.add, jax.tree.map(jnp.vdot, slope(layer)(*inputs)[1], direction))

    have, want = (
        jax.jit(jax.grad(lambda *x, layer=layer: along(layer, *x), argnums=(0, 1)))(*inputs)
        for layer in (lstm, plain)
    )
    close(have, want, dtype)
    forward = jax.jit(lambda *x: jax.jvp(slope(lstm), x, direction)[1][1])(
        *inputs
    )  # the product is symmetric
    close(forward, want, dtype)


def test_the_gradient_passes_through_training(dtype):
    """Two steps of SGD and the loss after them, differentiated by the parameters before and the
    step size.
    """
    drive, start = example(dtype)

    def trained(layer, recurrent, lr):
        def step(recurrent, _):
            return recurrent - lr * slope(layer)(drive, recurrent)[1][1], None

        return scalar(layer(drive, lax.scan(step, recurrent, length=2)[0]))

    lr = jnp.asarray(0.01, dtype)
    have, want = (
        jax.jit(jax.grad(lambda r, lr, layer=layer: trained(layer, r, lr), argnums=(0, 1)))(
            start, lr
        )
        for layer in (lstm, plain)
    )
    close(have, want, dtype)


def test_the_weight_gradient_is_one_product_after_the_loop():
    def products(program):
        return [
            eqn.outvars[0].aval.shape
            for eqn in equations(program)
            if eqn.primitive.name == "dot_general"
        ]

    program = jax.make_jaxpr(slope(lstm))(*example()).jaxpr
    loops = [
        eqn.params["jaxpr"].jaxpr for eqn in equations(program) if eqn.primitive.name == "scan"
    ]
    assert [products(loop) for loop in loops] == [[(B, 4 * H)], [(B, H)]]  # forward, and back
    assert sorted(products(program)) == sorted([(B, H), (B, 4 * H), (H, 4 * H)])


def test_layer_equals_flax():
    x = jax.random.normal(KEY, (T, B, D))
    theirs, ours = nn.RNN(nn.OptimizedLSTMCell(H), time_major=True), LSTM(H)
    params = jax.jit(theirs.init)(KEY, x)["params"]["cell"]

    def side(letter, leaf):
        return jnp.concatenate([params[letter + gate][leaf] for gate in "ifgo"], -1)

    same = {
        "input": {"kernel": side("i", "kernel"), "bias": side("h", "bias")},
        "recurrent": side("h", "kernel"),
    }
    assert jax.tree.map(jnp.shape, same) == jax.tree.map(
        jnp.shape, jax.eval_shape(ours.init, KEY, x)["params"]
    )

    want, slopes = jax.jit(
        jax.value_and_grad(
            lambda p, x: scalar(theirs.apply({"params": {"cell": p}}, x)), argnums=(0, 1)
        )
    )(params, x)
    have, grads = jax.jit(
        jax.value_and_grad(lambda p, x: scalar(ours.apply({"params": p}, x)), argnums=(0, 1))
    )(same, x)
    params = slopes[0]
    close((have, grads[1], grads[0]["recurrent"]), (want, slopes[1], side("h", "kernel")))
    close(grads[0]["input"], {"kernel": side("i", "kernel"), "bias": side("h", "bias")})


def test_forget_gates_start_open():
    bias = jax.tree.leaves(LSTM(H).init(KEY, jnp.zeros((T, B, D))))[0]
    np.testing.assert_array_equal(bias.reshape(4, H), np.array([0, 1, 0, 0])[:, None] * np.ones(H))


def test_half_precision_stays_half():
    drive, recurrent = example(jnp.bfloat16)
    out, grads = jax.jit(slope(lstm))(drive, recurrent)
    assert {leaf.dtype for leaf in jax.tree.leaves((out, grads))} == {jnp.dtype("bfloat16")}
    wide = slope(plain)(drive.astype(jnp.float32), recurrent.astype(jnp.float32))[1]
    for have, want in zip(grads, wide, strict=True):
        assert np.linalg.norm(have.astype(jnp.float32) - want) < 0.05 * np.linalg.norm(want)


class Plain(nn.Module):
    """The zoo's model around the plain scan, with parameters of the same names."""

    @nn.compact
    def __call__(self, x):
        x = nn.Embed(9, 3, name="embedding_of_tokens")(x.T)
        for layer in range(2):
            name = f"lstm_{layer}"
            x = plain(*PlainParameters(name=name)(x))
        return nn.Dense(9, name="head")(x).swapaxes(0, 1)


class PlainParameters(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.Dense(4 * H, name="input")(x), self.param(
            "recurrent", nn.initializers.zeros, (H, 4 * H)
        )


ENGINES = {
    "padded": Engine("padded", devices=1),
    "one lane": Engine("queue", lanes=1, devices=1),
    "three lanes": Engine("queue", lanes=3, devices=1),
    "two devices": Engine("queue", lanes=1, devices=2),
}


@pytest.fixture(scope="module")
def rounds():
    """``(model, engine) -> Variables`` after two rounds of three ragged clients."""
    sizes = np.array([5, 2, 8])
    x = np.random.default_rng(2).integers(0, 9, (int(sizes.sum()), T)).astype(np.int32)
    data = population(x, np.roll(x, -1, axis=1), np.concatenate([[0], np.cumsum(sizes)]))
    start = Variables(*models.char_lstm(9, H, embedding=3).init(KEY, x[:1]))

    def run(model, engine):
        algorithm = REGISTRY["fedavg"].factory(classification(model), lr=0.5)
        program = make_round(algorithm, samplers.full(), data, local_work(3), engine)
        state = program.init(start)
        for _ in range(2):
            state, _ = program.run(state)
        return algorithm.variables(state.algorithm)

    return run


@pytest.fixture(scope="module")
def plain_rounds(rounds):
    return rounds(from_linen(Plain()), ENGINES["padded"])


@pytest.mark.parametrize("engine", ENGINES)
def test_federated_rounds_are_those_of_the_plain_scan(rounds, plain_rounds, engine):
    close(rounds(models.char_lstm(9, H, embedding=3), ENGINES[engine]), plain_rounds)


@pytest.mark.parametrize(
    ("build", "says"),
    [
        (
            lambda: lstm(jnp.zeros((T, B, 4 * H)), jnp.zeros((H, 3 * H))),
            r"\[7, 4, 20\] and float32\[5, 15\]",
        ),
        (
            lambda: lstm(jnp.zeros((T, B, 3 * H)), jnp.zeros((H, 4 * H))),
            "concatenate the four gates along the last axis",
        ),
        (lambda: lstm(jnp.zeros((0, B, 4 * H)), jnp.zeros((H, 4 * H))), r"\[0, 4, 20\]"),
        (lambda: lstm(jnp.zeros((B, 4 * H)), jnp.zeros((H, 4 * H))), "with the time axis first"),
        (lambda: lstm(jnp.zeros((T, B, 4 * H), jnp.bfloat16), jnp.zeros((H, 4 * H))), "one dtype"),
        (lambda: LSTM(H).init(KEY, jnp.zeros((B, D))), r"\[4, 3\]"),
        (lambda: LSTM(0).init(KEY, jnp.zeros((T, B, D))), "width must be positive"),
    ],
)
def test_mistakes_are_named(build, says):
    with pytest.raises(FedError, match=says):
        build()
