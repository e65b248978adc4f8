"""Runs to attack, and how two runs that should be equal differ."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

CONFIG = """
rounds = 120
[task]
name = "digits"
clients = 12
[algorithm]
name = "scaffold"
[sampler]
kind = "uniform"
cohort = 4
[engine]
shards = 4
[evaluation]
every = 20
[checkpoint]
every = 6
keep = 2
"""
"""An algorithm with client memory, so that no part of the state is empty; a checkpoint is being
written almost all the time."""

ROWS = "metrics.jsonl"
TABLE = "metrics.csv"
SUMMARY = "summary.json"
CHECKPOINTS = "checkpoints"


def configured(folder: Path, text: str = CONFIG) -> Path:
    """Writes the configuration to a file; returns its path."""
    path = folder / "config.toml"
    path.write_text(text)
    return path


def summary(run: Path) -> dict[str, Any]:
    """A run's summary; empty if there is none."""
    path = run / SUMMARY
    return json.loads(path.read_text()) if path.is_file() else {}


def differences(whole: Path, hurt: Path) -> list[str]:
    """How an attacked run differs from one that was not attacked, in words.

    State, metrics and every line of its files are compared, except for ``seconds``.

    Args:
      whole: folder of the run that was not attacked.
      hurt: folder of the attacked run.
    """
    expected = summary(whole)
    actual = summary(hurt)
    names = [
        name for name in ("state_hash", "rounds", "metrics") if actual.get(name) != expected[name]
    ]
    texts = [f"{name} {actual.get(name)!r} is not {expected[name]!r}" for name in names]
    for name, read in ((ROWS, rows), (TABLE, cells)):
        try:
            first = first_difference(read(whole / name), read(hurt / name))
            texts += [f"{name}: {first}"] if first else []
        except (OSError, ValueError) as error:
            texts.append(f"{name} cannot be read: {error}")
    return texts


def first_difference(expected: Sequence[Any], actual: Sequence[Any]) -> str:
    """Where two lists begin to differ, in words; empty if they are equal."""
    if actual == expected:
        return ""
    pairs = enumerate(zip(expected, actual, strict=False))
    shorter = min(len(expected), len(actual))
    place = next((number for number, pair in pairs if pair[0] != pair[1]), shorter)
    return f"{len(actual)} lines instead of {len(expected)}, other from line {place + 1} on"


def rows(path: Path) -> list[dict[str, Any]]:
    """Lines of a ``metrics.jsonl`` without their seconds; a torn line is a ``ValueError``."""
    text = path.read_text()
    if text and not text.endswith("\n"):
        raise ValueError("the last line is torn")
    return [
        {name: value for name, value in json.loads(line).items() if name != "seconds"}
        for line in text.splitlines()
    ]


def cells(path: Path) -> list[dict[str, str]]:
    """Lines of a ``metrics.csv`` without their seconds, by column."""
    with path.open(newline="") as file:
        lines = list(csv.DictReader(file))
    if any(None in line or None in line.values() for line in lines):
        raise ValueError("a line has too many or too few cells")
    return [{name: value for name, value in line.items() if name != "seconds"} for line in lines]


def meanwhile(run: Path) -> list[str]:
    """What is wrong with the rows of a run that has not ended.

    There must be a line for every round, in order; the last line may be incomplete.
    """
    path = run / ROWS
    lines = path.read_text().split("\n")[:-1] if path.is_file() else []
    try:
        numbers = [json.loads(line)["round"] for line in lines]
    except ValueError as error:
        return [f"{ROWS}: {error}"]
    if numbers == list(range(1, len(numbers) + 1)):
        return []
    return [f"{ROWS} has other rounds than 1 to {len(numbers)}"]


def lines(run: Path) -> int:
    """The number of rows that a run has written."""
    path = run / ROWS
    return path.read_bytes().count(b"\n") if path.is_file() else 0
