"""``kill -9`` at any moment: a run that is killed again and again and resumed each time is the run that never was."""

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
from benchmarks.reliability.tally import Tally, tally, told

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


class Run(NamedTuple):
    """A run that is being killed."""

    pid: int
    folder: Path
    rounds: int
    """Those it shall have."""
    target: int
    """A round at which this life may end."""


def attack(
    kills: int = 13, cases: tuple[str, ...] = tuple(CASES), rounds: int = 84, seed: int = 0
) -> Tally:
    """So many kills of each case, the last of them at the run's end."""
    return tally(
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
    """The same, in a process that has not started JAX."""
    lives.prepare()
    lost, moments, done = [], dict.fromkeys(MOMENTS, 0), 0
    with tempfile.TemporaryDirectory() as top:
        lives.keep_programs(Path(top) / "programs")
        for number, name in enumerate(cases):
            folder = Path(top) / str(number)
            folder.mkdir()
            count, found = case(
                folder, CASES[name], rounds, kills, random.Random(f"{seed} {name}"), moments
            )
            done, lost = done + count, lost + [f"{name}: {text}" for text in found]
    where = ", ".join(f"{count} {MOMENTS[name][0]}" for name, count in moments.items())
    return told(done, lost, f"runs of {rounds} rounds: {'; '.join(cases)}. Killed {where}")


def case(
    folder: Path,
    overrides: tuple[str, ...],
    rounds: int,
    kills: int,
    rng: random.Random,
    moments: dict[str, int],
) -> tuple[int, list[str]]:
    """One run, whole and in pieces; returns how often it was killed, and what was lost."""
    config, log = str(scenes.configured(folder)), folder / "log"
    words = [config, f"rounds={rounds}", *overrides]
    whole, hurt = folder / "whole", folder / "hurt"
    status = lives.end(lives.begin(["run", *words, "--out", str(whole)], log))
    if status:
        return 0, [f"the run that was left alone ended with {status}: {log.read_text()[-300:]}"]
    killed, lost = 0, []
    for number in range(kills):
        name = (
            "end"
            if number == kills - 1
            else rng.choice([name for name in MOMENTS if name != "end"])
        )
        run = Run(
            lives.begin(again(words, hurt), log),
            hurt,
            rounds,
            round(rounds * (number + 1) / (kills + 1)),
        )
        MOMENTS[name][1](run, rng)
        moments[name] += (dead := lives.kill(run.pid) == -9)
        killed += dead
        lost += [f"after a kill {MOMENTS[name][0]}: {text}" for text in scenes.meanwhile(hurt)]
    status = lives.end(lives.begin(again(words, hurt), log))
    if status and not (
        status == 2 and scenes.summary(hurt).get("rounds") == rounds
    ):  # the last kill came after the end
        lost.append(f"the last part ended with {status}: {log.read_text()[-300:]}")
    lost += scenes.differences(whole, hurt)
    return killed, lost + remembered(whole, hurt)


def again(words: list[str], run: Path) -> list[str]:
    """The command that begins a run or goes on with it, whichever a user is told to give."""
    begun = (run / "config.toml").is_file()
    return ["resume", str(run)] if begun else ["run", *words, "--out", str(run)]


def remembered(whole: Path, hurt: Path) -> list[str]:
    """What clients remember where the host keeps it, which is no part of the state's hash; read in a process that may start JAX."""
    if not (whole / "memory").is_dir():
        return []
    one, other = fresh("benchmarks.reliability.kills:rows_hashes", runs=[str(whole), str(hurt)])[
        "hashes"
    ]
    return [] if one == other else ["clients remember something else"]


def rows_hashes(runs: list[str]) -> dict[str, Any]:
    """For each run the hash of all clients' rows at its newest checkpoint."""
    import jax
    import numpy as np

    from fedjax_sim.experiments.run import open_checkpoints, restore
    from fedjax_sim.persistence.manifest import state_hash

    hashes, ready = [], experiment_of_run(Path(runs[0]), [])
    ids = np.arange(ready.task.data.train.clients)
    for run in runs:
        store = open_checkpoints(ready, Path(run))
        restore(ready, store)
        store.close()
        shown = jax.tree.map(np.asarray, ready.program.host_memory.fetch_to_devices(ids))
        hashes.append(state_hash(jax.tree.map(lambda leaf: leaf.reshape(len(ids), -1), shown)))
    return {"hashes": hashes}


# ------------------------------------------------------------------------------------------ moments


def _anytime(run: Run, rng: random.Random) -> None:
    time.sleep(rng.uniform(0, 3))


def _in_rounds(run: Run, rng: random.Random) -> None:
    _until(run.pid, lambda: scenes.lines(run.folder) >= run.target)
    time.sleep(rng.uniform(0, 0.05))


def _in_saves(run: Run, rng: random.Random) -> None:
    """A save begins with a folder of another name."""
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


def _until(pid: int, seen: Callable[[], bool]) -> None:
    """Waits for something in a run's folder, or for its end."""
    lives.awaited(lambda: True if seen() or not _alive(pid) else None, pause=0.001)


def _alive(pid: int) -> bool:
    """Whether a child is still going; its status is left for who waits for it."""
    return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None


MOMENTS: dict[str, tuple[str, Callable[[Run, random.Random], None]]] = {
    "rounds": ("among rounds", _in_rounds),
    "saves": ("while a checkpoint was written", _in_saves),
    "anytime": ("in its first seconds", _anytime),
    "end": ("after its last round", _at_the_end),
}


if __name__ == "__main__":
    import sys

    print(attack(*map(int, sys.argv[1:2])))
