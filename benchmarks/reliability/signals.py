"""Ctrl-C and SIGTERM: the first lets the round end and saves, the second ends the run at once.

The exit status says which signal it was.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.fresh import fresh
from benchmarks.reliability import lives, scenes
from benchmarks.reliability.tally import Tally, from_json, to_json

FIRST = 20
"""Rounds before the run is ended."""
ROUNDS = 120
"""Rounds of the complete run."""
EVERY = ("evaluation.every=20", "checkpoint.every=20")
LONG = "engine.rounds_per_call=1000000"
"""One call that takes minutes, which signals do not interrupt."""
RARE = (LONG, "evaluation.every=100000000", "checkpoint.every=100000000")
AT_ONCE = 3.0
"""Seconds that the second signal may take on a busy machine."""


class Way(NamedTuple):
    """Signals that a run gets, and how it must end."""

    signals: tuple[int, ...]
    status: int
    """The exit status."""
    stopped: str | None
    """The value in ``summary.json``; None if there is no time to write it."""
    overrides: tuple[str, ...] = ()


INT = signal.SIGINT
TERM = signal.SIGTERM
WAYS = {
    "one SIGINT": Way((INT,), 130, "interrupted"),
    "one SIGTERM": Way((TERM,), 143, "terminated"),
    "two SIGINT": Way((INT, INT), 130, None, RARE),
    "SIGTERM and SIGINT": Way((TERM, INT), 130, None, RARE),
    "two SIGTERM": Way((TERM, TERM), 143, None, RARE),
}


def attack(times: int = 2, ways: tuple[str, ...] = tuple(WAYS)) -> Tally:
    """Ends runs by signals.

    Args:
      times: runs for each way.
      ways: names in ``WAYS``.
    """
    return from_json(fresh("benchmarks.reliability.signals:attacked", times=times, ways=ways))


def attacked(times: int, ways: list[str]) -> dict[str, Any]:
    """:func:`attack`, in a process that has not started JAX."""
    lives.prepare()
    rng = random.Random(0)
    lost = []
    slowest = 0.0
    with tempfile.TemporaryDirectory() as top:
        folder = Path(top)
        lives.keep_programs(folder / "programs")
        config = str(scenes.configured(folder))
        log = folder / "log"
        whole = folder / "whole"
        begun = folder / "begun"
        for run, rounds in ((whole, ROUNDS), (begun, FIRST)):
            command = ["run", config, f"rounds={rounds}", *EVERY, "--out", str(run)]
            status = lives.end(lives.begin(command, log))
            if status:
                text = f"the run without signals ended with {status}: {log.read_text()[-300:]}"
                return to_json(0, [text])
        for name in ways:
            for number in range(times):
                run = Path(shutil.copytree(begun, folder / f"{name} {number}"))
                seconds, wrong = ended(run, log, WAYS[name], rng.uniform(0, 0.4))
                wrong += completed(run, whole, log)
                slowest = max(slowest, seconds)
                lost += [f"{name}: {text}" for text in wrong]
    note = (
        f"{', '.join(ways)}, {times} times each; after a second signal a run ended within "
        f"{slowest:.2f} s"
    )
    return to_json(times * len(ways), lost, note)


def ended(run: Path, log: Path, way: Way, delay: float) -> tuple[float, list[str]]:
    """Resumes a run and ends it by signals.

    Args:
      run: its folder.
      log: to which its output is appended.
      way: the signals.
      delay: seconds between the moment when rounds are running and the first signal.

    Returns:
      The seconds from the second signal to the end (0 without one), and what was wrong.
    """
    shown = len(log.read_text())
    written = _config_time(run)
    pid = lives.begin(["resume", str(run), f"rounds={ROUNDS * 10**6}", *EVERY, *way.overrides], log)
    if LONG in way.overrides:
        lives.awaited(lambda: True if _config_time(run) > written else None)
        time.sleep(2)  # programs are in the cache: by then the call has begun
    else:
        lives.awaited(lambda: True if scenes.lines(run) > FIRST + 2 else None)
    time.sleep(delay)
    os.kill(pid, way.signals[0])
    seconds = 0.0
    if way.signals[1:]:
        time.sleep(0.3)
        second = time.monotonic()
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, way.signals[1])
        status = lives.end(pid, 60)
        seconds = time.monotonic() - second
    else:
        status = lives.end(pid, 60)
    wrong = []
    if status not in (way.status, 128 - way.status):
        wrong.append(f"status {status} instead of {way.status}")
    if seconds > AT_ONCE:
        wrong.append(f"the second signal took {seconds:.1f} s")
    stopped = scenes.summary(run).get("stopped")
    if way.stopped and stopped != way.stopped:
        wrong.append(f"its summary has {stopped!r} instead of {way.stopped!r}")
    output = log.read_text()[shown:]
    if "Traceback" in output:
        wrong.append(f"a traceback was shown: {output[:400]}")
    return seconds, wrong + scenes.meanwhile(run)


def _config_time(run: Path) -> int:
    """When the run's configuration was written, which is when it begins or is resumed."""
    return (run / "config.toml").stat().st_mtime_ns


def completed(run: Path, whole: Path, log: Path) -> list[str]:
    """Resumes a run until its end; returns what is wrong with it.

    Args:
      run: its folder.
      whole: folder of the run without signals.
      log: to which its output is appended.
    """
    checkpoints = (run / scenes.CHECKPOINTS).iterdir()
    newest = max(int(path.name) for path in checkpoints if path.name.isdecimal())
    rounds = max(ROUNDS, newest + 1)
    command = ["resume", str(run), f"rounds={rounds}", "engine.rounds_per_call=1", *EVERY]
    status = lives.end(lives.begin(command, log))
    if status:
        return [f"the resumed run ended with {status}: {log.read_text()[-300:]}"]
    return scenes.differences(whole, run) if rounds == ROUNDS else []


if __name__ == "__main__":
    print(attack())
