"""The folder of a run: its paths, and what can be read from it.

A folder may come from someone else and may hold anything, so everything that is read is checked.
Nothing in it is executed.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedjax_sim.core import files
from fedjax_sim.core.errors import fail, require

if TYPE_CHECKING:
    from fedjax_sim.experiments.config import Config
    from fedjax_sim.persistence.checkpoint import Store
    from fedjax_sim.simulation.history import History
    from fedjax_sim.simulation.writers import Writer

CONFIG = "config.toml"
ROWS = "metrics.jsonl"
TABLE = "metrics.csv"
BOARDS = "tensorboard"
SUMMARY = "summary.json"
CHECKPOINTS = "checkpoints"
MEMORY = "memory"
"""Folder of the clients' memory, for runs that keep it on the host."""

Summary = dict[str, Any]


class RunFolder:
    """The folder of a run.

    ``fedjax_sim.run`` returns one; ``RunFolder(path)`` opens an existing one. Opening reads
    nothing.

    Args:
      path: the folder.

    Attributes:
      path: the folder.
      config_path: ``config.toml``, the resolved configuration.
      rows_path: ``metrics.jsonl``, one row of numbers per round.
      table_path: ``metrics.csv``, the same rows.
      summary_path: ``summary.json``, the run in numbers, written at its end.
      checkpoints_path: ``checkpoints/``, the saved states.
      memory_path: ``memory/``, the clients' memory, if the host keeps it.
      tensorboard_path: ``tensorboard/``, if tensorboardX is installed.

    >>> import fedjax_sim as fs
    >>> fs.RunFolder("runs/digits-fedavg-0-001").rows_path.as_posix()
    'runs/digits-fedavg-0-001/metrics.jsonl'
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.config_path = self.path / CONFIG
        self.rows_path = self.path / ROWS
        self.table_path = self.path / TABLE
        self.summary_path = self.path / SUMMARY
        self.checkpoints_path = self.path / CHECKPOINTS
        self.memory_path = self.path / MEMORY
        self.tensorboard_path = self.path / BOARDS

    def __fspath__(self) -> str:
        """The path as text, so that the folder can be passed wherever a path can."""
        return str(self.path)

    def __repr__(self) -> str:
        return f"RunFolder({str(self.path)!r})"

    def contents(self) -> list[str]:
        """Names of the files and folders that show that a run is here."""
        names = (CONFIG, ROWS, CHECKPOINTS, SUMMARY)
        return [name for name in names if (self.path / name).exists()]

    def require_run(self) -> RunFolder:
        """Returns itself.

        Raises:
          FedError: if the folder has no configuration.
        """
        fix = "give the folder of a run, such as one below runs/"
        require(self.config_path.is_file(), "no run in this folder", got=self.path, fix=fix)
        return self

    def config(self) -> Config:
        """The configuration of the run; one that an earlier version wrote is translated.

        Raises:
          ConfigErrors: if the file cannot be read or is not valid.
        """
        from fedjax_sim.experiments.config import entries_by_kind, read, resolve

        self.require_run()
        return resolve(read(self.config_path, stored=True), entries_by_kind())

    def history(self, upto: int | None = None) -> History:
        """The rows of numbers, by round.

        Args:
          upto: the last round to read; all by default.

        Raises:
          FedError: if there are no rows, or they cannot be read.
        """
        from fedjax_sim.simulation.history import from_jsonl

        if not self.rows_path.is_file():
            fail("this run has no rows", got=self.rows_path, fix="run it, or check the path")
        return from_jsonl(self.rows_path, upto)

    def summary(self) -> Summary | None:
        """What ``summary.json`` holds: metrics, seconds, ``state_hash``, versions, notes; ``None``
        while the run has not ended.
        """
        try:
            content = files.parse_json(files.read(self.summary_path))
        except (OSError, ValueError):
            return None
        return content if isinstance(content, dict) else None

    def checkpoints(self, keep: int | None = None, every: int | None = None) -> Store:
        """Opens the checkpoints; close them, or use them in a ``with`` statement.

        Args:
          keep: how many of the newest stay when another is saved; all by default.
          every: besides these, checkpoints whose round is a multiple of this number stay.
        """
        from fedjax_sim.persistence.checkpoint import open_store

        return open_store(self.checkpoints_path, keep=keep, every=every)

    def last_round(self) -> int:
        """The last round that has a row; 0 if there is none."""
        return max(self.history().rows, default=0) if self.rows_path.is_file() else 0

    def rows_before(self, step: int | None) -> History | None:
        """The rows up to a checkpoint's round; ``None`` without a checkpoint or without rows."""
        return self.history(step) if step is not None and self.rows_path.is_file() else None

    def is_summed_up(self, rounds: int) -> bool:
        """Whether there is a summary of exactly this number of rounds."""
        return (self.summary() or {}).get("rounds") == rounds


def missing_rows(rows: History | None, step: int | None) -> tuple[str, ...]:
    """A note if rows before the checkpoint of round ``step`` are missing, because the disk was full
    or the file was edited.
    """
    missing = sorted(set(range(1, (step or 0) + 1)) - set(rows.rows if rows else ()))
    if not missing:
        return ()
    count = f"{len(missing)} round{'s' if len(missing) > 1 else ''}"
    return (f"{ROWS} lacks rows before the checkpoint: {count}, the first is {missing[0]}",)


def open_writers(folder: RunFolder, after: int | None, rows: History | None) -> list[Writer]:
    """Opens the writers of a run's rows.

    Args:
      folder: of the run.
      after: the round to continue after; ``None`` for a new run.
      rows: those up to it, from which the table is written again: it may lack some.
    """
    from fedjax_sim.simulation.history import to_csv
    from fedjax_sim.simulation.writers import csv_writer, jsonl_writer, tensorboard_writer

    if rows:
        to_csv(rows, folder.table_path)
    writers = [jsonl_writer(folder.rows_path, after), csv_writer(folder.table_path, after)]
    if importlib.util.find_spec("tensorboardX") is not None:
        writers.append(tensorboard_writer(folder.tensorboard_path, after))
    return writers
