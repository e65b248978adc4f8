"""Figures of a federation: who has which labels, and how much."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from fedjax_sim.data.label_statistics import Spread

WIDE = 20
"""From this ratio of the largest to the smallest client on, sizes are drawn on a logarithmic axis."""
BINS = 40
"""Bars of a histogram, at most."""
NAMED = 30
"""So many labels or clients can be told one by one at an axis."""


def plot_labels(spread: Spread, path: str | Path) -> Path:
    """Each label's share of each client's examples, as a heat map; clients run to the right. The file's ending says the format."""
    figure, panel = _figure((8.0, max(2.6, min(7.0, 1.2 + 0.28 * len(spread.counts)))))
    groups, classes = spread.shares.shape
    # The scale ends at the largest share, so that what hardly differs, as with thousands of labels, is seen to.
    drawn = panel.imshow(
        spread.shares.T,
        aspect="auto",
        interpolation="nearest",
        cmap="viridis",
        vmin=0,
        origin="lower",
    )
    figure.colorbar(drawn, ax=panel, pad=0.02).set_label("share of the client's examples")
    sorted_ = f"clients, sorted by their most frequent label, {groups} groups"
    panel.set_xlabel(sorted_ if spread.grouped else "client")
    panel.set_ylabel("label")
    _count(panel.xaxis, 0 if spread.grouped else groups)
    _count(panel.yaxis, classes)
    skew = f"{spread.classes:.3g} of {classes} labels a client; entropy {spread.entropy:.2f}, of all together {spread.overall:.2f}"
    panel.set_title(skew, fontsize="medium")
    return _written(figure, path)


def plot_sizes(sizes: np.ndarray, path: str | Path) -> Path:
    """How many clients have how many examples, as a histogram."""
    figure, panel = _figure((6.0, 3.6))
    low, high = int(sizes.min()), int(sizes.max())
    wide = high > WIDE * max(low, 1)
    step = -(-(high - low + 1) // BINS)  # whole numbers, as many in each bin
    edges = (
        np.geomspace(max(low, 1), high + 1, BINS + 1)
        if wide
        else np.arange(low, high + step + 1, step) - 0.5
    )
    panel.hist(sizes, bins=edges.tolist(), color="#0072b2")
    if wide:
        panel.set_xscale("log")
    median = float(np.median(sizes))
    panel.axvline(median, color="#d55e00", linewidth=1.4, label=f"median {median:,.6g}")
    panel.set_xlabel("training examples of a client")
    panel.set_ylabel("clients")
    panel.spines[["top", "right"]].set_visible(False)
    panel.legend(frameon=False)
    return _written(figure, path)


def _figure(size: tuple[float, float]) -> tuple[Any, Any]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots()


def _count(axis: Any, many: int) -> None:
    """Ticks at whole numbers: at each where they are few, none where there is nothing to count."""
    from matplotlib.ticker import MaxNLocator

    if many == 0:
        axis.set_ticks([])
    elif many <= NAMED:
        axis.set_ticks(range(many))
        axis.set_tick_params(labelsize="small")
    else:
        axis.set_major_locator(MaxNLocator(integer=True))


def _written(figure: Any, path: str | Path) -> Path:
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)
    return path
