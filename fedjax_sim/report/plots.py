"""Figures of runs. Matplotlib is imported when one is drawn, and draws to a file: no window, no global figure state."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fedjax_sim.core.errors import require, suggest
from fedjax_sim.simulation.history import History

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#000000")
"""Told apart by colour-blind readers too (Okabe and Ito, "Color Universal Design", 2008)."""
DASHES = ("-", "--", "-.", ":")
TITLES = {
    "loss": "training loss",
    "accuracy": "training accuracy",
    "test/accuracy": "test accuracy",
    "test/loss": "test loss",
    "clients/accuracy_mean": "accuracy, mean over clients",
    "clients/accuracy_worst10": "accuracy, worst 10 % of clients",
}


def plot_runs(
    runs: Mapping[str, History],
    path: str | Path,
    metrics: Sequence[str] = ("test/accuracy", "loss"),
) -> Path:
    """One panel per metric over rounds, one line per run, into a file whose ending says the format (png, svg, pdf).

    Args:
      runs: histories by label.
      path: the file; its folder is made.
      metrics: names of numbers. One that no run has is left out; a run without it is missing from its panel.

    Raises:
      FedError: where there is no run, or none has any of the metrics.
    """
    require(bool(runs), "nothing to plot", got="no runs", fix="pass at least one history")
    known = {name for log in runs.values() for name in log.names()}
    shown = [name for name in metrics if name in known]
    advice = suggest(metrics[0], known) if metrics and known else "name metrics of the runs"
    require(bool(shown), "no run recorded these metrics", got=list(metrics), fix=advice)
    return _draw(runs, shown, Path(path))


def _draw(runs: Mapping[str, History], metrics: list[str], path: Path) -> Path:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.4 * len(metrics) + 0.4, 3.9), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, len(metrics), squeeze=False, sharex=True)[0]
    for panel, name in zip(panels, metrics, strict=True):
        _panel(panel, name, runs)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)
    return path


def _panel(panel: Any, name: str, runs: Mapping[str, History]) -> None:
    """One metric. A run keeps its colour in every panel, whether or not the others have the metric."""
    for index, (label, log) in enumerate(runs.items()):
        if name in log.names():
            rounds, values = log.get(name)
            dash = DASHES[index // len(COLOURS) % len(DASHES)]
            mark = "o" if len(rounds) <= 30 else None
            panel.plot(
                rounds,
                values,
                dash,
                color=COLOURS[index % len(COLOURS)],
                label=label,
                linewidth=1.7,
                marker=mark,
                markersize=3.5,
            )
    _dress(panel, name)


def _dress(panel: Any, name: str) -> None:
    from matplotlib.ticker import MaxNLocator, PercentFormatter

    panel.set_xlabel("round")
    panel.set_ylabel(TITLES.get(name, name))
    panel.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
    if "accuracy" in name:
        panel.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=None))
    panel.grid(color="#dddddd", linewidth=0.7)
    panel.set_axisbelow(True)
    panel.spines[["top", "right"]].set_visible(False)
    panel.legend(frameon=False)
