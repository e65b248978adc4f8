"""Reader of tables of comma- or tab-separated values, with one example per row."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import numpy as np

from fedjax_sim.core.errors import fail, lookup, require
from fedjax_sim.data.federation import Federation
from fedjax_sim.data.population import Examples, by_client
from fedjax_sim.data.sources.base import SourceData, aligned, as_split, is_whole

BLOCK = 10_000
"""Number of rows that are converted to numbers at once."""


class Columns(NamedTuple):
    """The selected columns of a table."""

    x: np.ndarray
    """float32 ``[n, features]``."""
    label: list[str]
    """n cells."""
    client: list[str]
    """n cells; empty if no column has the owners."""


def matches(path: Path) -> bool:
    """Whether the path is a file with the ending ``.csv`` or ``.tsv``."""
    return path.is_file() and path.suffix in (".csv", ".tsv")


def read(
    path: Path, *, label: str, client: str = "", features: tuple[str, ...] = (), test: str = ""
) -> SourceData:
    """Reads a table whose first line names the columns.

    Features are float32. Labels are whole numbers, or words, which are numbered in alphabetical
    order.

    Args:
      path: the file.
      label: column of the labels.
      client: column of the owners; without it the examples have no owners.
      features: columns that become ``x``; by default all other columns.
      test: path of another file with the same columns, with test examples.

    Example:
      >>> import tempfile
      >>> from pathlib import Path
      >>> from fedjax_sim.data.sources.table import read
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     path = Path(folder, "pets.csv")
      ...     size = path.write_text("who,height,kind\\nann,1.5,dog\\nbob,0.5,cat\\n")
      ...     source = read(path, label="kind", client="who")
      >>> source.about["class_names"], source.blocks[0].train.names
      (['cat', 'dog'], ('ann', 'bob'))
    """
    train = _columns(path, label, client, features)
    test_columns = _columns(Path(test).expanduser(), label, client, features) if test else None
    test_labels = test_columns.label if test_columns else []
    numbers, classes = _label_numbers([*train.label, *test_labels])
    y = numbers[: len(train.label)]
    test_y = numbers[len(train.label) :]
    facts: dict[str, Any] = {
        "classes": len(classes) or None,
        "about": {"class_names": classes} if classes else {},
    }
    if not client:
        global_test = Examples(test_columns.x, test_y) if test_columns else None
        return SourceData(examples=Examples(train.x, y), global_test=global_test, **facts)
    clients = by_client(train.x, y, np.asarray(train.client))
    if test_columns is None:
        return SourceData([Federation(clients)], **facts)
    test_clients = by_client(test_columns.x, test_y, np.asarray(test_columns.client))
    return SourceData(aligned(as_split(clients), as_split(test_clients)), **facts)


def _columns(path: Path, label: str, client: str, features: tuple[str, ...]) -> Columns:
    """Returns the selected columns of a file; see :func:`read` for the arguments."""
    rows = _rows(path)
    header = next(rows)[1]
    index = {name: i for i, name in enumerate(header)}
    kind = f"column of {path.name}"
    client_column = lookup(kind, client, index) if client else None
    label_column = lookup(kind, label, index)
    names = features or [name for name in header if name not in (label, client)]
    columns = [lookup(kind, name, index) for name in names]
    require(
        bool(columns),
        f"{path.name} needs a column of features",
        got=header,
        fix="name the columns with features=",
        setting="features",
    )
    x: list[np.ndarray] = []
    labels: list[str] = []
    clients: list[str] = []
    for block in _blocks(rows):
        cells = [(line, [row[i] for i in columns]) for line, row in block]
        x.append(_floats(path, cells, [header[i] for i in columns]))
        labels += [row[label_column] for _, row in block]
        clients += [] if client_column is None else [row[client_column] for _, row in block]
    require(bool(x), f"{path.name} needs rows", got="a header only", fix="choose another file")
    return Columns(np.concatenate(x), labels, clients)


def _rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Yields the line number and the cells of each row; the header is the first."""
    width = None
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file, delimiter="\t" if path.suffix == ".tsv" else ",", strict=True)
            for row in reader:
                width = width or len(row)
                if row:
                    require(
                        len(row) == width,
                        f"a row must have one cell for each of the {width} columns",
                        got=f"{len(row)} in line {reader.line_num} of {path.name}",
                        fix="correct that line",
                    )
                    yield reader.line_num, row
    except OSError as error:
        fail(f"{path} cannot be read", got=error.strerror, fix="give the path of a table")
    except (csv.Error, UnicodeDecodeError) as error:
        fail(
            f"{path} is not a table of text",
            got=error,
            fix="give a file of comma-separated values in UTF-8",
        )
    require(
        width is not None,
        f"{path.name} needs a line that names its columns",
        got="an empty file",
        fix="choose another file",
    )


def _blocks(rows: Iterator[tuple[int, list[str]]]) -> Iterator[list[tuple[int, list[str]]]]:
    """Yields lists of :data:`BLOCK` rows; the last may be shorter."""
    block: list[tuple[int, list[str]]] = []
    for row in rows:
        block.append(row)
        if len(block) == BLOCK:
            yield block
            block = []
    if block:
        yield block


def _floats(path: Path, rows: Sequence[tuple[int, list[str]]], names: list[str]) -> np.ndarray:
    """Converts cells to float32 ``[n, features]``.

    Args:
      path: the file, for the message.
      rows: line numbers and the cells of the features.
      names: names of the features, for the message.
    """
    try:
        array = np.array([cells for _, cells in rows], np.float64)
    except ValueError:
        array = np.array(
            [
                [_number(path, line, name, cell) for name, cell in zip(names, cells, strict=True)]
                for line, cells in rows
            ]
        )
    if not np.isfinite(array).all():
        row, column = np.argwhere(~np.isfinite(array))[0]
        _refuse(path, rows[row][0], names[column], rows[row][1][column])
    return array.astype(np.float32)


def _number(path: Path, line: int, name: str, cell: str) -> float:
    try:
        return float(cell)
    except ValueError:
        _refuse(path, line, name, cell)


def _refuse(path: Path, line: int, name: str, cell: str) -> NoReturn:
    fail(
        "a feature must be a finite number",
        got=f"{cell!r} in line {line}, column {name!r}, of {path.name}",
        fix="correct that cell, or select the columns with features=",
        setting="features",
    )


def _label_numbers(cells: list[str]) -> tuple[np.ndarray, list[str]]:
    """Returns the labels as numbers, and the words that they stand for (``[]`` for numbers)."""
    try:
        values = np.array(cells, np.float64)
    except ValueError:
        words, numbers = np.unique(np.asarray(cells), return_inverse=True)
        return numbers.astype(np.int32), words.tolist()
    if any(map(math.isnan, values)):
        fail("every row needs a label", got="nan", fix="drop the rows without one")
    return values.astype(np.int32 if is_whole(values) else np.float32), []
