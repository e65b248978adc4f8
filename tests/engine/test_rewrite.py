"""Rewritten functions compute what they did before, and in the form they were rewritten for."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from fedjax_sim.engine.xla import convolutions as products
from fedjax_sim.engine.xla.rewrite import canonical, equations, has_convolution, native

KEY = jax.random.key(0)
IMAGES, KERNEL, WEIGHTS, ROWS = (
    np.random.default_rng(0).standard_normal(shape, np.float32)
    for shape in ((2, 8, 8, 4), (3, 3, 4, 6), (5, 3), (7, 5))
)
"""Numpy's, so that collecting the tests compiles nothing."""


def conv(x, w, **options):
    options = {
        "window_strides": (1, 1),
        "padding": "SAME",
        "dimension_numbers": ("NHWC", "HWIO", "NHWC"),
        **options,
    }
    return lax.conv_general_dilated(x, w, **options)


def loss(x, w, **options):
    return jnp.sum(jnp.sin(conv(x, w, **options)))


def in_scan(x, w):
    return lax.scan(
        lambda carry, scale: (carry + loss(x * scale, w), carry), 0.0, jnp.arange(1.0, 4.0)
    )


def in_cond(x, w):
    return lax.cond(jnp.sum(x) > 0, lambda: loss(x, w), lambda: loss(-x, w))


def in_while(x, w):
    return lax.while_loop(lambda s: s[0] < 3, lambda s: (s[0] + 1, s[1] + loss(x, w)), (0, 0.0))


def dense(w, x):
    return jnp.sum(jnp.tanh(x @ w) ** 2)


FUNCTIONS = {
    "same": (conv, IMAGES, KERNEL),
    "strides": (lambda x, w: conv(x, w, window_strides=(2, 1)), IMAGES, KERNEL),
    "dilation": (
        lambda x, w: conv(x, w, rhs_dilation=(2, 2), lhs_dilation=(1, 2), padding=((1, 2), (0, 1))),
        IMAGES,
        KERNEL,
    ),
    "groups": (lambda x, w: conv(x, w, feature_group_count=2), IMAGES, KERNEL[:, :, :2]),
    "other layout": (
        lambda x, w: conv(x, w, dimension_numbers=("NCHW", "OIHW", "NCHW")),
        IMAGES.transpose(0, 3, 1, 2),
        KERNEL.transpose(3, 2, 0, 1),
    ),
    "gradients": (jax.grad(loss, argnums=(0, 1)), IMAGES, KERNEL),
    "gradients with gaps": (
        jax.grad(
            lambda x, w: loss(
                x, w, rhs_dilation=(2, 1), lhs_dilation=(1, 2), padding=((1, 2), (0, 1))
            ),
            argnums=(0, 1),
        ),
        IMAGES,
        KERNEL,
    ),
    "gradients of places that nothing meets": (
        jax.grad(lambda x, w: loss(x, w, window_strides=(2, 2), padding="VALID"), argnums=(0, 1)),
        IMAGES,
        KERNEL,
    ),
    "gradients of each image": (
        jax.vmap(jax.grad(lambda w, x: loss(x[None], w)), in_axes=(None, 0)),
        KERNEL,
        IMAGES,
    ),
    "strided gradients": (
        jax.grad(lambda x, w: loss(x, w, window_strides=(2, 2)), argnums=(0, 1)),
        IMAGES,
        KERNEL,
    ),
    "scan": (jax.grad(lambda x, w: in_scan(x, w)[0], argnums=1), IMAGES, KERNEL),
    "cond": (in_cond, IMAGES, KERNEL),
    "while": (in_while, IMAGES, KERNEL),
    "jit": (jax.jit(loss), IMAGES, KERNEL),
    "one dimension": (
        lambda x, w: conv(x, w, window_strides=(1,), dimension_numbers=("NWC", "WIO", "NWC")),
        IMAGES[:, 0],
        KERNEL[0],
    ),
    "dense gradient": (jax.grad(dense), WEIGHTS, ROWS),
    "a reduce with an operator of its own": (
        lambda x: lax.reduce(x, 0.0, lambda a, b: a + b * 1.0, (1,)),
        ROWS,
    ),
    "a window with an operator of its own": (
        lambda x: lax.reduce_window(x, 0.0, lambda a, b: a + b * 1.0, (2, 2), (1, 1), "VALID"),
        ROWS,
    ),
    "hypot": (jnp.hypot, ROWS, ROWS + 1),
    "custom derivative": (jax.grad(lambda x: jnp.sum(jax.nn.relu(x) * jax.nn.logsumexp(x))), ROWS),
    "checkpoint": (jax.grad(lambda x: jnp.sum(jax.checkpoint(jnp.sin)(x))), ROWS),
    "convolutions in a checkpoint": (
        jax.grad(lambda x, w: jax.checkpoint(loss)(x, w)),
        IMAGES,
        KERNEL,
    ),
    "nothing to convolve": (lambda x, w: conv(x, w, padding="VALID"), IMAGES[:, :2], KERNEL),
    "a kernel of many places": (
        conv,
        np.tile(IMAGES, (1, 2, 2, 1)),
        np.tile(KERNEL, (3, 3, 1, 1)),
    ),
    "sort and scatter": (lambda x: jnp.zeros((7, 5)).at[jnp.argsort(x[:, 0])].set(x), ROWS),
}


