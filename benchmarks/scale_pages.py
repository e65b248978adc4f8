"""The parts of :mod:`benchmarks.scale` as Markdown."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from benchmarks.hosted import ROW
from benchmarks.pages import ms, table
from fedjax_sim.experiments.estimate import format_bytes as size


def document(facts: dict[str, Any], parts: dict[str, Any]) -> str:
    """All parts that there are."""
    head = f"""`python -m benchmarks.scale` on {facts["date"]}: {facts["processor"]}, {facts["cores"]} cores that other work shared, jax
{facts["jax"]}, Python {facts["python"]}. Contenders take turns; times are medians, ratios medians of the ratios within a turn."""
    return "\n\n".join(
        [head, *(page(parts[name]) for name, page in PAGES.items() if name in parts)]
    )


def host(rows: list[dict[str, Any]]) -> str:
    """Examples on the host over examples on the devices."""
    columns = (
        "",
        "devices",
        "device, ms",
        "host, ms",
        "host / device",
        "middle half",
        "processor time",
        "not ahead / device",
    )
    lines, supplies = [], []
    for row in rows:
        case, seconds = [row["workload"], str(row["devices"])], row["seconds"]
        ratios = (
            f"{row['ratio']:.2f}",
            f"{row['low']:.2f} to {row['high']:.2f}",
            f"{row['ratio_cpu']:.2f}",
            f"{row['ratio_waiting']:.2f}",
        )
        lines.append([*case, ms(seconds["device"]), ms(seconds["host"]), *ratios])
        rates = (f"{row['bytes'] / 1e6:.3g}", f"{row['rate'] / 1e9:.3g}")
        supplies.append([*case, *(ms(row[key]) for key in ("make_s", "pack_s", "wait_s")), *rates])
    said = """A cohort drawn anew for every round. "Not ahead" is the same with nothing made behind the round before."""
    more = "What the host does for a round: drawing, dealing, packing and handing over, of that packing; and what is left to wait for."
    supply = ("", "devices", "to make, ms", "of it packing", "waited for", "MB", "GB/s")
    return f"### Examples on the host\n\n{said}\n\n{table(columns, lines)}\n\n{more}\n\n{table(supply, supplies)}"


def people(part: dict[str, Any]) -> str:
    """A million clients."""
    alone, rounds, cold, told = part["alone"], part["rounds"], part["cold"], part["predicted"]
    written = f", written in {part['write_seconds']:.0f} s" if "write_seconds" in part else ""
    seconds = " and ".join(ms(rounds["seconds"][each]) for each in ("large", "small"))
    rows = [
        ["to open the data", f"{alone['open_s']:.2f} s"],
        [
            "a round of 1,000 from 1,000,000 over one from 1,000",
            f"{rounds['ratio']:.2f} ({seconds} ms)",
        ],
        ["the same in processor time", f"{rounds['ratio_cpu']:.2f}"],
        [
            "to make what the host brings; waited for",
            f"{ms(rounds['make_s'])} ms; {ms(rounds['wait_s'])} ms",
        ],
        ["to pack a cohort of which the system has nothing in memory", f"{ms(cold['cold_s'])} ms"],
        [
            "  bytes read from the disk for it",
            f"{size(cold['cold_bytes'])} for {size(cold['wanted_bytes'])}",
        ],
        ["memory of the process's own (RssAnon), at most", size(alone["peak"])],
        ["  with JAX started, and nothing else", size(alone["imported"])],
        [
            "with pages of the data that are the system's to take back (VmHWM)",
            size(alone["peak_resident"]),
        ],
        [
            "`check`: device and host, here the same memory",
            f"{size(told['device'])} + {size(told['host'])}",
        ],
    ]
    said = f"""{part["clients"]:,} clients with 100 examples of 28 bytes in files{written}; logistic regression, uniform sampler, one
