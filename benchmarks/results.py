"""What was measured, as files: ``<machine>.json`` with every figure and ``<machine>.md`` to read; and the README's table.

``python -m benchmarks.results FILE.json`` writes the ``.md`` anew from a ``.json``, and with ``--readme`` the README's section.
"""

from __future__ import annotations

import argparse
import datetime
import json
import math
import platform
import re
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from fedjax_sim.core.errors import require

README = Path(__file__).parent.parent / "README.md"
MARKS = {
    "cpu": ("<!-- benchmarks -->", "<!-- /benchmarks -->"),
    "accelerator": ("<!-- accelerator -->", "<!-- /accelerator -->"),
}
COMMAND = "python -m benchmarks --full"


class Report(NamedTuple):
    """All that one run measured."""

    machine: str
    """Its name, such as ``cpu-2-cores``; also the files'."""
    facts: dict[str, Any]
    """Versions, commit, cores, date: see :func:`facts`."""
    parts: dict[str, Any]
    """By name: ``workloads`` (lines of the main table, ``peers`` in them), ``limits``, ``lanes``, ``growth``, ``startup``; any may lack."""


def write(
    parts: dict[str, Any],
    folder: str | Path,
    machine: str,
    fresh: Sequence[str] = (),
    readme: Path | None = None,
) -> Report:
    """Writes ``<machine>.json`` and ``<machine>.md`` into a folder, and the tables' digest into a README where one is named.

    ``fresh`` names the parts measured in this run: the commit of each is kept with the facts.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    earlier = (
        read(folder / f"{machine}.json").facts["parts"]
        if (folder / f"{machine}.json").exists()
        else {}
    )
    now = facts()
    report = Report(
        machine, {**now, "parts": {**earlier, **dict.fromkeys(fresh, now["commit"])}}, parts
    )
    (folder / f"{machine}.json").write_text(json.dumps(report._asdict(), indent=1) + "\n")
    (folder / f"{machine}.md").write_text(document(report))
    if readme is not None:
        update_readme(report, readme)
    return report


def read(path: str | Path) -> Report:
    """A report from its ``.json``."""
    return Report(**json.loads(Path(path).read_text()))


def machine() -> str:
    """The kind of processor and how many: ``cpu-2-cores``, ``nvidia-h200``."""
    import jax

    from fedjax_sim.runtime.devices import cores

    devices = jax.devices()
    if devices[0].platform == "cpu":
        return f"cpu-{cores()}-cores"
    kind = re.sub(r"[^a-z0-9]+", "-", devices[0].device_kind.lower()).strip("-")
    return kind if len(devices) == 1 else f"{len(devices)}-{kind}"


def facts() -> dict[str, Any]:
    """What the figures depend on besides the code that is measured."""
    import jax

    from fedjax_sim.persistence.manifest import versions
    from fedjax_sim.runtime.devices import cores

    return {
        **versions(),
        "commit": commit(),
        "cores": cores(),
        "processor": processor(),
        "devices": [device.device_kind for device in jax.devices()],
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d"),
    }


def commit() -> str:
    """The commit that is checked out, ``+`` where files differ from it; ``unknown`` outside a repository."""
    here = README.parent

    def git(*words: str) -> str:
        return subprocess.run(
            ["git", *words], cwd=here, capture_output=True, text=True, check=True
        ).stdout.strip()

    try:
        return git("rev-parse", "--short=12", "HEAD") + (
            "+" if git("status", "--porcelain", "--untracked-files=no") else ""
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def processor() -> str:
    """The processor's own name, where the system tells it."""
    try:
        found = re.search(
            r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE
        )
    except OSError:
        found = None
    return found.group(1) if found else platform.processor() or platform.machine()


def document(report: Report) -> str:
    """The report to read, in Markdown."""
    from benchmarks import pages

    said = report.facts
    intro = [
        f"# Benchmarks: {report.machine}",
        "",
        f"`{COMMAND}` on {said['date']}: {pages.place(said)}; commit {said['commit']}, "
        f"jax {said['jax']}, jaxlib {said['jaxlib']}, Python {said['python']}.",
        "Ratios are measured in turn on one machine in one run; seconds from different runs or machines are not to be compared.",
    ]
    return (
        "\n".join(intro)
        + "\n\n"
        + "\n\n".join(
            page(report.parts[name]) for name, page in pages.PAGES.items() if report.parts.get(name)
        )
        + "\n"
    )


def update_readme(report: Report, path: Path = README) -> None:
    """Puts the main table, and that of the peers, between the README's markers for this kind of machine.

    Raises:
      FedError: where a marker is missing.
    """
    from benchmarks import pages

    start, end = MARKS["cpu" if set(report.facts["devices"]) == {"cpu"} else "accelerator"]
    text = path.read_text()
    there = start in text and end in text
    require(
        there,
        f"{path.name} has no place for the table",
        got="no markers",
        fix=f"put {start} and {end} around it",
    )
    before, rest = text.split(start, 1)
    after = rest.split(end, 1)[1]
    path.write_text(f"{before}{start}\n{pages.digest(report)}\n{end}{after}")


def geometric(values: list[float]) -> float:
    """Geometric mean; nan of nothing."""
    return math.exp(sum(map(math.log, values)) / len(values)) if values else math.nan


def main() -> None:
    verbatim = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.results", description=__doc__, formatter_class=verbatim
    )
    parser.add_argument("file", type=Path, help="a report's .json")
    parser.add_argument("--readme", action="store_true", help="put its tables into the README, too")
    options = parser.parse_args()
    report = read(options.file)
    options.file.with_suffix(".md").write_text(document(report))
    if options.readme:
        update_readme(report)


if __name__ == "__main__":
    main()