TRANSFORMS = {"plain": lambda f: f, "jit": jax.jit, "vmap": lambda f: jax.jit(jax.vmap(f))}
ALSO = {
    "plain": ("same", "scan", "jit"),
    "vmap": ("same", "groups", "strided gradients", "scan", "cond", "while", "dense gradient"),
}
"""Functions that are transformed otherwise than by ``jit``; all the others are in slow tests."""


def transformed():
    for transform in TRANSFORMS:
        for name in FUNCTIONS:
            often = transform == "jit" or name in ALSO[transform]
            marks = [] if often else [pytest.mark.slow]
            yield pytest.param(name, transform, id=f"{transform}-{name}", marks=marks)


@pytest.mark.parametrize(("name", "transform"), list(transformed()))
@pytest.mark.parametrize(
    "convolution",
    [native, products.convolve, products.convolve_gradients],
    ids=["convolutions", "products", "gradients"],
)
def test_the_same_numbers(name, transform, convolution, monkeypatch):
    fn, *args = FUNCTIONS[name]
    monkeypatch.setattr(products, "MIN_POSITIONS", 1)
    monkeypatch.setattr(products, "MIN_IMAGES", 1)
    if transform == "vmap":
        args = [np.stack([a, a / 2]) for a in args]
    transform = TRANSFORMS[transform]
    got, wanted = transform(canonical(fn, convolution))(*args), transform(fn)(*args)
    assert jax.tree.structure(got) == jax.tree.structure(wanted)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(
            a, b, rtol=2e-5, atol=1e-5 * (1 + np.abs(b).max(initial=0))
        ),
        got,
        wanted,
    )


def test_it_may_close_over_an_outer_trace():
    got = jax.jit(lambda x, w: canonical(lambda x: conv(x, w))(x))(IMAGES, KERNEL)
    np.testing.assert_allclose(got, conv(IMAGES, KERNEL), rtol=1e-5, atol=1e-5)


def test_every_convolution_is_canonical():
    fn, *args = FUNCTIONS["strided gradients"]
    found = [
        e
        for e in equations(jax.make_jaxpr(canonical(fn))(*args).jaxpr)
        if e.primitive.name == "conv_general_dilated"
    ]
    assert len(found) >= 2
    for eqn in found:
        assert tuple(eqn.params["dimension_numbers"]) == ((0, 3, 1, 2), (3, 2, 0, 1), (0, 3, 1, 2))


NATIVE = ("groups", "gradients of each image", "nothing to convolve", "a kernel of many places")


@pytest.mark.parametrize("name", [name for name in FUNCTIONS if name not in NATIVE])
def test_no_convolution_is_left_among_products_but_one_of_groups(name):
    fn, *args = FUNCTIONS[name]
    assert not has_convolution(canonical(fn, products.convolve), *args)


@pytest.mark.parametrize("name", NATIVE)
def test_some_convolutions_stay(name):
    fn, *args = FUNCTIONS[name]
    assert has_convolution(canonical(fn, products.convolve), *args)


