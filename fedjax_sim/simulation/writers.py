"""Files of rows that grow with a run: JSON lines, CSV and TensorBoard events.

A file holds whole rows, in order, at every moment: rows are appended completely or not at all, and
the file is open only while a row is written. Rows that cannot be written, for example because the
disk is full, are kept and written with the next row.
"""

from __future__ import annotations

import csv
import dataclasses
import importlib
import socket
import struct
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Any, Self

from fedjax_sim.core import files
from fedjax_sim.core.errors import FedError, fail, require, sentence
from fedjax_sim.simulation.history import (
    Row,
    csv_cells,
    csv_text,
    from_jsonl,
    history,
    jsonl_text,
    to_jsonl,
)

MAX_ROUND_DIGITS = 18
"""Digits that the number of a round in a CSV file may have."""

NumberedRows = list[tuple[int, Row]]
"""Pairs of a round and its row."""


class WriteError(FedError):
    """A row could not be written. Its writer keeps it, and tries again at the next row and at the
    end."""


class Writer:
    """Writes the rows of a run to a file, as they are made. A context manager that closes itself.

    Args:
      path: the file, for error messages.
      append: writes all of the rows that it is given, or raises ``OSError`` and writes none.

    Example:

        >>> import pathlib, tempfile
        >>> from fedjax_sim.simulation.writers import csv_writer
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = pathlib.Path(folder) / "metrics.csv"
        ...     with csv_writer(path) as writer:
        ...         writer.write(1, {"loss": 2.0})
        ...         writer.write(2, {"loss": 1.0, "test/accuracy": 0.5})
        ...     path.read_text().split()
        ['round,loss,test/accuracy', '1,2.0,', '2,1.0,0.5']
    """

    def __init__(self, path: Path, append: Callable[[NumberedRows], None]) -> None:
        self._path = path
        self._append = append
        self._pending: NumberedRows = []

    def write(self, round_: int, row: Row) -> None:
        """Writes the row of a round, after all rows that could not be written before.

        Args:
          round_: the round, counted from 1.
          row: its numbers; they are copied.

        Raises:
          WriteError: if the file cannot be written now.
        """
        self._pending.append((round_, dict(row)))
        first = self._pending[0][0]
        self._flush(
            f"{self._path} could not be written from round {first} on; its rows are kept, and "
            "written as soon as possible"
        )

    def close(self) -> None:
        """Writes the rows that could not be written before.

        Raises:
          WriteError: if some rows still cannot be written.
        """
        if self._pending:
            first = self._pending[0][0]
            last = self._pending[-1][0]
            self._flush(f"{self._path} lacks rounds {first} to {last}, which could not be written")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _flush(self, problem: str) -> None:
        try:
            self._append(self._pending)
        except OSError as error:
            text = sentence(problem, got=files.reason(error), fix="free space on its disk")
            raise WriteError(text) from error
        self._pending.clear()


@dataclasses.dataclass
class _GrowingFile:
    """A file that rows are appended to."""

    path: Path
    size: int
    """Bytes of whole rows; what lies behind them is left of a failed attempt."""
    encode: Callable[[NumberedRows], bytes]

    def append(self, rows: NumberedRows) -> None:
        self.append_bytes(self.encode(rows))

    def append_bytes(self, content: bytes) -> None:
        self.size = files.append(self.path, self.size, content)


# --------------------------------------------------------------------------------------- JSON lines


def jsonl_writer(path: str | Path, after: int | None = None) -> Writer:
    r"""Opens a file of one JSON object per round. NaN is written as ``null``, infinity as
    ``"inf"``.

    Args:
      path: the file.
      after: the round to continue after: earlier lines are kept, later ones are dropped. ``None``
        starts an empty file.

    Raises:
      FedError: if the file cannot be written, or is not such a record.

    Example:

        >>> import pathlib, tempfile
        >>> from fedjax_sim.simulation.writers import jsonl_writer
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = pathlib.Path(folder) / "metrics.jsonl"
        ...     with jsonl_writer(path) as writer:
        ...         writer.write(1, {"loss": float("nan")})
        ...     path.read_text()
        '{"round": 1, "loss": null}\n'
    """
    path = Path(path)
    resumed = after is not None and path.exists()
    to_jsonl(from_jsonl(path, after) if resumed else history(), path)
    file = _GrowingFile(path, path.stat().st_size, lambda rows: jsonl_text(rows).encode())
    return Writer(path, file.append)


# ---------------------------------------------------------------------------------------------- CSV


def csv_writer(path: str | Path, after: int | None = None) -> Writer:
    """Opens a table with one line per round under a header.

    A metric that appears for the first time gets a new column; the file is then rewritten.

    Args:
      path: the file.
      after: the round to continue after: earlier lines are kept, later ones are dropped. ``None``
        starts an empty file.

    Raises:
      FedError: if the file cannot be written, or is not such a table.

    Example:

        >>> import pathlib, tempfile
        >>> from fedjax_sim.simulation.writers import csv_writer
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = pathlib.Path(folder) / "metrics.csv"
        ...     for after in (None, 0):
        ...         with csv_writer(path, after) as writer:
        ...             writer.write(1, {"loss": 2.0})
        ...     path.read_text().split()
        ['round,loss', '1,2.0']
    """
    path = Path(path)
    columns = ["round"]
    lines: list[list[str]] = []
    if after is not None and path.exists():
        header, lines = _read_table(path, after)
        columns = header or columns
    files.save(path, csv_text([columns, *lines]))
    return Writer(path, _CsvFile(path, path.stat().st_size, columns).append)


