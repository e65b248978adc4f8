"""Damage: every file of a checkpoint is truncated, emptied, removed and flipped in turn; what is restored is intact, or nothing is."""

from __future__ import annotations

import random
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.fresh import fresh
from benchmarks.reliability import scenes
from benchmarks.reliability.tally import Tally, tally, together, told
from fedjax_sim.core.errors import FedError
from fedjax_sim.core.types import RoundState
from fedjax_sim.persistence.checkpoint import Store, open_store
from fedjax_sim.persistence.manifest import state_hash

Harm = Callable[[Path], None]


def attack(flips: int = 5, runs: bool = True) -> Tally:
    """So many flipped bits in each file, besides the other damages; with ``runs`` those of whole runs, client memory included."""
    parts = [one_step(flips), no_step(), misfits()]
    if runs:
        parts += [
            tally(fresh("benchmarks.reliability.damage:of_runs", keep=keep, flips=min(flips, 3)))
            for keep in ("device", "host")
        ]
    return together(*parts)


# ----------------------------------------------------------------------------------------- the harm


def harms(flips: int, rng: random.Random) -> Iterator[tuple[str, Harm]]:
    """What may happen to a file."""
    yield "emptied", lambda path: path.write_bytes(b"")
    yield "cut by a byte", lambda path: path.write_bytes(path.read_bytes()[:-1])
    yield (
        "cut in half",
        lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    )
    yield "removed", lambda path: path.unlink()
    for number in range(flips):
        yield f"flipped ({number})", lambda path: flip(path, rng)


def flip(path: Path, rng: random.Random) -> None:
    """One bit anywhere."""
    content = bytearray(path.read_bytes())
    if content:
        content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    path.write_bytes(bytes(content))


