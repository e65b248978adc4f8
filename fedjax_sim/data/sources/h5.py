"""Reader of TensorFlow Federated's HDF5 files.

The group ``examples`` has one group per client, and that one array per field.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fedjax_sim.core.errors import fail, require
from fedjax_sim.data.federation import Federation
from fedjax_sim.data.sources.base import SourceData, Split, aligned, import_library, select_fields

MAGIC = b"\x89HDF\r\n\x1a\n"
"""First bytes of an HDF5 file."""


def matches(path: Path) -> bool:
    """Whether the path is an HDF5 file, by its first bytes."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(len(MAGIC)) == MAGIC


def read(
    path: Path, *, x: str = "", y: str = "", shape: tuple[int, ...] = (), test: str = ""
) -> SourceData:
    """Reads the clients of a file. Needs h5py.

    Args:
      path: the file.
      x: field that becomes ``x``.
      y: field that becomes ``y``; without one, the strings of a client become its text.
      shape: shape of one example.
      test: path of another file, with test examples.

    Example:
      >>> import tempfile
      >>> from pathlib import Path
      >>> import h5py
      >>> import numpy as np
      >>> from fedjax_sim.data.sources.h5 import read
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     path = Path(folder, "mine.h5")
      ...     with h5py.File(path, "w") as file:
      ...         file["examples/ann/pixels"] = np.zeros((2, 3), np.float32)
      ...         file["examples/ann/label"] = np.array([0, 1])
      ...     (block,) = read(path).blocks
      >>> block.train.names, block.train.x.shape
      (('ann',), (2, 3))
    """

    def blocks() -> Iterator[Federation]:
        test_path = Path(test).expanduser()
        with (
            _open(path) as train_file,
            _open(test_path) if test else contextlib.nullcontext() as test_file,
        ):
            train_split = _split(train_file, path, x, y, shape)
            if test_file is None:
                yield from aligned(train_split)
            else:
                yield from aligned(train_split, _split(test_file, test_path, x, y, shape))

    import_library("h5py", "HDF5 files")
    return SourceData(blocks())


def _split(file: Any, path: Path, x: str, y: str, shape: tuple[int, ...]) -> Split:
    """Returns the clients of an open file; see :func:`read` for the arguments."""
    clients = file.get("examples")
    require(
        hasattr(clients, "items"),
        f"{path} needs the group examples",
        got=list(file)[:5],
        fix="give a file of TensorFlow Federated",
    )

    def read_client(name: str) -> tuple[Any, Any]:
        group = clients[name]
        is_group = hasattr(group, "items")
        require(
            is_group and all(hasattr(values, "shape") for values in group.values()),
            "every client must be a group of arrays",
            got=f"another kind of entry called {name!r} in {path.name}",
            fix="give a file of TensorFlow Federated",
        )
        arrays = {field: values[()] for field, values in group.items()}
        return select_fields(arrays, f"client {name!r}", x, y, shape)

    return Split(tuple(clients), read_client)


@contextlib.contextmanager
def _open(path: Path) -> Iterator[Any]:
    try:
        with import_library("h5py", "HDF5 files").File(path, "r") as file:
            yield file
    except OSError as error:
        fail(
            f"{path} cannot be read as an HDF5 file",
            got=str(error).splitlines()[0],
            fix="give the path of a complete HDF5 file, decompressed if it was compressed",
        )
