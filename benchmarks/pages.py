"""The parts of a report as Markdown."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

from benchmarks.report_file import Report, geometric
from benchmarks.tables import main_rows


def table(columns: Iterable[str], rows: Iterable[Iterable[str]], left: int = 1) -> str:
    """A Markdown table.

    Args:
      columns: titles.
      rows: cells of each row.
      left: number of columns, from the first, that are aligned left; the others are aligned right.
    """
    columns = list(columns)
    rule = ["---"] * left + ["---:"] * (len(columns) - left)
    return "\n".join("| " + " | ".join(row) + " |" for row in (columns, rule, *map(list, rows)))


def ms(seconds: float) -> str:
    """Milliseconds with four digits."""
    return f"{1e3 * seconds:.4g}"


# ----------------------------------------------------------------------------------- the main table


def workloads(lines: list[dict[str, Any]]) -> str:
    """Our rounds over the floors, and over the peers if there are any."""
    parts = ["## Ours and the floor", FLOOR, table(*main_rows(lines), left=2)]
    if any("trap_s" in line for line in lines):
        parts += [f"The same scan as XLA runs its convolutions inside a loop: {trapped(lines)}."]
    if bfloat16 := [_bfloat16(line) for line in lines if "bfloat16_s" in line]:
        figures = "; ".join(bfloat16)
        parts += [f"Computed in bfloat16, parameters and sums in float32: {figures}."]
    if vmapped := [_vmapped(line) for line in lines if "vmap_s" in line]:
        figures = "; ".join(vmapped)
        parts += [f"One vmapped gradient of all clients, where each takes one step: {figures}."]
    if any(line.get("peers") for line in lines):
        parts += ["## Ours and the peers", peers(lines), reasons(lines)]
    return "\n\n".join(part for part in parts if part)


def _bfloat16(line: dict[str, Any]) -> str:
    share = line["bfloat16_s"] / line["ours_s"]
    return f"{line['workload']} {ms(line['bfloat16_s'])} ms, {share:.2f} of ours"


def _vmapped(line: dict[str, Any]) -> str:
    share = line["ours_s"] / line["vmap_s"]
    return f"{line['workload']} {ms(line['vmap_s'])} ms, ours {share:.2f} of it"


FLOOR = """Milliseconds of a round. "scan" is the floor: the same SGD steps on the same batches in
one jitted `lax.scan` on one device, without federation; on a CPU with convolutions rewritten as the
engine does. Ratios are medians of ratios within a turn; below 1 is faster than the scan."""


def trapped(lines: list[dict[str, Any]]) -> str:
    """How long the plain scan of convolutions takes."""
    times = [f"{line['workload']} {line['trap_s']:.3g} s" for line in lines if "trap_s" in line]
    return ", ".join(times)


def peers(lines: list[dict[str, Any]]) -> str:
    """Each peer's time over ours, measured in turn."""
    names = list(dict.fromkeys(name for line in lines for name in line.get("peers", {})))
    rows = []
    best = []
    for line in lines:
        ratios = {name: ratio(result) for name, result in line.get("peers", {}).items()}
        known = [value for value in ratios.values() if value]
        cells = [f"{ratios[name]:.3g}" if ratios.get(name) else "-" for name in names]
        rows.append([line["workload"], *cells, f"{min(known):.3g}" if known else "-"])
        best += [min(known)] if known else []
    text = (
        "How many times as long as ours a peer's round takes; both use all cores. "
        f"Workloads with a peer: {len(best)}; geometric mean over the best peer of each: "
        f"{geometric(best):.3g}."
    )
    return f"{text}\n\n{table(['', *names, 'best peer'], rows)}"


def ratio(result: Any) -> float | None:
    """A peer's seconds over ours; None if there is no time."""
    if isinstance(result, dict) and "seconds" in result:
        return result["seconds"] / result["ours_s"]
    return None


