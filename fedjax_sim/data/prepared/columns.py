"""Files of a prepared data set: ``.npy`` arrays that grow row by row, and a folder that is complete or not there."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import os
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np

from fedjax_sim.core.errors import fail, require

HEADER = 512
"""Bytes before an array's data: room for any shape, written again when the number of rows is known."""
CHUNK = 2**24
"""Bytes written, checked or hashed at once."""


@dataclasses.dataclass
class Column:
    """An array that grows; the one mutable thing here."""

    path: Path
    file: BinaryIO
    dtype: np.dtype
    shape: tuple[int, ...]
    """Of one row."""
    rows: int = 0


@contextlib.contextmanager
def saving(path: Path) -> Iterator[None]:
    """Turns what the operating system says about a file that is written into a sentence."""
    try:
        yield
    except OSError as error:
        do = "make room there or choose another folder; nothing was left behind and nothing else was changed"
        fail(f"{path} could not be written", got=error.strerror or error, fix=do)


@contextlib.contextmanager
def fresh_folder(out: Path) -> Iterator[Path]:
    """A folder beside ``out`` that becomes ``out`` when the block is left, and is gone if it is left by an error.

    Raises:
      FedError: where ``out`` exists, where another writer is at work on it or was killed, or where it cannot be written.
    """
    require(
        not os.path.lexists(out),
        "the folder to prepare must not exist yet",
        got=out,
        fix="remove it or choose another one",
    )
    part = out.with_name(f".{out.name}.partial")
    with saving(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        try:
            part.mkdir()
        except FileExistsError:
            fail(
                "this folder is being prepared, or was when that was cut short",
                got=part,
                fix="wait for the other command, or remove it",
            )
    try:
        yield part
        with saving(out):
            for path in (*part.iterdir(), part):
                sync(path)
            require(
                not os.path.lexists(out),
                "the folder to prepare must not exist yet",
                got=out,
                fix="choose another one",
            )
            part.rename(out)
            sync(out.parent)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise


def open_column(path: Path, dtype: np.dtype, shape: tuple[int, ...] = ()) -> Column:
    """A new file for rows of that type and shape; numbers are written in this machine's byte order."""
    require(
        dtype.kind in "biufc",
        "only plain numbers can be saved",
        got=f"{dtype} for {path.name}",
        fix="convert them to integers or floats",
    )
    with saving(path):
        file = path.open("wb")
        file.write(bytes(HEADER))
    return Column(path, file, dtype.newbyteorder("="), shape)


def append(column: Column, rows: np.ndarray) -> None:
    """Writes more rows, ``[n, *shape]``."""
    flat = np.ascontiguousarray(rows, column.dtype).reshape(-1)
    with saving(column.path):
        column.file.write(flat.view(np.uint8).data)
    column.rows += len(rows)


def finish(column: Column) -> dict[str, object]:
    """Writes the header, closes the file, and describes the file: ``bytes`` and ``sha256``."""
    with saving(column.path), column.file as file:
        file.seek(0)
        file.write(_header(column))
    return describe(column.path)


def write_text(path: Path, text: str) -> None:
    """A whole text file."""
    with saving(path):
        path.write_text(text, encoding="utf-8")


def describe(path: Path) -> dict[str, object]:
    """A file's ``bytes`` and ``sha256``."""
    return {"bytes": path.stat().st_size, "sha256": sha256(path)}


def sha256(path: Path) -> str:
    """Hash of a file, as ``sha256sum`` prints it."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(CHUNK):
            digest.update(piece)
    return digest.hexdigest()


def sync(path: Path) -> None:
    """Returns when a file's contents, or a folder's names, are on disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def abandon(columns: Iterable[Column]) -> None:
    """Closes files that nobody will read."""
    for column in columns:
        with contextlib.suppress(OSError):  # a full disk says so once more
            column.file.close()


def _header(column: Column) -> bytes:
    """The format's version 1.0, padded to a fixed length."""
    about = {
        "descr": np.lib.format.dtype_to_descr(column.dtype),
        "fortran_order": False,
        "shape": (column.rows, *column.shape),
    }
    text = repr(about).encode()
    require(
        len(text) < HEADER - 10,
        "an example has too many axes to be saved",
        got=column.shape,
        fix="flatten it",
    )
    return (
        b"\x93NUMPY\x01\x00" + (HEADER - 10).to_bytes(2, "little") + text.ljust(HEADER - 11) + b"\n"
    )
