"""Files that are whole, whatever the disk does and whenever the process ends: replaced in one step, or grown behind what is whole.

And files of strangers: what is read of them may be anything, and what is written goes where it seems to go.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fedjax_sim.core.errors import fail

DEPTH = 30
"""Lists and tables within one another in what is read, at most."""


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
        fail(
            f"{path} could not be written",
            got=reason(error),
            fix="make room there, or see to its folder",
        )


def replace(path: Path, content: bytes) -> int:
    """The file's new contents, whole or not at all, in its folder, which is made where it is missing. Returns the number of bytes.

    Raises:
      OSError: where it cannot be written; the file is then as it was.
    """
    fresh = path.with_name(path.name + ".new")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh.unlink(
            missing_ok=True
        )  # what is left of an attempt; or a link that somebody put there, which must not be followed
        with fresh.open("xb") as file:
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
    flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0)
    with open(os.open(path, flags, 0o666), "r+b", buffering=0) as file:
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


def own(path: Path) -> None:
    """Refuses a link in the place of something that is to be written to: whoever gave us its folder would choose where we write.

    Raises:
      FedError: where it is one.
    """
    if path.is_symlink():
        do = "remove it, or put what it leads to in its place"
        fail(
            f"{path} is written to, and so must not be a link",
            got=f"a link to {os.readlink(path)}",
            fix=do,
        )


def clear(path: Path) -> None:
    """Removes a file or a folder with all that is in it, as far as it can be; of a link, the link alone."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            path.unlink()


def content(path: Path) -> bytes:
    """What is in a file.

    Raises:
      OSError: where it cannot be read, or is none: a pipe would be waited for, and some devices have no end.
    """
    if path.exists() and not path.is_file():
        raise OSError(errno.EINVAL, "it is no file", str(path))
    return path.read_bytes()


def parsed(text: str | bytes) -> Any:
    """What JSON says.

    Raises:
      ValueError: where it is none, or nested deeper than anybody writes.
    """
    nested = f"lists and tables that are more than {DEPTH} deep"
    try:
        made = json.loads(text)
    except RecursionError as error:
        raise ValueError(nested) from error
    if deep(made):
        raise ValueError(nested)
    return made


def deep(made: Any) -> bool:
    """Whether lists and tables lie deeper in one another than anybody writes."""
    level, depth = [made], 0
    while level and depth <= DEPTH:
        inner = [
            each.values() if isinstance(each, dict) else each
            for each in level
            if isinstance(each, dict | list)
        ]
        level, depth = [value for values in inner for value in values], depth + 1
    return bool(level)


def reason(error: OSError) -> str:
    """What the system says, without the number and the path."""
    return error.strerror or str(error)
