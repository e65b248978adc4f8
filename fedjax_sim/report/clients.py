"""Figures of a federation: the labels and the sizes of its clients."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from fedjax_sim.data.label_statistics import Spread

WIDE = 20
"""Ratio of the largest to the smallest client above which sizes have a logarithmic axis."""
BINS = 40
"""Largest number of bars of a histogram."""
NAMED = 30
"""Largest number of labels or clients for which an axis has one tick each."""


def plot_labels(spread: Spread, path: str | Path) -> Path:
    """Draws each label's share of each client's examples as a heat map, with clients along x.

    Args:
      spread: distribution of labels, from :func:`fedjax_sim.data.label_statistics.label_spread`.
      path: the file; its ending selects the format (png, svg, pdf). Its folder is created.

    Returns:
      The path of the file.

    Example:
      >>> import tempfile
      >>> import fedjax_sim as fs
      >>> from fedjax_sim.data.label_statistics import label_spread
      >>> from fedjax_sim.report.clients import plot_labels
      >>> data = fs.tasks.digits(clients=5).data.train
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     plot_labels(label_spread(data, classes=10), f"{folder}/labels.png").name
      'labels.png'
    """
    figure, panel = _figure((8.0, max(2.6, min(7.0, 1.2 + 0.28 * len(spread.counts)))))
    groups, classes = spread.shares.shape
    # The colour scale ends at the largest share, so that small differences between shares, as with
    # thousands of labels, are visible.
    image = panel.imshow(
        spread.shares.T,
        aspect="auto",
        interpolation="nearest",
        cmap="viridis",
        vmin=0,
        origin="lower",
    )
    figure.colorbar(image, ax=panel, pad=0.02).set_label("share of the client's examples")
    grouped_label = f"clients, sorted by their most frequent label, {groups} groups"
    panel.set_xlabel(grouped_label if spread.grouped else "client")
    panel.set_ylabel("label")
    _set_ticks(panel.xaxis, 0 if spread.grouped else groups)
    _set_ticks(panel.yaxis, classes)
    panel.set_title(
        f"{spread.classes:.3g} of {classes} labels per client; mean entropy "
        f"{spread.entropy:.2f}, of all clients together {spread.overall:.2f}",
        fontsize="medium",
    )
    return _written(figure, path)


def plot_sizes(sizes: np.ndarray, path: str | Path) -> Path:
    """Draws a histogram of the number of examples per client.

    Args:
      sizes: int ``[N]``, number of examples of each client.
      path: the file; its ending selects the format (png, svg, pdf). Its folder is created.

    Returns:
      The path of the file.

    Example:
      >>> import tempfile
      >>> import fedjax_sim as fs
      >>> from fedjax_sim.report.clients import plot_sizes
      >>> data = fs.tasks.digits(clients=5).data.train
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     plot_sizes(data.sizes, f"{folder}/sizes.png").name
      'sizes.png'
    """
    figure, panel = _figure((6.0, 3.6))
    low = int(sizes.min())
    high = int(sizes.max())
    wide = high > WIDE * max(low, 1)
    step = -(-(high - low + 1) // BINS)  # whole sizes per bar
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


def _set_ticks(axis: Any, number: int) -> None:
    """Sets ticks at whole numbers: no tick for 0, one per number for few, a selection for many."""
    from matplotlib.ticker import MaxNLocator

    if number == 0:
        axis.set_ticks([])
    elif number <= NAMED:
        axis.set_ticks(range(number))
        axis.set_tick_params(labelsize="small")
    else:
        axis.set_major_locator(MaxNLocator(integer=True))


def _written(figure: Any, path: str | Path) -> Path:
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)
    return path
