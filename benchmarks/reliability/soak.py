"""Ten thousand rounds: memory, threads, open files and the time of a round do not grow.

The last thousand rounds are compared with the second thousand.
"""

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
from benchmarks.reliability.tally import Tally, combined, from_json, to_json

GROWTH = 1.02
"""Largest factor by which memory may grow."""
SLOWER = 1.25
"""Largest factor by which the processor time of a round may grow."""
THREADS = 2
"""Threads that may be added, because a pool may not have been complete before."""
LONG = 3_000
"""Rounds from which the time is judged, too: other work on the machine changes that of a few."""
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
    """What is measured at the end of a round."""

    memory: int
    """Bytes."""
    threads: int
    handles: int
    seconds: float
    """Processor time of all threads since the process began."""


def attack(rounds: int = 10_000, cases: tuple[str, ...] = tuple(CASES)) -> Tally:
    """Runs this number of rounds of each case."""
    return combined(
        *(
            from_json(fresh("benchmarks.reliability.soak:attacked", rounds=rounds, case=case))
            for case in cases
        )
    )


def attacked(rounds: int, case: str) -> dict[str, Any]:
    """Runs one case in this process, which is a fresh one."""
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
        overrides = [*WORDS, *CASES[case], f"rounds={rounds}"]
        built = experiment(scenes.configured(Path(top)), overrides)
        run_experiment(built, new_folder(built.config, Path(top) / "run"), callbacks=[watch])
    return judged(samples, rounds, case)


def sample() -> Sample:
    """Measures this process now; without /proc only the time."""
    return Sample(
        resident("VmRSS"),
        _entries("/proc/self/task"),
        _entries("/proc/self/fd"),
        time.process_time(),
    )


def _entries(folder: str) -> int:
    return len(os.listdir(folder)) if os.path.isdir(folder) else 0


def judged(samples: list[Sample], rounds: int, case: str) -> dict[str, Any]:
    """Compares the last tenth of the samples with the second one; returns a tally as JSON."""
    tenth = len(samples) // 10
    early = samples[tenth : 2 * tenth + 1]
    late = samples[-tenth - 1 :]
    memory = median(late, "memory") / max(median(early, "memory"), 1)
    slower = (late[-1].seconds - late[0].seconds) / (early[-1].seconds - early[0].seconds)
    threads = most(late, "threads") - most(early, "threads")
    handles = most(late, "handles") - most(early, "handles")
    lost = []
    if memory > GROWTH:
        lost.append(f"{case}: memory grew by {100 * (memory - 1):.1f} %")
    if threads > THREADS:
        lost.append(f"{case}: {threads} more threads")
    if handles > 0:
        lost.append(f"{case}: {handles} more open files")
    if slower > SLOWER and rounds >= LONG:
        lost.append(f"{case}: a round takes {slower:.2f} times the processor time")
    note = (
        f"{case}: memory {100 * (memory - 1):+.2f} %, processor time of a round x {slower:.2f}, "
        f"{least(late, 'threads')} threads ({threads:+}), {least(late, 'handles')} open files "
        f"({handles:+})"
    )
    return to_json(rounds, lost, note)


def most(samples: list[Sample], name: str) -> int:
    """The largest value of a field."""
    return max(getattr(sample, name) for sample in samples)


def least(samples: list[Sample], name: str) -> int:
    """The smallest value of a field: its value while no checkpoint is being saved."""
    return min(getattr(sample, name) for sample in samples)


def median(samples: list[Sample], name: str) -> float:
    """The median of a field."""
    return float(np.median([getattr(sample, name) for sample in samples]))


if __name__ == "__main__":
    print(attack())
