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
"""Bytes; no scalar needs more."""


class Leaf(NamedTuple):
    """One leaf of a row: bytes ``start`` to ``stop`` of the record."""

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype
    start: int
    stop: int


class Layout(NamedTuple):
    """What a row is made of."""

    structure: Any
    leaves: tuple[Leaf, ...]
    record: int
    """Bytes of one row."""


def layout_of(like: PyTree) -> Layout:
    """The layout of rows like this one.

    Raises:
      FedError: where the row has no bytes, or a leaf is not made of plain numbers.
    """
    named, structure = jax.tree_util.tree_flatten_with_path(like)
    leaves, end = [], 0
    for path, value in named:
        array, name = np.asarray(value), tree.name(path)
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
        fix="keep no vault where clients remember nothing",
    )
    return Layout(structure, tuple(leaves), end)


def described(layout: Layout) -> list[list[Any]]:
    """``[name, shape, dtype]`` of every leaf, ready for JSON."""
    return [[leaf.name, list(leaf.shape), str(leaf.dtype)] for leaf in layout.leaves]


def compare(layout: Layout, found: list[list[Any]], where: Any) -> None:
    """Refuses rows whose leaves are others than these.

    Raises:
      FedError: naming the first leaf that differs, and what it is there and here.
    """
    for old, new in zip_longest(found, described(layout)):
        if old != new:
            what = (
                f"the clients' rows in {where} do not fit this configuration at {(new or old)[0]}"
            )
            do = "go on with the configuration that the run was started with, or choose another folder"
            fail(
                what,
                got=f"{_words(old)} in the folder, {_words(new)} in this configuration",
                fix=do,
            )


def record_of(layout: Layout, row: PyTree) -> np.ndarray:
    """uint8[record]: one row as bytes."""
    return packed(
        layout, [np.asarray(leaf)[None] for leaf in jax.tree.leaves(row)], np.zeros(1, np.int64)
    )[0]


def views(layout: Layout, records: np.ndarray) -> PyTree:
    """Rows ``[k, ...]`` that lie in ``uint8[k, record]``; what is written into them is written there."""
    leaves = [
        records[:, leaf.start : leaf.stop].view(leaf.dtype).reshape(len(records), *leaf.shape)
        for leaf in layout.leaves
    ]
    return jax.tree.unflatten(layout.structure, leaves)


def checked(layout: Layout, rows: PyTree, count: int) -> list[np.ndarray]:
    """The leaves of so many rows, on the host.

    Raises:
      FedError: where the tree, a shape or a dtype is another than the layout's.
    """
    values, structure = jax.tree.flatten(rows)
    require(
        structure == layout.structure,
        "rows are not of the vault's tree",
        got=structure,
        fix=f"give {layout.structure}",
    )
    arrays = [np.asarray(value) for value in values]
    for leaf, array in zip(layout.leaves, arrays, strict=True):
        fits = (array.dtype, array.shape) == (leaf.dtype, (count, *leaf.shape))
        got = f"{array.dtype}{list(array.shape)}"
        require(
            fits,
            f"rows do not fit the vault at {leaf.name}",
            got=got,
            fix=f"give {leaf.dtype}{[count, *leaf.shape]}",
        )
    return arrays


def packed(layout: Layout, leaves: list[np.ndarray], which: np.ndarray) -> np.ndarray:
    """uint8[len(which), record]: those rows of checked leaves as bytes; what lies between leaves is zero."""
    records = np.zeros((len(which), layout.record), np.uint8)
    for place, leaf in zip(jax.tree.leaves(views(layout, records)), leaves, strict=True):
        place[...] = leaf[which]
    return records


def _words(leaf: list[Any] | None) -> str:
    return "nothing" if leaf is None else f"{leaf[0]} {leaf[2]}{leaf[1]}"
