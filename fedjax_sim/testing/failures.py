"""What a failed check raises, and the comparisons that checks share."""

from __future__ import annotations

from typing import Any, NoReturn

import jax
import numpy as np

from fedjax_sim.core.errors import sentence
from fedjax_sim.core.types import PyTree


class CheckError(AssertionError):
    """A failed check. Its text has three parts: which check, what was got, what to look for."""


def fail_check(check: str, *, got: Any, look: str) -> NoReturn:
    """Raises :class:`CheckError` with the three parts.

    Args:
      check: name of the check and the statement that does not hold.
      got: what was observed instead.
      look: where the mistake usually is.

    Raises:
      CheckError: always.
    """
    raise CheckError(sentence(check, got=got, fix=look))


def expect(condition: bool, check: str, *, got: Any, look: str) -> None:
    """Requires that a condition holds.

    Args:
      condition: the statement.
      check, got, look: as for :func:`fail_check`.

    Raises:
      CheckError: if it does not hold.
    """
    if not condition:
        fail_check(check, got=got, look=look)


def expect_close(have: PyTree, want: PyTree, tolerance: float, check: str, *, look: str) -> None:
    """Requires that two trees are equal.

    Args:
      have: the tree that was computed.
      want: the tree that it must equal: same structure, dtypes and shapes.
      tolerance: relative to the largest entry of each leaf; 0 demands the same bits.
      check, look: as for :func:`fail_check`.

    Raises:
      CheckError: for the first leaf that differs.
    """
    trees = (have, want)
    structures = [jax.tree.structure(tree) for tree in trees]
    if structures[0] != structures[1]:
        fail_check(check, got=f"{structures[0]} instead of {structures[1]}", look=look)
    pairs = zip(jax.tree_util.tree_leaves_with_path(have), jax.tree.leaves(want), strict=True)
    for (path, leaf), other in pairs:
        text = difference(np.asarray(leaf), np.asarray(other), tolerance)
        if text:
            fail_check(check, got=f"{jax.tree_util.keystr(path) or 'value'} {text}", look=look)


def difference(have: np.ndarray, want: np.ndarray, tolerance: float) -> str:
    """Describes how two arrays differ; an empty text if they are equal within the tolerance."""
    if (have.dtype, have.shape) != (want.dtype, want.shape):
        return f"{have.dtype}{list(have.shape)} instead of {want.dtype}{list(want.shape)}"
    if have.tobytes() == want.tobytes():
        return ""
    if tolerance == 0:
        return f"{worst(have, want)}, and the same bits are required"
    scale = float(np.abs(want).max(initial=0))
    close = np.allclose(have, want, rtol=tolerance, atol=tolerance * scale)
    return "" if close else f"{worst(have, want)} at tolerance {tolerance:g}"


def worst(have: np.ndarray, want: np.ndarray) -> str:
    """Describes the entry in which two arrays of one shape differ most."""
    if have.dtype.kind not in "fiub":
        return "differs"
    gap = np.abs(have.astype(np.float64) - want.astype(np.float64)).ravel()
    index = int(np.argmax(np.where(np.isnan(gap), np.inf, gap)))
    return f"{have.ravel()[index]} instead of {want.ravel()[index]} (entry {index} of {gap.size})"


def distance(have: PyTree, want: PyTree) -> float:
    """Largest difference of two trees of one structure, relative to the largest entry of each leaf.

    Args:
      have, want: trees of float arrays.

    Returns:
      The largest ``max |have - want| / max |want|`` over all leaves; infinite for NaN.
    """
    gaps = [0.0]
    for leaf, other in zip(jax.tree.leaves(have), jax.tree.leaves(want), strict=True):
        scale = float(np.abs(other).max(initial=0)) or 1.0
        gap = float(np.abs(np.asarray(leaf, np.float64) - other).max(initial=0)) / scale
        gaps.append(gap if np.isfinite(gap) else np.inf)
    return max(gaps)


def is_finite(values: PyTree) -> bool:
    """Whether no leaf contains a NaN or an infinity."""
    return all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(values))
