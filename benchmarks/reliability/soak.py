"""Ten thousand rounds: memory, threads, open files and the time of a round are the same at the end as after the first thousand."""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.fresh import fresh
from benchmarks.growth import resident
from benchmarks.reliability import scenes
from benchmarks.reliability.tally import Tally, tally, together, told

GROWTH, SLOWER, THREADS = 1.02, 1.25, 2
"""Most that memory and the processor time of a round may have grown by, and threads that pools may still have been short of."""
LONG = 3_000
"""Rounds from which the time is judged, too: a few of them are as long as their neighbours on the machine let them."""
CASES = {
    "examples on the devices": (),
    "examples on the host": ("engine.data=host",),
    "client memory on the host": ("engine.client_memory=host", "algorithm={name='scaffold'}"),
}
WORDS = (
    "task.clients=12",
    "task.model=logistic",
    "algorithm={name='fedavg'}",
    "evaluation.every=50",
    "checkpoint.every=100",
    "engine.shards=none",
)


class Sample(NamedTuple):
    """What is watched."""

    memory: int
    """Bytes."""
    threads: int
    handles: int
    seconds: float
    """Processor time of all threads since the begin."""


def attack(rounds: int = 10_000, cases: tuple[str, ...] = tuple(CASES)) -> Tally:
    """So many rounds of each case."""
    return together(
        *(
            tally(fresh("benchmarks.reliability.soak:attacked", rounds=rounds, case=case))
            for case in cases
        )
    )


def attacked(rounds: int, case: str) -> dict[str, Any]:
    """The same, in this process, which is a fresh one."""
    from fedjax_sim.cli.run import experiment
    from fedjax_sim.experiments.run import new_folder, run_experiment
    from fedjax_sim.simulation.callbacks import callback

    samples: list[Sample] = []
    every = max(1, rounds // 100)
    watch = callback(
        on_round_end=lambda event: (
            samples.append(sample()) if event.round % every == every // 2 else None
        )
    )
    with tempfile.TemporaryDirectory() as top:
        ready = experiment(scenes.configured(Path(top)), [*WORDS, *CASES[case], f"rounds={rounds}"])
        run_experiment(ready, new_folder(ready.config, Path(top) / "run"), callbacks=[watch])
    return judged(samples, rounds, case)


def sample() -> Sample:
    """Now. Where there is no /proc, only the time."""
    tasks, files = (
        len(os.listdir(path)) if os.path.isdir(path) else 0
        for path in ("/proc/self/task", "/proc/self/fd")
    )
    return Sample(resident("VmRSS"), tasks, files, time.process_time())


def judged(samples: list[Sample], rounds: int, case: str) -> dict[str, Any]:
    """The second tenth of the samples against the last one."""
    tenth = len(samples) // 10
    early, late = samples[tenth : 2 * tenth + 1], samples[-tenth - 1 :]
    memory = median(late, "memory") / max(median(early, "memory"), 1)
    slower = (late[-1].seconds - late[0].seconds) / (early[-1].seconds - early[0].seconds)
    threads, handles = (
        max(getattr(each, name) for each in late) - max(getattr(each, name) for each in early)
        for name in ("threads", "handles")
    )
    lost = [f"{case}: memory grew by {100 * (memory - 1):.1f} %"] if memory > GROWTH else []
    lost += [f"{case}: {threads} more threads"] if threads > THREADS else []
    lost += [f"{case}: {handles} more open files"] if handles > 0 else []
    lost += (
        [f"{case}: a round takes {slower:.2f} times the processor time"]
        if slower > SLOWER and rounds >= LONG
        else []
    )
    said = f"{case}: memory {100 * (memory - 1):+.2f} %, processor time of a round x {slower:.2f}"
    return told(
        rounds,
        lost,
        f"{said}, {least(late, 'threads')} threads ({threads:+}), {least(late, 'handles')} open files ({handles:+})",
    )


def least(samples: list[Sample], name: str) -> int:
    """While nothing is being saved, which takes some for a moment."""
    return min(getattr(each, name) for each in samples)


def median(samples: list[Sample], name: str) -> float:
    return float(np.median([getattr(each, name) for each in samples]))


if __name__ == "__main__":
    print(attack())
