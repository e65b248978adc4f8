"""Figures of runs.

Matplotlib is imported when a figure is drawn. It draws to a file, without windows or global state.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fedjax_sim.core.errors import require, suggest
from fedjax_sim.simulation.history import History

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#000000")
"""Colours that colour-blind readers can distinguish (Okabe and Ito, "Color Universal Design",
2008)."""
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
    """Draws one panel per metric over rounds, with one line per run.

    Args:
      runs: histories by label.
      path: the file; its ending selects the format (png, svg, pdf). Its folder is created.
      metrics: names of metrics. A metric that no run recorded is left out; a run that did not
        record a metric is missing from its panel.

    Returns:
      The path of the file.

    Raises:
      FedError: if there is no run, or no run recorded any of the metrics.

    Example:
      >>> import tempfile
      >>> import fedjax_sim as fs
      >>> first = fs.History({1: {"loss": 2.0}, 2: {"loss": 1.0}})
      >>> second = fs.History({1: {"loss": 1.8}, 2: {"loss": 1.1}})
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     fs.plot_runs({"fedavg": first, "scaffold": second}, f"{folder}/runs.png").name
      'runs.png'
    """
    require(bool(runs), "nothing to plot", got="no runs", fix="pass at least one history")
    known = {name for log in runs.values() for name in log.names()}
    shown = [name for name in metrics if name in known]
    fix = suggest(metrics[0], known) if metrics and known else "name metrics of the runs"
    require(bool(shown), "no run recorded these metrics", got=list(metrics), fix=fix)
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
    """Draws one metric. A run has the same colour in every panel."""
    for index, (label, log) in enumerate(runs.items()):
        if name in log.names():
            rounds, values = log.get(name)
            panel.plot(
                rounds,
                values,
                DASHES[index // len(COLOURS) % len(DASHES)],
                color=COLOURS[index % len(COLOURS)],
                label=label,
                linewidth=1.7,
                marker="o" if len(rounds) <= 30 else None,
                markersize=3.5,
            )
    _format_axes(panel, name)


def _format_axes(panel: Any, name: str) -> None:
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
