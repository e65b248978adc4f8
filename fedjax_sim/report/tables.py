"""Tables of runs."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from rich.table import Table

from fedjax_sim.core.errors import require
from fedjax_sim.simulation.history import History

DASH = "-"
"""Text of a cell without a value."""


def comparison(
    runs: Mapping[str, History],
    target: float | None = None,
    accuracy: str = "test/accuracy",
    worst: str = "clients/accuracy_worst10",
) -> Table:
    """Returns a table with one row per run.

    The columns are: number of rounds, final and best accuracy, accuracy of the worst 10 % of
    clients, rounds to a target accuracy, and seconds.

    Args:
      runs: histories by label.
      target: target accuracy in [0, 1]; by default the highest whole percentage that every run
        reached.
      accuracy: name of the accuracy that is compared. Only evaluated rounds have it, so the rounds
        to the target are those of an evaluation.
      worst: name of the accuracy of the worst 10 % of clients.

    Raises:
      FedError: if there is no run.

    Example:
      >>> import fedjax_sim as fs
      >>> first = fs.History({1: {"test/accuracy": 0.5}, 2: {"test/accuracy": 0.8}})
      >>> second = fs.History({1: {"test/accuracy": 0.7}, 2: {"test/accuracy": 0.75}})
      >>> table = fs.comparison({"fedavg": first, "scaffold": second})
      >>> for column in table.columns[:6]:
      ...     print(column.header, list(column.cells))
      algorithm ['fedavg', 'scaffold']
      rounds ['2', '2']
      final accuracy ['80.0 %', '75.0 %']
      best accuracy ['80.0 %', '75.0 %']
      worst 10 % clients ['-', '-']
      rounds to 75 % ['2', '2']
    """
    require(bool(runs), "nothing to compare", got="no runs", fix="pass at least one history")
    target = _common_target(runs, accuracy) if target is None else target
    table = Table(header_style="bold")
    table.add_column("algorithm", no_wrap=True)
    headings = (
        "rounds",
        "final accuracy",
        "best accuracy",
        "worst 10 % clients",
        "rounds to target" if target is None else f"rounds to {100 * target:g} %",
        "seconds",
    )
    for heading in headings:
        table.add_column(heading, justify="right")
    for label, log in runs.items():
        table.add_row(label, *_cells(log, target, accuracy, worst))
    return table


def rounds_to(log: History, name: str, target: float) -> int | None:
    """Returns the first recorded round at which a metric reached the target.

    Args:
      log: the history of a run.
      name: name of the metric.
      target: smallest value that counts as reached.

    Returns:
      The round; ``None`` if the metric was not recorded, or never reached the target.
    """
    if name not in log.names():
        return None
    rounds, values = log.get(name)
    reached = np.flatnonzero(values >= target)
    return int(rounds[reached[0]]) if len(reached) else None


def _cells(log: History, target: float | None, accuracy: str, worst: str) -> list[str]:
    reached = None if target is None else rounds_to(log, accuracy, target)
    seconds = log.latest("seconds")
    return [
        str(max(log.rows, default=0)),
        _percent(log.latest(accuracy)),
        _percent(_best(log, accuracy)),
        _percent(log.latest(worst)),
        DASH if reached is None else str(reached),
        DASH if seconds is None else f"{seconds:.1f}",
    ]


def _common_target(runs: Mapping[str, History], accuracy: str) -> float | None:
    best = [_best(log, accuracy) for log in runs.values()]
    recorded = [value for value in best if value is not None]
    return math.floor(100 * min(recorded) + 1e-9) / 100 if recorded else None


def _best(log: History, name: str) -> float | None:
    values = log.get(name)[1] if name in log.names() else np.array([])
    finite = values[np.isfinite(values)]
    return float(finite.max()) if len(finite) else None


def _percent(value: float | None) -> str:
    return DASH if value is None else f"{100 * value:.1f} %"
