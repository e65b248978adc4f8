"""Traced functions rewritten into forms that XLA's CPU backend runs fast inside a loop and under vmap. Users' models need no change.

*Convolutions.* XLA brings a convolution into the layout its fast CPU kernel takes (NHWC inputs, HWIO kernels, no window reversal) only
in a program's entry computation. Inside a ``while`` body the same convolution, above all its gradient, runs on a naive
single-threaded path (jax issue 12868). So every ``conv_general_dilated``, forward and backward alike, becomes transposes around the
canonical one.

*Transposed products.* The gradient of a weight is written as ``(g' x)'``. XLA folds that transpose into a plain product, but not into
the batched one that vmapped lanes make of it, and then every step transposes every weight. So it is written as ``x' g`` before vmap.
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
"""Primitives that only call the program they hold. (A ``reduce`` holds one, too: its operator.)"""
CHECKPOINTS = frozenset({"checkpoint", "remat", "remat2"})
"""What ``jax.checkpoint`` becomes."""


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
"""Of a convolution, besides its operands and their layout."""
Convolution = Callable[..., Array]
"""``(lhs, rhs, **options) -> out`` of ``[N, spatial..., I]`` and ``[spatial..., I, O]``, such as :func:`native`."""


def has_convolution(fn: Callable, *args: Any) -> bool:
    """Whether the function, traced on these arguments (arrays or shapes), holds a convolution."""
    return any(
        eqn.primitive.name == "conv_general_dilated"
        for eqn in equations(jax.make_jaxpr(fn)(*args).jaxpr)
    )


def equations(jaxpr: Any) -> Iterator[Any]:
    """Every equation, those of inner programs included."""
    for eqn in jaxpr.eqns:
        yield eqn
        for inner in jax.tree.leaves(list(eqn.params.values()), is_leaf=_is_program):
            if _is_program(inner):
                yield from equations(getattr(inner, "jaxpr", inner))


def native(lhs: Array, rhs: Array, **options: Any) -> Array:
    """XLA's own convolution of ``[N, spatial..., I]`` with ``[spatial..., I, O]``, as ``lax.conv_general_dilated`` but for the layout."""
    last = lhs.ndim - 1
    inner = tuple(range(1, last))
    numbers = lax.ConvDimensionNumbers(
        (0, last, *inner), (last, last - 1, *range(last - 1)), (0, last, *inner)
    )
    return lax.conv_general_dilated(lhs, rhs, dimension_numbers=numbers, **options)


def canonical(fn: Callable, convolution: Convolution = native) -> Callable:
    """The same function, its convolutions and transposed products rewritten. It may close over values of an outer trace.

    Args:
      fn: a function of arrays.
      convolution: what takes a convolution's place, in the canonical layout.
    """

    def rewritten(*args: Any) -> Any:
        closed, shape = jax.make_jaxpr(fn, return_shape=True)(*args)
        out = _callable(closed, convolution)(*jax.tree.leaves(args))
        return jax.tree.unflatten(jax.tree.structure(shape), out)

    return rewritten


def _evaluate(
    convolution: Convolution, jaxpr: Any, consts: list[Any], args: list[Any]
) -> list[Any]:
    """Evaluates a program equation by equation, with convolutions replaced."""
    values: dict[Any, Any] = dict(zip(jaxpr.constvars, consts, strict=True)) | dict(
        zip(jaxpr.invars, args, strict=True)
    )
    products: dict[Any, Any] = {}

    def read(atom: Any) -> Any:
        return atom.val if isinstance(atom, core.Literal) else values[atom]

    for eqn in jaxpr.eqns:
        if eqn.primitive.name == "dot_general":
            products[eqn.outvars[0]] = eqn
        product = (
            products.get(eqn.invars[0])
            if eqn.primitive.name == "transpose" and eqn.invars
            else None
        )
        if product is not None and _swaps(eqn.params["permutation"], product):
            results = [_swapped(*(read(atom) for atom in product.invars), **product.params)]
        else:
            results = _apply(convolution, eqn, [read(atom) for atom in eqn.invars])
        values.update(zip(eqn.outvars, results, strict=True))
    return [read(atom) for atom in jaxpr.outvars]


def _swaps(permutation: tuple[int, ...], product: Any) -> bool:
    """Whether a transpose of a product only exchanges what the two factors contribute."""
    (contract, _), (batch, _) = product.params["dimension_numbers"]
    left = len(batch)
    right = product.invars[0].aval.ndim - len(contract)
    every = range(len(permutation))
    return tuple(permutation) == (*every[:left], *every[right:], *every[left:right])


def _swapped(lhs: Array, rhs: Array, *, dimension_numbers: Any, **params: Any) -> Array:
    """The product with its factors exchanged."""
    (contract_lhs, contract_rhs), (batch_lhs, batch_rhs) = dimension_numbers
    numbers = ((contract_rhs, contract_lhs), (batch_rhs, batch_lhs))
    options = {k: params[k] for k in ("precision", "preferred_element_type")}
    return lax.dot_general(rhs, lhs, numbers, **options)


