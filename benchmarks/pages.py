"""The parts of a report as Markdown."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from benchmarks.results import Report


def table(columns: Iterable[str], rows: Iterable[Iterable[str]], left: int = 1) -> str:
    """A Markdown table; all columns but the first ``left`` lean right."""
    columns = list(columns)
    rule = ["---"] * left + ["---:"] * (len(columns) - left)
    return "\n".join("| " + " | ".join(row) + " |" for row in (columns, rule, *map(list, rows)))


def ms(seconds: float) -> str:
    return f"{1e3 * seconds:.4g}"


# --------------------------------------------------------------------------------------------------------- the main table


def workloads(lines: list[dict[str, Any]]) -> str:
    """Ours over the floors, and over the peers where there are any."""
    from benchmarks.tables import main_rows

    parts = ["## Ours and the floor", FLOOR, table(*main_rows(lines), left=2)]
    if any("trap_s" in line for line in lines):
        parts += [f"The same scan as XLA runs its convolutions inside a loop: {trapped(lines)}."]
    if half := [line for line in lines if "bfloat16_s" in line]:
        told = (
            f"{line['workload']} {ms(line['bfloat16_s'])} ms, {line['bfloat16_s'] / line['ours_s']:.2f} of ours"
            for line in half
        )
        parts += [f"Computed in bfloat16, parameters and sums in float32: {'; '.join(told)}."]
    if steps := [line for line in lines if "vmap_s" in line]:
        told = (
            f"{line['workload']} {ms(line['vmap_s'])} ms, ours {line['ours_s'] / line['vmap_s']:.2f} of it"
            for line in steps
        )
        parts += [
            f"One vmapped gradient of all clients, where each takes one step: {'; '.join(told)}."
        ]
    if any(line.get("peers") for line in lines):
        parts += ["## Ours and the peers", peers(lines), reasons(lines)]
    return "\n\n".join(part for part in parts if part)


FLOOR = """Milliseconds of a round. "scan" is the floor: the same SGD steps on the same batches in one jitted `lax.scan` on one device,
without federation; on a CPU with convolutions rewritten as the engine does. Ratios are medians of ratios within a turn; below 1 is faster
than the scan."""


def trapped(lines: list[dict[str, Any]]) -> str:
    """How long the plain scan of convolutions takes."""
    return ", ".join(
        f"{line['workload']} {line['trap_s']:.3g} s" for line in lines if "trap_s" in line
    )


def peers(lines: list[dict[str, Any]]) -> str:
    """Each peer's time over ours, measured in turn."""
    from benchmarks.results import geometric

    names = list(dict.fromkeys(name for line in lines for name in line.get("peers", {})))
    rows = []
    for line in lines:
        ratios = {name: ratio(result) for name, result in line.get("peers", {}).items()}
        known = [value for value in ratios.values() if value]
        cells = [f"{ratios[name]:.3g}" if ratios.get(name) else "-" for name in names]
        rows.append([line["workload"], *cells, f"{min(known):.3g}" if known else "-"])
    least = [
        min(known)
        for line in lines
        if (known := [value for each in line.get("peers", {}).values() if (value := ratio(each))])
    ]
    said = f"How many times as long as ours a peer's round takes; both use all cores. Workloads with a peer: {len(least)}; "
    return f"{said}geometric mean over the best peer of each: {geometric(least):.3g}.\n\n" + table(
        ["", *names, "best peer"], rows
    )


def ratio(result: Any) -> float | None:
    """A peer's seconds over ours, or None where there is no time to quote."""
    return (
        result["seconds"] / result["ours_s"]
        if isinstance(result, dict) and "seconds" in result
        else None
    )


def reasons(lines: list[dict[str, Any]]) -> str:
    """Why a cell is empty, one reason once."""
    found: dict[tuple[str, str], list[str]] = {}
    for line in lines:
        for name, result in line.get("peers", {}).items():
            if ratio(result) is None:
                why = (
                    result.get("reason", "no reason given")
                    if isinstance(result, dict)
                    else str(result)
                )
                found.setdefault((name, why), []).append(line["workload"])
    return "\n".join(f"* {name}, {', '.join(where)}: {why}" for (name, why), where in found.items())


# -------------------------------------------------------------------------------------------------------------- the rest


