"""Damage to every file of a checkpoint: truncated, emptied, removed, or a bit flipped, in turn.

Either an intact state is restored, or none.
"""

from __future__ import annotations

import random
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.fresh import fresh
from benchmarks.reliability import scenes
from benchmarks.reliability.tally import Tally, combined, from_json, to_json
from fedjax_sim.core.errors import FedError
from fedjax_sim.core.types import RoundState
from fedjax_sim.persistence.checkpoint import Store, open_store
from fedjax_sim.persistence.manifest import state_hash

Harm = Callable[[Path], object]


def attack(flips: int = 5, runs: bool = True) -> Tally:
    """Damages checkpoints and runs.

    Args:
      flips: flipped bits in each file, besides the other kinds of damage.
      runs: whether to damage whole runs, too, client memory included.
    """
    parts = [one_step(flips), no_step(), misfits()]
    if runs:
        parts += [
            from_json(
                fresh("benchmarks.reliability.damage:of_runs", keep=keep, flips=min(flips, 3))
            )
            for keep in ("device", "host")
        ]
    return combined(*parts)


# -------------------------------------------------------------------------------------- the damage


def harms(flips: int, rng: random.Random) -> Iterator[tuple[str, Harm]]:
    """Yields ``(name, function)`` of every kind of damage to a file."""
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
    """Flips one random bit."""
    content = bytearray(path.read_bytes())
    if content:
        content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    path.write_bytes(bytes(content))