@dataclasses.dataclass
class _CsvFile:
    """A table that rows are appended to."""

    path: Path
    size: int
    """Bytes of whole lines."""
    columns: list[str]

    def append(self, rows: NumberedRows) -> None:
        """Appends lines; the file is rewritten first if rows have new names."""
        names = dict.fromkeys(name for _, row in rows for name in row)
        columns = [*self.columns, *(name for name in names if name not in self.columns)]
        lines = csv_cells(columns, rows)
        if columns == self.columns:
            self.size = files.append(self.path, self.size, csv_text(lines).encode())
            return
        earlier = [
            [*cells, *[""] * (len(columns) - len(cells))] for cells in _read_csv(self.path)[1]
        ]
        content = csv_text([columns, *earlier, *lines]).encode()
        self.size = files.replace(self.path, content)
        self.columns = columns


def _read_table(path: Path, after: int) -> tuple[list[str], list[list[str]]]:
    """The header of a table, and its lines up to a round."""
    require(
        path.is_file(), "the table of a run must be a file", got=path, fix="remove what is there"
    )
    header, lines = _read_csv(path)
    invalid = [cells for cells in lines if not _starts_with_round(cells)]
    require(
        not invalid,
        f"{path} has a line that is not the row of a round",
        got=invalid[:1],
        fix="remove this line, or the whole file",
    )
    return header, [cells for cells in lines if int(cells[0]) <= after]


def _starts_with_round(cells: list[str]) -> bool:
    return bool(cells) and cells[0].isdecimal() and len(cells[0]) <= MAX_ROUND_DIGITS


def _read_csv(path: Path) -> tuple[list[str], list[list[str]]]:
    """The header and the complete lines; a line that a crash cut off is left out."""
    text = path.read_text(errors="replace")
    complete = text[: text.rfind("\n") + 1]
    try:
        lines = list(csv.reader(complete.splitlines()))
    except csv.Error as error:
        fail(f"{path} is not a table of rounds", got=error, fix="remove the file")
    return (lines[0], lines[1:]) if lines else ([], [])


# -------------------------------------------------------------------------------------- TensorBoard


def tensorboard_writer(directory: str | Path, after: int | None = None) -> Writer:
    """Opens a TensorBoard event file; needs the ``tensorboard`` extra.

    The events are written here, because the writer of tensorboardX ends its thread when the disk is
    full, and then blocks at the next row.

    Args:
      directory: folder of the event files.
      after: the round to continue after: a new file tells TensorBoard to drop later rounds of the
        earlier files. ``None`` for a new run.

    Raises:
      FedError: if tensorboardX is not installed, or the file cannot be written.

    Example:

        >>> import tempfile
        >>> from fedjax_sim.simulation.writers import tensorboard_writer
        >>> with tempfile.TemporaryDirectory() as folder:  # doctest: +SKIP
        ...     with tensorboard_writer(folder) as writer:
        ...         writer.write(1, {"loss": 2.0})
    """
    event_pb2, summary_pb2 = _import_tensorboard()
    start = time.time()
    path = Path(directory) / f"events.out.tfevents.{int(start)}.{socket.gethostname()}"
    header = [event_pb2.Event(wall_time=start, file_version="brain.Event:2")]
    if after is not None:
        restart = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
        header.append(event_pb2.Event(wall_time=start, step=after + 1, session_log=restart))

    def encode(rows: NumberedRows) -> bytes:
        return _frame(_event(event_pb2, summary_pb2, round_, row) for round_, row in rows)

    with files.saving(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        file = _GrowingFile(path, path.stat().st_size if path.exists() else 0, encode)
        file.append_bytes(_frame(header))
    return Writer(path, file.append)


def _import_tensorboard() -> tuple[ModuleType, ModuleType]:
    try:
        importlib.import_module("tensorboardX")
        event_pb2 = importlib.import_module("tensorboardX.proto.event_pb2")
        summary_pb2 = importlib.import_module("tensorboardX.proto.summary_pb2")
    except ImportError:
        fail(
            "TensorBoard files need tensorboardX",
            got="not installed",
            fix="pip install 'fedjax-sim[tensorboard]', or leave them out",
        )
    return event_pb2, summary_pb2


def _event(event_pb2: ModuleType, summary_pb2: ModuleType, round_: int, row: Row) -> Any:
    summary = summary_pb2.Summary
    values = [summary.Value(tag=name, simple_value=value) for name, value in row.items()]
    return event_pb2.Event(wall_time=time.time(), step=round_, summary=summary(value=values))


def _frame(events: Iterable[Any]) -> bytes:
    """Events in TensorBoard's framing: length, its checksum, the event, its checksum."""
    from tensorboardX.record_writer import masked_crc32c

    parts: list[bytes] = []
    for event in events:
        content = event.SerializeToString()
        length = struct.pack("<Q", len(content))
        parts.append(length)
        parts.append(struct.pack("<I", masked_crc32c(length)))
        parts.append(content)
        parts.append(struct.pack("<I", masked_crc32c(content)))
    return b"".join(parts)
