"""A run's record: one row of numbers per round, in memory and in files that grow line by line.

A row is a flat ``dict[str, float]``. Results of an evaluation are part of their round's row, under names such as
``test/accuracy`` or ``clients/accuracy_worst10``; rounds without an evaluation simply lack them.
"""

from __future__ import annotations

import csv
import dataclasses
import importlib
import io
import json
import math
import socket
import struct
import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fedjax_sim.core import files
from fedjax_sim.core.errors import FedError, fail, require, sentence, suggest

Row = dict[str, float]
DIGITS = 19
"""Of the number of a round, less than."""


class History(NamedTuple):
    """Rows by round, ascending. It grows while a run goes on: :func:`record` is the only writer."""

    rows: dict[int, Row]

    def get(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """``(rounds int64[k], values float64[k])`` of the rounds that have this number.

        Raises:
          FedError: where no round has it.
        """
        pairs = [(round_, row[name]) for round_, row in self.rows.items() if name in row]
        known = self.names()
        require(
            bool(pairs),
            f"no round recorded {name!r}",
            got=f"{len(self.rows)} rounds",
            fix=suggest(name, known) if known else "run some rounds",
        )
        return np.array([pair[0] for pair in pairs], np.int64), np.array(
            [pair[1] for pair in pairs], np.float64
        )

    def names(self) -> tuple[str, ...]:
        """Every number's name, in order of first appearance."""
        return tuple(dict.fromkeys(name for row in self.rows.values() for name in row))

    def latest(self, name: str, default: float | None = None) -> float | None:
        """The newest value of a number; ``default`` where no round has it."""
        return next((row[name] for row in reversed(self.rows.values()) if name in row), default)


def history() -> History:
    """An empty record."""
    return History({})


def record(log: History, round_: int, row: Row) -> None:
    """Adds a round's numbers to the record, in place; rounds must come in order."""
    last = next(reversed(log.rows), 0)
    require(
        round_ > last,
        "rounds are recorded in order",
        got=f"round {round_} after round {last}",
        fix="drop later rounds first",
    )
    log.rows[round_] = dict(row)


def to_jsonl(log: History, path: str | Path) -> None:
    """The whole record as a ``metrics.jsonl`` file, whole or not at all.

    Raises:
      FedError: where it cannot be written.
    """
    files.save(Path(path), _lines(log.rows.items()))


def to_csv(log: History, path: str | Path) -> None:
    """The whole record as a ``metrics.csv`` file, whole or not at all.

    Raises:
      FedError: where it cannot be written.
    """
    columns = ["round", *log.names()]
    files.save(Path(path), _csv_lines([columns, *_cells(columns, log.rows.items())]))


def from_jsonl(path: str | Path, upto: int | None = None) -> History:
    """The record in a ``metrics.jsonl`` file, as far as round ``upto``. A last line that was cut off by a crash is left out.

    Raises:
      FedError: where there is no such file, or a line before the last is not a row.
    """
    path = Path(path)
    require(
        path.is_file(), "no record of a run", got=path, fix="give the path of a metrics.jsonl file"
    )
    lines = path.read_text(errors="replace").splitlines(keepends=True)
    log = history()
    for number, line in enumerate(lines, 1):
        try:
            row = files.parsed(line)
            round_ = int(row.pop("round"))
            values = {
                name: math.nan if value is None else float(value) for name, value in row.items()
            }
        except (ValueError, KeyError, AttributeError, TypeError, OverflowError) as error:
            if number == len(lines) and not line.endswith("\n"):
                break
            raise FedError(
                sentence(
                    f"{path}:{number} is not a round's row",
                    got=repr(line[:60]),
                    fix="remove this line",
                )
            ) from error
        if upto is None or round_ <= upto:
            record(log, round_, values)
    return log


# ---------------------------------------------------------------------------------------------------------------- writers


class WriteError(FedError):
    """A row could not be written. The writer keeps it, and tries again with the next one and when it is closed."""


class Writer(NamedTuple):
    """Where rows go as they are made. Files hold whole rows, in order, whenever somebody looks at them or the process ends."""

    write: Callable[[int, Row], None]
    """``(round, row) -> None``; the row is in the file when it returns, and so are those that could not be written before.
    :class:`WriteError` where there is no room for them now."""
    close: Callable[[], None]
    """``() -> None``; :class:`WriteError` where rows remain that could not be written."""


Numbered = list[tuple[int, Row]]
"""Rows and their rounds."""


def jsonl_writer(path: str | Path, after: int | None = None) -> Writer:
    """One JSON object per round and line. NaN is written as ``null``, infinity as ``"inf"``.

    Args:
      path: the file.
      after: continue a run: keep the lines up to this round and drop later ones. ``None`` starts the file anew.

    Raises:
      FedError: where the file cannot be written, or is not such a record.
    """
    path = Path(path)
    to_jsonl(from_jsonl(path, after) if after is not None and path.exists() else history(), path)
    return _patient(path, partial(_grow, _File(path, path.stat().st_size), _lines))


def csv_writer(path: str | Path, after: int | None = None) -> Writer:
    """One line per round under a header. A number that is met for the first time gets a new column, and the file is rewritten.

    Args:
      path: the file.
      after: continue a run: keep the lines up to this round and drop later ones. ``None`` starts the file anew.

    Raises:
      FedError: where the file cannot be written, or is not such a table.
    """
    path, columns = Path(path), ["round"]
    kept: list[list[str]] = []
    if after is not None and path.exists():
        require(path.is_file(), "no table of a run", got=path, fix="remove what is there")
        header, rows = _read_csv(path)
        columns[:] = header or columns
        odd = [row for row in rows if not row or not (row[0].isdecimal() and len(row[0]) < DIGITS)]
        require(
            not odd,
            f"{path} has a line that is not a round's row",
            got=odd[:1],
            fix="remove this line, or the whole file",
        )
        kept = [row for row in rows if int(row[0]) <= after]
    files.save(path, _csv_lines([columns, *kept]))
    return _patient(path, partial(_write_csv, _File(path, path.stat().st_size), columns))


def tensorboard_writer(directory: str | Path, after: int | None = None) -> Writer:
    """TensorBoard event files; needs the ``tensorboard`` extra. A resumed run adds a file, which takes back rounds after ``after``.

    Raises:
      FedError: where tensorboardX is not installed, or the file cannot be written.
    """
    try:
        importlib.import_module("tensorboardX")
        protos = [
            importlib.import_module(f"tensorboardX.proto.{name}_pb2")
            for name in ("event", "summary")
        ]
    except ImportError:
        fail(
            "TensorBoard files need tensorboardX",
            got="not installed",
            fix="pip install 'fedjax-sim[tensorboard]', or leave them out",
        )
    # Its own writer would not do: where the disk is full its thread ends, and the next rows wait for it forever.
    Event, SessionLog, Summary, now = (
        protos[0].Event,
        protos[0].SessionLog,
        protos[1].Summary,
        time.time(),
    )
    path = Path(directory) / f"events.out.tfevents.{int(now)}.{socket.gethostname()}"
    begin = [Event(wall_time=now, file_version="brain.Event:2")]
    if after is not None:
        begin.append(
            Event(wall_time=now, step=after + 1, session_log=SessionLog(status=SessionLog.START))
        )

    def records(rows: Numbered) -> bytes:
        tagged = (
            (round_, [Summary.Value(tag=name, simple_value=value) for name, value in row.items()])
            for round_, row in rows
        )
        return _records(
            Event(wall_time=time.time(), step=round_, summary=Summary(value=values))
            for round_, values in tagged
        )

    with files.saving(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        file = _File(path, path.stat().st_size if path.exists() else 0)
        file.whole = files.grow(path, file.whole, _records(begin))
    return _patient(path, partial(_grow, file, records))


@dataclasses.dataclass
class _File:
    """A file that grows, and how many of its bytes are whole rows."""

    path: Path
    whole: int


def _patient(path: Path, put: Callable[[Numbered], None]) -> Writer:
    """A writer that keeps the rows that could not be written. ``put`` writes all of the rows it is given, or raises ``OSError``."""
    waiting: Numbered = []

    def flush(trouble: Callable[[], str]) -> None:
        try:
            put(waiting)
        except OSError as error:
            raise WriteError(
                sentence(trouble(), got=files.reason(error), fix="make room there")
            ) from error
        waiting.clear()

    def write(round_: int, row: Row) -> None:
        waiting.append((round_, dict(row)))
        flush(
            lambda: (
                f"{path} could not be written from round {waiting[0][0]} on, and will be as soon as it can"
            )
        )

    def close() -> None:
        if waiting:
            flush(
                lambda: (
                    f"{path} lacks rounds {waiting[0][0]} to {waiting[-1][0]}, which could not be written"
                )
            )

    return Writer(write, close)


def _grow(file: _File, form: Callable[[Numbered], str | bytes], rows: Numbered) -> None:
    """Opened and closed each time, so that nobody holds the file."""
    content = form(rows)
    file.whole = files.grow(
        file.path, file.whole, content.encode() if isinstance(content, str) else content
    )


def _lines(rows: Iterable[tuple[int, Row]]) -> str:
    return "".join(_line(round_, row) for round_, row in rows)


def _line(round_: int, row: Row) -> str:
    """Strict JSON: other readers than Python's have no NaN and no Infinity."""
    safe = {
        name: value if math.isfinite(value) else (None if math.isnan(value) else str(value))
        for name, value in row.items()
    }
    return json.dumps({"round": round_, **safe}, allow_nan=False) + "\n"


def _write_csv(file: _File, columns: list[str], rows: Numbered) -> None:
    """Appends lines; first widens the file where rows have new names (they are met a few times in a run, not each round)."""
    names = dict.fromkeys(name for _, row in rows for name in row)
    wide = [*columns, *(name for name in names if name not in columns)]
    lines = _cells(wide, rows)
    if wide == columns:
        _grow(file, lambda _: _csv_lines(lines), rows)
        return
    held = [[*old, *[""] * (len(wide) - len(old))] for old in _read_csv(file.path)[1]]
    file.whole = files.replace(file.path, _csv_lines([wide, *held, *lines]).encode())
    columns[:] = wide


def _read_csv(path: Path) -> tuple[list[str], list[list[str]]]:
    """Header and complete rows; a line that was cut off by a crash is left out."""
    text = path.read_text(errors="replace")
    try:
        lines = list(csv.reader(text[: text.rfind("\n") + 1].splitlines()))
    except csv.Error as error:
        fail(f"{path} is not a table of rounds", got=error, fix="remove the file")
    return (lines[0], lines[1:]) if lines else ([], [])


def _cells(columns: list[str], rows: Iterable[tuple[int, Row]]) -> list[list[Any]]:
    return [[round_, *(row.get(name, "") for name in columns[1:])] for round_, row in rows]


def _csv_lines(lines: list[list[Any]]) -> str:
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows(lines)
    return out.getvalue()


def _records(events: Iterable[Any]) -> bytes:
    """TensorBoard's framing: length, its checksum, the event, its checksum."""
    from tensorboardX.record_writer import masked_crc32c

    def framed(event: bytes) -> bytes:
        length = struct.pack("<Q", len(event))
        return b"".join(
            (
                length,
                struct.pack("<I", masked_crc32c(length)),
                event,
                struct.pack("<I", masked_crc32c(event)),
            )
        )

    return b"".join(framed(event.SerializeToString()) for event in events)
