"""The table of ``docs/reliability.md``."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.fresh import ROOT
from benchmarks.pages import table
from benchmarks.reliability.rows import ROWS
from benchmarks.reliability.tally import Tally
from fedjax_sim.core.errors import require

DOCUMENT = ROOT / "docs" / "reliability.md"
START = "<!-- reliability -->"
END = "<!-- /reliability -->"


class Result(NamedTuple):
    """One row's result."""

    name: str
    tally: Tally
    seconds: float


def line(result: Result) -> dict[str, Any]:
    """A row as a JSON object."""
    tally = result.tally
    return {
        "row": result.name,
        "promise": ROWS[result.name].promise,
        "attacks": tally.attacks,
        "lost": len(tally.lost),
        "note": tally.note,
        "losses": list(tally.lost),
        "seconds": round(result.seconds, 1),
    }


def written(results: list[Result], seconds: float) -> str:
    """All rows in Markdown, and below them what was lost, in words."""
    lost = [f"* {result.name}: {text}" for result in results for text in result.tally.lost]
    head = ("promise", "how it is attacked", "attacks", "lost", "note")
    parts = [about(seconds), table(head, map(cells, results), 2)]
    return "\n\n".join([*parts, *(["What was lost:", "\n".join(lost)] if lost else [])])


def cells(result: Result) -> list[str]:
    """One line of the table."""
    row = ROWS[result.name]
    tally = result.tally
    texts = (
        f"**{result.name}**: {row.promise}",
        row.how,
        f"{tally.attacks:,}",
        outcome(tally),
        tally.note,
    )
    return [text.replace("|", "\\|").replace("\n", " ") for text in texts]


def outcome(tally: Tally) -> str:
    """The number of losses; a dash if there was no attack."""
    return str(len(tally.lost)) if tally.attacks or tally.lost else "-"


def about(seconds: float) -> str:
    """When the attacks were run, how long they took, and on what machine."""
    from benchmarks.report_file import facts

    machine = facts()
    return (
        f"`python -m benchmarks.reliability` on {machine['date']}, {seconds / 60:.0f} minutes: "
        f"{machine['processor']}, {machine['cores']} cores, jax {machine['jax']}, Python "
        f"{machine['python']}, commit {machine['commit']}."
    )


def update(results: list[Result], seconds: float, path: Path = DOCUMENT) -> None:
    """Puts the table between the document's markers.

    Args:
      results: of all rows.
      seconds: that the run took.
      path: of the document.

    Raises:
      FedError: if a marker is missing.
    """
    text = path.read_text(encoding="utf-8")
    require(
        START in text and END in text,
        f"{path.name} has no place for the table",
        got="no reliability markers",
        fix=f"put {START} and {END} around it",
    )
    before = text.split(START, 1)[0]
    after = text.split(END, 1)[1]
    path.write_text(
        f"{before}{START}\n\n{written(results, seconds)}\n\n{END}{after}", encoding="utf-8"
    )
