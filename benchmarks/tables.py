"""The main table, for the terminal and for documents."""

from __future__ import annotations

from typing import Any

from rich.table import Table

LEFT = ("", "what")
TITLE = "A round, and the same SGD steps without federation: milliseconds, medians of runs in turn"


def main_rows(lines: list[dict[str, Any]]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """``(columns, rows)``. Ratios below 1 are faster than the scan on one device."""
    devices = max((line["devices"] for line in lines), default=1)
    measured = [("one_device_s", "ratio_one_device")] + [("ours_s", "ratio")] * (devices > 1)
    heads = [
        head
        for count in (1, devices)[: len(measured)]
        for head in (f"{count} device{'s' * (count > 1)}", "/ scan")
    ]
    columns = (*LEFT, "steps", "scan", *heads, "lanes")
    rows = []
    for line in lines:
        figures = [
            text for time, ratio in measured for text in (_ms(line[time]), f"{line[ratio]:.2f}")
        ]
        figures[2:] = figures[2:] if line["devices"] == devices else [""] * len(figures[2:])
        rows.append(
            (
                line["workload"],
                line["says"],
                str(line["steps"]),
                _ms(line["floor_s"]),
                *figures,
                str(line["lanes"]),
            )
        )
    return columns, rows


def _ms(seconds: float) -> str:
    return f"{1e3 * seconds:.4g}"


def main_table(lines: list[dict[str, Any]]) -> Table:
    """The lines as a table of the terminal."""
    columns, rows = main_rows(lines)
    table = Table(title=TITLE)
    for column in columns:
        table.add_column(column, justify="left" if column in LEFT else "right")
    for row in rows:
        table.add_row(*row)
    return table
