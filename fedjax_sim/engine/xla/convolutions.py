"""Convolutions as matrix products: all of them for GPUs, where lanes run side by side, and some gradients for CPUs.

Every lane has kernels of its own, so vmap makes of a convolution a grouped one, with a group for each lane, and that is not what
libraries of convolutions are good at, above all its gradients. A product with a lane axis is a batched product, which they are.

With ``x [N, S, I]``, ``w [K, I, O]`` and ``y [N, R, O]`` (``S``, ``K`` and ``R`` are all places of an image, a kernel and a result),
``y[n, r] = sum_k x[n, r + k] w[k]`` is one of three products, whichever moves least:

* windows of the input first: ``concat_k x[n, r + k]``, of length ``K I``, times ``w``;
* the product first, where it has fewer channels than the input: ``x w[k]`` for all k at every place, of length ``K O``, then added up;
* for the gradient of a kernel, whose "kernel" is as large as an image and whose result is as small as a kernel: windows
  ``concat_r x[n, r + k]`` of length ``R N``, the very ones of the way forward, times ``w`` over all places and images.

On a CPU convolutions are as fast as products, but for that last gradient, which XLA's newer kernels compute at a third of the rate. There
it is a sum over images, the windows of one at a time, as long as a core's cache holds them.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import lax

from fedjax_sim.core.types import Array
from fedjax_sim.engine.xla.rewrite import native

Space = tuple[int, ...]
"""Numbers for each spatial axis."""


MOST = 64
"""Windows that are worth cutting out: every one is an operation of its own to the compiler."""
LARGE, DEEP, CACHED = 256, 8, 2**20
"""From so many places and channels on a CPU computes a kernel's gradient faster image by image, up to so many numbers in windows."""


def convolve(lhs: Array, rhs: Array, **options: Any) -> Array:
    """The convolution, see :func:`fedjax_sim.engine.xla.rewrite.native`, as a product; as it is where it has groups already, where a kernel has
    more than :data:`MOST` places, and where nothing comes of it."""
    over = _places(lhs, rhs, **options)
    if not _worth(over, **options):
        return native(lhs, rhs, **options)
    return _product(_suited(over, rhs.shape), lhs, rhs, over, **options)


def convolve_gradients(lhs: Array, rhs: Array, **options: Any) -> Array:
    """The same, where only a kernel's gradient becomes a product, one image at a time: over :data:`LARGE` and :data:`DEEP` images whose
    windows are no more than :data:`CACHED` numbers. (So does a convolution with a kernel as large as that, which is the same thing.)"""
    over = _places(lhs, rhs, **options)
    places, channels = math.prod(over.kernel), lhs.shape[0]
    small = places * math.prod(over.result) * channels <= CACHED
    if not (places >= LARGE and channels >= DEEP and small and _worth(over, **options)):
        return native(lhs, rhs, **options)
    return _product(_by_image, lhs, rhs, over, **options)


def _worth(over: _Places, *, feature_group_count: int, batch_group_count: int, **_: Any) -> bool:
    """Whether there are windows to cut out, and not too many."""
    grouped = feature_group_count > 1 or batch_group_count > 1
    return (
        not grouped
        and min(over.result) >= 1
        and 0 < min(math.prod(over.kernel), math.prod(over.result)) <= MOST
    )


def _product(
    how: Callable[..., Array],
    lhs: Array,
    rhs: Array,
    over: _Places,
    *,
    precision: Any,
    preferred_element_type: Any,
    **_: Any,
) -> Array:
    """The convolution in one of the ways below; sums are in float32 in all of them."""
    wanted = jnp.dtype(preferred_element_type or lhs.dtype)
    wide = jnp.promote_types(wanted, jnp.float32)
    return how(
        functools.partial(lax.dot_general, precision=precision, preferred_element_type=wide),
        lhs,
        rhs,
        over,
    ).astype(wanted)


def _places(
    lhs: Array,
    rhs: Array,
    *,
    window_strides: Space,
    padding: Sequence[tuple[int, int]],
    lhs_dilation: Space,
    rhs_dilation: Space,
    **_: Any,
) -> _Places:
    edges = [
        (low, high, apart - 1) for (low, high), apart in zip(padding, lhs_dilation, strict=True)
    ]
    kernel = rhs.shape[:-2]
    sizes = [
        n + low + high + (n - 1) * between
        for n, (low, high, between) in zip(lhs.shape[1:-1], edges, strict=True)
    ]
    reach = [(k - 1) * apart for k, apart in zip(kernel, rhs_dilation, strict=True)]
    result = tuple(
        (n - far - 1) // by + 1 for n, far, by in zip(sizes, reach, window_strides, strict=True)
    )
    return _Places(edges, kernel, rhs_dilation, result, window_strides)


