"""The interface of a model: two pure functions."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from fedjax_sim.core.types import PyTree


class Model(NamedTuple):
    """A model as a pair of pure functions. A batch of inputs ``x`` has ``[B, ...]`` in every leaf.

    ``params`` is the tree that is trained and sent. ``state`` is every other array of the model
    (batch statistics, counters); it is ``{}`` for a model without state.

    Example:
      A linear model with one weight:

      >>> import fedjax_sim as fs
      >>> import jax
      >>> import jax.numpy as jnp
      >>> def init(key, x):
      ...     return {"w": jnp.ones(x.shape[1])}, {}
      >>> def apply(params, state, x, *, train, key):
      ...     return x @ params["w"], state
      >>> model = fs.Model(init, apply)
      >>> x = jnp.ones((2, 3))
      >>> out, _ = model.apply(*model.init(jax.random.key(0), x), x, train=False, key=None)
      >>> out.tolist()
      [3.0, 3.0]
    """

    init: Callable[..., tuple[PyTree, PyTree]]
    """``(key, x) -> (params, state)``. Only the shapes and dtypes of ``x`` are used."""
    apply: Callable[..., tuple[PyTree, PyTree]]
    """``(params, state, x, *, train, key) -> (out, state)``.

    ``train`` is a Python bool; with ``train=False`` the returned state is the given one. ``key``
    may be ``None`` for a call that draws no random number.
    """
