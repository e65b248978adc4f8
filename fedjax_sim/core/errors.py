"""Errors in three parts: what is wrong, what was got, what to do. Checked when something is built, never inside a round."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Iterable
from typing import Any, NoReturn


class FedError(ValueError):
    """Something the user can mend. Its text is one sentence of three parts.

    Attributes:
      setting: the setting to blame, as its factory calls it (``"lr"``, ``"fedavg.lr"``, ``"engine.shards"``), where it is known.
    """

    def __init__(self, text: str = "", setting: str | None = None) -> None:
        super().__init__(text)
        self.setting = setting


def fail(what: str, *, got: Any, fix: str, setting: str | None = None) -> NoReturn:
    """Raises :class:`FedError` with the three parts, and the setting to blame."""
    raise FedError(sentence(what, got=got, fix=fix), setting)


def sentence(what: str, *, got: Any, fix: str) -> str:
    """The three parts as one line: ``what: got ...; fix``."""
    return printable(f"{cut(what)}: got {cut(str(got))}; {fix}")


def cut(text: str, length: int = 400) -> str:
    """A text of a readable length."""
    return text if len(text) <= length else text[: length - 3] + "..."


def printable(text: str) -> str:
    """The text on one line, without anything that a terminal would obey, whatever somebody has put into a file or a name."""
    return (
        text
        if text.isprintable()
        else "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    )


def require(condition: bool, what: str, *, got: Any, fix: str, setting: str | None = None) -> None:
    """Raises :class:`FedError` unless the condition holds."""
    if not condition:
        fail(what, got=got, fix=fix, setting=setting)


def positive(name: str, value: Any) -> None:
    """Requires ``0 < value < inf``. Schedules and traced values (a sweep under ``vmap``) pass unchecked."""
    bad = isinstance(value, int | float) and not 0 < value < math.inf
    require(
        not bad,
        f"{name} must {_demand(value, 'be positive')}",
        got=value,
        fix=f"give {name} a value above 0",
        setting=_setting(name),
    )


def not_negative(name: str, value: Any) -> None:
    """Requires ``0 <= value < inf``. Schedules and traced values pass unchecked."""
    bad = isinstance(value, int | float) and not 0 <= value < math.inf
    require(
        not bad,
        f"{name} must {_demand(value, 'not be negative')}",
        got=value,
        fix=f"give {name} 0 or a value above it",
        setting=_setting(name),
    )


def fraction(name: str, value: Any, zero: bool = False) -> None:
    """Requires ``0 < value <= 1``, or ``0 <= value <= 1`` where zero makes sense. Traced values pass unchecked."""
    bad = isinstance(value, int | float) and not (0 < value <= 1 or (zero and value == 0))
    interval = "[0, 1]" if zero else "(0, 1]"
    what = f"{name} is a share and must lie in {interval}"
    require(
        not bad, what, got=value, fix=f"give {name} a value such as 0.1", setting=_setting(name)
    )


def suggest(word: str, known: Iterable[str]) -> str:
    """``did you mean 'x'?`` where a known word is close, else the list of known words."""
    known = sorted(known)
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    return f"did you mean {close[0]!r}?" if close else f"choose one of: {', '.join(known)}"


def lookup(kind: str, name: str, registry: dict[str, Any]) -> Any:
    """The registry's entry of that name, or an error with a suggestion."""
    if name not in registry:
        fail(f"unknown {kind}", got=repr(name), fix=suggest(name, registry), setting=_setting(kind))
    return registry[name]


def _demand(value: Any, otherwise: str) -> str:
    """What a number must be or do: of one that is not finite, that first."""
    return "be finite" if isinstance(value, float) and not math.isfinite(value) else otherwise


def _setting(name: str) -> str | None:
    """A name that is a setting's, and not a description of one."""
    return name if re.fullmatch(r"\w+(\.\w+)*", name) else None
