"""The record of a run: one row of numbers per round, in memory and in whole files.

A row is a flat ``dict[str, float]``. The results of an evaluation are part of the row of their
round, under names such as ``test/accuracy`` or ``clients/accuracy_worst10``; the rows of rounds
without an evaluation lack them. Files that grow with the run are written by
:mod:`fedjax_sim.simulation.writers`.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fedjax_sim.core import files
from fedjax_sim.core.errors import FedError, require, sentence, suggest

Row = dict[str, float]
"""The numbers of one round, by name."""


class History(NamedTuple):
    """Rows by round, in ascending order. Only :func:`record` adds rows.

    Example:

        >>> import fedjax_sim as fs
        >>> log = fs.History({1: {"loss": 2.0}, 2: {"loss": 1.0, "test/accuracy": 0.5}})
        >>> log.names()
        ('loss', 'test/accuracy')
        >>> rounds, values = log.get("test/accuracy")
        >>> rounds.tolist(), values.tolist()
        ([2], [0.5])
        >>> log.latest("loss")
        1.0
    """

    rows: dict[int, Row]

    def get(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """Returns the rounds that recorded a metric, and its values.

        Args:
          name: name of the metric, such as ``"test/accuracy"``.

        Returns:
          ``(rounds int64[k], values float64[k])``, ascending by round.

        Raises:
          FedError: if no round recorded the metric.
        """
        pairs = [(round_, row[name]) for round_, row in self.rows.items() if name in row]
        known = self.names()
        require(
            bool(pairs),
            f"no round recorded {name!r}",
            got=f"{len(self.rows)} rounds",
            fix=suggest(name, known) if known else "run some rounds",
        )
        rounds, values = zip(*pairs, strict=True)
        return np.array(rounds, np.int64), np.array(values, np.float64)

    def names(self) -> tuple[str, ...]:
        """The names of all metrics, in order of first appearance."""
        return tuple(dict.fromkeys(name for row in self.rows.values() for name in row))

    def latest(self, name: str, default: float | None = None) -> float | None:
        """Returns the newest value of a metric.

        Args:
          name: name of the metric.
          default: the result if no round recorded the metric.
        """
        return next((row[name] for row in reversed(self.rows.values()) if name in row), default)


def history() -> History:
    """An empty record.

    Example:

        >>> from fedjax_sim.simulation.history import history
        >>> history()
        History(rows={})
    """
    return History({})


def record(log: History, round_: int, row: Row) -> None:
    """Adds the row of a round to a record, in place.

    Args:
      log: the record.
      round_: the round, counted from 1; larger than every recorded round.
      row: the numbers of the round; they are copied.

    Raises:
      FedError: if the round is not larger than the last recorded one.

    Example:

        >>> from fedjax_sim.simulation.history import history, record
        >>> log = history()
        >>> record(log, 1, {"loss": 2.0})
        >>> log.rows
        {1: {'loss': 2.0}}
    """
    last = next(reversed(log.rows), 0)
    require(
        round_ > last,
        "rounds are recorded in order",
        got=f"round {round_} after round {last}",
        fix="drop later rounds first",
    )
    log.rows[round_] = dict(row)


def to_jsonl(log: History, path: str | Path) -> None:
    r"""Writes the whole record as a ``metrics.jsonl`` file, atomically.

    Args:
      log: the record.
      path: the file; an existing one is replaced.

    Raises:
      FedError: if the file cannot be written.

    Example:

        >>> import pathlib, tempfile
        >>> import fedjax_sim as fs
        >>> from fedjax_sim.simulation.history import to_jsonl
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = pathlib.Path(folder) / "metrics.jsonl"
        ...     to_jsonl(fs.History({1: {"loss": 2.0}}), path)
        ...     path.read_text()
        '{"round": 1, "loss": 2.0}\n'
    """
    files.save(Path(path), jsonl_text(log.rows.items()))


def to_csv(log: History, path: str | Path) -> None:
    """Writes the whole record as a ``metrics.csv`` file, atomically.

    Args:
      log: the record.
      path: the file; an existing one is replaced.

    Raises:
      FedError: if the file cannot be written.

    Example:

        >>> import pathlib, tempfile
        >>> import fedjax_sim as fs
        >>> from fedjax_sim.simulation.history import to_csv
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = pathlib.Path(folder) / "metrics.csv"
        ...     to_csv(fs.History({1: {"loss": 2.0}, 2: {"loss": 1.0}}), path)
        ...     path.read_text().split()
        ['round,loss', '1,2.0', '2,1.0']
    """
    columns = ["round", *log.names()]
    files.save(Path(path), csv_text([columns, *csv_cells(columns, log.rows.items())]))


def from_jsonl(path: str | Path, upto: int | None = None) -> History:
    r"""Reads the record in a ``metrics.jsonl`` file. A last line that a crash cut off is left out.

    Args:
      path: the file.
      upto: the last round to read; ``None`` reads all rounds.

    Raises:
      FedError: if there is no such file, or a line before the last is not the row of a round.

    Example:

        >>> import pathlib, tempfile
        >>> from fedjax_sim.simulation.history import from_jsonl
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = pathlib.Path(folder) / "metrics.jsonl"
        ...     _ = path.write_text('{"round": 1, "loss": 2.0}\n{"round": 2, "lo')
        ...     from_jsonl(path).rows
        {1: {'loss': 2.0}}
    """
    path = Path(path)
    require(
        path.is_file(),
        "no record of a run",
        got=path,
        fix="give the path of a metrics.jsonl file",
    )
    lines = path.read_text(errors="replace").splitlines(keepends=True)
    log = history()
    for number, line in enumerate(lines, 1):
        try:
            round_, row = _parse_line(line)
        except (ValueError, KeyError, AttributeError, TypeError, OverflowError) as error:
            if number == len(lines) and not line.endswith("\n"):
                break
            text = sentence(
                f"{path}:{number} is not the row of a round",
                got=repr(line[:60]),
                fix="remove this line",
            )
            raise FedError(text) from error
        if upto is None or round_ <= upto:
            record(log, round_, row)
    return log


def _parse_line(line: str) -> tuple[int, Row]:
    row = files.parse_json(line)
    round_ = int(row.pop("round"))
    values = {name: math.nan if value is None else float(value) for name, value in row.items()}
    return round_, values


def jsonl_text(rows: Iterable[tuple[int, Row]]) -> str:
    """Returns rows as strict JSON, one line per round: NaN as ``null``, infinity as ``"inf"``.

    Args:
      rows: pairs of a round and its row.
    """
    return "".join(_jsonl_line(round_, row) for round_, row in rows)


def _jsonl_line(round_: int, row: Row) -> str:
    safe = {
        name: value if math.isfinite(value) else (None if math.isnan(value) else str(value))
        for name, value in row.items()
    }
    return json.dumps({"round": round_, **safe}, allow_nan=False) + "\n"


def csv_cells(columns: list[str], rows: Iterable[tuple[int, Row]]) -> list[list[Any]]:
    """Returns the cells of a table, one list per row; a missing metric is an empty cell.

    Args:
      columns: ``"round"``, and then names of metrics.
      rows: pairs of a round and its row.
    """
    return [[round_, *(row.get(name, "") for name in columns[1:])] for round_, row in rows]


def csv_text(lines: list[list[Any]]) -> str:
    """Returns lines of cells as the text of a CSV file."""
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows(lines)
    return out.getvalue()