def _apply(convolution: Convolution, eqn: Any, args: list[Any]) -> list[Any]:
    """One equation. Plain calls are inlined, losing custom derivatives, so rewrite what is differentiated already; loops and branches
    are rebuilt around rewritten bodies."""
    name, params = eqn.primitive.name, eqn.params
    if name == "conv_general_dilated":
        return [_laid_out(convolution, args[0], args[1], params["dimension_numbers"], params)]
    if name == "scan":
        return _scan(convolution, eqn, args)
    if name == "while":
        return _while(convolution, args, params)
    if name == "cond":
        branches = [_callable(branch, convolution) for branch in params["branches"]]
        return lax.switch(args[0], branches, *args[1:])
    if name in CALLS:
        return _callable(
            next(params[key] for key in ("jaxpr", "call_jaxpr", "fun_jaxpr") if key in params),
            convolution,
        )(*args)
    if name in CHECKPOINTS:
        params = params | _rewritten_body(convolution, params["jaxpr"], args)
    bound = eqn.primitive.get_bind_params(params)
    functions, params = (
        bound if isinstance(bound, tuple) else ((), bound)
    )  # the first up to JAX 0.9
    out = eqn.primitive.bind(*functions, *args, **params)
    return out if eqn.primitive.multiple_results else [out]


def _rewritten_body(convolution: Convolution, program: Any, args: list[Any]) -> dict[str, Any]:
    """What a checkpoint holds, rewritten; nothing, so that it stays as it is, where that would hold arrays of its own."""
    closed = jax.make_jaxpr(_callable(program, convolution))(*args)
    return {} if closed.consts else {"jaxpr": closed.jaxpr}


def _scan(convolution: Convolution, eqn: Any, args: list[Any]) -> list[Any]:
    body = _callable(eqn.params["jaxpr"], convolution)
    fixed, carried = _scanned(eqn)

    def step(carry: list[Any], xs: list[Any]) -> tuple[list[Any], list[Any]]:
        out = body(*args[:fixed], *carry, *xs)
        return out[:carried], out[carried:]

    xs = args[fixed + carried :]
    options = {k: eqn.params[k] for k in ("length", "reverse", "unroll")}
    carry, ys = lax.scan(step, args[fixed : fixed + carried], xs, **options)
    return [*carry, *ys]


def _scanned(eqn: Any) -> tuple[int, int]:
    """How many of a scan's operands are constants, and how many are carried. JAX says so in one way up to 0.10 and in another since; but
    what is scanned over has one axis more outside than inside."""
    body = getattr(eqn.params["jaxpr"], "jaxpr", eqn.params["jaxpr"])

    def whole(outer: list[Any], inner: list[Any]) -> int:
        return sum(
            out.aval.ndim == within.aval.ndim for out, within in zip(outer, inner, strict=True)
        )

    carried = whole(eqn.outvars, body.outvars)
    return whole(eqn.invars, body.invars) - carried, carried


def _while(convolution: Convolution, args: list[Any], params: dict[str, Any]) -> list[Any]:
    c, b = params["cond_nconsts"], params["body_nconsts"]
    test, body = (
        _callable(params["cond_jaxpr"], convolution),
        _callable(params["body_jaxpr"], convolution),
    )
    fixed, start = args[c : c + b], args[c + b :]
    return lax.while_loop(
        lambda carry: test(*args[:c], *carry)[0], lambda carry: body(*fixed, *carry), start
    )


def _callable(program: Any, convolution: Convolution) -> Callable[..., list[Any]]:
    """A program as a function of flat arguments, rewritten."""
    jaxpr, consts = getattr(program, "jaxpr", program), getattr(program, "consts", [])
    return lambda *args: _evaluate(convolution, jaxpr, consts, list(args))


def _is_program(value: Any) -> bool:
    return isinstance(value, core.ClosedJaxpr | core.Jaxpr)


def _laid_out(
    convolution: Convolution,
    lhs: Array,
    rhs: Array,
    dimension_numbers: lax.ConvDimensionNumbers,
    options: Any,
) -> Array:
    """A convolution of any layout as transposes around one of ``[N, spatial..., I]`` with ``[spatial..., I, O]``."""
    spatial = range(2, lhs.ndim)
    lhs_spec, rhs_spec, out_spec = dimension_numbers
    lhs = lax.transpose(lhs, [lhs_spec[0], *(lhs_spec[i] for i in spatial), lhs_spec[1]])
    rhs = lax.transpose(rhs, [*(rhs_spec[i] for i in spatial), rhs_spec[1], rhs_spec[0]])
    out = convolution(lhs, rhs, **{name: options[name] for name in OPTIONS})
    back = [0] * out.ndim
    for place, axis in enumerate((out_spec[0], *(out_spec[i] for i in spatial), out_spec[1])):
        back[axis] = place
    return lax.transpose(out, back)
