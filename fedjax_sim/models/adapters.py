"""Adapters that make a :class:`~fedjax_sim.models.base.Model` of a neural-network library's module.

Parameters and state are plain dicts of arrays for every library, so checkpoints, wrappers and
hashes handle one kind of tree. Libraries other than flax.linen are imported when their adapter is
called.
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
    """Returns a model without state from a pair of functions.

    A pair of functions that handles state is already a model: ``Model(init, apply)``.

    Args:
      init: ``(key, x) -> params``, with ``x`` a batch ``[B, ...]``.
      apply: ``(params, x) -> out``; it also receives ``train`` and ``key`` if it has parameters
        of these names.

    Example:
      >>> import fedjax_sim as fs
      >>> import jax
      >>> import jax.numpy as jnp
      >>> def init(key, x):
      ...     return {"w": jax.random.normal(key, (x.shape[1], 2))}
      >>> def apply(params, x):
      ...     return x @ params["w"]
      >>> model = fs.from_functions(init, apply)
      >>> x = jnp.ones((5, 3))
      >>> params, state = model.init(jax.random.key(0), x)
      >>> state
      {}
      >>> model.apply(params, state, x, train=True, key=None)[0].shape
      (5, 2)
    """
    accepted = _accepts(apply, "train", "key")

    def init_model(key: Key, x: PyTree) -> tuple[PyTree, PyTree]:
        return init(key, x), {}

    def apply_model(
        params: PyTree, state: PyTree, x: PyTree, *, train: bool, key: Key | None
    ) -> tuple[PyTree, PyTree]:
        return apply(params, x, **_select(accepted, train=train, key=key)), state

    return Model(init_model, apply_model)


def from_linen(module: nn.Module) -> Model:
    """Returns a model from a flax.linen module.

    The collection ``"params"`` is trained; every other collection that ``module.init`` creates is
    state. Random numbers of every stream (``"dropout"``, ``"noise"``, ...) come from ``key``. Sown
    intermediates are dropped.

    Args:
      module: an instance. It is called as ``module(x)``, or as ``module(x, train=...)`` if its
        ``__call__`` has a parameter of that name.

    Raises:
      FedError: if ``module`` is a class or belongs to another library.

    Example:
      >>> import fedjax_sim as fs
      >>> import jax
      >>> import jax.numpy as jnp
      >>> from flax import linen as nn
      >>> model = fs.from_linen(nn.Dense(3))
      >>> x = jnp.ones((5, 2))
      >>> params, state = model.init(jax.random.key(0), x)
      >>> jax.tree.map(jnp.shape, params)
      {'bias': (3,), 'kernel': (2, 3)}
      >>> model.apply(params, state, x, train=True, key=None)[0].shape
      (5, 3)
    """
    require(
        isinstance(module, nn.Module),
        "from_linen takes an instance of a linen module",
        got=getattr(module, "__name__", type(module).__name__),
        fix="pass Net(...), not Net; use from_nnx for flax.nnx",
    )
    accepted = _accepts(module.__call__, "train")

    def init(key: Key, x: PyTree) -> tuple[PyTree, PyTree]:
        variables = dict(module.init(key, x, **_select(accepted, train=False)))
        return variables.pop("params", {}), variables

    def apply(
        params: PyTree, state: PyTree, x: PyTree, *, train: bool, key: Key | None
    ) -> tuple[PyTree, PyTree]:
        # Flax uses a single key for every random stream.
        options: dict[str, Any] = {
            "rngs": key,
            "mutable": list(state),
            **_select(accepted, train=train),
        }
        out, updated = module.apply({"params": params, **state}, x, **options)
        return out, {**state, **updated} if train else state

    # jit makes one program of init; without it flax compiles one program per random draw.
    return Model(jax.jit(init), apply)


def from_nnx(constructor: Callable[..., Any]) -> Model:
    """Returns a model from a constructor of a flax.nnx module.

    Variables of type ``nnx.Param`` are trained; every other variable is state. Random streams are
    neither: each trace rebuilds the module with streams that start from ``key`` (from a fixed key
    if ``key`` is ``None``). ``train`` selects ``module.train()`` or ``module.eval()``.

    Args:
      constructor: ``rngs -> module``, with ``rngs`` an ``nnx.Rngs``. The module is called as
        ``module(x)``.

    Example:
      >>> import fedjax_sim as fs
      >>> import jax
      >>> import jax.numpy as jnp
      >>> from flax import nnx
      >>> model = fs.from_nnx(lambda rngs: nnx.Linear(2, 3, rngs=rngs))
      >>> x = jnp.ones((5, 2))
      >>> params, state = model.init(jax.random.key(0), x)
      >>> jax.tree.map(jnp.shape, params)
      {'bias': (3,), 'kernel': (2, 3)}
      >>> model.apply(params, state, x, train=True, key=None)[0].shape
      (5, 3)
    """
    from flax import nnx

    def split(module: Any) -> tuple[Any, Any, Any, Any]:
        parts: Any = nnx.split(module, nnx.Param, nnx.RngState, ...)
        return parts

    module = nnx.eval_shape(lambda: constructor(nnx.Rngs(0)))
    module.train()
    training, _, streams, _ = split(module)
    module.eval()
    evaluation = split(module)[0]
    streams, layout = jax.tree.flatten(nnx.to_pure_dict(streams))

    def new_streams(key: Key | None) -> PyTree:
        key = jax.random.key(0) if key is None else key
        return layout.unflatten(_stream(key, i, leaf) for i, leaf in enumerate(streams))

    def init(key: Key, x: PyTree) -> tuple[PyTree, PyTree]:
        _, params, _, state = split(constructor(nnx.Rngs(key)))
        return nnx.to_pure_dict(params), nnx.to_pure_dict(state)

    def apply(
        params: PyTree, state: PyTree, x: PyTree, *, train: bool, key: Key | None
    ) -> tuple[PyTree, PyTree]:
        graph = training if train else evaluation
        rebuilt = nnx.merge(graph, params, new_streams(key), state)
        out = rebuilt(x)
        return out, nnx.to_pure_dict(split(rebuilt)[3]) if train else state

    return Model(init, apply)


def from_equinox(constructor: Callable[[Key], Any]) -> Model:
    """Returns a model from a constructor of an equinox module.

    The module is called on ONE example, as is usual in equinox, and vmapped over the batch under
    the axis name ``"batch"``; each example has its own key. Floating-point arrays are trained;
    other arrays of the module are constants.

    Args:
      constructor: ``key -> module``. The module is called as ``module(x, key=key)``, or as
        ``module(x, state, key=key)`` with the result ``(out, state)`` if its ``__call__`` has a
        parameter ``state``; ``key`` is left out if it has no parameter of that name.

    Example:
      >>> import equinox as eqx
      >>> import fedjax_sim as fs
      >>> import jax
      >>> import jax.numpy as jnp
      >>> model = fs.models.from_equinox(lambda key: eqx.nn.Linear(2, 3, key=key))
      >>> x = jnp.ones((5, 2))
      >>> params, state = model.init(jax.random.key(0), x)
      >>> jax.tree.map(jnp.shape, params)
      {'bias': (3,), 'weight': (3, 2)}
      >>> model.apply(params, state, x, train=True, key=None)[0].shape
      (5, 3)
    """
    import equinox as eqx

    def construct(key: Key) -> tuple[Any, Any, Any]:
        module, state = eqx.nn.make_with_state(constructor)(key)
        return *eqx.partition(module, eqx.is_inexact_array), state

    floats, constants, first_state = construct(jax.random.key(0))
    accepted = _accepts(type(eqx.combine(floats, constants)).__call__, "state", "key")
    pack, unpack = _packing(floats)
    pack_state, unpack_state = _packing(first_state)

    def init(key: Key, x: PyTree) -> tuple[PyTree, PyTree]:
        floats, _, state = construct(key)
        return pack(floats), pack_state(state)

    def apply(
        params: PyTree, state: PyTree, x: PyTree, *, train: bool, key: Key | None
    ) -> tuple[PyTree, PyTree]:
        module = eqx.nn.inference_mode(eqx.combine(unpack(params), constants), value=not train)
        keys = None if key is None else jax.random.split(key, jax.tree.leaves(x)[0].shape[0])

        def apply_one(x: PyTree, state: Any, key: Key | None) -> tuple[PyTree, Any]:
            out = module(x, **_select(accepted, state=state, key=key))
            return out if "state" in accepted else (out, state)

        apply_batch = jax.vmap(
            apply_one, in_axes=(0, None, 0), out_axes=(0, None), axis_name="batch"
        )
        out, updated = apply_batch(x, unpack_state(state), keys)
        return out, pack_state(updated) if train else state

    return Model(init, apply)


def from_haiku(transformed: Any) -> Model:
    """Returns a model from a transformed haiku function.

    Args:
      transformed: ``haiku.transform`` or ``haiku.transform_with_state`` of a function
        ``(x, train) -> out``, with ``x`` a batch ``[B, ...]``.

    Example:
      >>> import fedjax_sim as fs
      >>> import haiku as hk
      >>> import jax
      >>> import jax.numpy as jnp
      >>> model = fs.models.from_haiku(hk.transform(lambda x, train: hk.Linear(3)(x)))
      >>> x = jnp.ones((5, 2))
      >>> params, state = model.init(jax.random.key(0), x)
      >>> jax.tree.map(jnp.shape, params)
      {'linear': {'b': (3,), 'w': (2, 3)}}
      >>> model.apply(params, state, x, train=True, key=None)[0].shape
      (5, 3)
    """
    import haiku as hk

    if isinstance(transformed, hk.Transformed):
        transformed = hk.with_empty_state(transformed)

    def init(key: Key, x: PyTree) -> tuple[PyTree, PyTree]:
        # Batch normalisation in haiku creates its statistics only with train=True.
        return transformed.init(key, x, train=True)

    def apply(
        params: PyTree, state: PyTree, x: PyTree, *, train: bool, key: Key | None
    ) -> tuple[PyTree, PyTree]:
        out, updated = transformed.apply(params, state, key, x, train=train)
        return out, updated if train else state

    return Model(init, apply)


def _accepts(function: Callable[..., Any], *names: str) -> frozenset[str]:
    """Returns the names that are parameters of the function."""
    return frozenset(names) & frozenset(inspect.signature(function).parameters)


def _select(accepted: frozenset[str], **values: Any) -> dict[str, Any]:
    return {name: value for name, value in values.items() if name in accepted}


def _stream(key: Key, number: int, leaf: Any) -> Array:
    """Returns one leaf of a module's random streams: a new key, or a counter at zero.

    Args:
      key: the key that all streams start from.
      number: the leaf's index among the leaves of the streams.
      leaf: the leaf of the module, with a shape and a dtype.
    """
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        return jax.random.fold_in(key, number)
    return jnp.zeros(leaf.shape, leaf.dtype)


def _packing(
    tree: PyTree,
) -> tuple[Callable[[PyTree], dict[str, Array]], Callable[[dict[str, Array]], PyTree]]:
    """Returns ``(pack, unpack)`` between trees of this structure and flat dicts by path."""
    paths, layout = jax.tree_util.tree_flatten_with_path(tree)
    names = [jax.tree_util.keystr(path, simple=True, separator=".") or "value" for path, _ in paths]
    if len(set(names)) < len(names):  # nodes of a library may give two children one name
        names = [f"{number:04d}" for number in range(len(names))]

    def pack(tree: PyTree) -> dict[str, Array]:
        return dict(zip(names, jax.tree.leaves(tree), strict=True))

    def unpack(flat: dict[str, Array]) -> PyTree:
        return layout.unflatten(flat[name] for name in names)

    return pack, unpack
