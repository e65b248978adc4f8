"""TensorFlow Federated's HDF5 files: a group ``examples``, in it one for each client, in that one array for each field."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fedjax_sim.core.errors import fail, require
from fedjax_sim.data.federation import Federation
from fedjax_sim.data.sources.base import Found, Split, aligned, fields, library

MAGIC = b"\x89HDF\r\n\x1a\n"


def matches(path: Path) -> bool:
    """A file that begins as HDF5 does."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(len(MAGIC)) == MAGIC


def read(
    path: Path, *, x: str = "", y: str = "", shape: tuple[int, ...] = (), test: str = ""
) -> Found:
    """A client's arrays by field. Needs h5py.

    Args:
      path: the file.
      x: field that becomes ``x``.
      y: field that becomes ``y``; without one, strings become a client's text.
      shape: of one example.
      test: another file, of test examples.
    """

    def split(file: Any, where: Path) -> Split:
        clients = file.get("examples")
        do = "give a file of TensorFlow Federated"
        require(
            hasattr(clients, "items"),
            f"{where} needs the group examples",
            got=list(file)[:5],
            fix=do,
        )

        def client(name: str) -> tuple[Any, Any]:
            group = clients[name]
            good = hasattr(group, "items") and all(
                hasattr(values, "shape") for values in group.values()
            )
            require(
                good,
                "every client is a group of arrays",
                got=f"something else called {name!r} in {where.name}",
                fix=do,
            )
            held = {field: values[()] for field, values in group.items()}
            return fields(held, f"client {name!r}", x, y, shape)

        return Split(tuple(clients), client)

    def blocks() -> Iterator[Federation]:
        other = Path(test).expanduser()
        with _opened(path) as train, _opened(other) if test else contextlib.nullcontext() as held:
            yield from aligned(split(train, path), None if held is None else split(held, other))

    library("h5py", "HDF5 files")
    return Found(blocks())


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Any]:
    try:
        with library("h5py", "HDF5 files").File(path, "r") as file:
            yield file
    except OSError as error:
        fail(
            f"{path} cannot be read as an HDF5 file",
            got=str(error).splitlines()[0],
            fix="give the path of a whole one, unpacked if need be",
        )
