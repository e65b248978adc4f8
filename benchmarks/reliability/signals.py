"""Ctrl-C and SIGTERM: the first one lets the round end and saves, the second one ends at once; the exit status says which it was."""

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
from benchmarks.reliability.tally import Tally, tally, told

FIRST, ROUNDS = 20, 120
"""Rounds before the run is ended, and those that it has at last."""
EVERY = ("evaluation.every=20", "checkpoint.every=20")
LONG = "engine.rounds_per_call=1000000"
"""One call that takes minutes: the middle of a round, as far as signals are concerned."""
RARE = (LONG, "evaluation.every=100000000", "checkpoint.every=100000000")
AT_ONCE = 3.0
"""Seconds that the second signal may take on a busy machine."""


class Way(NamedTuple):
    """How a run is asked to end, and what it should say then."""

    signals: tuple[int, ...]
    status: int
    word: str | None
    """In ``summary.json``; none where there is no time to write it."""
    words: tuple[str, ...] = ()
    """Overrides."""


INT, TERM = signal.SIGINT, signal.SIGTERM
WAYS = {
    "one SIGINT": Way((INT,), 130, "interrupted"),
    "one SIGTERM": Way((TERM,), 143, "terminated"),
    "two SIGINT": Way((INT, INT), 130, None, RARE),
    "SIGTERM and SIGINT": Way((TERM, INT), 130, None, RARE),
    "two SIGTERM": Way((TERM, TERM), 143, None, RARE),
}


def attack(times: int = 2, ways: tuple[str, ...] = tuple(WAYS)) -> Tally:
    """So many runs for each way of ending."""
    return tally(fresh("benchmarks.reliability.signals:attacked", times=times, ways=ways))


def attacked(times: int, ways: list[str]) -> dict[str, Any]:
    """The same, in a process that has not started JAX."""
    lives.prepare()
    lost, slowest, rng = [], 0.0, random.Random(0)
    with tempfile.TemporaryDirectory() as top:
        lives.keep_programs(Path(top) / "programs")
        config, log, whole, begun = (
            str(scenes.configured(Path(top))),
            Path(top) / "log",
            Path(top) / "whole",
            Path(top) / "begun",
        )
        for run, rounds in ((whole, ROUNDS), (begun, FIRST)):
            if status := lives.end(
                lives.begin(["run", config, f"rounds={rounds}", *EVERY, "--out", str(run)], log)
            ):
                return told(
                    0,
                    [f"the run that was left alone ended with {status}: {log.read_text()[-300:]}"],
                )
        for name in ways:
            for number in range(times):
                run = Path(shutil.copytree(begun, Path(top) / f"{name} {number}"))
                took, found = ended(run, log, WAYS[name], rng.uniform(0, 0.4))
                slowest, lost = (
                    max(slowest, took),
                    lost + [f"{name}: {text}" for text in found + completed(run, whole, log)],
                )
    note = f"{', '.join(ways)}, {times} times each; after a second signal a run was gone within {slowest:.2f} s"
    return told(times * len(ways), lost, note)


def ended(run: Path, log: Path, way: Way, delay: float) -> tuple[float, list[str]]:
    """Goes on with a run and ends it; returns the seconds after a second signal, and what was not as it should be."""
    said, config = len(log.read_text()), (run / "config.toml").stat().st_mtime_ns
    pid = lives.begin(["resume", str(run), f"rounds={ROUNDS * 10**6}", *EVERY, *way.words], log)
    if LONG in way.words:
        lives.awaited(lambda: True if (run / "config.toml").stat().st_mtime_ns > config else None)
        time.sleep(2)  # programs are kept: the call has begun
    else:
        lives.awaited(lambda: True if scenes.lines(run) > FIRST + 2 else None)
    time.sleep(delay)
    os.kill(pid, way.signals[0])
    second = time.monotonic()
    if way.signals[1:]:
        time.sleep(0.3)
        second = time.monotonic()
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, way.signals[1])
    status = lives.end(pid, 60)
    took = time.monotonic() - second if way.signals[1:] else 0.0
    wrong = (
        []
        if status in (way.status, 128 - way.status)
        else [f"status {status} instead of {way.status}"]
    )
    if took > AT_ONCE:
        wrong.append(f"the second signal took {took:.1f} s")
    if way.word and scenes.summary(run).get("stopped") != way.word:
        wrong.append(
            f"its summary says {scenes.summary(run).get('stopped')!r} instead of {way.word!r}"
        )
    if "Traceback" in (words := log.read_text()[said:]):
        wrong.append(f"a traceback was shown: {words[:400]}")
    return took, wrong + scenes.meanwhile(run)


def completed(run: Path, whole: Path, log: Path) -> list[str]:
    """What is wrong with the run after it was gone on with."""
    newest = max(
        int(path.name) for path in (run / scenes.CHECKPOINTS).iterdir() if path.name.isdecimal()
    )
    rounds = max(ROUNDS, newest + 1)
    status = lives.end(
        lives.begin(
            ["resume", str(run), f"rounds={rounds}", "engine.rounds_per_call=1", *EVERY], log
        )
    )
    if status:
        return [f"going on ended with {status}: {log.read_text()[-300:]}"]
    return scenes.differences(whole, run) if rounds == ROUNDS else []


if __name__ == "__main__":
    print(attack())