def reasons(lines: list[dict[str, Any]]) -> str:
    """Why a cell is empty; equal reasons of a peer are listed once."""
    workloads: dict[tuple[str, str], list[str]] = {}
    for line in lines:
        for name, result in line.get("peers", {}).items():
            if ratio(result) is None:
                workloads.setdefault((name, _reason(result)), []).append(line["workload"])
    return "\n".join(
        f"* {name}, {', '.join(names)}: {reason}" for (name, reason), names in workloads.items()
    )


def _reason(result: Any) -> str:
    if isinstance(result, dict):
        return result.get("reason", "no reason given")
    return str(result)


# ---------------------------------------------------------------------------------- the other parts


def limits(part: dict[str, Any]) -> str:
    """The machine's rates, and which share of them rounds reach."""
    rates = f"Measured: matmul (float32) {_rates(part['machine'])}"
    if part["one_core"]:
        rates += f"; one core: {_rates(part['one_core'])}"
    rows = [
        [
            row["workload"],
            f"{row['step_flops'] / 1e6:.4g}",
            f"{row['step_bytes'] / 1e6:.4g}",
            ms(row["least_s"]),
            ms(row["ours_s"]),
            f"{100 * row['flops_share']:.3g} %",
            f"{100 * row['flops_share_floor']:.3g} %",
            f"{100 * row['bytes_share']:.3g} %",
        ]
        for row in part["rounds"]
    ]
    columns = (
        "",
        "MFLOP a step",
        "MB a step",
        "ms at matmul's rate",
        "ours, ms",
        "share of matmul",
        "the scan's",
        "bytes / memory's rate",
    )
    return f"## The machine's limits\n\n{rates}.\n{BYTES}\n\n{table(columns, rows)}"


def _rates(rates: dict[str, float]) -> str:
    gigas = {name: rate / 1e9 for name, rate in rates.items()}
    return (
        f"{gigas['matmul']:.4g} GFLOP/s, copy {gigas['copy']:.3g} GB/s, "
        f"sweep in place {gigas['sweep']:.3g} GB/s"
    )


BYTES = """FLOPs and bytes are XLA's count for one step, times the steps. Bytes served by a cache
count too: their share may exceed 100 %."""


def lanes(part: dict[str, Any]) -> str:
    """Automatic lanes beside fixed ones."""
    choices = list(
        dict.fromkeys(
            lanes for sweeps in part.values() for sweep in sweeps for lanes in sweep["seconds"]
        )
    )
    rows = [_lanes_row(name, sweep, choices) for name, sweeps in part.items() for sweep in sweeps]
    columns = ("", "devices", *choices, "auto is", "auto / best", "best", "worst / auto", "worst")
    return f"## Lanes\n\nMilliseconds of a round by lanes on each device.\n\n{table(columns, rows)}"


def _lanes_row(name: str, sweep: dict[str, Any], choices: list[str]) -> list[str]:
    seconds = sweep["seconds"]
    return [
        name + (" (shortened)" if sweep["shortened"] else ""),
        str(sweep["devices"]),
        *(ms(seconds[lanes]) if lanes in seconds else "" for lanes in choices),
        str(sweep["auto"]),
        f"{sweep['auto_over_best']:.2f}",
        sweep["best"],
        f"{sweep['worst_over_auto']:.2f}",
        sweep["worst"],
    ]


def growth(part: dict[str, Any]) -> str:
    """Time and memory over the cohort, the population and the devices."""
    population = part["population"]
    sampling = 100 * population["overhead_share"]
    sampling_cpu = 100 * population["overhead_share_cpu"]
    reading_cpu = 100 * population["reading_share_cpu"]
    paragraphs = [
        "## Growth",
        f"Cohort, on W1. Largest over smallest: {spreads(part['summary'])}.",
        _cohort_table(part),
        f"Population of 1,000,000 instead of 1,000, cohort {population['cohort']}, examples of 8 "
        f"bytes: sampling and scheduling take {sampling:.1f} % of the round ({sampling_cpu:.1f} % "
        f"of its processor time); reading from 1.8 GB instead of 1.8 MB {reading_cpu:.1f} %.",
    ]
    if devices := part["devices"]:
        cores = devices["seconds"]["one"]["cores"]
        paragraphs.append(
            f"Two CPU devices on {devices['workload']}: {devices['speed_up']:.2f} times as fast as "
            f"one device, which uses {cores:.2f} cores itself, and {devices['core_speed_up']:.2f} "
            f"times as fast as one core. Assigning whole clients to devices allows "
            f"{devices['balance']:.2f}."
        )
    folder = part.get("folder", ".")
    paragraphs.append(" ".join(f"![{name}]({folder}/{name})" for name in part["figures"]))
    return "\n\n".join(paragraphs)


