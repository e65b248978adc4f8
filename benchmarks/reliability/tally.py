"""The result of an attack."""

from __future__ import annotations

from typing import Any, NamedTuple


class Tally(NamedTuple):
    """The result of one promise's attacks."""

    attacks: int
    """Number of attacks."""
    lost: tuple[str, ...]
    """What was not as promised, in words; empty if the promise was kept."""
    note: str = ""
    """What was measured, and which attacks were run."""


def to_json(attacks: int, lost: list[str], note: str = "") -> dict[str, Any]:
    """A tally as a JSON object, which a process of its own returns."""
    return {"attacks": attacks, "lost": lost, "note": note}


def from_json(members: dict[str, Any]) -> Tally:
    """The inverse of :func:`to_json`."""
    return Tally(members["attacks"], tuple(members["lost"]), members["note"])


def combined(*parts: Tally) -> Tally:
    """The sum of several attacks on one promise."""
    notes = "; ".join(dict.fromkeys(part.note for part in parts if part.note))
    return Tally(
        sum(part.attacks for part in parts),
        tuple(text for part in parts for text in part.lost),
        notes,
    )
