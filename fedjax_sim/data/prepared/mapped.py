"""Advice to the operating system about memory-mapped arrays that are read in scattered runs of
rows.

A mapping also reads what is near a requested page, as far as the disk's read-ahead reaches (usually
128 kB, 8 MB on some machines), and every page that was read counts as memory of the process until
the system needs it. Both suit a program that reads a file from end to end. A program that reads the
rows of some clients gives the places beforehand, so that the disk reads those rows and no others,
all of them at once, and releases the pages afterwards: they stay in the system's cache, but not in
the process.

On a system that ignores the advice only speed and memory change.
"""

from __future__ import annotations

import contextlib
import mmap
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

SHORT = 2**17
"""Bytes of a run of rows up to which it is faster to read it without read-ahead."""


class Mapped(NamedTuple):
    """Where an array's rows are in a mapping."""

    memory: mmap.mmap
    first: int
    """Byte of the mapping at which row 0 begins."""
    row: int
    """Bytes of a row."""


def mapped(array: np.ndarray) -> Mapped | None:
    """Returns the read-only mapping under an array.

    A private mapping that may be written to does not count: what was written is in its pages alone,
    which must not be released.

    Args:
      array: ``[n, ...]``.

    Returns:
      The mapping; ``None`` if there is none, or the array is empty or not contiguous.
    """
    base: object = array
    while isinstance(base, np.ndarray):
        base = base.base
    if not isinstance(base, mmap.mmap) or not hasattr(base, "madvise"):
        return None
    if not memoryview(base).readonly or not array.flags.c_contiguous or not array.size:
        return None
    start = np.frombuffer(base, np.uint8, 1).ctypes.data
    return Mapped(base, array.ctypes.data - start, array.strides[0])


@contextlib.contextmanager
def visiting(array: np.ndarray, runs: list[tuple[int, int]]) -> Iterator[None]:
    """Prepares for reads of runs of rows; releases the array's pages at the end of the block.

    Args:
      array: ``[n, ...]``; without a mapping nothing is done.
      runs: ``(first, last + 1)`` of each run, in the order in which the block reads them.
    """
    where = mapped(array)
    if where is None:
        yield
        return
    scattered = sum(stop - start for start, stop in runs) * where.row <= SHORT * len(runs)
    if scattered:
        _advise(where, mmap.MADV_RANDOM)
        for start, stop in runs:
            low = (where.first + start * where.row) // mmap.PAGESIZE * mmap.PAGESIZE
            _advise(where, mmap.MADV_WILLNEED, low, where.first + stop * where.row - low)
    try:
        yield
    finally:
        if scattered:
            _advise(where, mmap.MADV_NORMAL)
        _advise(where, mmap.MADV_DONTNEED)


def _advise(where: Mapped, *advice: int) -> None:
    with contextlib.suppress(OSError):
        where.memory.madvise(*advice)
