"""Tables of comma- or tab-separated values: a row is an example."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, NoReturn

import numpy as np

from fedjax_sim.core.errors import fail, lookup, require
from fedjax_sim.data.federation import Federation
from fedjax_sim.data.population import Examples, by_client
from fedjax_sim.data.sources.base import Found, aligned, as_split, whole

BLOCK = 10_000
"""Rows turned into numbers at once."""


class Columns(NamedTuple):
    """What is taken from a table."""

    x: np.ndarray
    """float32 ``[n, features]``."""
    label: list[str]
    client: list[str]


def matches(path: Path) -> bool:
    """A file called ``.csv`` or ``.tsv``."""
    return path.is_file() and path.suffix in (".csv", ".tsv")


def read(
    path: Path, *, label: str, client: str = "", features: tuple[str, ...] = (), test: str = ""
) -> Found:
    """The first line names the columns; features are float32, labels whole numbers, or words, which are numbered in their order.

    Args:
      path: the file.
      label: column of the labels.
      client: column that says whose an example is, if any does.
      features: columns that become ``x``; by default all others.
      test: another file with these columns, of test examples.
    """
    train = _columns(path, label, client, features)
    held = _columns(Path(test).expanduser(), label, client, features) if test else None
    numbered, classes = _numbered([*train.label, *(held.label if held else ())])
    y, test_y = numbered[: len(train.label)], numbered[len(train.label) :]
    about = {"class_names": classes} if classes else {}
    central = Examples(held.x, test_y) if held else None
    if not client:
        return Found(
            examples=Examples(train.x, y),
            global_test=central,
            classes=len(classes) or None,
            about=about,
        )
    clients = by_client(train.x, y, np.asarray(train.client))
    others = as_split(by_client(held.x, test_y, np.asarray(held.client))) if held else None
    blocks = aligned(as_split(clients), others) if others else [Federation(clients)]
    return Found(blocks, classes=len(classes) or None, about=about)


def _columns(path: Path, label: str, client: str, features: tuple[str, ...]) -> Columns:
    rows = _rows(path)
    header = next(rows)[1]
    place = {name: i for i, name in enumerate(header)}
    known = f"column of {path.name}"
    owner = lookup(known, client, place) if client else None
    target = lookup(known, label, place)
    taken = [
        lookup(known, name, place)
        for name in features or [name for name in header if name not in (label, client)]
    ]
    require(
        bool(taken),
        f"{path.name} needs a column of features",
        got=header,
        fix="name them with features=",
    )
    blocks, labels, clients = [], [], []
    for rows_of_block in _several(rows):
        blocks.append(
            _floats(
                path,
                [(line, [row[i] for i in taken]) for line, row in rows_of_block],
                [header[i] for i in taken],
            )
        )
        labels += [row[target] for _, row in rows_of_block]
        clients += [] if owner is None else [row[owner] for _, row in rows_of_block]
    require(bool(blocks), f"{path.name} needs rows", got="a header only", fix="choose another file")
    return Columns(np.concatenate(blocks), labels, clients)


def _rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Line numbers and cells, the header first."""
    width = None
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file, delimiter="\t" if path.suffix == ".tsv" else ",", strict=True)
            for row in reader:
                width = width or len(row)
                if row:
                    got = f"{len(row)} in line {reader.line_num} of {path.name}"
                    require(
                        len(row) == width,
                        f"a row has one cell for each of the {width} columns",
                        got=got,
                        fix="mend that line",
                    )
                    yield reader.line_num, row
    except OSError as error:
        fail(f"{path} cannot be read", got=error.strerror, fix="give the path of a table")
    except (csv.Error, UnicodeDecodeError) as error:
        fail(
            f"{path} is no table of text",
            got=error,
            fix="give a file of comma-separated values in UTF-8",
        )
    require(
        width is not None,
        f"{path.name} needs a line that names its columns",
        got="an empty file",
        fix="choose another file",
    )


def _several(rows: Iterator[tuple[int, list[str]]]) -> Iterator[list[tuple[int, list[str]]]]:
    held: list[tuple[int, list[str]]] = []
    for row in rows:
        held.append(row)
        if len(held) == BLOCK:
            yield held
            held = []
    if held:
        yield held


def _floats(path: Path, rows: Sequence[tuple[int, list[str]]], names: list[str]) -> np.ndarray:
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
    got = f"{cell!r} in line {line}, column {name!r}, of {path.name}"
    fail(
        "a feature must be a finite number",
        got=got,
        fix="mend that cell, or name the columns to take with features=",
    )


def _numbered(cells: list[str]) -> tuple[np.ndarray, list[str]]:
    """Labels, and the words they stand for if they are words."""
    try:
        values = np.array(cells, np.float64)
    except ValueError:
        words, numbers = np.unique(np.asarray(cells), return_inverse=True)
        return numbers.astype(np.int32), words.tolist()
    if any(map(math.isnan, values)):
        fail("every row needs a label", got="nan", fix="drop the rows without one")
    return values.astype(np.int32 if whole(values) else np.float32), []