def _suited(over: _Places, kernel: Space) -> Callable[..., Array]:
    """The product that moves least."""
    if math.prod(over.kernel) > math.prod(over.result):
        return _over_results
    plain = math.prod(over.stride) == 1 and not any(between for *_, between in over.edges)
    return _product_first if plain and kernel[-1] < kernel[-2] else _windows_first


class _Places(NamedTuple):
    """Where a convolution looks."""

    edges: list[tuple[int, int, int]]
    """Zeros around and between the input's places."""
    kernel: Space
    apart: Space
    """Of places of the kernel, in the input."""
    result: Space
    stride: Space
    """Of places of the result, in the input."""


def _windows_first(product: Callable[..., Array], lhs: Array, rhs: Array, over: _Places) -> Array:
    windows = _slices(_padded(lhs, over.edges), over.kernel, over.apart, over.result, over.stride)
    rows = jnp.concatenate(windows, axis=-1)
    return product(rows, rhs.reshape(-1, rhs.shape[-1]), (((rows.ndim - 1,), (0,)), ((), ())))


def _product_first(product: Callable[..., Array], lhs: Array, rhs: Array, over: _Places) -> Array:
    last, (inputs, outputs) = lhs.ndim - 1, rhs.shape[-2:]
    kernels = jnp.moveaxis(rhs, -2, 0).reshape(inputs, -1)
    shares = _padded(product(lhs, kernels, (((last,), (0,)), ((), ()))), over.edges)
    shifted = _slices(shares, over.kernel, over.apart, over.result, over.stride)
    parts = (share[..., k * outputs : (k + 1) * outputs] for k, share in enumerate(shifted))
    return functools.reduce(jnp.add, parts)


def _over_results(product: Callable[..., Array], lhs: Array, rhs: Array, over: _Places) -> Array:
    images = jnp.swapaxes(
        lhs, 0, -1
    )  # before zeros are added, so that it undoes how the gradient was laid out
    out = product(
        _rows(images, over),
        jnp.moveaxis(rhs, -2, 0).reshape(-1, rhs.shape[-1]),
        (((0,), (0,)), ((), ())),
    )
    return jnp.moveaxis(out.reshape(*over.result, lhs.shape[0], rhs.shape[-1]), -2, 0)


def _by_image(product: Callable[..., Array], lhs: Array, rhs: Array, over: _Places) -> Array:
    images, others = jnp.swapaxes(lhs, 0, -1), jnp.moveaxis(rhs, -2, 0)
    others = others.reshape(len(others), -1, others.shape[-1])

    def add(total: Array, pair: tuple[Array, Array]) -> tuple[Array, None]:
        image, other = pair  # the smaller factor comes first
        share = product(other, _rows(image[None], over), (((0,), (0,)), ((), ())))
        return total + share.astype(total.dtype), None

    none = jnp.zeros(
        (rhs.shape[-1], math.prod(over.result) * lhs.shape[0]),
        jnp.promote_types(lhs.dtype, jnp.float32),
    )
    total, _ = lax.scan(add, none, (images, others))
    return jnp.moveaxis(total.T.reshape(*over.result, lhs.shape[0], rhs.shape[-1]), -2, 0)


def _rows(images: Array, over: _Places) -> Array:
    """At every place of all images, what each place of the result meets there, side by side."""
    windows = _slices(
        _padded(images, over.edges), over.result, over.stride, over.kernel, over.apart
    )
    return jnp.concatenate(windows, axis=-1).reshape(-1, len(windows) * images.shape[-1])


def _padded(x: Array, edges: list[tuple[int, int, int]]) -> Array:
    """With zeros around and between its places."""
    return lax.pad(x, jnp.zeros((), x.dtype), [(0, 0, 0), *edges, (0, 0, 0)])


def _slices(x: Array, starts: Space, between: Space, lengths: Space, apart: Space) -> list[Array]:
    """From each of ``starts`` places that lie ``between`` from each other, ``lengths`` entries that lie ``apart``; both by spatial axis."""
    n, channels = x.shape[0], x.shape[-1]

    def at(place: Space) -> Array:
        first = [p * step for p, step in zip(place, between, strict=True)]
        last = [
            f + (length - 1) * step + 1
            for f, length, step in zip(first, lengths, apart, strict=True)
        ]
        return lax.slice(x, (0, *first, 0), (n, *last, channels), (1, *apart, 1))

    return [at(place) for place in itertools.product(*map(range, starts))]