def files_of(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


# -------------------------------------------------------------------------------------- checkpoints


def state(round_: int) -> RoundState:
    """Leaves of several types, one of them large enough to lie in a file of its own."""
    rng = np.random.default_rng(round_)
    large, small = (
        rng.normal(size=4000),
        {"bias": rng.normal(size=7).astype(np.float32), "count": np.int32(round_)},
    )
    return RoundState(
        round=np.int32(round_),
        seed=np.uint32(7),
        algorithm=large,
        memory=small,
        sampler=np.zeros((0, 3)),
    )


def filled(folder: Path) -> Store:
    """A store that was opened again, with checkpoints of rounds 1 and 2."""
    store = open_store(folder)
    for round_ in (1, 2):
        store.save(state(round_))
    store.close()
    return open_store(folder)


def one_step(flips: int) -> Tally:
    """Damage to each file of the newest checkpoint."""
    rng, lost, count, passed = random.Random(0), [], 0, 0
    with tempfile.TemporaryDirectory() as top:
        folder, kept = Path(top) / "run", Path(top) / "kept"
        store = filled(folder)
        shutil.copytree(folder / "2", kept)
        for path in files_of(folder / "2"):
            for how, harm in harms(flips, rng):
                harm(path)
                wrong, older = judged(store, f"{path.name} {how}")
                count, lost, passed = count + 1, lost + wrong, passed + older
                shutil.rmtree(folder / "2")
                shutil.copytree(kept, folder / "2")
    return Tally(
        count,
        tuple(lost),
        f"of {count} damaged files of a checkpoint {passed} made it unusable, the others nothing",
    )


def judged(store: Store, what: str) -> tuple[list[str], bool]:
    """What is wrong with what is restored, and whether it was the older checkpoint."""
    try:
        found = store.restore(state(0))
    except FedError as error:
        return [f"{what}: {error}"], False
    wrong = (
        []
        if state_hash(found.state) == state_hash(state(found.step))
        else [f"{what}: other values were restored"]
    )
    notes = [note for note in found.notes if "round 2 is damaged (" in note and "\n" not in note]
    if len(notes) != (found.step == 1) or len(notes) != len(found.notes):
        wrong.append(f"{what}: round {found.step} was restored and this was said: {found.notes}")
    return wrong, found.step == 1


def no_step() -> Tally:
    """Both checkpoints damaged: one sentence."""
    lost, count = [], 0
    for how, harm in harms(1, random.Random(1)):
        with tempfile.TemporaryDirectory() as top:
            store = filled(Path(top))
            for path in files_of(Path(top)):
                harm(path)
            count += 1
            try:
                lost.append(f"all files {how}: round {store.restore(state(0)).step} was restored")
            except FedError as error:
                said = str(error)
                if "\n" in said or not all(
                    f"round {round_} is damaged" in said for round_ in (1, 2)
                ):
                    lost.append(f"all files {how}: {said}")
    return Tally(count, tuple(lost))


def misfits() -> Tally:
    """A checkpoint of another configuration is an error that names the leaf, and no older one is taken for it."""
    like, lost = state(0), []
    others: dict[str, RoundState] = {
        "algorithm": like.replace(algorithm=np.zeros(4001)),
        "memory.bias": like.replace(memory={**like.memory, "bias": np.zeros(7)}),
        "memory.more": like.replace(memory={**like.memory, "more": np.zeros(2)}),
        "sampler": like.replace(sampler=()),
        "seed": like.replace(seed=np.int32(7)),
    }
    with tempfile.TemporaryDirectory() as top:
        store = filled(Path(top))
        for leaf, other in others.items():
            try:
                lost.append(f"another {leaf}: round {store.restore(other).step} was restored")
            except FedError as error:
                if f"round 2 does not fit this configuration at {leaf}" not in str(error):
                    lost.append(f"another {leaf}: {error}")
    return Tally(len(others), tuple(lost))


# --------------------------------------------------------------------------------------------- runs


def of_runs(keep: str, flips: int) -> dict[str, Any]:
    """Damage to the files of a whole run's newest checkpoint, what clients remember included; its own restoration judges."""
    with tempfile.TemporaryDirectory() as top:
        ready, run = small_run(Path(top), keep)
        intact = {step: restored(ready, run, step) for step in (2, 4)}
        kept, lost, count, rng = Path(top) / "kept", [], 0, random.Random(2)
        shutil.copytree(run, kept)
        newest = [path.relative_to(run) for path in files_of(run / "checkpoints" / "4")]
        memory = [
            path.relative_to(run)
            for path in files_of(run / "memory")
            if "-2-" not in path.name and path.name != "lock"
        ]
        for path in (*newest, *memory):
            for how, harm in harms(flips, rng):
                harm(run / path)
                every = (
                    path.name == "clients.rows"
                )  # one file with the rows of all checkpoints: what it lost they all may lack
                lost += [
                    f"{keep}: {path} {how}: {text}" for text in misread(ready, run, intact, every)
                ]
                count += 1
                for name in ("checkpoints", "memory"):
                    shutil.rmtree(run / name, ignore_errors=True)
                    if (kept / name).is_dir():
                        shutil.copytree(kept / name, run / name)
    return told(count, lost, f"and {count} files of a run with client memory on the {keep}")


def small_run(folder: Path, keep: str) -> tuple[Any, Path]:
    """An experiment and its folder, after rounds 2 and 4."""
    from fedjax_sim.cli.run import experiment
    from fedjax_sim.experiments.run import new_folder, run_experiment

    words = [
        f"engine.client_memory={keep}",
        "rounds=4",
        "checkpoint.every=2",
        "evaluation.every=4",
        "task.clients=8",
    ]
    ready = experiment(scenes.configured(folder), words)
    run = new_folder(ready.config, folder / "run")
    run_experiment(ready, run)
    return ready, run


def restored(ready: Any, run: Path, step: int | None = None) -> tuple[int, str, tuple[str, ...]]:
    """``(round, hash of state and client memory, notes)`` of what a run would go on with."""
    import jax

    from fedjax_sim.experiments.run import open_checkpoints, restore

    hidden = run / "checkpoints" / "4"
    if step == 2:
        hidden.rename(run / "4")
    try:
        store = open_checkpoints(ready, run)
        found = restore(ready, store)
        store.close()
        clients = np.arange(ready.task.data.train.clients)
        memory = (
            jax.tree.map(np.asarray, ready.program.host_memory.fetch_to_devices(clients))
            if ready.program.host_memory
            else ()
        )
        return found.step, state_hash((found.state, memory)), found.notes
    finally:
        if step == 2:
            (run / "4").rename(hidden)


def misread(ready: Any, run: Path, intact: dict[int, Any], every: bool) -> list[str]:
    """What is wrong with what a damaged run would go on with; ``every`` checkpoint may be damaged, if that is said in one sentence."""
    try:
        step, found, notes = restored(ready, run)
    except FedError as error:
        told = all(f"round {step} is damaged" in str(error) for step in intact) and "\n" not in str(
            error
        )
        return [] if every and told else [f"it cannot go on: {error}"]
    wrong = [] if found == intact[step][1] else [f"other values of round {step}"]
    if (step == 2) != (len(notes) == 1 and "round 4 is damaged" in notes[0]):
        wrong.append(f"round {step} was restored and this was said: {notes}")
    return wrong


if __name__ == "__main__":
    print(attack())
