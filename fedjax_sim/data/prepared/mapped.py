"""Arrays that lie in a file, read here and there: what the system is told of it.

A mapping reads what lies around a place, too, as far as the disk's read-ahead goes (128 kB as a rule, 8 MB on some machines), and every
page that was looked at counts as memory of the process until somebody needs it. Both suit somebody who reads a file from end to end. Who
reads a client here and a client there says beforehand where, so that the disk is asked for that and for all of it at once, and lets go
of the pages afterwards: they stay in the system's cache, but not in the process.

All of this is advice: where a system does not take it, nothing changes but speed and memory.
"""

from __future__ import annotations

import contextlib
import mmap
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

SHORT = 2**17
"""Bytes of a run of rows up to which it pays to ask for it alone; longer ones are read well by reading ahead."""


class Mapped(NamedTuple):
    """Where an array's rows lie in a mapping."""

    memory: mmap.mmap
    first: int
    """Byte of the mapping at which row 0 begins."""
    row: int
    """Bytes of a row."""


def mapped(array: np.ndarray) -> Mapped | None:
    """The read-only mapping under a contiguous array of rows, or ``None`` where there is none.

    What was written to a private mapping is in its pages alone, and must not be let go of.
    """
    base: object = array
    while isinstance(base, np.ndarray):
        base = base.base
    if (
        not isinstance(base, mmap.mmap)
        or not hasattr(base, "madvise")
        or not memoryview(base).readonly
    ):
        return None
    if not array.flags.c_contiguous or not array.size:
        return None
    start = np.frombuffer(base, np.uint8, 1).ctypes.data
    return Mapped(base, array.ctypes.data - start, array.strides[0])


@contextlib.contextmanager
def visiting(array: np.ndarray, runs: list[tuple[int, int]]) -> Iterator[None]:
    """While these runs of rows ``(first, last + 1)`` are read, one after the other; afterwards the process lets go of them."""
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
