"""Tables of runs."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from rich.table import Table

from fedjax_sim.core.errors import require
from fedjax_sim.simulation.history import History

DASH = "-"
"""What was not measured."""


def comparison(
    runs: Mapping[str, History],
    target: float | None = None,
    accuracy: str = "test/accuracy",
    worst: str = "clients/accuracy_worst10",
) -> Table:
    """One line per run: rounds, final and best accuracy, the worst 10 % of clients, rounds to a target accuracy, seconds.

    Args:
      runs: histories by label.
      target: accuracy to be reached. Without one, the highest whole percentage that every run reached.
      accuracy: the number that is compared; it is known at evaluated rounds only, and so are "rounds to" the target.
      worst: the number of the worst 10 % of clients.
    """
    require(bool(runs), "nothing to compare", got="no runs", fix="pass at least one history")
    target = _common_target(runs, accuracy) if target is None else target
    table = Table(header_style="bold")
    table.add_column("algorithm", no_wrap=True)
    goal = "rounds to target" if target is None else f"rounds to {100 * target:g} %"
    for heading in (
        "rounds",
        "final accuracy",
        "best accuracy",
        "worst 10 % clients",
        goal,
        "seconds",
    ):
        table.add_column(heading, justify="right")
    for label, log in runs.items():
        table.add_row(label, *_cells(log, target, accuracy, worst))
    return table


def rounds_to(log: History, name: str, target: float) -> int | None:
    """The first round at which a number was seen to reach the target; ``None`` where it never did."""
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
    found = [value for value in best if value is not None]
    return math.floor(100 * min(found) + 1e-9) / 100 if found else None


def _best(log: History, name: str) -> float | None:
    values = log.get(name)[1] if name in log.names() else np.array([])
    finite = values[np.isfinite(values)]
    return float(finite.max()) if len(finite) else None


def _percent(value: float | None) -> str:
    return DASH if value is None else f"{100 * value:.1f} %"
