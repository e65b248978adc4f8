"""``kill -9`` at any moment: a run that is killed and resumed ends as one that is not killed."""

from __future__ import annotations

import os
import random
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.fresh import fresh
from benchmarks.reliability import lives, scenes
from benchmarks.reliability.tally import Tally, from_json, to_json

CASES: dict[str, tuple[str, ...]] = {
    "all on the devices": (),
    "examples on the host": ("engine.data=host",),
    "client memory on the host": ("engine.client_memory=host",),
    "four rounds a call": (
        "engine.rounds_per_call=4",
        "algorithm={name='fedadam'}",
        "checkpoint.keep=1",
    ),
}
"""Runs that are killed: overrides of :data:`benchmarks.reliability.scenes.CONFIG`."""
LIMIT = 900.0
"""Seconds of all attacks."""


class Run(NamedTuple):
    """A run that is being killed."""

    pid: int
    folder: Path
    rounds: int
    """Rounds of the whole run."""
    target: int
    """The round at or after which this process is killed."""


def attack(
    kills: int = 13, cases: tuple[str, ...] = tuple(CASES), rounds: int = 84, seed: int = 0
) -> Tally:
    """Kills runs.

    Args:
      kills: number of kills of each case, the last of them at the run's end.
      cases: names in ``CASES``.
      rounds: of a run.
      seed: of the moments at which runs are killed.
    """
    return from_json(
        fresh(
            "benchmarks.reliability.kills:attacked",
            limit=LIMIT,
            kills=kills,
            cases=cases,
            rounds=rounds,
            seed=seed,
        )
    )


def attacked(kills: int, cases: list[str], rounds: int, seed: int) -> dict[str, Any]:
    """:func:`attack`, in a process that has not started JAX."""
    lives.prepare()
    lost = []
    moments = dict.fromkeys(MOMENTS, 0)
    killed = 0
    with tempfile.TemporaryDirectory() as top:
        lives.keep_programs(Path(top) / "programs")
        for number, name in enumerate(cases):
            folder = Path(top) / str(number)
            folder.mkdir()
            rng = random.Random(f"{seed} {name}")
            count, wrong = case(folder, CASES[name], rounds, kills, rng, moments)
            killed += count
            lost += [f"{name}: {text}" for text in wrong]
    where = ", ".join(f"{count} {MOMENTS[name][0]}" for name, count in moments.items())
    return to_json(killed, lost, f"runs of {rounds} rounds: {'; '.join(cases)}. Killed {where}")


def case(
    folder: Path,
    overrides: tuple[str, ...],
    rounds: int,
    kills: int,
    rng: random.Random,
    moments: dict[str, int],
) -> tuple[int, list[str]]:
    """Runs a configuration once without kills and once with them.

    Args:
      folder: of both runs.
      overrides: of the configuration.
      rounds: of a run.
      kills: number of kills.
      rng: chooses their moments.
      moments: counts the kills of each kind.

    Returns:
      The number of kills, and what was lost, in words.
    """
    log = folder / "log"
    words = [str(scenes.configured(folder)), f"rounds={rounds}", *overrides]
    whole = folder / "whole"
    hurt = folder / "hurt"
    status = lives.end(lives.begin(["run", *words, "--out", str(whole)], log))
    if status:
        return 0, [f"the run without kills ended with {status}: {log.read_text()[-300:]}"]
    killed = 0
    lost = []
    others = [name for name in MOMENTS if name != "end"]
    for number in range(kills):
        name = "end" if number == kills - 1 else rng.choice(others)
        target = round(rounds * (number + 1) / (kills + 1))
        run = Run(lives.begin(next_command(words, hurt), log), hurt, rounds, target)
        MOMENTS[name][1](run, rng)
        if lives.kill(run.pid) == -9:
            moments[name] += 1
            killed += 1
        lost += [f"after a kill {MOMENTS[name][0]}: {text}" for text in scenes.meanwhile(hurt)]
    status = lives.end(lives.begin(next_command(words, hurt), log))
    # Status 2: there was nothing to resume, because the last kill came after the end.
    if status and not (status == 2 and scenes.summary(hurt).get("rounds") == rounds):
        lost.append(f"the last part ended with {status}: {log.read_text()[-300:]}")
    lost += scenes.differences(whole, hurt)
    return killed, lost + memory_differences(whole, hurt)


def next_command(words: list[str], run: Path) -> list[str]:
    """The command that begins a run, or resumes it if it has begun."""
    begun = (run / "config.toml").is_file()
    return ["resume", str(run)] if begun else ["run", *words, "--out", str(run)]


def memory_differences(whole: Path, hurt: Path) -> list[str]:
    """Compares client memory on the host, which the state's hash does not include.

    It is read in a process of its own, which may start JAX.
    """
    if not (whole / "memory").is_dir():
        return []
    result = fresh("benchmarks.reliability.kills:rows_hashes", runs=[str(whole), str(hurt)])
    return [] if len(set(result["hashes"])) == 1 else ["other client memory"]


def rows_hashes(runs: list[str]) -> dict[str, Any]:
    """Returns the hash of all clients' rows at the newest checkpoint of each run."""
    import jax
    import numpy as np

    from fedjax_sim.cli.run import experiment_of_run
    from fedjax_sim.experiments.run import open_checkpoints, restore
    from fedjax_sim.persistence.manifest import state_hash

    hashes = []
    experiment = experiment_of_run(Path(runs[0]), [])
    ids = np.arange(experiment.task.data.train.clients)
    for run in runs:
        store = open_checkpoints(experiment, Path(run))
        restore(experiment, store)
        store.close()
        rows = experiment.program.host_memory.fetch_to_devices(ids)
        by_client = jax.tree.map(lambda leaf: np.asarray(leaf).reshape(len(ids), -1), rows)
        hashes.append(state_hash(by_client))
    return {"hashes": hashes}


# ------------------------------------------------------------------------------------------ moments


def _anytime(run: Run, rng: random.Random) -> None:
    time.sleep(rng.uniform(0, 3))


def _in_rounds(run: Run, rng: random.Random) -> None:
    _until(run.pid, lambda: scenes.lines(run.folder) >= run.target)
    time.sleep(rng.uniform(0, 0.05))


def _in_saves(run: Run, rng: random.Random) -> None:
    """Waits for a save, which begins with a folder of another name."""
    saves = run.folder / scenes.CHECKPOINTS
    _until(run.pid, lambda: scenes.lines(run.folder) >= run.target)
    before = {path.name for path in saves.glob("*")}
    _until(
        run.pid,
        lambda: any("tmp" in path.name and path.name not in before for path in saves.glob("*")),
    )
    time.sleep(rng.uniform(0, 0.06))


def _at_the_end(run: Run, rng: random.Random) -> None:
    _until(run.pid, lambda: scenes.lines(run.folder) >= run.rounds)
    time.sleep(rng.uniform(0, 0.2))


def _until(pid: int, condition: Callable[[], bool]) -> None:
    """Waits until a condition is true or the process ends."""
    lives.awaited(lambda: True if condition() or not _alive(pid) else None, pause=0.001)


def _alive(pid: int) -> bool:
    """Whether a child is running; its exit status can still be read afterwards."""
    return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None


MOMENTS: dict[str, tuple[str, Callable[[Run, random.Random], None]]] = {
    "rounds": ("among rounds", _in_rounds),
    "saves": ("while a checkpoint was written", _in_saves),
    "anytime": ("in its first seconds", _anytime),
    "end": ("after its last round", _at_the_end),
}


if __name__ == "__main__":
    import sys

    print(attack(kills=int(sys.argv[1])) if sys.argv[1:] else attack())