def files_of(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


# -------------------------------------------------------------------------------------- checkpoints


def state(round_: int) -> RoundState:
    """A state with leaves of several types, one of them large enough for a file of its own."""
    rng = np.random.default_rng(round_)
    return RoundState(
        round=np.int32(round_),
        seed=np.uint32(7),
        algorithm=rng.normal(size=4000),
        memory={"bias": rng.normal(size=7).astype(np.float32), "count": np.int32(round_)},
        sampler=np.zeros((0, 3)),
    )


def filled(folder: Path) -> Store:
    """A store with checkpoints of rounds 1 and 2, closed and opened again."""
    store = open_store(folder)
    for round_ in (1, 2):
        store.save(state(round_))
    store.close()
    return open_store(folder)


def one_step(flips: int) -> Tally:
    """Damages each file of the newest checkpoint in every way."""
    rng = random.Random(0)
    lost = []
    count = 0
    unusable = 0
    with tempfile.TemporaryDirectory() as top:
        folder = Path(top) / "run"
        intact = Path(top) / "intact"
        store = filled(folder)
        shutil.copytree(folder / "2", intact)
        for path in files_of(folder / "2"):
            for how, harm in harms(flips, rng):
                harm(path)
                wrong, older = judged(store, f"{path.name} {how}")
                count += 1
                lost += wrong
                unusable += older
                shutil.rmtree(folder / "2")
                shutil.copytree(intact, folder / "2")
    note = f"of {count} damaged files of a checkpoint {unusable} made it unusable"
    return Tally(count, tuple(lost), note)


def judged(store: Store, damage: str) -> tuple[list[str], bool]:
    """Restores a damaged checkpoint; returns what is wrong, and whether the older one was used.

    Args:
      store: with a damaged checkpoint of round 2 and an intact one of round 1.
      damage: in words.
    """
    try:
        restored = store.restore(state(0))
    except FedError as error:
        return [f"{damage}: {error}"], False
    wrong = []
    if state_hash(restored.state) != state_hash(state(restored.step)):
        wrong.append(f"{damage}: other values were restored")
    notes = [note for note in restored.notes if "round 2 is damaged (" in note and "\n" not in note]
    if len(notes) != (restored.step == 1) or len(notes) != len(restored.notes):
        wrong.append(
            f"{damage}: round {restored.step} was restored with these notes: {restored.notes}"
        )
    return wrong, restored.step == 1


def no_step() -> Tally:
    """Damages both checkpoints: an error of one sentence must name both."""
    lost = []
    count = 0
    for how, harm in harms(1, random.Random(1)):
        with tempfile.TemporaryDirectory() as top:
            store = filled(Path(top))
            for path in files_of(Path(top)):
                harm(path)
            count += 1
            try:
                lost.append(f"all files {how}: round {store.restore(state(0)).step} was restored")
            except FedError as error:
                if not _says_all_damaged(error, (1, 2)):
                    lost.append(f"all files {how}: {error}")
    return Tally(count, tuple(lost))


def _says_all_damaged(error: FedError, rounds: Iterable[int]) -> bool:
    """Whether an error is one line that names every round's checkpoint as damaged."""
    text = str(error)
    return "\n" not in text and all(f"round {round_} is damaged" in text for round_ in rounds)


def misfits() -> Tally:
    """Restores into states of other configurations.

    Each must raise an error that names the leaf, and no older checkpoint may be restored instead.
    """
    like = state(0)
    lost = []
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
    """Damages the files of a whole run's newest checkpoint, client memory included.

    Args:
      keep: where client memory is kept, ``"device"`` or ``"host"``.
      flips: flipped bits in each file.
    """
    rng = random.Random(2)
    lost = []
    count = 0
    with tempfile.TemporaryDirectory() as top:
        experiment, run = small_run(Path(top), keep)
        expected = {step: restored(experiment, run, step) for step in (2, 4)}
        intact = Path(top) / "intact"
        shutil.copytree(run, intact)
        for path in _newest_files(run):
            for how, harm in harms(flips, rng):
                harm(run / path)
                # One file has the rows of all checkpoints: damage to it may affect all of them.
                every = path.name == "clients.rows"
                wrong = misread(experiment, run, expected, every)
                lost += [f"{keep}: {path} {how}: {text}" for text in wrong]
                count += 1
                _copy_back(intact, run)
    return to_json(count, lost, f"and {count} files of a run with client memory on the {keep}")


def _newest_files(run: Path) -> list[Path]:
    """Files of the checkpoint of round 4 and of client memory, relative to the run's folder."""
    memory = [
        path for path in files_of(run / "memory") if "-2-" not in path.name and path.name != "lock"
    ]
    return [path.relative_to(run) for path in (*files_of(run / "checkpoints" / "4"), *memory)]


def _copy_back(intact: Path, run: Path) -> None:
    """Replaces checkpoints and client memory of a run by intact copies."""
    for name in ("checkpoints", "memory"):
        shutil.rmtree(run / name, ignore_errors=True)
        if (intact / name).is_dir():
            shutil.copytree(intact / name, run / name)


def small_run(folder: Path, keep: str) -> tuple[Any, Path]:
    """An experiment and its folder, with checkpoints of rounds 2 and 4."""
    from fedjax_sim.cli.run import experiment
    from fedjax_sim.experiments.run import new_folder, run_experiment

    words = [
        f"engine.client_memory={keep}",
        "rounds=4",
        "checkpoint.every=2",
        "evaluation.every=4",
        "task.clients=8",
    ]
    built = experiment(scenes.configured(folder), words)
    run = new_folder(built.config, folder / "run")
    run_experiment(built, run)
    return built, run


def restored(
    experiment: Any, run: Path, step: int | None = None
) -> tuple[int, str, tuple[str, ...]]:
    """Returns ``(round, hash of state and client memory, notes)`` from which a run would continue.

    Args:
      experiment: of the run.
      run: its folder.
      step: the round to restore, 2 or 4; by default the newest that is intact.
    """
    import jax

    from fedjax_sim.experiments.run import open_checkpoints, restore

    newest = run / "checkpoints" / "4"
    if step == 2:
        newest.rename(run / "4")
    try:
        store = open_checkpoints(experiment, run)
        found = restore(experiment, store)
        store.close()
        clients = np.arange(experiment.task.data.train.clients)
        host_memory = experiment.program.host_memory
        rows = host_memory.fetch_to_devices(clients) if host_memory else ()
        memory = jax.tree.map(np.asarray, rows)
        return found.step, state_hash((found.state, memory)), found.notes
    finally:
        if step == 2:
            (run / "4").rename(newest)


def misread(experiment: Any, run: Path, expected: dict[int, Any], every: bool) -> list[str]:
    """What is wrong with the state from which a damaged run would continue.

    Args:
      experiment: of the run.
      run: its folder.
      expected: what :func:`restored` returns of the intact run, by round.
      every: whether all checkpoints may be damaged, which an error of one sentence must say.
    """
    try:
        step, hash_, notes = restored(experiment, run)
    except FedError as error:
        allowed = every and _says_all_damaged(error, expected)
        return [] if allowed else [f"it cannot continue: {error}"]
    wrong = [] if hash_ == expected[step][1] else [f"other values of round {step}"]
    if (step == 2) != (len(notes) == 1 and "round 4 is damaged" in notes[0]):
        wrong.append(f"round {step} was restored with these notes: {notes}")
    return wrong


if __name__ == "__main__":
    print(attack())
