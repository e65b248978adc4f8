"""The file of rows: fixed-size records, one system call for each run of consecutive rows; the file
grows in steps.

The file is read and written by calls, not through a memory mapping. That is as fast from the page
cache (faster for pages that are written for the first time after a flush), and a full or failing
disk raises an error, where a mapping would kill the process.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from io import FileIO
from pathlib import Path

import numpy as np

from fedjax_sim.core.errors import FedError, sentence

STEP = 2**20
"""Bytes by which a file grows at least."""
UNABLE = (errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)
"""Error numbers of file systems that cannot reserve space."""


@contextlib.contextmanager
def disk_errors(what: str, where: Path) -> Iterator[None]:
    """Turns an ``OSError`` into a :class:`FedError` while open.

    Args:
      what: what is wrong, the first part of the message.
      where: the file or folder in use.
    """
    try:
        yield
    except OSError as error:
        got = f"{type(error).__name__}: {error.strerror or error} in {where}"
        fix = "make room there or repair the disk, or choose another folder; saved snapshots stay"
        raise FedError(sentence(what, got=got, fix=fix)) from error


def load(file: FileIO, slots: np.ndarray, places: np.ndarray, records: np.ndarray) -> int | None:
    """Reads the rows of ``slots`` into ``records[places]``.

    Args:
      file: opened unbuffered for reading.
      slots: int64[k], row numbers in the file.
      places: int64[k], indices into ``records``.
      records: uint8[n, record], overwritten in place.

    Returns:
      The index into ``slots`` of the first row that the file does not hold completely, or ``None``.
    """
    size = records.shape[1]
    flat = records.reshape(-1).data
    for begin, slot, place, count in _runs(slots, places):
        unread = flat[place * size : (place + count) * size]
        file.seek(slot * size)
        while unread and (got := file.readinto(unread)):
            unread = unread[got:]
        if unread:
            return begin + (count * size - len(unread)) // size
    return None


def store(file: FileIO, slots: np.ndarray, records: np.ndarray) -> None:
    """Writes records into slots.

    Args:
      file: opened unbuffered for writing.
      slots: int64[k], row numbers in the file.
      records: uint8[k, record].
    """
    size = records.shape[1]
    flat = records.reshape(-1).data
    for _, slot, place, count in _runs(slots, np.arange(len(slots))):
        unwritten = flat[place * size : (place + count) * size]
        file.seek(slot * size)
        while unwritten:
            unwritten = unwritten[file.write(unwritten) :]


def enlarge(file: FileIO, record: int, have: int, need: int) -> int:
    """Makes the file long enough for ``need`` rows, plus spare rows if the disk has room for them.

    Args:
      file: opened for writing.
      record: bytes of one row.
      have: rows that the file has room for now.
      need: rows that it must have room for.

    Returns:
      The number of rows that it has room for afterwards.

    Raises:
      OSError: if the disk is full; the file is then as long as before.
    """
    spare = max(have // 8, STEP // record)
    try:
        return _reserve(file, record, have, need + spare)
    except OSError:
        return _reserve(file, record, have, need)


def _reserve(file: FileIO, record: int, have: int, want: int) -> int:
    """Extends the file, with reserved disk space if the file system can."""
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
    """Yields ``(index, first slot, first place, length)`` of every run of consecutive rows."""
    starts = np.flatnonzero((np.diff(slots, prepend=-2) != 1) | (np.diff(places, prepend=-2) != 1))
    counts = np.diff(starts, append=len(slots))
    return zip(
        starts.tolist(),
        slots[starts].tolist(),
        places[starts].tolist(),
        counts.tolist(),
        strict=True,
    )
