"""Mixed precision: computation in a narrower float type than that of the parameters."""

from __future__ import annotations

from typing import Literal, get_args

import jax
import jax.numpy as jnp

from fedjax_sim.core.errors import require
from fedjax_sim.core.types import Array, Key, PyTree
from fedjax_sim.models.base import Model

Compute = Literal["float32", "bfloat16", "float16"]


def mixed_precision(model: Model, compute: Compute = "bfloat16") -> Model:
    """Returns the model computing in another float type.

    The model's float32 parameters and inputs are rounded to ``compute``, and its output is cast
    back to float32. Parameters, gradients, optimizer states, uploads, sums and the loss stay
    float32. Batch statistics keep their dtype. It is faster on accelerators with units for narrow
    floats and slower on a CPU. With ``"float16"`` gradients below 6e-8 become 0, and the loss is
    not scaled here; ``"bfloat16"`` has the range of float32.

    Args:
      model: the model to run.
      compute: ``"bfloat16"``, ``"float16"``, or ``"float32"``, which returns ``model`` itself.

    Raises:
      FedError: if ``compute`` is another type.

    Example:
      >>> import fedjax_sim as fs
      >>> import jax
      >>> import jax.numpy as jnp
      >>> model = fs.models.mixed_precision(fs.models.logistic(classes=2), "bfloat16")
      >>> x = jnp.ones((4, 3))
      >>> params, state = model.init(jax.random.key(0), x)
      >>> params["head"]["kernel"].dtype
      dtype('float32')
      >>> model.apply(params, state, x, train=False, key=None)[0].dtype
      dtype('float32')

    Reference: Micikevicius et al., "Mixed Precision Training", ICLR 2018, section 3.1.
    """
    types = get_args(Compute)
    require(
        compute in types,
        "compute must name a float type",
        got=repr(compute),
        fix=f"choose one of {', '.join(types)}",
        setting="compute",
    )
    dtype = jnp.dtype(compute)
    if compute == "float32":
        return model

    def apply(
        params: PyTree, state: PyTree, x: PyTree, *, train: bool, key: Key | None
    ) -> tuple[PyTree, PyTree]:
        out, new_state = model.apply(
            _rounded(params, dtype), state, _rounded(x, dtype), train=train, key=key
        )
        widened = jax.tree.map(lambda leaf: _cast(leaf, dtype, jnp.dtype("float32")), out)
        return widened, jax.tree.map(lambda new, old: new.astype(old.dtype), new_state, state)

    return Model(model.init, apply)


def _rounded(tree: PyTree, dtype: jnp.dtype) -> PyTree:
    return jax.tree.map(lambda leaf: _cast(jnp.asarray(leaf), jnp.dtype("float32"), dtype), tree)


def _cast(leaf: Array, source: jnp.dtype, target: jnp.dtype) -> Array:
    """Casts a leaf of dtype ``source`` to ``target``; returns other leaves as they are."""
    return leaf.astype(target) if leaf.dtype == source else leaf
