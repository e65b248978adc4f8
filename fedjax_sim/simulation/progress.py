"""How a run shows that it goes: a live bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any, NamedTuple

from rich.console import Console

from fedjax_sim.simulation.history import Row

ACCURACIES = ("test/accuracy", "clients/accuracy_mean", "accuracy")
"""The first of these that a run reports is shown."""
QUIET = 10.0
"""Seconds without a line, at most, where there is no terminal."""
HASTE = 1.0
"""Seconds between two lines, at least."""


class Progress(NamedTuple):
    """The display of one run."""

    advance: Callable[[int, Row], None]
    """``(round, row) -> None``: this many rounds are done."""
    say: Callable[[str], None]
    """``text -> None``: a line for the user, above the bar."""
    close: Callable[[], None]


class Pace(NamedTuple):
    """Speed since the first call came back, for that one compiled the program."""

    since: float
    start: int

    def rate(self, round_: int, now: float) -> float | None:
        """Rounds per second, or ``None`` when there is nothing to measure yet."""
        done, spent = round_ - self.start, now - self.since
        return done / spent if done > 0 and spent > 0 else None


def open_progress(
    total: int, done: int = 0, console: Console | None = None, show: bool = True
) -> Progress:
    """The display that fits the console: a bar on a terminal, else lines; nothing but ``say`` where ``show`` is false.

    Args:
      total: rounds the run will have.
      done: rounds it already has.
      console: standard error if none is given.
      show: whether rounds are shown at all.
    """
    console = console or Console(stderr=True)
    live = console.is_terminal and not console.is_jupyter and not console.is_dumb_terminal
    return Progress(
        *map(
            _calm,
            (
                _mute(console)
                if not show
                else _bar(total, done, console)
                if live
                else _lines(total, done, console)
            ),
        )
    )


def _calm(show: Callable[..., None]) -> Callable[..., None]:
    """Shows what can be shown: a terminal that is gone, or a log on a full disk, is no reason to end a run."""

    def calm(*what: Any) -> None:
        with contextlib.suppress(OSError):
            show(*what)

    return calm


def _mute(console: Console) -> Progress:
    """Says things, and shows no rounds."""
    return Progress(
        lambda round_, row: None,
        lambda text: console.print(text, highlight=False, markup=False),
        lambda: None,
    )


def _bar(total: int, done: int, console: Console) -> Progress:
    from rich import progress as rich

    columns = (
        rich.TextColumn("round"),
        rich.MofNCompleteColumn(),
        rich.BarColumn(bar_width=None),
        rich.TextColumn("{task.fields[text]}"),
    )
    bar = rich.Progress(*columns, console=console, expand=True)
    task = bar.add_task("rounds", total=total, completed=done, text="compiling")
    words = _words(total)

    def advance(round_: int, row: Row) -> None:
        bar.update(task, completed=round_, text=words(round_, row))

    bar.start()
    return Progress(
        advance, lambda text: bar.console.print(text, highlight=False, markup=False), bar.stop
    )


def _lines(total: int, done: int, console: Console) -> Progress:
    """A line after the first call, after evaluations and every ten seconds, never two within a second, and one at the end."""
    words = _words(total)
    last: dict[str, Any] = {"time": float("-inf"), "round": done, "text": "", "shown": done}

    def show() -> None:
        last.update(shown=last["round"], time=time.monotonic())
        console.print(
            f"round {last['round']:>{len(str(total))}}/{total}  {last['text']}",
            highlight=False,
            markup=False,
            soft_wrap=True,
        )

    def advance(round_: int, row: Row) -> None:
        last.update(round=round_, text=words(round_, row))
        silence = time.monotonic() - last["time"]
        if silence > QUIET or (silence > HASTE and _evaluated(row)):
            show()

    def close() -> None:
        if last["shown"] != last["round"]:
            show()

    return Progress(
        advance,
        lambda text: console.print(text, highlight=False, markup=False, soft_wrap=True),
        close,
    )


def _evaluated(row: Row) -> bool:
    return any("/" in name for name in row)


def _words(total: int) -> Callable[[int, Row], str]:
    """``(round, row) -> text``: loss, accuracy, rounds per second and time to go, remembering what a row does not repeat."""
    seen: Row = {}
    pace: list[Pace] = []

    def words(round_: int, row: Row) -> str:
        now = time.monotonic()
        seen.update(row)
        pace[:] = pace or [Pace(now, round_)]
        rate = pace[0].rate(round_, now)
        return "  ".join([*_metrics(seen), *([] if rate is None else _speed(rate, total - round_))])

    return words


def _metrics(seen: Row) -> list[str]:
    loss = [f"loss {seen['loss']:.4f}"] if "loss" in seen else []
    accuracy = next((name for name in ACCURACIES if name in seen), None)
    return loss if accuracy is None else [*loss, f"{accuracy} {100 * seen[accuracy]:.1f} %"]


def _speed(rate: float, left: int) -> list[str]:
    speed = f"{rate:.1f} rounds/s" if rate >= 1 else f"{1 / rate:.1f} s/round"
    return [speed, f"ETA {timedelta(seconds=round(left / rate))}"] if left > 0 else [speed]
