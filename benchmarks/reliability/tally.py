"""What an attack comes back with."""

from __future__ import annotations

from typing import NamedTuple


class Tally(NamedTuple):
    """The result of one promise's attacks."""

    attacks: int
    """How often something was done to it."""
    lost: tuple[str, ...]
    """What was not as promised, in words; empty where the promise held."""
    note: str = ""
    """What was measured, and how it was attacked here."""


def told(attacks: int, lost: list[str], note: str = "") -> dict[str, object]:
    """A tally as JSON has it, from a process of its own."""
    return {"attacks": attacks, "lost": lost, "note": note}


def tally(found: dict[str, object]) -> Tally:
    """The way back."""
    return Tally(int(found["attacks"]), tuple(found["lost"]), str(found["note"]))  # type: ignore[call-overload,arg-type]


def together(*parts: Tally) -> Tally:
    """Several attacks on one promise."""
    notes = "; ".join(dict.fromkeys(part.note for part in parts if part.note))
    return Tally(
        sum(part.attacks for part in parts),
        tuple(text for part in parts for text in part.lost),
        notes,
    )
