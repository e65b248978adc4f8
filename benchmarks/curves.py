"""Plots of :mod:`benchmarks.growth` as PNG, drawn by matplotlib without a window."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fedjax_sim.report.plots import COLOURS

MEGA = 2**20


def draw(parts: dict[str, Any], folder: Path) -> list[Path]:
    """Draws ``growth_time.png``, ``growth_memory.png`` and ``growth_ratios.png``.

    Args:
      parts: what ``growth.measure`` returned.
      folder: created if it is missing.

    Returns:
      The paths of the pictures.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for name, fill in (("time", _time), ("memory", _memory), ("ratios", _ratios)):
        figure = _figure()
        fill(figure.subplots(), parts)
        path = folder / f"growth_{name}.png"
        figure.savefig(path, dpi=150)
        paths.append(path)
    return paths


def _figure() -> Any:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.2, 4.0), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _devices(count: int | str) -> str:
    return "1 device" if int(count) == 1 else f"{count} devices"


def _time(panel: Any, parts: dict[str, Any]) -> None:
    for index, (count, rows) in enumerate(parts["cohort"].items()):
        cohort = [row["cohort"] for row in rows]
        low = [1e6 * row["low_s"] for row in rows]
        high = [1e6 * row["high_s"] for row in rows]
        panel.plot(
            cohort,
            [1e6 * row["step_s"] for row in rows],
            "o-",
            color=COLOURS[index],
            label=f"{_devices(count)}: median",
        )
        panel.fill_between(
            cohort,
            low,
            high,
            color=COLOURS[index],
            alpha=0.15,
            linewidth=0,
            label=f"{_devices(count)}: lowest to highest",
        )
        panel.plot(
            cohort,
            [1e6 * row["cpu_s"] for row in rows],
            "x:",
            color=COLOURS[index],
            label=f"{_devices(count)}: all cores' time",
        )
    panel.set_title("W1: time per client-step", fontsize=11)
    panel.set_ylabel("microseconds per client-step")
    _over_cohorts(panel)


def _memory(panel: Any, parts: dict[str, Any]) -> None:
    for index, count in enumerate(parts["cohort"]):
        rows = [row for row in parts["memory"] if row["devices"] == int(count)]
        cohort = [row["cohort"] for row in rows]
        panel.plot(
            cohort,
            [row["peak_bytes"] / MEGA for row in rows],
            "o-",
            color=COLOURS[index],
            label=f"{_devices(count)}: whole process",
        )
        temp = [row["temp_bytes"] / MEGA for row in rows]
        panel.plot(
            cohort,
            temp,
            "x:",
            color=COLOURS[index],
            label=f"{_devices(count)}: XLA's buffers on each",
        )
    panel.set_title("W1: peak memory of a round beyond the data", fontsize=11)
    panel.set_ylabel("MiB")
    _over_cohorts(panel)


def _over_cohorts(panel: Any) -> None:
    panel.set_xscale("log")
    panel.set_xlabel("clients in the cohort")
    panel.set_ylim(bottom=0)
    _style(panel)
    panel.figure.legend(loc="outside lower center", ncols=2, frameon=False, fontsize=8)


def _ratios(panel: Any, parts: dict[str, Any]) -> None:
    """The population's and the devices' figures as bars, each over its own baseline."""
    times = {name: time["step_s"] for name, time in parts["population"]["times"].items()}
    bars = {
        "1,000 clients": 1.0,
        "1,000,000 clients,\nsame examples": times["shared"] / times["small"],
        "1,000,000 clients,\n1.8 GB of examples": times["large"] / times["small"],
    }
    colours = [COLOURS[0]] * len(bars)
    if parts["devices"]:
        name = parts["devices"]["workload"]
        seconds = {key: time["median"] for key, time in parts["devices"]["seconds"].items()}
        device_bars = {
            f"{name}, 1 device\non one core": seconds["one_core"] / seconds["one"],
            f"{name}, 1 device": 1.0,
            f"{name}, 2 devices": seconds["two"] / seconds["one"],
        }
        bars |= device_bars
        colours += [COLOURS[1]] * len(device_bars)
    patches = panel.barh(list(bars), list(bars.values()), color=colours, height=0.6)
    panel.bar_label(patches, fmt="%.2f", padding=3, fontsize=9)
    panel.invert_yaxis()
    panel.set_xlim(right=1.15 * max(bars.values()))
    panel.set_xlabel("time of the same work, over its baseline (1.00)")
    panel.set_title("Time with the population and with devices", fontsize=11)
    panel.tick_params(axis="y", labelsize=8)
    _style(panel)


def _style(panel: Any) -> None:
    panel.grid(color="#dddddd", linewidth=0.7)
    panel.set_axisbelow(True)
    panel.spines[["top", "right"]].set_visible(False)
