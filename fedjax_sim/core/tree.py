"""Arithmetic on pytrees, leaf by leaf."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fedjax_sim.core.types import Array, PyTree

NOWHERE = 2**31 - 1
"""A row number past the end of every array: a row scattered there is dropped."""


def add(a: PyTree, b: PyTree) -> PyTree:
    """Returns ``a + b``.

    >>> import jax.numpy as jnp
    >>> from fedjax_sim.core import tree
    >>> tree.add({"w": jnp.array([1.0, 2.0])}, {"w": jnp.array([3.0, 4.0])})
    {'w': Array([4., 6.], dtype=float32)}
    """
    return jax.tree.map(jnp.add, a, b)


def sub(a: PyTree, b: PyTree) -> PyTree:
    """Returns ``a - b``.

    >>> import jax.numpy as jnp
    >>> from fedjax_sim.core import tree
    >>> tree.sub({"w": jnp.array([1.0, 2.0])}, {"w": jnp.array([3.0, 5.0])})
    {'w': Array([-2., -3.], dtype=float32)}
    """
    return jax.tree.map(jnp.subtract, a, b)


def scale(factor: Array | float, tree: PyTree) -> PyTree:
    """Returns ``factor * tree``; each leaf keeps its dtype.

    >>> import jax.numpy as jnp
    >>> from fedjax_sim.core import tree
    >>> tree.scale(0.5, {"w": jnp.array([2.0, 4.0], jnp.bfloat16)})
    {'w': Array([1, 2], dtype=bfloat16)}
    """
    return jax.tree.map(lambda leaf: (factor * leaf).astype(leaf.dtype), tree)


def axpy(factor: Array | float, a: PyTree, b: PyTree) -> PyTree:
    """Returns ``factor * a + b``; each leaf keeps the dtype of ``b``.

    >>> import jax.numpy as jnp
    >>> from fedjax_sim.core import tree
    >>> tree.axpy(2.0, jnp.array([1.0, 2.0]), jnp.array([10.0, 10.0]))
    Array([12., 14.], dtype=float32)
    """
    return jax.tree.map(lambda x, y: (factor * x + y).astype(y.dtype), a, b)


def zeros_like(tree: PyTree) -> PyTree:
    """Returns zeros of the same shapes and dtypes; also for a tree of ``ShapeDtypeStruct``.

    >>> import jax.numpy as jnp
    >>> from fedjax_sim.core import tree
    >>> tree.zeros_like({"w": jnp.array([1.0, 2.0])})
    {'w': Array([0., 0.], dtype=float32)}
    """
    return jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), tree)


def where(condition: Array, a: PyTree, b: PyTree) -> PyTree:
    """Returns ``a`` where the condition holds, else ``b``.

    Args:
      condition: bool; its axes are the leading axes of every leaf.
      a: pytree of arrays or numbers.
      b: pytree of the same structure and shapes.

    Example:
      >>> import jax.numpy as jnp
      >>> from fedjax_sim.core import tree
      >>> present = jnp.array([True, False])
      >>> tree.where(present, jnp.ones([2, 3]), jnp.zeros([2, 3])).tolist()
      [[1.0, 1.0, 1.0], [0.0, 0.0, 0.0]]
    """

    def select(x: Any, y: Any) -> Array:
        x = jnp.asarray(x)
        return jnp.where(
            condition.reshape(condition.shape + (1,) * (x.ndim - condition.ndim)), x, y
        )

    return jax.tree.map(select, a, b)


def total(tree: PyTree) -> PyTree:
    """Returns the sum over the leading axis of every leaf.

    >>> import jax.numpy as jnp
    >>> from fedjax_sim.core import tree
    >>> tree.total({"w": jnp.array([[1.0, 2.0], [3.0, 4.0]])})
    {'w': Array([4., 6.], dtype=float32)}
    """
    return jax.tree.map(lambda leaf: jnp.sum(leaf, axis=0, dtype=leaf.dtype), tree)


def norm(tree: PyTree) -> Array:
    """Returns the Euclidean norm over all leaves, float32 scalar.

    >>> import jax.numpy as jnp
    >>> from fedjax_sim.core import tree
    >>> float(tree.norm({"w": jnp.array([3.0]), "b": jnp.array([[4.0]])}))
    5.0
    """
    squares = [jnp.sum(jnp.square(leaf.astype(jnp.float32))) for leaf in jax.tree.leaves(tree)]
    return jnp.sqrt(sum(squares, start=jnp.zeros((), jnp.float32)))


def take(tree: PyTree, index: Array) -> PyTree:
    """Returns rows of every leaf.

    Args:
      tree: pytree, ``[N, ...]`` in every leaf.
      index: int32[C]; an index past the end reads the last row (the row of an absent client, which
        is masked later).

    Returns:
      Pytree, ``[C, ...]`` in every leaf.

    Example:
      >>> import jax.numpy as jnp
      >>> from fedjax_sim.core import tree
      >>> tree.take(jnp.array([10, 20, 30]), jnp.array([1, 3])).tolist()
      [20, 30]
    """
    return jax.tree.map(lambda leaf: jnp.take(leaf, index, axis=0, mode="clip"), tree)


def put(tree: PyTree, index: Array, rows: PyTree) -> PyTree:
    """Returns the tree with rows replaced.

    Args:
      tree: pytree, ``[N, ...]`` in every leaf.
      index: int32[C]; an index past the end writes nothing.
      rows: pytree of the same structure, ``[C, ...]`` in every leaf.

    Example:
      >>> import jax.numpy as jnp
      >>> from fedjax_sim.core import tree
      >>> tree.put(jnp.array([10, 20, 30]), jnp.array([1, 3]), jnp.array([7, 8])).tolist()
      [10, 7, 30]
    """
    return jax.tree.map(lambda leaf, row: leaf.at[index].set(row, mode="drop"), tree, rows)


def first(tree: PyTree) -> PyTree:
    """Returns row 0 of every leaf.

    >>> import jax.numpy as jnp
    >>> from fedjax_sim.core import tree
    >>> tree.first(jnp.array([[1, 2], [3, 4]])).tolist()
    [1, 2]
    """
    return jax.tree.map(lambda leaf: leaf[0], tree)


def tile(tree: PyTree, length: int) -> PyTree:
    """Returns the tree with a new leading axis of this length, along which every leaf is repeated.

    >>> import jax.numpy as jnp
    >>> from fedjax_sim.core import tree
    >>> tree.tile(jnp.array([1, 2]), 3).tolist()
    [[1, 2], [1, 2], [1, 2]]
    """
    return jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (length, *jnp.shape(leaf))), tree)


def tile_on_host(tree: PyTree, length: int) -> PyTree:
    """Like :func:`tile`, as numpy views that need the memory of one row for any length.

    >>> from fedjax_sim.core import tree
    >>> tree.tile_on_host(1.5, 3).tolist()
    [1.5, 1.5, 1.5]
    """
    return jax.tree.map(
        lambda leaf: np.broadcast_to(np.asarray(leaf), (length, *jnp.shape(leaf))), tree
    )


def widen(tree: PyTree) -> PyTree:
    """Returns every leaf as float32, or in its own dtype where that is wider.

    Sums over clients or batches are computed in this dtype.

    >>> import jax.numpy as jnp
    >>> from fedjax_sim.core import tree
    >>> tree.widen(jnp.array([1, 2], jnp.bfloat16)).dtype
    dtype('float32')
    """
    return jax.tree.map(lambda leaf: leaf.astype(jnp.promote_types(leaf.dtype, jnp.float32)), tree)


def cast(tree: PyTree, like: PyTree) -> PyTree:
    """Returns every leaf in the dtype of its counterpart; integers are rounded, not truncated.

    Args:
      tree: pytree of arrays.
      like: pytree of the same structure, of arrays or ``ShapeDtypeStruct``.

    Example:
      >>> import jax.numpy as jnp
      >>> from fedjax_sim.core import tree
      >>> tree.cast(jnp.array([1.6, 2.2]), like=jnp.array([0, 0])).tolist()
      [2, 2]
    """

    def convert(leaf: Array, model: Any) -> Array:
        whole = jnp.issubdtype(model.dtype, jnp.integer) and jnp.issubdtype(leaf.dtype, jnp.inexact)
        return (jnp.round(leaf) if whole else leaf).astype(model.dtype)

    return jax.tree.map(convert, tree, like)


def size(tree: PyTree) -> int:
    """Returns the number of scalars in all leaves.

    >>> import jax.numpy as jnp
    >>> from fedjax_sim.core import tree
    >>> tree.size({"w": jnp.zeros([2, 3]), "b": jnp.zeros(3)})
    9
    """
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


def nbytes(tree: PyTree) -> int:
    """Returns the number of bytes of all leaves.

    >>> import jax.numpy as jnp
    >>> from fedjax_sim.core import tree
    >>> tree.nbytes({"w": jnp.zeros([2, 3]), "b": jnp.zeros(3)})
    36
    """
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def name(path: tuple[Any, ...]) -> str:
    """Returns a leaf's path as text, such as ``algorithm.server.params.dense.kernel``.

    >>> import jax
    >>> from fedjax_sim.core import tree
    >>> [(path, leaf)] = jax.tree_util.tree_leaves_with_path({"dense": {"kernel": 1}})
    >>> tree.name(path)
    'dense.kernel'
    """
    return jax.tree_util.keystr(path, simple=True, separator=".")
