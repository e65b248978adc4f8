"""Files that stay complete: each write happens entirely or not at all.

A file is replaced in one step (write a new one, then rename) or extended behind the bytes that are
known to be complete. Folders may come from other people: reading accepts any content, and writing
never follows a symbolic link.
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
"""Maximum nesting of lists and tables in a JSON text that is read."""


def save(path: Path, text: str) -> None:
    """Replaces a text file's contents, or creates the file with its folder.

    Args:
      path: the file.
      text: its new contents, written as UTF-8.

    Raises:
      FedError: if it cannot be written; an existing file is then unchanged.

    Example:
      >>> import tempfile
      >>> from pathlib import Path
      >>> from fedjax_sim.core import files
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     files.save(Path(folder) / "a.txt", "new")
      ...     files.read(Path(folder) / "a.txt")
      b'new'
    """
    with saving(path):
        replace(path, text.encode())


@contextlib.contextmanager
def saving(path: Path) -> Iterator[None]:
    """Turns an ``OSError`` inside the block into a :class:`FedError` that names the path."""
    try:
        yield
    except OSError as error:
        fail(
            f"{path} could not be written",
            got=reason(error),
            fix="make room there, or check the permissions of its folder",
        )


def replace(path: Path, content: bytes) -> int:
    """Replaces a file's contents in one step, or creates the file with its folder.

    Args:
      path: the file.
      content: its new contents.

    Returns:
      The number of bytes written.

    Raises:
      OSError: if it cannot be written; an existing file is then unchanged.
    """
    temporary = path.with_name(path.name + ".new")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # An interrupted call may have left this file, or a link may be in its place: it must not
        # be followed.
        temporary.unlink(missing_ok=True)
        with temporary.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
    return len(content)


def append(path: Path, complete: int, content: bytes) -> int:
    """Writes bytes behind the complete ones: all of them, or none.

    Args:
      path: the file; created where it is missing, but not its folder.
      complete: number of leading bytes that are kept; what follows them is overwritten. A shorter
        file counts as complete.
      content: the bytes to add.

    Returns:
      The number of complete bytes after the call.

    Raises:
      OSError: if it cannot be written. An incomplete rest that cannot be removed either is
        overwritten by the next call.
    """
    flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0)
    with open(os.open(path, flags, 0o666), "r+b", buffering=0) as file:
        size = os.fstat(file.fileno()).st_size
        complete = min(complete, size)
        try:
            if size > complete:
                file.truncate(complete)
            file.seek(complete)
            rest = memoryview(content)
            while rest:
                rest = rest[file.write(rest) :]
        except OSError:
            with contextlib.suppress(OSError):
                file.truncate(complete)
            raise
    return complete + len(content)


def refuse_link(path: Path) -> None:
    """Requires that a path which is written to is not a symbolic link.

    The owner of the folder could otherwise choose which file of the user is overwritten.

    Raises:
      FedError: if it is a link.
    """
    if path.is_symlink():
        fail(
            f"{path} is written to, and so must not be a link",
            got=f"a link to {os.readlink(path)}",
            fix="remove it, or put what it leads to in its place",
        )


def remove(path: Path) -> None:
    """Removes a file, or a folder with its contents; of a link only the link. Ignores errors."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            path.unlink()


def read(path: Path) -> bytes:
    """Returns the contents of a regular file.

    Raises:
      OSError: if it cannot be read, or is not a regular file: reading a pipe would block, and a
        device may have no end.
    """
    if path.exists() and not path.is_file():
        raise OSError(errno.EINVAL, "it is not a regular file", str(path))
    return path.read_bytes()


def parse_json(text: str | bytes) -> Any:
    """Returns the value that a JSON text describes.

    Raises:
      ValueError: if the text is not JSON, or nested more than :data:`DEPTH` levels.

    Example:
      >>> from fedjax_sim.core import files
      >>> files.parse_json('{"rounds": [1, 2]}')
      {'rounds': [1, 2]}
    """
    nested = f"lists and tables that are more than {DEPTH} deep"
    try:
        value = json.loads(text)
    except RecursionError as error:
        raise ValueError(nested) from error
    if too_deep(value):
        raise ValueError(nested)
    return value


def too_deep(value: Any) -> bool:
    """True if lists and dicts are nested more than :data:`DEPTH` levels."""
    level = [value]
    depth = 0
    while level and depth <= DEPTH:
        containers = [item for item in level if isinstance(item, dict | list)]
        level = [inner for item in containers for inner in _items(item)]
        depth += 1
    return bool(level)


def _items(container: dict[str, Any] | list[Any]) -> Any:
    return container.values() if isinstance(container, dict) else container


def reason(error: OSError) -> str:
    """Returns the operating system's message without the error number and the path."""
    return error.strerror or str(error)
