"""Files of a prepared data set: ``.npy`` arrays that grow, and a folder that is complete or
absent."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np

from fedjax_sim.core.errors import fail, require

HEADER = 512
"""Bytes before an array's data: room for any shape, rewritten when the number of rows is known."""
CHUNK = 2**24
"""Bytes written, checked or hashed at once."""


class Column:
    """A new ``.npy`` file to which rows are appended; numbers are in this machine's byte order.

    Use it as a context manager, or call :meth:`close`: both close the file, complete or not. Only
    :meth:`finish` makes the file complete.

    Args:
      path: the file.
      dtype: type of an entry; a plain number.
      shape: shape of one row.

    Raises:
      FedError: if the type is not a plain number, or the file cannot be written.
    """

    def __init__(self, path: Path, dtype: np.dtype, shape: tuple[int, ...] = ()) -> None:
        require(
            dtype.kind in "biufc",
            "only plain numbers can be saved",
            got=f"{dtype} for {path.name}",
            fix="convert them to integers or floats",
        )
        self.path = path
        self.dtype = dtype.newbyteorder("=")
        self.shape = shape
        self.rows = 0
        with saving(path):
            self._file = path.open("wb")
            self._file.write(bytes(HEADER))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def append(self, rows: np.ndarray) -> None:
        """Writes more rows.

        Args:
          rows: ``[n, *shape]``.

        Raises:
          FedError: if they cannot be written.
        """
        flat = np.ascontiguousarray(rows, self.dtype).reshape(-1)
        with saving(self.path):
            self._file.write(flat.view(np.uint8).data)
        self.rows += len(rows)

    def finish(self) -> dict[str, object]:
        """Writes the header and closes the file.

        Returns:
          The file's ``bytes`` and ``sha256``.

        Raises:
          FedError: if it cannot be written.
        """
        with saving(self.path), self._file as file:
            file.seek(0)
            file.write(self._header())
        return describe(self.path)

    def close(self) -> None:
        """Closes the file as it is; does nothing if it is closed."""
        with contextlib.suppress(OSError):  # flushing to a full disk fails once more
            self._file.close()

    def _header(self) -> bytes:
        """Returns the header of format version 1.0, padded to :data:`HEADER` bytes."""
        fields = {
            "descr": np.lib.format.dtype_to_descr(self.dtype),
            "fortran_order": False,
            "shape": (self.rows, *self.shape),
        }
        text = repr(fields).encode()
        require(
            len(text) < HEADER - 10,
            "an example has too many axes to be saved",
            got=self.shape,
            fix="flatten it",
        )
        start = b"\x93NUMPY\x01\x00" + (HEADER - 10).to_bytes(2, "little")
        return start + text.ljust(HEADER - 11) + b"\n"


@contextlib.contextmanager
def saving(path: Path) -> Iterator[None]:
    """Converts an ``OSError`` in the block into a :class:`FedError`.

    Args:
      path: the file or folder that the block writes, for the error.
    """
    try:
        yield
    except OSError as error:
        fail(
            f"{path} could not be written",
            got=error.strerror or error,
            fix="make room there or choose another folder; nothing was left behind and nothing "
            "else was changed",
        )


@contextlib.contextmanager
def fresh_folder(out: Path) -> Iterator[Path]:
    """Makes a temporary folder that becomes ``out`` at the end of the block.

    The folder is beside ``out`` and is called ``.<name>.partial``. If the block raises, it is
    removed.

    Args:
      out: the folder to make; must not exist.

    Raises:
      FedError: if ``out`` exists, the temporary folder exists (another process is writing it or was
        killed), or it cannot be written.
    """
    _check_absent(out, "remove it or choose another one")
    part = out.with_name(f".{out.name}.partial")
    with saving(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        try:
            part.mkdir()
        except FileExistsError:
            fail(
                "this folder is being prepared, or its preparation was interrupted",
                got=part,
                fix="wait for the other command, or remove it",
            )
    try:
        yield part
        with saving(out):
            for path in (*part.iterdir(), part):
                sync(path)
            _check_absent(out, "choose another one")
            part.rename(out)
            sync(out.parent)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise


def _check_absent(out: Path, fix: str) -> None:
    require(not os.path.lexists(out), "the folder to prepare must not exist yet", got=out, fix=fix)


def write_text(path: Path, text: str) -> None:
    """Writes a whole text file in UTF-8.

    Raises:
      FedError: if it cannot be written.
    """
    with saving(path):
        path.write_text(text, encoding="utf-8")


def describe(path: Path) -> dict[str, object]:
    """Returns a file's ``bytes`` and ``sha256``."""
    return {"bytes": path.stat().st_size, "sha256": sha256(path)}


def sha256(path: Path) -> str:
    """Returns the hash of a file as ``sha256sum`` prints it."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(CHUNK):
            digest.update(piece)
    return digest.hexdigest()


def sync(path: Path) -> None:
    """Waits until a file's contents, or a folder's entries, are on disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
