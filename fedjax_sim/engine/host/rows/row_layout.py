"""A client's row as bytes: its leaves one after another, each at a multiple of 16 bytes."""

from __future__ import annotations

from itertools import zip_longest
from typing import Any, NamedTuple

import jax
import numpy as np

from fedjax_sim.core import tree
from fedjax_sim.core.errors import fail, require
from fedjax_sim.core.types import PyTree

ALIGNMENT = 16
"""Bytes; no scalar type needs a larger alignment."""


class Leaf(NamedTuple):
    """One leaf of a row: bytes ``start`` to ``stop`` of the record."""

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype
    start: int
    stop: int


class Layout(NamedTuple):
    """The tree structure of a row and the position of every leaf in its record."""

    structure: Any
    leaves: tuple[Leaf, ...]
    record: int
    """Bytes of one row."""


def layout_of(like: PyTree) -> Layout:
    """Returns the layout of rows like this one.

    Args:
      like: one client's row, arrays or scalars.

    Raises:
      FedError: if the row has no bytes, or a leaf is not made of plain numbers.
    """
    named, structure = jax.tree_util.tree_flatten_with_path(like)
    leaves = []
    end = 0
    for path, value in named:
        array = np.asarray(value)
        name = tree.name(path)
        require(
            not array.dtype.hasobject,
            f"a client's row must be numbers, which {name} is not",
            got=array.dtype,
            fix="give it as an array",
        )
        leaves.append(Leaf(name, array.shape, array.dtype, end, end + array.nbytes))
        end += -(-array.nbytes // ALIGNMENT) * ALIGNMENT
    require(
        end > 0,
        "a client's row has no bytes",
        got=f"{len(leaves)} leaves",
        fix="open no row store for clients without memory",
    )
    return Layout(structure, tuple(leaves), end)


def describe(layout: Layout) -> list[list[Any]]:
    """Returns ``[name, shape, dtype]`` of every leaf, ready for JSON."""
    return [[leaf.name, list(leaf.shape), str(leaf.dtype)] for leaf in layout.leaves]


def compare(layout: Layout, found: list[list[Any]], where: Any) -> None:
    """Checks that the rows of a snapshot have this layout.

    Args:
      layout: the layout of this configuration.
      found: what :func:`describe` returned when the snapshot was saved.
      where: the snapshot's path, for the error message.

    Raises:
      FedError: naming the first leaf that differs, and its shape and dtype in both.
    """
    for old, new in zip_longest(found, describe(layout)):
        if old != new:
            fail(
                f"the clients' rows in {where} do not fit this configuration at {(new or old)[0]}",
                got=f"{_leaf_text(old)} in the folder, {_leaf_text(new)} in this configuration",
                fix="continue with the configuration that the run was started with, "
                "or choose another folder",
            )


def record_of(layout: Layout, row: PyTree) -> np.ndarray:
    """Returns one row as bytes, uint8[record]."""
    leaves = [np.asarray(leaf)[None] for leaf in jax.tree.leaves(row)]
    return pack(layout, leaves, np.zeros(1, np.int64))[0]


def views(layout: Layout, records: np.ndarray) -> PyTree:
    """Returns rows as views of their bytes: writing to them changes ``records``.

    Args:
      layout: of the rows.
      records: uint8[k, record].

    Returns:
      The rows, ``[k, ...]`` in every leaf.
    """
    leaves = [
        records[:, leaf.start : leaf.stop].view(leaf.dtype).reshape(len(records), *leaf.shape)
        for leaf in layout.leaves
    ]
    return jax.tree.unflatten(layout.structure, leaves)


def check_rows(layout: Layout, rows: PyTree, count: int) -> list[np.ndarray]:
    """Checks rows against the layout and copies them to the host if they are not there.

    Args:
      layout: which the rows must have.
      rows: ``[count, ...]`` in every leaf, arrays of numpy or JAX.
      count: number of rows.

    Returns:
      The leaves, numpy arrays.

    Raises:
      FedError: if the tree, a shape or a dtype differs from the layout's.
    """
    values, structure = jax.tree.flatten(rows)
    require(
        structure == layout.structure,
        "rows do not have the tree structure of the row store",
        got=structure,
        fix=f"give {layout.structure}",
    )
    arrays = [np.asarray(value) for value in values]
    for leaf, array in zip(layout.leaves, arrays, strict=True):
        require(
            (array.dtype, array.shape) == (leaf.dtype, (count, *leaf.shape)),
            f"rows do not fit the row store at {leaf.name}",
            got=f"{array.dtype}{list(array.shape)}",
            fix=f"give {leaf.dtype}{[count, *leaf.shape]}",
        )
    return arrays


def check_ids(ids: Any) -> np.ndarray:
    """Returns clients' ids as int64[k].

    Raises:
      FedError: unless they are integers of one axis, none of them negative.
    """
    ids = np.asarray(ids)
    require(
        ids.ndim == 1 and ids.dtype.kind in "iu",
        "clients are given by their ids",
        got=f"{ids.dtype}{list(ids.shape)}",
        fix="give integers of one axis",
    )
    require(
        not (ids < 0).any(),
        "a client's id must not be negative",
        got=ids.min(initial=0),
        fix="number clients from 0",
    )
    return ids.astype(np.int64)


def pack(layout: Layout, leaves: list[np.ndarray], which: np.ndarray) -> np.ndarray:
    """Returns rows as bytes; the bytes between leaves are zero.

    Args:
      layout: of the rows.
      leaves: what :func:`check_rows` returned.
      which: int[k], which rows.

    Returns:
      uint8[k, record].
    """
    records = np.zeros((len(which), layout.record), np.uint8)
    for view, leaf in zip(jax.tree.leaves(views(layout, records)), leaves, strict=True):
        view[...] = leaf[which]
    return records


def _leaf_text(leaf: list[Any] | None) -> str:
    return "nothing" if leaf is None else f"{leaf[0]} {leaf[2]}{leaf[1]}"