@pytest.mark.parametrize(("size", "channels", "convolutions"), [(16, 8, 2), (15, 8, 3), (16, 7, 3)])
def test_a_kernels_gradient_over_large_images_is_a_product_for_each(size, channels, convolutions):
    x, w = jnp.ones((2, size, size, channels)), jnp.ones((3, 3, channels, 6))
    found = [
        e.primitive.name
        for e in equations(
            jax.make_jaxpr(canonical(FUNCTIONS["gradients"][0], products.convolve_gradients))(
                x, w
            ).jaxpr
        )
    ]
    assert found.count("conv_general_dilated") == convolutions
    assert found.count("scan") == found.count("dot_general") == 3 - convolutions


def test_products_of_narrow_numbers_are_added_up_in_wide_ones():
    x, w = jax.random.normal(KEY, (2, 8, 8, 64)), jax.random.normal(KEY, (5, 5, 64, 16))
    got = canonical(conv, products.convolve)(x.astype(jnp.bfloat16), w.astype(jnp.bfloat16))
    want = conv(
        x.astype(jnp.bfloat16).astype(jnp.float32), w.astype(jnp.bfloat16).astype(jnp.float32)
    )
    assert got.dtype == jnp.bfloat16
    assert jnp.linalg.norm(got - want) < 0.0025 * jnp.linalg.norm(want)


def test_images_of_narrow_numbers_are_added_up_in_wide_ones():
    x, w = (
        jax.random.normal(KEY, (64, 16, 16, 8)).astype(jnp.bfloat16),
        jnp.ones((3, 3, 8, 4), jnp.bfloat16),
    )
    fn = jax.grad(lambda w, x: jnp.sum(conv(x, w).astype(jnp.float32)))
    got, want = (
        canonical(fn, products.convolve_gradients)(w, x),
        fn(w.astype(jnp.float32), x.astype(jnp.float32)),
    )
    assert got.dtype == jnp.bfloat16
    assert jnp.linalg.norm(got - want) < 0.0025 * jnp.linalg.norm(want)


def test_functions_that_primitives_hold_are_handed_on():
    mesh = jax.sharding.Mesh(np.array(jax.devices()[:1]), ("x",))
    spec = jax.sharding.PartitionSpec()
    inner = jax.shard_map(jnp.sin, mesh=mesh, in_specs=spec, out_specs=spec)
    np.testing.assert_allclose(
        jax.jit(canonical(lambda x: inner(x) + 1))(ROWS), jnp.sin(ROWS) + 1, rtol=1e-6
    )


@pytest.mark.parametrize("channels", [(4, 2), (2, 4)], ids=["fewer channels", "more channels"])
def test_a_product_comes_first_where_it_is_smaller(channels):
    x, w = jax.random.normal(KEY, (2, 8, 8, channels[0])), jax.random.normal(KEY, (3, 3, *channels))
    got = canonical(conv, products.convolve)
    (product,) = [
        e for e in equations(jax.make_jaxpr(got)(x, w).jaxpr) if e.primitive.name == "dot_general"
    ]
    contracted = product.invars[0].aval.shape[-1]
    assert contracted == (channels[0] if channels[1] < channels[0] else 9 * channels[0])
    np.testing.assert_allclose(got(x, w), conv(x, w), rtol=1e-5, atol=1e-5)


def test_a_weights_gradient_is_not_transposed():
    def transposes(fn):
        return sum(
            e.primitive.name == "transpose"
            for e in equations(jax.make_jaxpr(fn)(WEIGHTS, ROWS).jaxpr)
        )

    def live(fn):
        return jax.jit(fn).lower(WEIGHTS, ROWS).as_text().count("stablehlo.transpose")

    assert transposes(jax.grad(dense)) == 1
    assert live(canonical(jax.grad(dense))) == 0


@pytest.mark.parametrize(
    ("name", "answer"),
    [("scan", True), ("cond", True), ("jit", True), ("dense gradient", False), ("hypot", False)],
)
def test_convolutions_are_found_wherever_they_are(name, answer):
    fn, *args = FUNCTIONS[name]
    assert has_convolution(fn, *args) is answer
