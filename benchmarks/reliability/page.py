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
START, END = "<!-- reliability -->", "<!-- /reliability -->"


class Result(NamedTuple):
    """One row's result."""

    name: str
    tally: Tally
    seconds: float


def line(result: Result) -> dict[str, Any]:
    """A row for programs."""
    found = result.tally
    said = {
        "row": result.name,
        "promise": ROWS[result.name].promise,
        "attacks": found.attacks,
        "lost": len(found.lost),
        "note": found.note,
    }
    return {**said, "losses": list(found.lost), "seconds": round(result.seconds, 1)}


def written(results: list[Result], seconds: float) -> str:
    """All rows in Markdown, what was lost in words below them."""
    lost = [f"* {result.name}: {text}" for result in results for text in result.tally.lost]
    head = ("promise", "how it is attacked", "attacks", "lost", "note")
    parts = [about(seconds), table(head, map(cells, results), 2)]
    return "\n\n".join([*parts, *(["What was lost:", "\n".join(lost)] if lost else [])])


def cells(result: Result) -> list[str]:
    """One line of the table."""
    row, found = ROWS[result.name], result.tally
    texts = (
        f"**{result.name}**: {row.promise}",
        row.how,
        f"{found.attacks:,}",
        outcome(found),
        found.note,
    )
    return [text.replace("|", "\\|").replace("\n", " ") for text in texts]


def outcome(tally: Tally) -> str:
    return str(len(tally.lost)) if tally.attacks or tally.lost else "-"


def about(seconds: float) -> str:
    """Where and when."""
    from benchmarks.results import facts

    said = facts()
    where = f"{said['processor']}, {said['cores']} cores, jax {said['jax']}, Python {said['python']}, commit {said['commit']}"
    return f"`python -m benchmarks.reliability` on {said['date']}, {seconds / 60:.0f} minutes: {where}."


def update(results: list[Result], seconds: float, path: Path = DOCUMENT) -> None:
    """Puts the table of a run that took so long between the document's markers.

    Raises:
      FedError: where a marker is missing.
    """
    text = path.read_text(encoding="utf-8")
    there = START in text and END in text
    require(
        there,
        f"{path.name} has no place for the table",
        got="no reliability markers",
        fix=f"put {START} and {END} around it",
    )
    before, after = text.split(START, 1)[0], text.split(END, 1)[1]
    path.write_text(
        f"{before}{START}\n\n{written(results, seconds)}\n\n{END}{after}", encoding="utf-8"
    )
