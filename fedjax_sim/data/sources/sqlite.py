"""SQLite files of federated data: FedJAX's, a row for each client, and TensorFlow Federated's, a row for each example."""

from __future__ import annotations

import contextlib
import sqlite3
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from fedjax_sim.core.errors import fail, lookup, require
from fedjax_sim.data.federation import Federation
from fedjax_sim.data.sources.base import Found, Split, aligned, fields, library
from fedjax_sim.data.sources.protos import Damaged, example

MAGIC = b"SQLite format 3\0"
"""How such a file begins."""

Parse = Callable[[bytes, str], dict[str, Any]]


def matches_fedjax(path: Path) -> bool:
    """A database with the table ``federated_data``."""
    return "federated_data" in tables(path)


def matches_tff(path: Path) -> bool:
    """A database with the tables ``examples`` and ``client_metadata``."""
    return {"examples", "client_metadata"} <= set(tables(path))


def read_fedjax(
    path: Path, *, x: str = "", y: str = "", shape: tuple[int, ...] = (), test: str = ""
) -> Found:
    """FedJAX's: a client's arrays by name, as zipped msgpack. Needs msgpack.

    Args:
      path: the file.
      x: field that becomes ``x``.
      y: field that becomes ``y``.
      shape: of one example.
      test: another file, of test examples.
    """
    _check(path, "federated_data")
    library("msgpack", "FedJAX's SQLite files")

    def split(database: sqlite3.Connection) -> Split:
        names = {
            _name(row[0]): row[0]
            for row in database.execute("SELECT client_id FROM federated_data ORDER BY rowid")
        }

        def client(name: str) -> tuple[Any, Any]:
            (data,) = database.execute(
                "SELECT data FROM federated_data WHERE client_id = ?", [names[name]]
            ).fetchone()
            return fields(unpacked(data, name), f"client {name!r}", x, y, shape)

        return Split(tuple(names), client)

    def blocks() -> Iterator[Federation]:
        with (
            opened(path) as train,
            opened(Path(test).expanduser()) if test else contextlib.nullcontext() as held,
        ):
            yield from aligned(split(train), None if held is None else split(held))

    return Found(blocks())


def read_tff(
    path: Path,
    *,
    x: str = "",
    y: str = "",
    shape: tuple[int, ...] = (),
    split: str = "train",
    test_split: str = "test",
) -> Found:
    """TensorFlow Federated's: one ``tf.train.Example`` a row, read without TensorFlow.

    Args:
      path: the file.
      x: field that becomes ``x``.
      y: field that becomes ``y``; without one, strings become a client's text.
      shape: of one example.
      split: whose clients train.
      test_split: test examples, if there are any.
    """
    _check(path, "examples")
    select = "SELECT serialized_example_proto FROM examples WHERE split_name = ? AND client_id = ? ORDER BY rowid"

    def part(database: sqlite3.Connection, name: str) -> Split:
        rows = database.execute(
            "SELECT DISTINCT client_id FROM client_metadata WHERE split_name = ? ORDER BY client_id",
            [name],
        )

        def client(who: str) -> tuple[Any, Any]:
            found = [_parsed(row[0], who) for row in database.execute(select, [name, who])]
            require(
                bool(found),
                "every client needs at least one example",
                got=f"none for {who!r} in split {name!r}",
                fix="mend the file",
            )
            return fields(_stacked(found, who), f"client {who!r}", x, y, shape)

        return Split(tuple(row[0] for row in rows), client)

    def blocks() -> Iterator[Federation]:
        with opened(path) as database:
            known = {
                row[0]: row
                for row in database.execute("SELECT DISTINCT split_name FROM client_metadata")
            }
            lookup("split of the database", split, known)
            yield from aligned(
                part(database, split), part(database, test_split) if test_split in known else None
            )

    return Found(blocks())


@contextlib.contextmanager
def opened(path: Path) -> Iterator[sqlite3.Connection]:
    """The database, which nothing can change; what SQLite complains of is said in a sentence."""
    try:
        with contextlib.closing(
            sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)
        ) as database:
            yield database
    except sqlite3.Error as error:
        fail(
            f"{path} cannot be read as an SQLite database",
            got=error,
            fix="give the path of a whole one, unpacked if it was compressed",
        )


def tables(path: Path) -> list[str]:
    """Names of the tables in a file; none where it is no database."""
    if not path.is_file() or not _begins(path):
        return []
    with opened(path) as database:
        return [
            row[0]
            for row in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
        ]


def unpacked(data: bytes, name: str) -> dict[str, Any]:
    """The arrays of one client, as FedJAX writes them: an array is its shape, the name of its type, and its bytes."""
    msgpack = library("msgpack", "FedJAX's SQLite files")

    def array(code: int, packed: bytes) -> Any:
        shape, *rest = msgpack.unpackb(packed, raw=True)
        if code == STRINGS:
            return np.array(rest[0], object).reshape(shape)
        kind, buffer = rest
        return np.frombuffer(buffer, np.dtype(kind.decode())).reshape(shape)

    try:
        held = msgpack.unpackb(zlib.decompress(data), ext_hook=array)
    except (zlib.error, msgpack.UnpackException, ValueError, TypeError) as error:
        fail(
            f"the data of client {name!r} cannot be read",
            got=error,
            fix="give a file that FedJAX wrote",
        )
    require(
        isinstance(held, dict),
        f"the data of client {name!r} must be arrays by name",
        got=type(held).__name__,
        fix="give a file of FedJAX",
    )
    return held


STRINGS = 4
"""FedJAX's number for arrays of strings; others are of numbers."""


def _begins(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(len(MAGIC)) == MAGIC


def _check(path: Path, table: str) -> None:
    require(
        path.is_file() and _begins(path),
        "this format is an SQLite database",
        got=path,
        fix="give the path of one, unpacked if need be",
    )
    found = tables(path)
    require(
        table in found,
        f"a database of this format has the table {table}",
        got=found or "none",
        fix="choose another --format",
    )


def _name(client: Any) -> str:
    return client.decode(errors="backslashreplace") if isinstance(client, bytes) else str(client)


def _parsed(data: bytes, who: str) -> dict[str, Any]:
    try:
        return example(data)
    except Damaged as error:
        fail(
            f"an example of client {who!r} cannot be read",
            got=error,
            fix="give a file that TensorFlow Federated wrote",
        )


def _stacked(rows: list[dict[str, Any]], who: str) -> dict[str, Any]:
    """A client's examples by field: a single number or string is no list of one."""
    known = set(rows[0])
    same = all(set(row) == known for row in rows)
    require(
        same,
        "all examples must have the same fields",
        got=f"others in an example of client {who!r}",
        fix="mend the file",
    )
    columns = {name: [row[name] for row in rows] for name in known}
    return {
        name: [each[0] for each in column] if all(len(each) == 1 for each in column) else column
        for name, column in columns.items()
    }
