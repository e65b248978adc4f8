"""What was measured, as files: ``<machine>.json``, ``<machine>.md``, and the README's table.

``python -m benchmarks.results FILE.json`` writes the ``.md`` again from a ``.json``, and with
``--readme`` the README's section, too.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import pages
from benchmarks.report_file import COMMAND, README, Report, facts, read
from fedjax_sim.core.errors import require

MARKS = {
    "cpu": ("<!-- benchmarks -->", "<!-- /benchmarks -->"),
    "accelerator": ("<!-- accelerator -->", "<!-- /accelerator -->"),
}


def write(
    parts: dict[str, Any],
    folder: str | Path,
    machine: str,
    fresh: Sequence[str] = (),
    readme: Path | None = None,
) -> Report:
    """Writes ``<machine>.json`` and ``<machine>.md`` into a folder.

    Args:
      parts: of the report, by name.
      folder: created if it is missing.
      machine: the machine's name.
      fresh: names of the parts measured in this run; the facts keep the commit of each part.
      readme: a README in which to put the main tables, if any.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{machine}.json"
    commits = read(path).facts["parts"] if path.exists() else {}
    now = facts()
    commits = {**commits, **dict.fromkeys(fresh, now["commit"])}
    report = Report(machine, {**now, "parts": commits}, parts)
    path.write_text(json.dumps(report._asdict(), indent=1) + "\n")
    (folder / f"{machine}.md").write_text(document(report))
    if readme is not None:
        update_readme(report, readme)
    return report


def document(report: Report) -> str:
    """The report in Markdown."""
    facts = report.facts
    intro = [
        f"# Benchmarks: {report.machine}",
        "",
        f"`{COMMAND}` on {facts['date']}: {pages.place(facts)}; commit {facts['commit']}, "
        f"jax {facts['jax']}, jaxlib {facts['jaxlib']}, Python {facts['python']}.",
        "Ratios are measured in turn on one machine in one run; seconds from different runs or "
        "machines are not to be compared.",
    ]
    sections = [
        page(report.parts[name]) for name, page in pages.PAGES.items() if report.parts.get(name)
    ]
    return "\n".join(intro) + "\n\n" + "\n\n".join(sections) + "\n"


def update_readme(report: Report, path: Path = README) -> None:
    """Puts the main table, and that of the peers, between the README's markers.

    Raises:
      FedError: if a marker for this kind of machine is missing.
    """
    on_cpu = set(report.facts["devices"]) == {"cpu"}
    start, end = MARKS["cpu" if on_cpu else "accelerator"]
    text = path.read_text()
    require(
        start in text and end in text,
        f"{path.name} has no place for the table",
        got="no markers",
        fix=f"put {start} and {end} around it",
    )
    before, rest = text.split(start, 1)
    after = rest.split(end, 1)[1]
    path.write_text(f"{before}{start}\n{pages.digest(report)}\n{end}{after}")


def main() -> None:
    """Runs the command of the module's docstring."""
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
