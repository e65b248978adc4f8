"""The parts of :mod:`benchmarks.scale` as Markdown."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from benchmarks.hosted import ROW
from benchmarks.pages import ms, table
from fedjax_sim.experiments.estimate import format_bytes as size


def document(facts: dict[str, Any], parts: dict[str, Any]) -> str:
    """All parts that were measured."""
    head = (
        f"`python -m benchmarks.scale` on {facts['date']}: {facts['processor']}, {facts['cores']} "
        f"cores that other work shared, jax\n{facts['jax']}, Python {facts['python']}. Contenders "
        "take turns; times are medians, ratios medians of the ratios within a turn."
    )
    sections = [page(parts[name]) for name, page in PAGES.items() if name in parts]
    return "\n\n".join([head, *sections])


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
    lines = [
        [
            row["workload"],
            str(row["devices"]),
            ms(row["seconds"]["device"]),
            ms(row["seconds"]["host"]),
            f"{row['ratio']:.2f}",
            f"{row['low']:.2f} to {row['high']:.2f}",
            f"{row['ratio_cpu']:.2f}",
            f"{row['ratio_waiting']:.2f}",
        ]
        for row in rows
    ]
    loading_columns = (
        "",
        "devices",
        "to make, ms",
        "of it packing",
        "waited for",
        "MB",
        "GB/s",
    )
    loading = [
        [
            row["workload"],
            str(row["devices"]),
            *(ms(row[key]) for key in ("make_s", "pack_s", "wait_s")),
            f"{row['bytes'] / 1e6:.3g}",
            f"{row['rate'] / 1e9:.3g}",
        ]
        for row in rows
    ]
    return "\n\n".join(
        [
            "### Examples on the host",
            'A new random cohort for every round. "Not ahead" is the same with nothing loaded '
            "during the round before.",
            table(columns, lines),
            "What the host does for a round: sampling, assigning to shards, packing and copying to "
            "the devices; the packing alone; and how long the round waits for it.",
            table(loading_columns, loading),
        ]
    )


def people(part: dict[str, Any]) -> str:
    """A million clients."""
    alone = part["alone"]
    rounds = part["rounds"]
    cold = part["cold"]
    predicted = part["predicted"]
    written = f", written in {part['write_seconds']:.0f} s" if "write_seconds" in part else ""
    seconds = " and ".join(ms(rounds["seconds"][name]) for name in ("large", "small"))
    rows = [
        ["to open the data", f"{alone['open_s']:.2f} s"],
        [
            "a round of 1,000 from 1,000,000 over one from 1,000",
            f"{rounds['ratio']:.2f} ({seconds} ms)",
        ],
        ["the same in processor time", f"{rounds['ratio_cpu']:.2f}"],
        [
            "to load a cohort on the host; waited for",
            f"{ms(rounds['make_s'])} ms; {ms(rounds['wait_s'])} ms",
        ],
        ["to pack a cohort that is not in the page cache", f"{ms(cold['cold_s'])} ms"],
        [
            "  bytes read from the disk for it",
            f"{size(cold['cold_bytes'])} for {size(cold['wanted_bytes'])}",
        ],
        ["anonymous memory of the process (RssAnon), at most", size(alone["peak"])],
        ["  with JAX started, and nothing else", size(alone["imported"])],
        ["with pages of the data in the page cache (VmHWM)", size(alone["peak_resident"])],
        _checked(predicted),
    ]
    text = (
        f"{part['clients']:,} clients with 100 examples of 28 bytes in files{written}; logistic "
        "regression, uniform sampler, one\ndevice. Memory is that of a process that does nothing "
        "else, compiler included."
    )
    return f"### A million clients\n\n{text}\n\n{table(('', ''), rows)}"


def _checked(predicted: dict[str, int]) -> list[str]:
    """The row of what ``check`` predicts."""
    return [
        "`check`: device and host, here the same memory",
        f"{size(predicted['device'])} + {size(predicted['host'])}",
    ]


def memory(part: dict[str, Any]) -> str:
    """Client memory in files."""
    lines = [
        [
            str(row["devices"]),
            *(ms(row["seconds"][kind]) for kind in ("device", "host", "kept")),
            *(f"{row[key]:.2f}" for key in ("ratio", "ratio_cpu", "ratio_kept")),
        ]
        for row in part["rows"]
    ]
    columns = (
        "devices",
        "all on the device, ms",
        "examples on the host",
        "memory too",
        "/ device",
        "processor time",
        "/ host",
    )
    first = part["rows"][0]
    text = (
        f"SCAFFOLD on W3's model and clients: {first['cohort']} rows of {size(first['row'])} a "
        "round, read, checked and written."
    )
    return "\n\n".join(
        [
            "### Client memory on the host",
            text,
            table(columns, lines),
            _large_table(part["table"]),
        ]
    )


def _large_table(part: dict[str, Any]) -> str:
    """The table that fits on no device, in words."""
    seconds = ", ".join(ms(seconds) for seconds in part["seconds"].values())
    return (
        f"A table that fits on no device: 1,000,000 clients x {size(ROW)} = {size(part['table'])}, "
        f"with `engine.memory_limit` at\n{size(part['memory'])}. A round of 100 clients takes "
        f"{part['ratio']:.2f} of one with 1,000 clients in files, whose rows are read again,\nand "
        f"that one {part['ratio_device']:.2f} of one with 1,000 clients on the device ({seconds} "
        f"ms). After {part['rounds']} rounds\n{part['rows']:,} clients have a row, and the files "
        f"take {size(part['on_disk'])}; a snapshot, flushed to disk, takes\n"
        f"{ms(part['snapshot_s'])} ms."
    )


def cohort(part: dict[str, Any]) -> str:
    """Peak memory over the cohort."""
    packed = {row["cohort"]: row["data"] for row in part["predicted"]}
    lines = []
    for row in part["rows"]:
        if row["place"] == "device":
            peak = row["peak_bytes"]
            model = ROW
            examples = "-"
        else:
            peak = row["peak"] - row["ready"]
            model = row["model"]
            examples = size(packed[row["cohort"]])
        models = size(row["cohort"] * model)
        lines.append([row["place"], f"{row['cohort']:,}", size(peak), examples, models])
    columns = (
        "examples on",
        "cohort",
        "peak",
        "of it examples, by `check`",
        "a model for each would be",
    )
    text = (
        "Memory that rounds take beyond what is there before the first, their program included; "
        "one device, compiled before. On the\ndevice: W1's model and kind of data, all resident "
        "memory. On the host: a 2NN on the million clients, RssAnon."
    )
    return f"### Cohorts larger than memory\n\n{text}\n\n{table(columns, lines)}"


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
    text = (
        f"Two CPU devices and {rows[0]['shards']} shards, examples on the host: in one process, "
        "and in two that have a device each.\nRatios of processor time in brackets."
    )
    return f"### Processes\n\n{text}\n\n{table(columns, lines)}"


def same(hashes: dict[str, list[str]]) -> str:
    """Whether all kinds end in the same bits as one process."""
    different = [kind for kind, values in hashes.items() if values != hashes["one"]]
    return f"different: {', '.join(different)}" if different else "the same"


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
        "to sample and assign 1,000, ms",
        "to open a row store",
        "to read 1,000 rows of 1 kB",
        "its directory, with 10,000 rows",
    )
    alone = part["alone"]
    files = part["files"]
    facts = [
        ["to open the data", f"{alone['open_s']:.1f} s"],
        ["to make program and first state", f"{alone['make_s']:.1f} s"],
        [
            "the first round; each of the next",
            f"{alone['first_s']:.1f} s; {alone['round_s']:.3g} s",
        ],
        [
            "anonymous memory of the process: opened; ready",
            f"{size(alone['opened'])}; {size(alone['ready'])}",
        ],
        ["  at most, while sizes are computed from offsets", size(alone["peak"])],
        _checked(part["predicted"]),
    ]
    text = (
        f"{part['clients']:,} clients with 100 examples each in sparse files "
        f"({size(files['bytes'])}, of which\n{size(files['on_disk'])} are on the disk: the "
        "offsets); otherwise as the million above:"
    )
    return "\n\n".join(
        [
            "### A hundred million clients",
            table(columns, rows),
            text,
            table(("", ""), facts),
        ]
    )


PAGES: dict[str, Callable[[Any], str]] = {
    "host": host,
    "people": people,
    "memory": memory,
    "cohort": cohort,
    "processes": processes,
    "paper": paper,
}
"""In the order of the document."""
