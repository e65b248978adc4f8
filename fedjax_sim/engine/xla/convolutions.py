"""Convolutions as matrix products: all of them on GPUs, and some gradients on CPUs.

Every lane has kernels of its own, so vmap turns a convolution into a grouped one with a group for
each lane. Convolution libraries are slow on these, above all on their gradients. A matrix product
with a lane axis is a batched product, on which they are fast.

With ``x [N, S, I]``, ``w [K, I, O]`` and ``y [N, R, O]`` (``S``, ``K`` and ``R`` are all positions
of an image, a kernel and a result), ``y[n, r] = sum_k x[n, r + k] w[k]`` is one of three products,
whichever moves the least data:

* windows of the input first: ``concat_k x[n, r + k]``, of length ``K I``, times ``w``;
* the product first, if it has fewer channels than the input: ``x w[k]`` for all k at every
  position, of length ``K O``, then summed;
* for the gradient of a kernel, whose "kernel" is as large as an image and whose result is as small
  as a kernel: windows ``concat_r x[n, r + k]`` of length ``R N``, the same as in the forward pass,
  times ``w`` over all positions and images.

On a CPU convolutions are as fast as products, except the last of these gradients, which XLA's newer
kernels compute at a third of the speed. There it is a sum over images, with the windows of one
image at a time, if these fit into a core's cache.
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
"""One number for each spatial axis."""

MAX_WINDOWS = 64
"""Most windows that are cut out; each of them is an operation of its own for the compiler."""
MIN_POSITIONS = 256
"""Fewest positions from which a CPU computes a kernel's gradient faster image by image."""
MIN_IMAGES = 8
"""Fewest images from which a CPU computes a kernel's gradient faster image by image."""
MAX_CACHED = 2**20
"""Most numbers in the windows of one image that a core's cache holds."""


class Geometry(NamedTuple):
    """The positions that a convolution reads."""

    edges: list[tuple[int, int, int]]
    """Zeros before, after and between the input's positions, for each spatial axis."""
    kernel: Space
    """Positions of the kernel."""
    dilation: Space
    """Distance between positions of the kernel, in the input."""
    result: Space
    """Positions of the result."""
    stride: Space
    """Distance between positions of the result, in the input."""


Product = Callable[..., Array]
"""``lax.dot_general`` with precision and dtype set."""


def convolve(lhs: Array, rhs: Array, **options: Any) -> Array:
    """Computes a convolution as a matrix product.

    It stays a convolution if it is grouped already, if neither the kernel nor the result has at
    most :data:`MAX_WINDOWS` positions, or if the result is empty.

    Args:
      lhs: inputs ``[N, spatial..., I]``.
      rhs: kernels ``[spatial..., I, O]``.
      **options: as for :func:`fedjax_sim.engine.xla.rewrite.native`.
    """
    geometry = _geometry(lhs, rhs, **options)
    if not _worthwhile(geometry, **options):
        return native(lhs, rhs, **options)
    return _as_product(_choose(geometry, rhs.shape), lhs, rhs, geometry, **options)


def convolve_gradients(lhs: Array, rhs: Array, **options: Any) -> Array:
    """Like :func:`convolve`, but only a kernel's gradient becomes a product, one image at a time.

    A convolution counts as such a gradient if its kernel has at least :data:`MIN_POSITIONS`
    positions, there are at least :data:`MIN_IMAGES` images, and the windows of one have at most
    :data:`MAX_CACHED` numbers. (So does any other convolution with a kernel of this size, which is
    the same computation.)
    """
    geometry = _geometry(lhs, rhs, **options)
    positions = math.prod(geometry.kernel)
    images = lhs.shape[0]
    cached = positions * math.prod(geometry.result) * images <= MAX_CACHED
    is_gradient = positions >= MIN_POSITIONS and images >= MIN_IMAGES and cached
    if not (is_gradient and _worthwhile(geometry, **options)):
        return native(lhs, rhs, **options)
    return _as_product(_by_image, lhs, rhs, geometry, **options)


def _worthwhile(
    geometry: Geometry, *, feature_group_count: int, batch_group_count: int, **_: Any
) -> bool:
    """Returns True if there are windows to cut out, and at most :data:`MAX_WINDOWS`."""
    grouped = feature_group_count > 1 or batch_group_count > 1
    windows = min(math.prod(geometry.kernel), math.prod(geometry.result))
    return not grouped and min(geometry.result) >= 1 and 0 < windows <= MAX_WINDOWS


def _as_product(
    how: Callable[..., Array],
    lhs: Array,
    rhs: Array,
    geometry: Geometry,
    *,
    precision: Any,
    preferred_element_type: Any,
    **_: Any,
) -> Array:
    """Computes the convolution with one of the functions below; all of them sum in float32."""
    dtype = jnp.dtype(preferred_element_type or lhs.dtype)
    wide = jnp.promote_types(dtype, jnp.float32)
    product = functools.partial(lax.dot_general, precision=precision, preferred_element_type=wide)
    return how(product, lhs, rhs, geometry).astype(dtype)


