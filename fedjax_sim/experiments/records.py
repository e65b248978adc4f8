"""What a run's folder says of its rounds: ``metrics.jsonl``, ``metrics.csv``, ``tensorboard/`` and ``summary.json``.

It may be a stranger's, and may say anything.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING

from fedjax_sim.core import files

if TYPE_CHECKING:
    from fedjax_sim.simulation.history import History
    from fedjax_sim.simulation.writers import Writer

ROWS, TABLE, BOARDS, SUMMARY = "metrics.jsonl", "metrics.csv", "tensorboard", "summary.json"


def summed_up(folder: Path, done: int) -> bool:
    """Whether the summary of so many rounds is there."""
    try:
        return files.parse_json(files.read(folder / SUMMARY))["rounds"] == done
    except (OSError, ValueError, KeyError, TypeError):
        return False


def last_round(folder: Path) -> int:
    """The last round that has a row, or 0."""
    from fedjax_sim.simulation.history import from_jsonl

    return max(from_jsonl(folder / ROWS).rows, default=0) if (folder / ROWS).is_file() else 0


def past(folder: Path, step: int | None) -> History | None:
    """The rows up to a checkpoint; none where there is no checkpoint, or the record is lost."""
    from fedjax_sim.simulation.history import from_jsonl

    return (
        from_jsonl(folder / ROWS, step) if step is not None and (folder / ROWS).is_file() else None
    )


def gaps(rows: History | None, step: int | None) -> tuple[str, ...]:
    """A note where rows before the checkpoint are missing: the disk was full, or somebody removed them."""
    lost = sorted(set(range(1, (step or 0) + 1)) - set(rows.rows if rows else ()))
    return (
        (
            f"{ROWS} lacks {len(lost)} of the rounds before the checkpoint, first of all round {lost[0]}",
        )
        if lost
        else ()
    )


def writers(folder: Path, after: int | None, rows: History | None) -> list[Writer]:
    """The table is made of the record where there is one: it may lack what the record has."""
    from fedjax_sim.simulation.history import to_csv
    from fedjax_sim.simulation.writers import csv_writer, jsonl_writer, tensorboard_writer

    if rows:
        to_csv(rows, folder / TABLE)
    made = [jsonl_writer(folder / ROWS, after), csv_writer(folder / TABLE, after)]
    extra = importlib.util.find_spec("tensorboardX") is not None
    return [*made, tensorboard_writer(folder / BOARDS, after)] if extra else made
