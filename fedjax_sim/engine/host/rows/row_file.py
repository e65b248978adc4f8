"""The file of rows: fixed records, read and written one call for each run of neighbours, grown in steps.

By calls and not through a mapping: as fast from the page cache (faster where pages are written first after they were flushed), and a
full or failing disk is an error here, where with a mapping it would be the end of the process.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from io import FileIO

import numpy as np

STEP = 2**20
"""Bytes by which a file grows at least."""
UNABLE = (errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)
"""What file systems say that cannot promise space."""


def load(file: FileIO, slots: np.ndarray, places: np.ndarray, records: np.ndarray) -> int | None:
    """Reads the rows of ``slots`` into ``records[places]``. Returns which row the file ends before or within, if it does."""
    size, flat = records.shape[1], records.reshape(-1).data
    for begin, slot, place, count in _runs(slots, places):
        room = flat[place * size : (place + count) * size]
        file.seek(slot * size)
        while room and (got := file.readinto(room)):
            room = room[got:]
        if room:
            return begin + (count * size - len(room)) // size
    return None


def store(file: FileIO, slots: np.ndarray, records: np.ndarray) -> None:
    """Writes records ``[k, record]`` into slots."""
    size, flat = records.shape[1], records.reshape(-1).data
    for _, slot, place, count in _runs(slots, np.arange(len(slots))):
        rest = flat[place * size : (place + count) * size]
        file.seek(slot * size)
        while rest:
            rest = rest[file.write(rest) :]


def enlarge(file: FileIO, record: int, have: int, need: int) -> int:
    """Makes the file long enough for ``need`` rows, with room to spare where the disk has it. Returns for how many.

    Raises:
      OSError: where the disk is full; the file is then as long as before.
    """
    spare = max(have // 8, STEP // record)
    try:
        return _reserve(file, record, have, need + spare)
    except OSError:
        return _reserve(file, record, have, need)


def _reserve(file: FileIO, record: int, have: int, want: int) -> int:
    """Space on the disk itself where the system can promise it: a disk that fills up later takes none of it away."""
    try:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), have * record, (want - have) * record)
    except OSError as error:
        with contextlib.suppress(OSError):
            file.truncate(have * record)
        if error.errno not in UNABLE:
            raise
    if os.fstat(file.fileno()).st_size < want * record:
        file.truncate(want * record)
    return want


def _runs(slots: np.ndarray, places: np.ndarray) -> Iterator[tuple[int, int, int, int]]:
    """Where each run begins in which both go up by one, its first slot, its first place, and how many there are."""
    starts = np.flatnonzero((np.diff(slots, prepend=-2) != 1) | (np.diff(places, prepend=-2) != 1))
    counts = np.diff(starts, append=len(slots))
    return zip(
        starts.tolist(),
        slots[starts].tolist(),
        places[starts].tolist(),
        counts.tolist(),
        strict=True,
    )