def _geometry(
    lhs: Array,
    rhs: Array,
    *,
    window_strides: Space,
    padding: Sequence[tuple[int, int]],
    lhs_dilation: Space,
    rhs_dilation: Space,
    **_: Any,
) -> Geometry:
    edges = [
        (low, high, distance - 1)
        for (low, high), distance in zip(padding, lhs_dilation, strict=True)
    ]
    kernel = rhs.shape[:-2]
    padded = [
        n + low + high + (n - 1) * between
        for n, (low, high, between) in zip(lhs.shape[1:-1], edges, strict=True)
    ]
    reach = [(k - 1) * distance for k, distance in zip(kernel, rhs_dilation, strict=True)]
    result = tuple(
        (n - far - 1) // stride + 1
        for n, far, stride in zip(padded, reach, window_strides, strict=True)
    )
    return Geometry(edges, kernel, rhs_dilation, result, window_strides)


def _choose(geometry: Geometry, kernel: Space) -> Callable[..., Array]:
    """Returns the product that moves the least data."""
    if math.prod(geometry.kernel) > math.prod(geometry.result):
        return _over_results
    dense = math.prod(geometry.stride) == 1 and not any(between for *_, between in geometry.edges)
    return _product_first if dense and kernel[-1] < kernel[-2] else _windows_first


def _windows_first(product: Product, lhs: Array, rhs: Array, geometry: Geometry) -> Array:
    padded = _pad(lhs, geometry.edges)
    windows = _slices(padded, geometry.kernel, geometry.dilation, geometry.result, geometry.stride)
    rows = jnp.concatenate(windows, axis=-1)
    return product(rows, rhs.reshape(-1, rhs.shape[-1]), (((rows.ndim - 1,), (0,)), ((), ())))


def _product_first(product: Product, lhs: Array, rhs: Array, geometry: Geometry) -> Array:
    inputs, outputs = rhs.shape[-2:]
    kernels = jnp.moveaxis(rhs, -2, 0).reshape(inputs, -1)
    shares = _pad(product(lhs, kernels, (((lhs.ndim - 1,), (0,)), ((), ()))), geometry.edges)
    shifted = _slices(shares, geometry.kernel, geometry.dilation, geometry.result, geometry.stride)
    parts = (share[..., k * outputs : (k + 1) * outputs] for k, share in enumerate(shifted))
    return functools.reduce(jnp.add, parts)


def _over_results(product: Product, lhs: Array, rhs: Array, geometry: Geometry) -> Array:
    # Before zeros are added, so that it cancels the transpose that laid out the gradient.
    images = jnp.swapaxes(lhs, 0, -1)
    rows = _rows(images, geometry)
    kernels = jnp.moveaxis(rhs, -2, 0).reshape(-1, rhs.shape[-1])
    out = product(rows, kernels, (((0,), (0,)), ((), ())))
    return jnp.moveaxis(out.reshape(*geometry.result, lhs.shape[0], rhs.shape[-1]), -2, 0)


def _by_image(product: Product, lhs: Array, rhs: Array, geometry: Geometry) -> Array:
    images = jnp.swapaxes(lhs, 0, -1)
    kernels = jnp.moveaxis(rhs, -2, 0)
    kernels = kernels.reshape(len(kernels), -1, kernels.shape[-1])

    def add(total: Array, pair: tuple[Array, Array]) -> tuple[Array, None]:
        image, kernel = pair
        # The smaller factor comes first.
        share = product(kernel, _rows(image[None], geometry), (((0,), (0,)), ((), ())))
        return total + share.astype(total.dtype), None

    zeros = jnp.zeros(
        (rhs.shape[-1], math.prod(geometry.result) * lhs.shape[0]),
        jnp.promote_types(lhs.dtype, jnp.float32),
    )
    total, _ = lax.scan(add, zeros, (images, kernels))
    return jnp.moveaxis(total.T.reshape(*geometry.result, lhs.shape[0], rhs.shape[-1]), -2, 0)


def _rows(images: Array, geometry: Geometry) -> Array:
    """Returns, for every kernel position of all images, the inputs of all results side by side."""
    padded = _pad(images, geometry.edges)
    windows = _slices(padded, geometry.result, geometry.stride, geometry.kernel, geometry.dilation)
    return jnp.concatenate(windows, axis=-1).reshape(-1, len(windows) * images.shape[-1])


def _pad(x: Array, edges: list[tuple[int, int, int]]) -> Array:
    """Adds zeros around and between the positions of ``x``."""
    return lax.pad(x, jnp.zeros((), x.dtype), [(0, 0, 0), *edges, (0, 0, 0)])


def _slices(
    x: Array, starts: Space, start_stride: Space, lengths: Space, stride: Space
) -> list[Array]:
    """Cuts one window out of ``x [N, spatial..., C]`` for every start.

    Args:
      x: the padded input.
      starts: number of starts along each spatial axis.
      start_stride: distance between starts.
      lengths: entries of a window along each spatial axis.
      stride: distance between the entries of a window.
    """
    n = x.shape[0]
    channels = x.shape[-1]

    def window(start: Space) -> Array:
        first = [p * distance for p, distance in zip(start, start_stride, strict=True)]
        last = [
            position + (length - 1) * distance + 1
            for position, length, distance in zip(first, lengths, stride, strict=True)
        ]
        return lax.slice(x, (0, *first, 0), (n, *last, channels), (1, *stride, 1))

    return [window(start) for start in itertools.product(*map(range, starts))]
