"""Runs to attack, and what two runs that should be one differ in."""

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
"""Clients that remember something, so that every part of a state is there; a checkpoint is nearly always being written."""

ROWS, TABLE, SUMMARY, CHECKPOINTS = "metrics.jsonl", "metrics.csv", "summary.json", "checkpoints"


def configured(folder: Path, text: str = CONFIG) -> Path:
    """The configuration as a file."""
    path = folder / "config.toml"
    path.write_text(text)
    return path


def summary(run: Path) -> dict[str, Any]:
    """A run's summary; empty where there is none."""
    path = run / SUMMARY
    return json.loads(path.read_text()) if path.is_file() else {}


def differences(whole: Path, hurt: Path) -> list[str]:
    """How a run that was hurt differs from the one that was not: state, metrics, every line of its files but for ``seconds``."""
    one, other = summary(whole), summary(hurt)
    names = [name for name in ("state_hash", "rounds", "metrics") if other.get(name) != one[name]]
    found = [f"{name} {other.get(name)!r} is not {one[name]!r}" for name in names]
    for name, read in ((ROWS, rows), (TABLE, cells)):
        try:
            found += [f"{name}: {text}" for text in unlike(read(whole / name), read(hurt / name))]
        except (OSError, ValueError) as error:
            found.append(f"{name} cannot be read: {error}")
    return found


def unlike(one: Sequence[Any], other: Sequence[Any]) -> list[str]:
    """The first thing in which two lists differ, in words."""
    if one == other:
        return []
    place = next(
        (n for n, pair in enumerate(zip(one, other, strict=False)) if pair[0] != pair[1]),
        min(len(one), len(other)),
    )
    return [f"{len(other)} lines instead of {len(one)}, other from line {place + 1} on"]


def rows(path: Path) -> list[dict[str, Any]]:
    """Lines of a ``metrics.jsonl`` without their seconds. Strict: a torn line is a ``ValueError``."""
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
    """What is wrong with the files of a run that is not over: all lines of its rounds, in order, but for one that is being written."""
    path = run / ROWS
    lines = path.read_text().split("\n")[:-1] if path.is_file() else []
    try:
        numbers = [json.loads(line)["round"] for line in lines]
    except ValueError as error:
        return [f"{ROWS}: {error}"]
    return (
        []
        if numbers == list(range(1, len(numbers) + 1))
        else [f"{ROWS} has other rounds than 1 to {len(numbers)}"]
    )


def lines(run: Path) -> int:
    """How many rows a run has written."""
    path = run / ROWS
    return path.read_bytes().count(b"\n") if path.is_file() else 0
