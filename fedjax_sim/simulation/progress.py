"""The progress display of a run: a live bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import contextlib
import time
from datetime import timedelta
from types import TracebackType
from typing import NamedTuple, Self

from rich import progress as rich_progress
from rich.console import Console

from fedjax_sim.simulation.history import Row

ACCURACIES = ("test/accuracy", "clients/accuracy_mean", "accuracy")
"""The first of these metrics that a run reports is shown."""
LINE_INTERVAL = 10.0
"""Seconds after which the next round is shown where there is no terminal."""
EVALUATION_INTERVAL = 1.0
"""Seconds after which the next evaluated round is shown where there is no terminal."""


class Progress:
    """A display that prints messages, but no rounds. A context manager that closes itself.

    A display that cannot be written to (a closed terminal, a log on a full disk) is ignored, so
    that it does not end the run.

    Args:
      console: where to print.

    Example:

        >>> import sys
        >>> from rich.console import Console
        >>> from fedjax_sim.simulation.progress import Progress
        >>> with Progress(Console(file=sys.stdout)) as progress:
        ...     progress.advance(1, {"loss": 2.0})
        ...     progress.say("a checkpoint could not be written")
        a checkpoint could not be written
    """

    def __init__(self, console: Console) -> None:
        self._console = console

    def advance(self, round_: int, row: Row) -> None:
        """Shows that a round is complete.

        Args:
          round_: the number of complete rounds.
          row: the numbers of the last one.
        """

    def say(self, text: str) -> None:
        """Prints a message to the user, above the bar."""
        with contextlib.suppress(OSError):
            self._console.print(text, highlight=False, markup=False)

    def close(self) -> None:
        """Ends the display."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


class ProgressBar(Progress):
    """A bar on a terminal that is updated after every round.

    Args:
      total: rounds of the whole run.
      done: rounds that are complete already.
      console: the terminal.
    """

    def __init__(self, total: int, done: int, console: Console) -> None:
        super().__init__(console)
        self._status = Status(total)
        self._bar = rich_progress.Progress(
            rich_progress.TextColumn("round"),
            rich_progress.MofNCompleteColumn(),
            rich_progress.BarColumn(bar_width=None),
            rich_progress.TextColumn("{task.fields[text]}"),
            console=console,
            expand=True,
        )
        self._task = self._bar.add_task("rounds", total=total, completed=done, text="compiling")
        self._bar.start()

    def advance(self, round_: int, row: Row) -> None:
        """Moves the bar, and shows loss, accuracy and speed beside it."""
        with contextlib.suppress(OSError):
            self._bar.update(self._task, completed=round_, text=self._status.update(round_, row))

    def close(self) -> None:
        """Leaves the bar as it is."""
        with contextlib.suppress(OSError):
            self._bar.stop()


class ProgressLines(Progress):
    """Lines for a log: after the first call, after evaluations, every ten seconds, and at the end.

    Args:
      total: rounds of the whole run.
      done: rounds that are complete already.
      console: where to print.
    """

    def __init__(self, total: int, done: int, console: Console) -> None:
        super().__init__(console)
        self._total = total
        self._status = Status(total)
        self._text = ""
        self._round = done
        self._shown_round = done
        self._shown_at = float("-inf")

    def advance(self, round_: int, row: Row) -> None:
        """Prints a line if one is due."""
        self._round = round_
        self._text = self._status.update(round_, row)
        elapsed = time.monotonic() - self._shown_at
        if elapsed > LINE_INTERVAL or (elapsed > EVALUATION_INTERVAL and has_evaluation(row)):
            self._print_line()

    def say(self, text: str) -> None:
        """Prints a message to the user, on one line."""
        with contextlib.suppress(OSError):
            self._console.print(text, highlight=False, markup=False, soft_wrap=True)

    def close(self) -> None:
        """Prints a line for the last round, unless it has one."""
        if self._shown_round != self._round:
            self._print_line()

    def _print_line(self) -> None:
        self._shown_round = self._round
        self._shown_at = time.monotonic()
        self.say(f"round {self._round:>{len(str(self._total))}}/{self._total}  {self._text}")


def open_progress(
    total: int, done: int = 0, console: Console | None = None, show: bool = True
) -> Progress:
    """Opens the display that fits a console: a bar on a terminal, else lines.

    Args:
      total: rounds of the whole run.
      done: rounds that are complete already.
      console: where to show them; standard error if none is given.
      show: whether to show rounds; if false, only messages are printed.

    Example:

        >>> import sys
        >>> from rich.console import Console
        >>> from fedjax_sim.simulation.progress import open_progress
        >>> with open_progress(total=10, console=Console(file=sys.stdout)) as progress:
        ...     progress.advance(1, {"loss": 2.0, "test/accuracy": 0.5})
        round  1/10  loss 2.0000  test/accuracy 50.0 %
    """
    console = console or Console(stderr=True)
    live = console.is_terminal and not console.is_jupyter and not console.is_dumb_terminal
    if not show:
        return Progress(console)
    if live:
        return ProgressBar(total, done, console)
    return ProgressLines(total, done, console)


class Pace(NamedTuple):
    """The speed since the first call ended. The first call is left out, because it compiles."""

    since: float
    """Time at which the first call ended, in seconds."""
    start: int
    """Rounds that were complete then."""

    def rate(self, round_: int, now: float) -> float | None:
        """Rounds per second up to a round, or ``None`` if no round was measured yet."""
        rounds = round_ - self.start
        seconds = now - self.since
        return rounds / seconds if rounds > 0 and seconds > 0 else None


class Status:
    """The text beside the bar: loss, accuracy, rounds per second and remaining time.

    A metric that a row lacks is shown with its last value.

    Args:
      total: rounds of the whole run.
    """

    def __init__(self, total: int) -> None:
        self._total = total
        self._latest: Row = {}
        self._pace: Pace | None = None

    def update(self, round_: int, row: Row) -> str:
        """Returns the text after a round.

        Args:
          round_: the number of complete rounds.
          row: the numbers of the last one.
        """
        now = time.monotonic()
        self._latest.update(row)
        self._pace = self._pace or Pace(now, round_)
        rate = self._pace.rate(round_, now)
        speed = [] if rate is None else speed_text(rate, self._total - round_)
        return "  ".join([*metrics_text(self._latest), *speed])


def has_evaluation(row: Row) -> bool:
    """True if a row holds results of an evaluation, whose names have a slash."""
    return any("/" in name for name in row)


def metrics_text(row: Row) -> list[str]:
    """Returns the loss and the accuracy of a row as text, as far as it has them."""
    loss = [f"loss {row['loss']:.4f}"] if "loss" in row else []
    accuracy = next((name for name in ACCURACIES if name in row), None)
    return loss if accuracy is None else [*loss, f"{accuracy} {100 * row[accuracy]:.1f} %"]


def speed_text(rate: float, remaining: int) -> list[str]:
    """Returns the speed and the remaining time as text.

    Args:
      rate: rounds per second.
      remaining: rounds until the end of the run.
    """
    speed = f"{rate:.1f} rounds/s" if rate >= 1 else f"{1 / rate:.1f} s/round"
    if remaining <= 0:
        return [speed]
    return [speed, f"ETA {timedelta(seconds=round(remaining / rate))}"]
