"""Readers of SQLite files of federated data.

FedJAX's files have one row per client, TensorFlow Federated's one row per example.
"""

from __future__ import annotations

import contextlib
import sqlite3
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from fedjax_sim.core.errors import fail, lookup, require
from fedjax_sim.data.federation import Federation
from fedjax_sim.data.sources.base import SourceData, Split, aligned, import_library, select_fields
from fedjax_sim.data.sources.protos import DecodeError, example

MAGIC = b"SQLite format 3\0"
"""First bytes of an SQLite file."""


def matches_fedjax(path: Path) -> bool:
    """Whether the path is a database with the table ``federated_data``."""
    return "federated_data" in table_names(path)


def matches_tff(path: Path) -> bool:
    """Whether the path is a database with the tables ``examples`` and ``client_metadata``."""
    return {"examples", "client_metadata"} <= set(table_names(path))


def read_fedjax(
    path: Path, *, x: str = "", y: str = "", shape: tuple[int, ...] = (), test: str = ""
) -> SourceData:
    """Reads FedJAX's files: the arrays of a client as compressed msgpack. Needs msgpack.

    Args:
      path: the file.
      x: field that becomes ``x``.
      y: field that becomes ``y``.
      shape: shape of one example.
      test: path of another file, with test examples.

    Example:
      >>> import contextlib, sqlite3, tempfile, zlib
      >>> from pathlib import Path
      >>> import msgpack
      >>> import numpy as np
      >>> from fedjax_sim.data.sources.sqlite import read_fedjax
      >>> def packed(array):
      ...     content = msgpack.packb((array.shape, array.dtype.name, array.tobytes()))
      ...     return msgpack.ExtType(1, content)
      >>> arrays = {"pixels": np.zeros((2, 3), np.float32), "label": np.array([0, 1], np.int32)}
      >>> data = zlib.compress(msgpack.packb({name: packed(a) for name, a in arrays.items()}))
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     path = Path(folder, "mine.sqlite")
      ...     with contextlib.closing(sqlite3.connect(path)) as database:
      ...         _ = database.execute("CREATE TABLE federated_data (client_id, data)")
      ...         _ = database.execute("INSERT INTO federated_data VALUES (?, ?)", [b"ann", data])
      ...         database.commit()
      ...     (block,) = read_fedjax(path).blocks
      >>> block.train.names, block.train.x.shape
      (('ann',), (2, 3))
    """
    _require_table(path, "federated_data")
    import_library("msgpack", "FedJAX's SQLite files")

    def split(database: sqlite3.Connection) -> Split:
        ids = database.execute("SELECT client_id FROM federated_data ORDER BY rowid")
        names = {_name(row[0]): row[0] for row in ids}

        def read_client(name: str) -> tuple[Any, Any]:
            (data,) = database.execute(
                "SELECT data FROM federated_data WHERE client_id = ?", [names[name]]
            ).fetchone()
            return select_fields(decode_client(data, name), f"client {name!r}", x, y, shape)

        return Split(tuple(names), read_client)

    def blocks() -> Iterator[Federation]:
        with (
            open_read_only(path) as train,
            open_read_only(Path(test).expanduser())
            if test
            else contextlib.nullcontext() as test_database,
        ):
            test_split = None if test_database is None else split(test_database)
            yield from aligned(split(train), test_split)

    return SourceData(blocks())


def read_tff(
    path: Path,
    *,
    x: str = "",
    y: str = "",
    shape: tuple[int, ...] = (),
    split: str = "train",
    test_split: str = "test",
) -> SourceData:
    """Reads TensorFlow Federated's files: one ``tf.train.Example`` per row. Needs no TensorFlow.

    Args:
      path: the file.
      x: field that becomes ``x``.
      y: field that becomes ``y``; without one, the strings of a client become its text.
      shape: shape of one example.
      split: split with the training examples.
      test_split: split with the test examples, if it exists.
    """
    _require_table(path, "examples")

    def client_split(database: sqlite3.Connection, split_name: str) -> Split:
        names = [row[0] for row in database.execute(SELECT_CLIENTS, [split_name])]

        def read_client(name: str) -> tuple[Any, Any]:
            rows = database.execute(SELECT_EXAMPLES, [split_name, name])
            examples = [_decoded(row[0], name) for row in rows]
            require(
                bool(examples),
                "every client needs at least one example",
                got=f"none for {name!r} in split {split_name!r}",
                fix="correct the file",
            )
            return select_fields(_stacked(examples, name), f"client {name!r}", x, y, shape)

        return Split(tuple(names), read_client)

    def blocks() -> Iterator[Federation]:
        with open_read_only(path) as database:
            known = {row[0]: row for row in database.execute(SELECT_SPLITS)}
            lookup("split of the database", split, known)
            test = client_split(database, test_split) if test_split in known else None
            yield from aligned(client_split(database, split), test)

    return SourceData(blocks())


