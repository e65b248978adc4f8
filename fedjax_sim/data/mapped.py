"""Arrays that lie in a file, read here and there: what the system is told of it.

A mapping reads what lies around a place, too, as far as the disk's read-ahead goes (128 kB as a rule, 8 MB on some machines), and every
page that was looked at counts as memory of the process until somebody needs it. Both suit somebody who reads a file from end to end. Who
reads a client here and a client there says beforehand where, so that the disk is asked for that and for all of it at once, and lets go
of the pages afterwards: they stay in the system's cache, but not in the process.
"""

from __future__ import annotations

import mmap
from typing import NamedTuple

import numpy as np


class Mapped(NamedTuple):
    """Where an array's rows lie in a mapping."""

    memory: mmap.mmap
    first: int
    """Byte of the mapping at which row 0 begins."""
    row: int
    """Bytes of a row."""


def mapped(array: np.ndarray) -> Mapped | None:
    """The mapping under a contiguous array of rows, or ``None`` where there is none."""
    base = array
    while isinstance(base, np.ndarray):
        base = base.base
    if not isinstance(base, mmap.mmap) or not hasattr(base, "madvise") or not array.flags.c_contiguous or not array.size:
        return None
    start = np.frombuffer(base, np.uint8, 1).ctypes.data
    return Mapped(base, array.ctypes.data - start, array.strides[0])


def scattered(where: Mapped | None) -> None:
    """Its rows will be read here and there."""
    if where is not None:
        where.memory.madvise(mmap.MADV_RANDOM)


def wanted(where: Mapped | None, start: int, stop: int) -> None:
    """Rows ``start .. stop - 1`` will be read soon."""
    if where is not None and stop > start:
        low = (where.first + start * where.row) // mmap.PAGESIZE * mmap.PAGESIZE
        where.memory.madvise(mmap.MADV_WILLNEED, low, where.first + stop * where.row - low)


def let_go(where: Mapped | None) -> None:
    """What was read is not needed in the process any more."""
    if where is not None:
        where.memory.madvise(mmap.MADV_DONTNEED)
