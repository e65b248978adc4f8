"""Files that are whole, whatever the disk does and whenever the process ends: replaced in one step, or grown behind what is whole."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from fedjax_sim.checks import fail


def save(path: Path, text: str) -> None:
    """A text file's new contents, whole or not at all.

    Raises:
      FedError: where it cannot be written; the file is then as it was.
    """
    with saving(path):
        replace(path, text.encode())


@contextlib.contextmanager
def saving(path: Path) -> Iterator[None]:
    """Turns what the system says about a file that is written into a sentence."""
    try:
        yield
    except OSError as error:
        fail(f"{path} could not be written", reason(error), "make room there, or see to its folder")


def replace(path: Path, content: bytes) -> int:
    """The file's new contents, whole or not at all, in its folder, which is made where it is missing. Returns the number of bytes.

    Raises:
      OSError: where it cannot be written; the file is then as it was.
    """
    fresh = path.with_name(path.name + ".new")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with fresh.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(fresh, path)
    except OSError:
        with contextlib.suppress(OSError):
            fresh.unlink()
        raise
    return len(content)


def grow(path: Path, whole: int, content: bytes) -> int:
    """Writes behind the file's first ``whole`` bytes, all of it or nothing. Returns how many are whole then.

    Raises:
      OSError: where it cannot be written. What is left of the attempt, if even that cannot be mended, the next one writes over.
    """
    with open(os.open(path, os.O_RDWR | os.O_CREAT, 0o666), "r+b", buffering=0) as file:
        size = os.fstat(file.fileno()).st_size
        whole = min(whole, size)
        try:
            if size > whole:
                file.truncate(whole)
            file.seek(whole)
            rest = memoryview(content)
            while rest:
                rest = rest[file.write(rest) :]
        except OSError:
            with contextlib.suppress(OSError):
                file.truncate(whole)
            raise
    return whole + len(content)


def reason(error: OSError) -> str:
    """What the system says, without the number and the path."""
    return error.strerror or str(error)