def _cohort_table(part: dict[str, Any]) -> str:
    memory = {(row["devices"], row["cohort"]): row for row in part["memory"]}
    rows = []
    for devices, times in part["cohort"].items():
        for row in times:
            bytes_of = memory[int(devices), row["cohort"]]
            rows.append(
                [
                    devices,
                    f"{row['cohort']:,}",
                    *(f"{1e6 * row[key]:.3g}" for key in ("step_s", "low_s", "high_s", "cpu_s")),
                    *(f"{bytes_of[key] / 2**20:.3g}" for key in ("peak_bytes", "temp_bytes")),
                ]
            )
    columns = (
        "devices",
        "cohort",
        "us a client-step",
        "lowest",
        "highest",
        "all cores' us",
        "process, MiB",
        "buffers, MiB",
    )
    return table(columns, rows)


def spreads(summary: dict[str, Any]) -> str:
    """The cohort's summary in words."""
    texts = []
    for devices, time in summary["step_time_spread"].items():
        cpu = summary["cpu_time_spread"][devices]
        memory = summary["peak_memory_spread"][devices]
        plural = "s" if int(devices) > 1 else ""
        texts.append(
            f"time {time:.2f} (processor time {cpu:.2f}), memory {memory:.2f} on {devices} "
            f"device{plural}"
        )
    return "; ".join(texts)


def startup(part: dict[str, Any]) -> str:
    """Seconds to the first round."""
    kinds = ("import", "cold", "warm", "damaged")
    rows = [
        [kind, f"{part[f'{kind}_s']:.2f}", *(f"{seconds:.2f}" for seconds in part["spread"][kind])]
        for kind in kinds
    ]
    stages = ", ".join(
        f"{name.removesuffix('_s')} {seconds:.2f}"
        for name, seconds in part["parts"]["warm"].items()
        if name != "total_s"
    )
    ended = "ended" if part["damage_survived"] else "did NOT end"
    return "\n\n".join(
        [
            "## Start-up",
            "Seconds until W1's first round is done, in a fresh process.",
            table(("", "median", "lowest", "highest"), rows),
            f"Warm over `import jax`: {part['warm_over_import']:.2f}. A warm start in stages, "
            f"seconds: {stages}. With every entry of the cache damaged, all runs {ended} in the "
            "same loss as a cold one.",
        ]
    )


PAGES: dict[str, Callable[[Any], str]] = {
    "workloads": workloads,
    "limits": limits,
    "lanes": lanes,
    "growth": growth,
    "startup": startup,
}
"""In the order of the document."""


def place(facts: dict[str, Any]) -> str:
    """The machine in words."""
    kinds = Counter(facts["devices"])
    accelerators = [
        f"{count} x {kind}" if count > 1 else kind for kind, count in kinds.items() if kind != "cpu"
    ]
    return ", ".join(accelerators) or f"{facts['cores']} cores ({facts['processor']})"


def digest(report: Report) -> str:
    """What the README shows: the main table, the peers', and where the other parts are."""
    facts = report.facts
    lines = report.parts["workloads"]
    parts = [
        f"On {place(facts)}, jax {facts['jax']}, commit {facts['commit']}. {FLOOR}",
        table(*main_rows(lines), left=2),
    ]
    if any(line.get("peers") for line in lines):
        parts += [peers(lines)]
    path = f"benchmarks/results/{report.machine}.md"
    parts += [f"Made by `python -m benchmarks --full`; [{path}]({path}) has the rest."]
    return "\n\n".join(parts)
