"""Computing in a narrower float than the parameters are kept in."""

from __future__ import annotations

from typing import Literal, get_args

import jax
import jax.numpy as jnp

from fedjax_sim.core.errors import require
from fedjax_sim.core.types import Array, Key, PyTree
from fedjax_sim.models.base import Model

Compute = Literal["float32", "bfloat16", "float16"]


def mixed_precision(model: Model, compute: Compute = "bfloat16") -> Model:
    """The model, computing in ``compute``: its float32 parameters and inputs are rounded on the way in, its output is float32 again.

    Parameters, gradients, optimizer and everything that is sent or added up stay float32, and so does the loss, which is computed on
    the output. Batch statistics keep their dtype. Pays on accelerators with units for it; a CPU has none and is slower. A ``float16``
    gradient below 6e-8 is 0, and its loss is not scaled here: ``bfloat16`` has the range of float32.

    Reference: Micikevicius et al., "Mixed Precision Training", ICLR 2018, section 3.1.
    """
    known = get_args(Compute)
    require(
        compute in known,
        "compute must name a float",
        got=repr(compute),
        fix=f"choose one of {', '.join(known)}",
    )
    dtype = jnp.dtype(compute)
    if compute == "float32":
        return model

    def apply(
        params: PyTree, state: PyTree, x: PyTree, *, train: bool, key: Key | None
    ) -> tuple[PyTree, PyTree]:
        out, after = model.apply(
            _rounded(params, dtype), state, _rounded(x, dtype), train=train, key=key
        )
        widened = jax.tree.map(lambda leaf: _as(leaf, dtype, jnp.dtype("float32")), out)
        return widened, jax.tree.map(lambda new, old: new.astype(old.dtype), after, state)

    return Model(model.init, apply)


def _rounded(tree: PyTree, dtype: jnp.dtype) -> PyTree:
    return jax.tree.map(lambda leaf: _as(jnp.asarray(leaf), jnp.dtype("float32"), dtype), tree)


def _as(leaf: Array, source: jnp.dtype, target: jnp.dtype) -> Array:
    """A leaf of the source dtype as the target; others as they are."""
    return leaf.astype(target) if leaf.dtype == source else leaf