SELECT_SPLITS = "SELECT DISTINCT split_name FROM client_metadata"
SELECT_CLIENTS = (
    "SELECT DISTINCT client_id FROM client_metadata WHERE split_name = ? ORDER BY client_id"
)
SELECT_EXAMPLES = (
    "SELECT serialized_example_proto FROM examples "
    "WHERE split_name = ? AND client_id = ? ORDER BY rowid"
)


@contextlib.contextmanager
def open_read_only(path: Path) -> Iterator[sqlite3.Connection]:
    """Opens a database read-only while the context lasts.

    Raises:
      FedError: for any error of SQLite inside the context.
    """
    try:
        with contextlib.closing(
            sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)
        ) as database:
            yield database
    except sqlite3.Error as error:
        fail(
            f"{path} cannot be read as an SQLite database",
            got=error,
            fix="give the path of a complete database, decompressed if it was compressed",
        )


def table_names(path: Path) -> list[str]:
    """Returns the names of the tables in a database; none if the path is not a database."""
    if not path.is_file() or not _is_sqlite(path):
        return []
    query = "SELECT name FROM sqlite_master WHERE type = 'table'"
    with open_read_only(path) as database:
        return [row[0] for row in database.execute(query)]


def decode_client(data: bytes, name: str) -> dict[str, Any]:
    """Decodes the arrays of one client, as FedJAX writes them.

    An array is stored as its shape, the name of its dtype, and its bytes.

    Args:
      data: compressed msgpack.
      name: the client, for the message.

    Returns:
      Arrays ``[n, ...]`` by field.

    Raises:
      FedError: if the bytes are not arrays of FedJAX.
    """
    msgpack = import_library("msgpack", "FedJAX's SQLite files")

    def decode_array(code: int, packed: bytes) -> Any:
        shape, *rest = msgpack.unpackb(packed, raw=True)
        if code == STRINGS:
            return np.array(rest[0], object).reshape(shape)
        kind, buffer = rest
        return np.frombuffer(buffer, np.dtype(kind.decode())).reshape(shape)

    try:
        arrays = msgpack.unpackb(zlib.decompress(data), ext_hook=decode_array)
    except (zlib.error, msgpack.UnpackException, ValueError, TypeError) as error:
        fail(
            f"the data of client {name!r} cannot be read",
            got=error,
            fix="give a file that FedJAX wrote",
        )
    require(
        isinstance(arrays, dict),
        f"the data of client {name!r} must be arrays by name",
        got=type(arrays).__name__,
        fix="give a file that FedJAX wrote",
    )
    return arrays


STRINGS = 4
"""Code in FedJAX's format for arrays of strings; other codes are for arrays of numbers."""


def _is_sqlite(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(len(MAGIC)) == MAGIC


def _require_table(path: Path, table: str) -> None:
    require(
        path.is_file() and _is_sqlite(path),
        "this format is an SQLite database",
        got=path,
        fix="give the path of a database, decompressed if it was compressed",
    )
    names = table_names(path)
    require(
        table in names,
        f"a database of this format has the table {table}",
        got=names or "none",
        fix="choose another --format",
    )


def _name(client: Any) -> str:
    return client.decode(errors="backslashreplace") if isinstance(client, bytes) else str(client)


def _decoded(data: bytes, client: str) -> dict[str, Any]:
    try:
        return example(data)
    except DecodeError as error:
        fail(
            f"an example of client {client!r} cannot be read",
            got=error,
            fix="give a file that TensorFlow Federated wrote",
        )


def _stacked(examples: list[dict[str, Any]], client: str) -> dict[str, Any]:
    """Returns the values of a client's examples by field.

    A field with one value in every example becomes a list of values, any other a list of lists.
    """
    known = set(examples[0])
    require(
        all(set(example) == known for example in examples),
        "all examples must have the same fields",
        got=f"other fields in an example of client {client!r}",
        fix="correct the file",
    )
    columns = {name: [example[name] for example in examples] for name in known}
    return {
        name: [values[0] for values in column]
        if all(len(values) == 1 for values in column)
        else column
        for name, column in columns.items()
    }
