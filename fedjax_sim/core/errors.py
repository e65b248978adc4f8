"""Errors in three parts: what is wrong, what was got, how to fix it.

Settings are checked when something is built, never inside a traced round.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Iterable, Mapping
from typing import Any, NoReturn


class FedError(ValueError):
    """An error that the user can fix. Its text is one sentence of three parts.

    Attributes:
      setting: the setting that caused it, spelled as in its factory (``"lr"``) or after the
        factory's name (``"fedavg.lr"``, ``"engine.shards"``); None where it is not known.

    Example:
      >>> import fedjax_sim as fs
      >>> try:
      ...     fs.samplers.uniform(cohort=0)
      ... except fs.FedError as error:
      ...     print(error, error.setting, sep="; setting: ")
      uniform.cohort must be positive: got 0; give uniform.cohort a value above 0; setting:
      uniform.cohort
    """

    def __init__(self, text: str = "", setting: str | None = None) -> None:
        super().__init__(text)
        self.setting = setting


def fail(what: str, *, got: Any, fix: str, setting: str | None = None) -> NoReturn:
    """Raises :class:`FedError`.

    Args:
      what: what is wrong, or the rule that is broken.
      got: the value that breaks it.
      fix: what the user can do.
      setting: the parameter that caused it, spelled as in its factory.

    Raises:
      FedError: always.

    Example:
      >>> from fedjax_sim.core.errors import fail
      >>> fail("lr must be positive", got=-1, fix="use 0.1", setting="lr")
      Traceback (most recent call last):
      fedjax_sim.core.errors.FedError: lr must be positive: got -1; use 0.1
    """
    raise FedError(sentence(what, got=got, fix=fix), setting)


def sentence(what: str, *, got: Any, fix: str) -> str:
    """Returns the three parts on one line: ``what: got ...; fix``.

    Args:
      what: what is wrong, shortened to 400 characters.
      got: the value, as ``str`` shows it, shortened to 400 characters.
      fix: what the user can do.

    Example:
      >>> from fedjax_sim.core.errors import sentence
      >>> sentence("lr must be positive", got=-1, fix="use 0.1")
      'lr must be positive: got -1; use 0.1'
    """
    return printable(f"{shorten(what)}: got {shorten(str(got))}; {fix}")


def shorten(text: str, length: int = 400) -> str:
    """Returns at most ``length`` characters of the text; a shortened text ends in ``...``.

    >>> shorten("a long text", 6)
    'a l...'
    """
    return text if len(text) <= length else text[: length - 3] + "..."


def printable(text: str) -> str:
    r"""Returns the text on one line, with control characters escaped.

    Texts from files and names may contain sequences that a terminal would execute.

    >>> printable("two\nlines")
    'two\\nlines'
    """
    return (
        text
        if text.isprintable()
        else "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    )


def require(condition: bool, what: str, *, got: Any, fix: str, setting: str | None = None) -> None:
    """Raises :class:`FedError` unless the condition holds.

    Args:
      condition: a concrete truth value; traced values cannot be checked.
      what: the rule, in words.
      got: the value that breaks it.
      fix: what the user can do.
      setting: the parameter that caused it, spelled as in its factory.

    Raises:
      FedError: if the condition is false.

    Example:
      >>> from fedjax_sim.core.errors import require
      >>> require(2 > 1, "two exceeds one", got=2, fix="use 2")
      >>> require(2 > 3, "two exceeds three", got=2, fix="use 4")
      Traceback (most recent call last):
      fedjax_sim.core.errors.FedError: two exceeds three: got 2; use 4
    """
    if not condition:
        fail(what, got=got, fix=fix, setting=setting)


def positive(name: str, value: Any) -> None:
    """Requires ``0 < value < inf``. Schedules and traced values (a sweep under ``vmap``) pass.

    Args:
      name: the setting, such as ``"lr"`` or ``"fedavg.lr"``; the error carries it.
      value: its value.

    Raises:
      FedError: if a Python number lies outside the interval.
    """
    bad = isinstance(value, int | float) and not 0 < value < math.inf
    require(
        not bad,
        f"{name} must {_demand(value, 'be positive')}",
        got=value,
        fix=f"give {name} a value above 0",
        setting=_setting(name),
    )


def not_negative(name: str, value: Any) -> None:
    """Requires ``0 <= value < inf``. Schedules and traced values pass.

    Args:
      name: the setting, such as ``"mu"`` or ``"fedprox.mu"``; the error carries it.
      value: its value.

    Raises:
      FedError: if a Python number lies outside the interval.
    """
    bad = isinstance(value, int | float) and not 0 <= value < math.inf
    require(
        not bad,
        f"{name} must {_demand(value, 'not be negative')}",
        got=value,
        fix=f"give {name} 0 or a value above it",
        setting=_setting(name),
    )


def fraction(name: str, value: Any, zero: bool = False) -> None:
    """Requires ``0 < value <= 1``. Traced values pass.

    Args:
      name: the setting, such as ``"rate"`` or ``"dropout.rate"``; the error carries it.
      value: its value.
      zero: whether 0 is allowed too.

    Raises:
      FedError: if a Python number lies outside the interval.
    """
    bad = isinstance(value, int | float) and not (0 < value <= 1 or (zero and value == 0))
    interval = "[0, 1]" if zero else "(0, 1]"
    require(
        not bad,
        f"{name} is a share and must lie in {interval}",
        got=value,
        fix=f"give {name} a value such as 0.1",
        setting=_setting(name),
    )


def suggest(word: str, known: Iterable[str]) -> str:
    """Returns ``did you mean 'x'?`` where a known word is similar, else the list of known words.

    >>> suggest("fedavgg", ["fedavg", "scaffold"])
    "did you mean 'fedavg'?"
    >>> suggest("adam", ["fedavg", "scaffold"])
    'choose one of: fedavg, scaffold'
    """
    known = sorted(known)
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    return f"did you mean {close[0]!r}?" if close else f"choose one of: {', '.join(known)}"


def lookup(kind: str, name: str, registry: Mapping[str, Any]) -> Any:
    """Returns the registry's entry of this name.

    Args:
      kind: what the registry holds, such as ``"sampler"``; the error's setting.
      name: the key.
      registry: name to entry.

    Raises:
      FedError: if there is no such entry; the text suggests a similar name.
    """
    if name not in registry:
        fail(f"unknown {kind}", got=repr(name), fix=suggest(name, registry), setting=_setting(kind))
    return registry[name]


def _demand(value: Any, otherwise: str) -> str:
    """Returns ``"be finite"`` for infinity and NaN, else ``otherwise``."""
    return "be finite" if isinstance(value, float) and not math.isfinite(value) else otherwise


def _setting(name: str) -> str | None:
    """Returns the name if it is spelled like a setting; a description has spaces: None."""
    return name if re.fullmatch(r"\w+(\.\w+)*", name) else None