def limits(part: dict[str, Any]) -> str:
    """The machine's rates and what rounds reach of them."""

    def rate(rates: dict[str, float]) -> str:
        return f"{rates['matmul'] / 1e9:.4g} GFLOP/s, copy {rates['copy'] / 1e9:.3g} GB/s, sweep in place {rates['sweep'] / 1e9:.3g} GB/s"

    said = f"Measured: matmul (float32) {rate(part['machine'])}" + (
        f"; one core: {rate(part['one_core'])}." if part["one_core"] else "."
    )
    rows = [
        [
            row["workload"],
            f"{row['step_flops'] / 1e6:.4g}",
            f"{row['step_bytes'] / 1e6:.4g}",
            ms(row["least_s"]),
            ms(row["ours_s"]),
            *(
                f"{100 * row[key]:.3g} %"
                for key in ("flops_share", "flops_share_floor", "bytes_share")
            ),
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
    return f"## The machine's limits\n\n{said}\n{BYTES}\n\n{table(columns, rows)}"


BYTES = """FLOPs and bytes are XLA's count for one step, times the steps. Bytes served by a cache count too: their share may pass 100 %."""


def lanes(part: dict[str, Any]) -> str:
    """Automatic lanes beside fixed ones."""
    tried = list(
        dict.fromkeys(
            lanes for sweeps in part.values() for sweep in sweeps for lanes in sweep["seconds"]
        )
    )
    rows = []
    for name, sweeps in part.items():
        for sweep in sweeps:
            cells = [
                ms(sweep["seconds"][lanes]) if lanes in sweep["seconds"] else "" for lanes in tried
            ]
            ends = (
                str(sweep["auto"]),
                f"{sweep['auto_over_best']:.2f}",
                sweep["best"],
                f"{sweep['worst_over_auto']:.2f}",
                sweep["worst"],
            )
            rows.append(
                [
                    name + (" (shortened)" if sweep["shortened"] else ""),
                    str(sweep["devices"]),
                    *cells,
                    *ends,
                ]
            )
    columns = ("", "devices", *tried, "auto is", "auto / best", "best", "worst / auto", "worst")
    return f"## Lanes\n\nMilliseconds of a round by lanes on each device.\n\n{table(columns, rows)}"


def growth(part: dict[str, Any]) -> str:
    """Time and memory over the cohort, the population and the devices."""
    memory = {(row["devices"], row["cohort"]): row for row in part["memory"]}
    rows = []
    for devices, each in part["cohort"].items():
        for row in each:
            held = memory[int(devices), row["cohort"]]
            peak, temp = (f"{held[key] / 2**20:.3g}" for key in ("peak_bytes", "temp_bytes"))
            times = (f"{1e6 * row[key]:.3g}" for key in ("step_s", "low_s", "high_s", "cpu_s"))
            rows.append([devices, f"{row['cohort']:,}", *times, peak, temp])
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
    people = part["population"]
    said = [
        f"Cohort, on W1. Largest over smallest: {spreads(part['summary'])}.",
        table(columns, rows),
        f"Population of 1,000,000 instead of 1,000, cohort {people['cohort']}, examples of 8 bytes: sampling and scheduling take "
        f"{100 * people['overhead_share']:.1f} % of the round ({100 * people['overhead_share_cpu']:.1f} % of its processor time); reading "
        f"from 1.8 GB instead of 1.8 MB {100 * people['reading_share_cpu']:.1f} %.",
    ]
    if two := part["devices"]:
        said.append(
            f"Two CPU devices on {two['workload']}: {two['speed_up']:.2f} times as fast as one device, which uses "
            f"{two['seconds']['one']['cores']:.2f} cores itself, and {two['core_speed_up']:.2f} times as fast as one core. Dealing whole "
            f"clients allows {two['balance']:.2f}."
        )
    pictures = " ".join(f"![{name}]({part.get('folder', '.')}/{name})" for name in part["figures"])
    return "\n\n".join(["## Growth", *said, pictures])


def spreads(summary: dict[str, Any]) -> str:
    """The cohort's summary in words."""
    told = []
    for devices, time in summary["step_time_spread"].items():
        computed, memory = (
            summary[f"{what}_spread"][devices] for what in ("cpu_time", "peak_memory")
        )
        told.append(
            f"time {time:.2f} (processor time {computed:.2f}), memory {memory:.2f} on {devices} device{'s' if int(devices) > 1 else ''}"
        )
    return "; ".join(told)


def startup(part: dict[str, Any]) -> str:
    """Seconds to the first round."""
    kinds = ("import", "cold", "warm", "damaged")
    rows = [
        [kind, f"{part[f'{kind}_s']:.2f}", *(f"{each:.2f}" for each in part["spread"][kind])]
        for kind in kinds
    ]
    stages = ", ".join(
        f"{name.removesuffix('_s')} {taken:.2f}"
        for name, taken in part["parts"]["warm"].items()
        if name != "total_s"
    )
    said = f"Warm over `import jax`: {part['warm_over_import']:.2f}. A warm start in stages, seconds: {stages}."
    damage = (
        "ended in the same loss as"
        if part["damage_survived"]
        else "did NOT end in the same loss as"
    )
    damaged = f"With every entry of the cache damaged, all runs {damage} a cold one."
    head = "## Start-up\n\nSeconds until W1's first round is done, in a fresh process."
    return f"{head}\n\n{table(('', 'median', 'lowest', 'highest'), rows)}\n\n{said} {damaged}"


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
    """What the README shows: the main table, the peers', and where the rest is."""
    from benchmarks.tables import main_rows

    said, lines = report.facts, report.parts["workloads"]
    parts = [f"On {place(said)}, jax {said['jax']}, commit {said['commit']}. {FLOOR}"]
    parts += [table(*main_rows(lines), left=2)]
    if any(line.get("peers") for line in lines):
        parts += [peers(lines)]
    where = f"[benchmarks/results/{report.machine}.md](benchmarks/results/{report.machine}.md)"
    parts += [f"Made by `python -m benchmarks --full`; {where} has the rest."]
    return "\n\n".join(parts)
