"""Rewrites traced functions into forms that XLA's CPU backend runs fast in a loop and under vmap.

Users' models need no change.

*Convolutions.* XLA brings a convolution into the layout of its fast CPU kernel (NHWC inputs, HWIO
kernels, no window reversal) only in a program's entry computation. In a ``while`` body the same
convolution, above all its gradient, runs on a slow single-threaded path (jax issue 12868). So every
``conv_general_dilated``, forward and backward, becomes transposes around the canonical one.

*Transposed products.* The gradient of a weight is written as ``(g' x)'``. XLA folds this transpose
into a plain product, but not into the batched one that vmapped lanes make of it, and then every
step transposes every weight. So it is written as ``x' g`` before vmap.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import jax
from jax import lax
from jax.extend import core

from fedjax_sim.core.types import Array

CALLS = frozenset(
    {
        "jit",
        "pjit",
        "closed_call",
        "core_call",
        "custom_jvp_call",
        "custom_vjp_call",
        "custom_vjp_call_jaxpr",
    }
)
"""Primitives that only call the program they contain. (A ``reduce`` contains one too: its
operator.)"""
CHECKPOINTS = frozenset({"checkpoint", "remat", "remat2"})
"""Primitives of ``jax.checkpoint``."""
OPTIONS = (
    "window_strides",
    "padding",
    "lhs_dilation",
    "rhs_dilation",
    "feature_group_count",
    "batch_group_count",
    "precision",
    "preferred_element_type",
)
"""Parameters of a convolution besides its operands and their layout."""
Convolution = Callable[..., Array]
"""``(lhs, rhs, **options) -> out`` of ``[N, spatial..., I]`` and ``[spatial..., I, O]``, such as
:func:`native`."""


def has_convolution(fn: Callable, *args: Any) -> bool:
    """Returns True if the function contains a convolution.

    Args:
      fn: a function of arrays.
      *args: arguments to trace it with, arrays or shapes.
    """
    return any(
        eqn.primitive.name == "conv_general_dilated"
        for eqn in equations(jax.make_jaxpr(fn)(*args).jaxpr)
    )


def equations(jaxpr: Any) -> Iterator[Any]:
    """Yields every equation of a jaxpr, those of inner programs included."""
    for eqn in jaxpr.eqns:
        yield eqn
        for inner in jax.tree.leaves(list(eqn.params.values()), is_leaf=_is_program):
            if _is_program(inner):
                yield from equations(getattr(inner, "jaxpr", inner))


def native(lhs: Array, rhs: Array, **options: Any) -> Array:
    """Computes a convolution with XLA, in the canonical layout.

    Args:
      lhs: inputs ``[N, spatial..., I]``.
      rhs: kernels ``[spatial..., I, O]``.
      **options: as for ``lax.conv_general_dilated``, except the layout.

    Returns:
      ``[N, spatial..., O]``.
    """
    last = lhs.ndim - 1
    inner = tuple(range(1, last))
    numbers = lax.ConvDimensionNumbers(
        (0, last, *inner), (last, last - 1, *range(last - 1)), (0, last, *inner)
    )
    return lax.conv_general_dilated(lhs, rhs, dimension_numbers=numbers, **options)


def canonical(fn: Callable, convolution: Convolution = native) -> Callable:
    """Returns a function with its convolutions and transposed products rewritten.

    Args:
      fn: a function of arrays; it may close over values of an outer trace.
      convolution: replaces each convolution, in the canonical layout.

    Example:
      >>> import jax
      >>> import jax.numpy as jnp
      >>> from jax import lax
      >>> from fedjax_sim.engine.xla.rewrite import canonical
      >>> def convolve(x, w):
      ...     return lax.conv_general_dilated(x, w, (1,), "SAME")
      >>> image = jnp.arange(4.0).reshape(1, 1, 4)
      >>> kernel = jnp.ones((1, 1, 3))
      >>> canonical(convolve)(image, kernel)
      Array([[[1., 3., 6., 5.]]], dtype=float32)
    """

    def rewritten(*args: Any) -> Any:
        closed, shape = jax.make_jaxpr(fn, return_shape=True)(*args)
        out = _callable(closed, convolution)(*jax.tree.leaves(args))
        return jax.tree.unflatten(jax.tree.structure(shape), out)

    return rewritten


def _evaluate(
    convolution: Convolution, jaxpr: Any, consts: list[Any], args: list[Any]
) -> list[Any]:
    """Evaluates a jaxpr equation by equation, convolutions and transposed products rewritten."""
    values: dict[Any, Any] = dict(zip(jaxpr.constvars, consts, strict=True)) | dict(
        zip(jaxpr.invars, args, strict=True)
    )
    products: dict[Any, Any] = {}

    def read(atom: Any) -> Any:
        return atom.val if isinstance(atom, core.Literal) else values[atom]

    for eqn in jaxpr.eqns:
        if eqn.primitive.name == "dot_general":
            products[eqn.outvars[0]] = eqn
        is_transpose = eqn.primitive.name == "transpose" and eqn.invars
        product = products.get(eqn.invars[0]) if is_transpose else None
        if product is not None and _swaps_factors(eqn.params["permutation"], product):
            results = [_swapped(*(read(atom) for atom in product.invars), **product.params)]
        else:
            results = _apply(convolution, eqn, [read(atom) for atom in eqn.invars])
        values.update(zip(eqn.outvars, results, strict=True))
    return [read(atom) for atom in jaxpr.outvars]


def _swaps_factors(permutation: tuple[int, ...], product: Any) -> bool:
    """Returns True if a transpose of a product only exchanges the dimensions of its two factors."""
    (contract, _), (batch, _) = product.params["dimension_numbers"]
    left = len(batch)
    right = product.invars[0].aval.ndim - len(contract)
    dimensions = range(len(permutation))
    exchanged = (*dimensions[:left], *dimensions[right:], *dimensions[left:right])
    return tuple(permutation) == exchanged


def _swapped(lhs: Array, rhs: Array, *, dimension_numbers: Any, **params: Any) -> Array:
    """Computes the product with its factors exchanged."""
    (contract_lhs, contract_rhs), (batch_lhs, batch_rhs) = dimension_numbers
    numbers = ((contract_rhs, contract_lhs), (batch_rhs, batch_lhs))
    options = {k: params[k] for k in ("precision", "preferred_element_type")}
    return lax.dot_general(rhs, lhs, numbers, **options)


def _apply(convolution: Convolution, eqn: Any, args: list[Any]) -> list[Any]:
    """Evaluates one equation.

    Plain calls are inlined, which loses custom derivatives, so the function must be differentiated
    before it is rewritten. Loops and branches are rebuilt around their rewritten bodies.
    """
    name = eqn.primitive.name
    params = eqn.params
    if name == "conv_general_dilated":
        return [_convolve(convolution, args[0], args[1], params["dimension_numbers"], params)]
    if name == "scan":
        return _scan(convolution, eqn, args)
    if name == "while":
        return _while(convolution, args, params)
    if name == "cond":
        branches = [_callable(branch, convolution) for branch in params["branches"]]
        return lax.switch(args[0], branches, *args[1:])
    if name in CALLS:
        program = next(params[key] for key in ("jaxpr", "call_jaxpr", "fun_jaxpr") if key in params)
        return _callable(program, convolution)(*args)
    if name in CHECKPOINTS:
        params = params | _rewritten_body(convolution, params["jaxpr"], args)
    return _bind(eqn.primitive, params, args)


def _bind(primitive: Any, params: dict[str, Any], args: list[Any]) -> list[Any]:
    bind_params = primitive.get_bind_params(params)
    if isinstance(bind_params, tuple):  # JAX 0.9 and older
        functions, params = bind_params
        out = primitive.bind(*functions, *args, **params)
    else:
        out = primitive.bind(*args, **bind_params)
    return out if primitive.multiple_results else [out]


def _rewritten_body(convolution: Convolution, program: Any, args: list[Any]) -> dict[str, Any]:
    """Returns a checkpoint's rewritten body, as new parameters of its equation.

    They are empty, so that the checkpoint stays unchanged, if the new body would contain constants.
    """
    closed = jax.make_jaxpr(_callable(program, convolution))(*args)
    return {} if closed.consts else {"jaxpr": closed.jaxpr}


def _scan(convolution: Convolution, eqn: Any, args: list[Any]) -> list[Any]:
    body = _callable(eqn.params["jaxpr"], convolution)
    fixed, carried = _scan_counts(eqn)

    def step(carry: list[Any], xs: list[Any]) -> tuple[list[Any], list[Any]]:
        out = body(*args[:fixed], *carry, *xs)
        return out[:carried], out[carried:]

    xs = args[fixed + carried :]
    options = {k: eqn.params[k] for k in ("length", "reverse", "unroll")}
    carry, ys = lax.scan(step, args[fixed : fixed + carried], xs, **options)
    return [*carry, *ys]


def _scan_counts(eqn: Any) -> tuple[int, int]:
    """Returns a scan's number of constants and of carried operands.

    JAX stores these numbers differently up to 0.10 and since. Both can be counted without them: an
    operand that is scanned over has one axis more outside the body than inside.
    """
    body = getattr(eqn.params["jaxpr"], "jaxpr", eqn.params["jaxpr"])

    def not_scanned(outer: list[Any], inner: list[Any]) -> int:
        pairs = zip(outer, inner, strict=True)
        return sum(outside.aval.ndim == inside.aval.ndim for outside, inside in pairs)

    carried = not_scanned(eqn.outvars, body.outvars)
    return not_scanned(eqn.invars, body.invars) - carried, carried


def _while(convolution: Convolution, args: list[Any], params: dict[str, Any]) -> list[Any]:
    test = _callable(params["cond_jaxpr"], convolution)
    body = _callable(params["body_jaxpr"], convolution)
    test_end = params["cond_nconsts"]
    body_end = test_end + params["body_nconsts"]
    test_consts = args[:test_end]
    body_consts = args[test_end:body_end]
    return lax.while_loop(
        lambda carry: test(*test_consts, *carry)[0],
        lambda carry: body(*body_consts, *carry),
        args[body_end:],
    )


def _callable(program: Any, convolution: Convolution) -> Callable[..., list[Any]]:
    """Returns a jaxpr, rewritten, as a function of flat arguments."""
    jaxpr = getattr(program, "jaxpr", program)
    consts = getattr(program, "consts", [])
    return lambda *args: _evaluate(convolution, jaxpr, consts, list(args))


def _is_program(value: Any) -> bool:
    return isinstance(value, core.ClosedJaxpr | core.Jaxpr)


def _convolve(
    convolution: Convolution,
    lhs: Array,
    rhs: Array,
    dimension_numbers: lax.ConvDimensionNumbers,
    options: Any,
) -> Array:
    """Computes a convolution of any layout as transposes around one in the canonical layout."""
    spatial = range(2, lhs.ndim)
    lhs_spec, rhs_spec, out_spec = dimension_numbers
    lhs = lax.transpose(lhs, [lhs_spec[0], *(lhs_spec[i] for i in spatial), lhs_spec[1]])
    rhs = lax.transpose(rhs, [*(rhs_spec[i] for i in spatial), rhs_spec[1], rhs_spec[0]])
    out = convolution(lhs, rhs, **{name: options[name] for name in OPTIONS})
    canonical_axes = (out_spec[0], *(out_spec[i] for i in spatial), out_spec[1])
    inverse = [0] * out.ndim
    for place, axis in enumerate(canonical_axes):
        inverse[axis] = place
    return lax.transpose(out, inverse)
