"""A :class:`~fedjax_sim.models.base.Model` from a module of some neural-network library.

Parameters and state are plain dicts of arrays, whatever the library, so that checkpoints, wrappers and hashes see one kind of tree.
Libraries other than flax.linen are imported when their adapter is called.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from fedjax_sim.core.errors import require
from fedjax_sim.core.types import Array, Key, PyTree
from fedjax_sim.models.base import Model


def from_functions(init: Callable[..., PyTree], apply: Callable[..., PyTree]) -> Model:
    """A model without state from a bare pair. A pair that keeps state is already a model: ``Model(init, apply)``.

    Args:
      init: ``(key, x) -> params``.
      apply: ``(params, x) -> out``; it is also given ``train`` and ``key`` if it has arguments of these names.
    """
    wanted = _accepts(apply, "train", "key")

    def start(key: Key, x: PyTree) -> tuple[PyTree, PyTree]:
        return init(key, x), {}

    def run(
        params: PyTree, state: PyTree, x: PyTree, *, train: bool, key: Key | None
    ) -> tuple[PyTree, PyTree]:
        return apply(params, x, **_pick(wanted, train=train, key=key)), state

    return Model(start, run)


def from_linen(module: nn.Module) -> Model:
    """A model from a flax.linen module, called as ``module(x)``, or ``module(x, train=...)`` if it has an argument of that name.

    The collection ``"params"`` is trained; every other one that ``init`` makes is state. Whatever the module draws, under any
    name (``"dropout"``, ``"noise"``), comes from ``key``. Sown intermediates are dropped.
    """
    got = getattr(module, "__name__", type(module).__name__)
    require(
        isinstance(module, nn.Module),
        "from_linen takes an instance of a linen module",
        got=got,
        fix="pass Net(...), not Net; NNX has from_nnx",
    )
    wanted = _accepts(module.__call__, "train")

    def init(key: Key, x: PyTree) -> tuple[PyTree, PyTree]:
        variables = dict(module.init(key, x, **_pick(wanted, train=False)))
        return variables.pop("params", {}), variables

    def apply(
        params: PyTree, state: PyTree, x: PyTree, *, train: bool, key: Key | None
    ) -> tuple[PyTree, PyTree]:
        # A lone key serves every stream of random numbers that the module has no key for.
        options: dict[str, Any] = {
            "rngs": key,
            "mutable": list(state),
            **_pick(wanted, train=train),
        }
        out, moved = module.apply({"params": params, **state}, x, **options)
        return out, {**state, **moved} if train else state

    return Model(jax.jit(init), apply)  # one program, where flax would compile every draw


def from_nnx(constructor: Callable[..., Any]) -> Model:
    """A model from a flax.nnx constructor, ``rngs -> module``; the module is called as ``module(x)``.

    ``nnx.Param`` is trained, every other variable is state, and random streams are neither: the module is rebuilt inside each
    trace with streams that start from ``key`` (a fixed key where it is ``None``). ``train`` becomes ``module.train()`` or
    ``module.eval()``.
    """
    from flax import nnx

    def split(module: Any) -> tuple[Any, Any, Any, Any]:
        parts: Any = nnx.split(module, nnx.Param, nnx.RngState, ...)
        return parts

    module = nnx.eval_shape(lambda: constructor(nnx.Rngs(0)))
    module.train()
    training, _, streams, _ = split(module)
    module.eval()
    evaluating = split(module)[0]
    streams, layout = jax.tree.flatten(nnx.to_pure_dict(streams))

    def fresh(key: Key | None) -> PyTree:
        key = jax.random.key(0) if key is None else key
        return layout.unflatten(_stream(key, i, leaf) for i, leaf in enumerate(streams))

    def init(key: Key, x: PyTree) -> tuple[PyTree, PyTree]:
        _, params, _, state = split(constructor(nnx.Rngs(key)))
        return nnx.to_pure_dict(params), nnx.to_pure_dict(state)

    def apply(
        params: PyTree, state: PyTree, x: PyTree, *, train: bool, key: Key | None
    ) -> tuple[PyTree, PyTree]:
        rebuilt = nnx.merge(training if train else evaluating, params, fresh(key), state)
        out = rebuilt(x)
        return out, nnx.to_pure_dict(split(rebuilt)[3]) if train else state

    return Model(init, apply)


def from_equinox(constructor: Callable[[Key], Any]) -> Model:
    """A model from an equinox constructor, ``key -> module``.

    The module follows equinox's habits: it is called on ONE example, as ``module(x, key=key)``, or as ``module(x, state, key=key)``
    giving ``(out, state)`` if it has an argument ``state``. It is vmapped over the batch under the axis name ``"batch"``, each
    example with its own key. Floating-point arrays are trained; other arrays in the module are constants of the constructor.
    """
    import equinox as eqx

    def parts(key: Key) -> tuple[Any, Any, Any]:
        module, state = eqx.nn.make_with_state(constructor)(key)
        return *eqx.partition(module, eqx.is_inexact_array), state

    floats, rest, keeps = parts(jax.random.key(0))
    wanted = _accepts(type(eqx.combine(floats, rest)).__call__, "state", "key")
    pack, unpack = _named(floats)
    pack_state, unpack_state = _named(keeps)

    def init(key: Key, x: PyTree) -> tuple[PyTree, PyTree]:
        floats, _, state = parts(key)
        return pack(floats), pack_state(state)

    def apply(
        params: PyTree, state: PyTree, x: PyTree, *, train: bool, key: Key | None
    ) -> tuple[PyTree, PyTree]:
        module = eqx.nn.inference_mode(eqx.combine(unpack(params), rest), value=not train)
        keys = None if key is None else jax.random.split(key, jax.tree.leaves(x)[0].shape[0])

        def one(x: PyTree, state: Any, key: Key | None) -> tuple[PyTree, Any]:
            out = module(x, **_pick(wanted, state=state, key=key))
            return out if "state" in wanted else (out, state)

        out, moved = jax.vmap(one, in_axes=(0, None, 0), out_axes=(0, None), axis_name="batch")(
            x, unpack_state(state), keys
        )
        return out, pack_state(moved) if train else state

    return Model(init, apply)


def from_haiku(transformed: Any) -> Model:
    """A model from ``haiku.transform`` or ``haiku.transform_with_state`` of a function ``(x, train) -> out``."""
    import haiku as hk

    if isinstance(transformed, hk.Transformed):
        transformed = hk.with_empty_state(transformed)

    def init(key: Key, x: PyTree) -> tuple[PyTree, PyTree]:
        return transformed.init(
            key, x, train=True
        )  # haiku's batch normalisation makes its statistics only when training

    def apply(
        params: PyTree, state: PyTree, x: PyTree, *, train: bool, key: Key | None
    ) -> tuple[PyTree, PyTree]:
        out, moved = transformed.apply(params, state, key, x, train=train)
        return out, moved if train else state

    return Model(init, apply)


def _accepts(function: Callable[..., Any], *names: str) -> frozenset[str]:
    """Those of the names that the function has an argument for."""
    return frozenset(names) & frozenset(inspect.signature(function).parameters)


def _pick(wanted: frozenset[str], **values: Any) -> dict[str, Any]:
    """Those of the values that are wanted."""
    return {name: value for name, value in values.items() if name in wanted}


def _stream(key: Key, number: int, leaf: Any) -> Array:
    """One leaf of a module's random streams: a key of its own, or a count that starts at zero."""
    return (
        jax.random.fold_in(key, number)
        if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
        else jnp.zeros(leaf.shape, leaf.dtype)
    )


def _named(
    tree: PyTree,
) -> tuple[Callable[[PyTree], dict[str, Array]], Callable[[dict[str, Array]], PyTree]]:
    """To a flat dict of a tree's leaves by path, and back, for all trees built like this one."""
    paths, layout = jax.tree_util.tree_flatten_with_path(tree)
    names = [jax.tree_util.keystr(path, simple=True, separator=".") or "value" for path, _ in paths]
    if len(set(names)) < len(names):  # a library's own node need not name its children apart
        names = [f"{number:04d}" for number in range(len(names))]

    def pack(tree: PyTree) -> dict[str, Array]:
        return dict(zip(names, jax.tree.leaves(tree), strict=True))

    def unpack(flat: dict[str, Array]) -> PyTree:
        return layout.unflatten(flat[name] for name in names)

    return pack, unpack
