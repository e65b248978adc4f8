"""The main table, for the terminal and for documents."""

from __future__ import annotations

from typing import Any

from rich.table import Table

LEFT = ("", "what")
TITLE = "A round, and the same SGD steps without federation: milliseconds, medians of runs in turn"


def main_rows(lines: list[dict[str, Any]]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """``(columns, rows)``. Ratios below 1 are faster than the scan on one device."""
    devices = max((line["devices"] for line in lines), default=1)
    columns = (*LEFT, "steps", "scan", "1 device", "/ scan", f"{devices} devices", "/ scan", "lanes")
    rows = []
    for line in lines:
        times = [f"{1e3 * line[key]:.4g}" for key in ("floor_s", "one_device_s", "ours_s")]
        ratios = [f"{line[key]:.2f}" for key in ("ratio_one_device", "ratio")]
        figures = (times[0], times[1], ratios[0], times[2], ratios[1], str(line["lanes"]))
        rows.append((line["workload"], line["says"], str(line["steps"]), *figures))
    return columns, rows


def main_table(lines: list[dict[str, Any]]) -> Table:
    """The lines as a table of the terminal."""
    columns, rows = main_rows(lines)
    table = Table(title=TITLE)
    for column in columns:
        table.add_column(column, justify="left" if column in LEFT else "right")
    for row in rows:
        table.add_row(*row)
    return table
