"""Arithmetic on pytrees, with the few spellings that the rest of the package uses."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fedjax_sim.core.types import Array, PyTree

NOWHERE = 2**31 - 1
"""A row number past the end of everything: what is put there is dropped."""


def add(a: PyTree, b: PyTree) -> PyTree:
    """``a + b``, leaf by leaf."""
    return jax.tree.map(jnp.add, a, b)


def sub(a: PyTree, b: PyTree) -> PyTree:
    """``a - b``, leaf by leaf."""
    return jax.tree.map(jnp.subtract, a, b)


def scale(factor: Array | float, tree: PyTree) -> PyTree:
    """``factor * tree``; each leaf keeps its dtype."""
    return jax.tree.map(lambda leaf: (factor * leaf).astype(leaf.dtype), tree)


def axpy(factor: Array | float, a: PyTree, b: PyTree) -> PyTree:
    """``factor * a + b``; each leaf keeps the dtype of ``b``."""
    return jax.tree.map(lambda x, y: (factor * x + y).astype(y.dtype), a, b)


def zeros_like(tree: PyTree) -> PyTree:
    """Zeros of the same shapes and dtypes; also for a tree of ``ShapeDtypeStruct``."""
    return jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), tree)


def where(condition: Array, a: PyTree, b: PyTree) -> PyTree:
    """``a`` where the condition holds, else ``b``. The condition's axes are the leading axes of every leaf."""

    def select(x: Any, y: Any) -> Array:
        x = jnp.asarray(x)
        return jnp.where(
            condition.reshape(condition.shape + (1,) * (x.ndim - condition.ndim)), x, y
        )

    return jax.tree.map(select, a, b)


def total(tree: PyTree) -> PyTree:
    """Sum over the leading axis of every leaf."""
    return jax.tree.map(lambda leaf: jnp.sum(leaf, axis=0, dtype=leaf.dtype), tree)


def norm(tree: PyTree) -> Array:
    """Euclidean norm over all leaves, float32 scalar."""
    squares = [jnp.sum(jnp.square(leaf.astype(jnp.float32))) for leaf in jax.tree.leaves(tree)]
    return jnp.sqrt(sum(squares, start=jnp.zeros((), jnp.float32)))


def take(tree: PyTree, index: Array) -> PyTree:
    """Rows of every leaf; an index past the end reads the last row (absent clients read something, and it is masked)."""
    return jax.tree.map(lambda leaf: jnp.take(leaf, index, axis=0, mode="clip"), tree)


def put(tree: PyTree, index: Array, rows: PyTree) -> PyTree:
    """Rows written into every leaf; an index past the end writes nothing."""
    return jax.tree.map(lambda leaf, row: leaf.at[index].set(row, mode="drop"), tree, rows)


def first(tree: PyTree) -> PyTree:
    """Row 0 of every leaf."""
    return jax.tree.map(lambda leaf: leaf[0], tree)


def tile(tree: PyTree, length: int) -> PyTree:
    """A new leading axis on which every leaf is repeated."""
    return jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (length, *jnp.shape(leaf))), tree)


def tile_on_host(tree: PyTree, length: int) -> PyTree:
    """Like :func:`tile`, as numpy views that take one row's bytes whatever the length."""
    return jax.tree.map(
        lambda leaf: np.broadcast_to(np.asarray(leaf), (length, *jnp.shape(leaf))), tree
    )


def widen(tree: PyTree) -> PyTree:
    """Every leaf as float32, or wider where it is: what is added up over clients or batches."""
    return jax.tree.map(lambda leaf: leaf.astype(jnp.promote_types(leaf.dtype, jnp.float32)), tree)


def cast(tree: PyTree, like: PyTree) -> PyTree:
    """Every leaf in the dtype of its counterpart (an array or a shape); integers are rounded, not cut."""

    def one(leaf: Array, model: Any) -> Array:
        whole = jnp.issubdtype(model.dtype, jnp.integer) and jnp.issubdtype(leaf.dtype, jnp.inexact)
        return (jnp.round(leaf) if whole else leaf).astype(model.dtype)

    return jax.tree.map(one, tree, like)


def size(tree: PyTree) -> int:
    """Number of scalars in all leaves."""
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


def nbytes(tree: PyTree) -> int:
    """Bytes of all leaves."""
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def name(path: tuple[Any, ...]) -> str:
    """A leaf's path in words: ``algorithm.server.params.dense.kernel``."""
    return jax.tree_util.keystr(path, simple=True, separator=".")