device. Memory is that of a process that does nothing else, compiler included."""
    return f"### A million clients\n\n{said}\n\n{table(('', ''), rows)}"


def memory(part: dict[str, Any]) -> str:
    """Client memory in files."""
    lines, first, vault = [], part["rows"][0], part["table"]
    for row in part["rows"]:
        times = (ms(row["seconds"][each]) for each in ("device", "host", "kept"))
        lines.append(
            [
                str(row["devices"]),
                *times,
                *(f"{row[key]:.2f}" for key in ("ratio", "ratio_cpu", "ratio_kept")),
            ]
        )
    columns = (
        "devices",
        "all on the device, ms",
        "examples on the host",
        "memory too",
        "/ device",
        "processor time",
        "/ host",
    )
    said = f"SCAFFOLD on W3's model and clients: {first['cohort']} rows of {size(first['row'])} a round, read, checked and written."
    seconds = ", ".join(ms(seconds) for seconds in vault["seconds"].values())
    many = f"""A table that no device holds: 1,000,000 clients x {size(ROW)} = {size(vault["table"])}, with `engine.memory_limit` at
{size(vault["memory"])}. A round of 100 clients takes {vault["ratio"]:.2f} of one with 1,000 clients in files, whose rows are read again,
and that one {vault["ratio_device"]:.2f} of one with 1,000 clients on the device ({seconds} ms). After {vault["rounds"]} rounds
{vault["rows"]:,} clients have a row, and the files take {size(vault["on_disk"])}; a snapshot, flushed to disk, takes
{ms(vault["snapshot_s"])} ms."""
    return f"### Client memory on the host\n\n{said}\n\n{table(columns, lines)}\n\n{many}"


def cohort(part: dict[str, Any]) -> str:
    """Peak memory over the cohort."""
    packed, lines = {each["cohort"]: each["data"] for each in part["predicted"]}, []
    for row in part["rows"]:
        here = row["place"] == "device"
        peak, model = (
            (row["peak_bytes"], ROW) if here else (row["peak"] - row["ready"], row["model"])
        )
        examples = "-" if here else size(packed[row["cohort"]])
        lines.append(
            [row["place"], f"{row['cohort']:,}", size(peak), examples, size(row["cohort"] * model)]
        )
    columns = (
        "examples on",
        "cohort",
        "peak",
        "of it examples, by `check`",
        "a model for each would be",
    )
    said = """Memory that rounds take beyond what is there before the first, their program included; one device, compiled before. On the
device: W1's model and kind of data, all resident memory. On the host: a 2NN on the million clients, RssAnon."""
    return f"### Cohorts larger than memory\n\n{said}\n\n{table(columns, lines)}"


def processes(rows: list[dict[str, Any]]) -> str:
    """Several processes."""
    lines = []
    for row in rows:
        times = (ms(row["seconds"][kind]) for kind in ("one", "two", "pinned"))
        ratios = (
            f"{row['ratio'][kind]:.2f} ({row['ratio_cpu'][kind]:.2f})" for kind in ("two", "pinned")
        )
        lines.append([row["workload"], *times, *ratios, same(row["hashes"])])
    columns = (
        "",
        "one process, ms",
        "two",
        "two, a core each",
        "two / one",
        "a core each / one",
        "state's hash",
    )
    said = f"""Two CPU devices and {rows[0]["shards"]} shards, examples on the host: in one process, and in two that have a device each.
Ratios of processor time in brackets."""
    return f"### Processes\n\n{said}\n\n{table(columns, lines)}"


def same(hashes: dict[str, list[str]]) -> str:
    """Whether all kinds end in the same bits as one process."""
    other = [kind for kind, found in hashes.items() if found != hashes["one"]]
    return f"another: {', '.join(other)}" if other else "the same"


def paper(part: dict[str, Any]) -> str:
    """What grows with the number of clients."""
    rows = [
        [
            f"{row['clients']:,}",
            *(ms(row[key]) for key in ("sample_s", "vault_s", "rows_s")),
            size(max(0, row["vault_bytes"])),
        ]
        for row in part["numbers"]
    ]
    columns = (
        "clients",
        "to draw and deal 1,000, ms",
        "to open a vault",
        "to read 1,000 rows of 1 kB",
        "its directory, with 10,000 rows",
    )
    alone, told, files = part["alone"], part["predicted"], part["files"]
    said = f"""{part["clients"]:,} clients with 100 examples each, which are holes in files ({size(files["bytes"])}, of which
{size(files["on_disk"])} are on the disk: the offsets); otherwise as the million above:"""
    facts = [
        ["to open the data", f"{alone['open_s']:.1f} s"],
        ["to make program and first state", f"{alone['make_s']:.1f} s"],
        [
            "the first round; each of the next",
            f"{alone['first_s']:.1f} s; {alone['round_s']:.3g} s",
        ],
        [
            "memory of the process's own: opened; ready",
            f"{size(alone['opened'])}; {size(alone['ready'])}",
        ],
        ["  at most, while sizes are made of offsets", size(alone["peak"])],
        [
            "`check`: device and host, here the same memory",
            f"{size(told['device'])} + {size(told['host'])}",
        ],
    ]
    return f"### A hundred million clients\n\n{table(columns, rows)}\n\n{said}\n\n{table(('', ''), facts)}"


PAGES: dict[str, Callable[[Any], str]] = {
    "host": host,
    "people": people,
    "memory": memory,
    "cohort": cohort,
    "processes": processes,
    "paper": paper,
}
"""In the order of the document."""
