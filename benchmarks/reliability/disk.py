"""A disk that fills up during a run and may have free space again later.

One note must say so, and nothing that was saved may be lost.
"""

from __future__ import annotations

import contextlib
import io
import os
import resource
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.fresh import fresh
from benchmarks.reliability import scenes
from benchmarks.reliability.tally import Tally, from_json, to_json

ROUNDS = 80
FULL = 18
"""The disk is full after this round, when there is one checkpoint."""
FREE = 70
"""The disk has free space again after this round; until then rows fill more than a page."""
WORDS = (f"rounds={ROUNDS}", "checkpoint.every=8", "evaluation.every=14", "task.clients=8")
PAGE = 4096
"""Bytes of a page."""
LEAVES = (0, PAGE, 5 * PAGE, 2**16, 2**20)


def attack(leaves: tuple[int, ...] = LEAVES, ways: tuple[str, ...] = ()) -> Tally:
    """Runs on a disk that fills up.

    Args:
      leaves: bytes that are left when the disk is full, one run for each.
      ways: names in :func:`attacked`; all by default.
    """
    return from_json(fresh("benchmarks.reliability.disk:attacked", leaves=leaves, ways=ways))


class Disk(NamedTuple):
    """A folder whose disk can be filled."""

    folder: Path
    fill: Callable[[int], None]
    """``bytes -> None``: takes all free space except for this number of bytes."""
    free: Callable[[], None]
    """Gives the space back."""
    description: str


@contextlib.contextmanager
def small_disk(size: int = 2**24) -> Iterator[Disk]:
    """A file system of ``size`` bytes, if this process may mount one.

    Otherwise a limit on the size of files, which makes the same calls fail.
    """
    with tempfile.TemporaryDirectory() as top:
        folder = Path(top) / "disk"
        folder.mkdir()
        if _mounted(folder, size):
            try:
                yield Disk(
                    folder,
                    lambda leave: _fill(folder, leave),
                    lambda: (folder / "filler").unlink(),
                    "a file system that is full",
                )
            finally:
                subprocess.run(["umount", "-l", str(folder)], check=True)
            return
        most = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
        yield Disk(
            folder,
            lambda leave: _limit(_largest(folder) + leave, most),
            lambda: _limit(most, most),
            "files that may not grow",
        )


def _mounted(folder: Path, size: int) -> bool:
    """Mounts a file system in memory; returns whether that is possible."""
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    try:
        return subprocess.run(command, capture_output=True).returncode == 0
    except OSError:
        return False


def _fill(folder: Path, leave: int) -> None:
    """Writes a file that takes all free space, then shortens it by ``leave`` bytes."""
    with (folder / "filler").open("wb", buffering=0) as file:
        size = 0
        step = 2**20
        while step >= PAGE:
            try:
                os.posix_fallocate(file.fileno(), size, step)
                size += step
            except OSError:
                file.truncate(size)
                step //= 4
        file.truncate(max(0, size - leave))


def _limit(size: int, most: int) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, most))


def _largest(folder: Path) -> int:
    return max((path.stat().st_size for path in folder.glob("*/metrics.*")), default=0)


# ------------------------------------------------------------------------------------------ attacks


def attacked(leaves: list[int], ways: list[str]) -> dict[str, Any]:
    """Runs all attacks in this process, which is a fresh one.

    Args:
      leaves: bytes that are left when the disk is full.
      ways: names of attacks; empty for all.
    """
    lost = []
    count = 0
    # Where no file may grow, the compilation cache of other processes must not be written to.
    os.environ["FEDJAX_SIM_CACHE"] = "off"
    with tempfile.TemporaryDirectory() as top, small_disk() as disk:
        experiment = small_experiment(Path(top), "device")
        like = reference(experiment, Path(top) / "device")
        attack_of: dict[str, Callable[[Path, int], list[str]]] = {
            "for a while": lambda run, leave: passing(disk, experiment, like, run, leave),
            "to the end": lambda run, leave: lasting(disk, experiment, like, run, leave),
            "with client memory on the host": lambda run, leave: of_memory(
                disk, small_experiment(Path(top), "host"), like, run, leave
            ),
            "from the beginning": lambda run, leave: at_start(disk, experiment, run, leave),
            "while data are prepared": lambda run, leave: preparing(disk, run, leave),
        }
        for leave in leaves:
            for way in ways or attack_of:
                # A new name: a thread of Orbax may still write a save that failed.
                run = disk.folder / f"run-{count}"
                lost += [f"{leave} bytes left {way}: {text}" for text in attack_of[way](run, leave)]
                shutil.rmtree(run, ignore_errors=True)
                count += 1
    sizes = ", ".join(f"{leave:,}" for leave in leaves)
    return to_json(count, lost, f"by {disk.description}, with {sizes} bytes left")


def small_experiment(folder: Path, keep: str) -> Any:
    """The experiment of all attacks, with client memory on the ``keep``: device or host."""
    from fedjax_sim.cli.run import experiment

    return experiment(scenes.configured(folder), [*WORDS, f"engine.client_memory={keep}"])


def reference(experiment: Any, run: Path) -> Path:
    """Runs an experiment on a disk with enough space; returns its folder."""
    from fedjax_sim.experiments.run import new_folder, run_experiment

    run_experiment(experiment, new_folder(experiment.config, run), console=silent())
    return run


def passing(disk: Disk, experiment: Any, like: Path, run: Path, leave: int) -> list[str]:
    """Space is free again during the run.

    Nothing may be missing at the end, and what was saved before must be usable all the time.

    Args:
      disk: to fill.
      experiment: to run.
      like: folder of the reference run.
      run: folder of the run on the disk.
      leave: bytes that are left when the disk is full.
    """
    wrong: list[str] = []

    def check() -> None:
        wrong.extend(unusable(experiment, run, at_least=8))

    result = run_on(disk, experiment, run, leave, check)
    if isinstance(result, str):
        return [result]
    wrong += scenes.differences(like, run) + noisy(result["notes"])
    return wrong if result["saved"] else [*wrong, "it says that it was not saved"]


def lasting(disk: Disk, experiment: Any, like: Path, run: Path, leave: int) -> list[str]:
    """Space is free again after the end: notes say what was lost, and the run can be completed."""
    from fedjax_sim.core.errors import FedError
    from fedjax_sim.experiments.run import run_experiment

    result = run_on(disk, experiment, run, leave, None)
    if isinstance(result, str):
        return [result]
    wrong = [*noisy(result["notes"]), *unusable(experiment, run, at_least=8)]
    if result["saved"]:
        return wrong + scenes.differences(like, run)
    if not result["notes"]:
        wrong.append("there is no note")
    try:
        run_experiment(experiment, run, resume=True, console=silent())
    except FedError as error:
        return [*wrong, f"it cannot be resumed: {error}"]
    return wrong + lacking(like, run)


def of_memory(disk: Disk, experiment: Any, like: Path, run: Path, leave: int) -> list[str]:
    """Client memory that cannot be written ends the run with an error of one sentence.

    The run can be resumed from its newest checkpoint.
    """
    from fedjax_sim.core.errors import FedError
    from fedjax_sim.experiments.run import run_experiment

    result = run_on(disk, experiment, run, leave, None)
    failed = isinstance(result, str)
    wrong = [result] if failed and ("\n" in result or "Traceback" in result) else []
    try:
        if failed or not result["saved"]:
            run_experiment(experiment, run, resume=True, console=silent())
    except FedError as error:
        return [*wrong, f"it cannot be resumed: {error}"]
    summary = scenes.summary(run)
    expected = scenes.summary(like)
    # Not the hash, which is of a state without client memory.
    names = [name for name in ("rounds", "metrics") if summary.get(name) != expected[name]]
    return [*wrong, *(f"other {name}" for name in names), *lacking(like, run, False)]


def at_start(disk: Disk, experiment: Any, run: Path, leave: int) -> list[str]:
    """A run that begins on a full disk ends with an error of one sentence, or completes."""
    from fedjax_sim.experiments.run import new_folder, run_experiment

    disk.fill(leave)
    try:
        new_folder(experiment.config, run)
        run_experiment(experiment, run, console=silent())
    except Exception as error:
        return complaints(error)
    finally:
        disk.free()
    return []


def preparing(disk: Disk, out: Path, leave: int) -> list[str]:
    """A data set that does not fit leaves no files, and can be made when there is space."""
    from fedjax_sim.data import open_prepared
    from fedjax_sim.data.sources import prepare

    settings: dict[str, Any] = {"options": {"clients": 50, "examples": 400}}  # 2 MB
    out = out / "set"
    disk.fill(leave)
    try:
        prepare("generated", out, **settings)
        return ["it was written to a full disk"]
    except Exception as error:
        wrong = complaints(error)
    finally:
        disk.free()
    left = [path.name for path in out.parent.rglob("*")] if out.parent.exists() else []
    if left:
        wrong.append(f"left behind: {left}")
    prepare("generated", out, **settings)
    if open_prepared(out, verify=True).train.clients != 50:
        wrong.append("the data set that was prepared later is not complete")
    return wrong


# -------------------------------------------------------------------------------------------- parts


def run_on(
    disk: Disk, experiment: Any, run: Path, leave: int, check: Callable[[], None] | None
) -> Any:
    """Runs an experiment on a disk that fills up.

    Args:
      disk: to fill.
      experiment: to run.
      run: folder of the run, on the disk.
      leave: bytes that are left when the disk is full.
      check: called before space is freed during the run; without it, space is freed after the end.

    Returns:
      The run's summary, or the text of the error that ended it.
    """
    from fedjax_sim.experiments.run import new_folder, run_experiment
    from fedjax_sim.simulation.callbacks import callback

    full = False

    def change(event: Any) -> None:
        nonlocal full
        if event.round == FREE and check is not None:
            check()
            disk.free()
            full = False
        elif event.round >= FULL and (full or event.round < FREE):
            disk.fill(leave)  # after every round, because a failed write gives space back
            full = True

    log = (new_folder(experiment.config, run) / "log").open("w")  # on the same disk
    try:
        return run_experiment(
            experiment, run, console=silent(log), callbacks=[callback(on_round_end=change)]
        )
    except Exception as error:
        return "\n".join(complaints(error)) or str(error)
    finally:
        if full:
            disk.free()
        log.close()


def silent(file: Any = None) -> Any:
    """A console that prints to a file, or to nothing."""
    from rich.console import Console

    return Console(file=file or io.StringIO())


def complaints(error: Exception) -> list[str]:
    """What is wrong with an error: it must be a ``FedError`` of one line."""
    from fedjax_sim.core.errors import FedError

    if isinstance(error, FedError) and "\n" not in str(error):
        return []
    return [f"Traceback of {type(error).__name__}: {error}"]


def noisy(notes: list[str]) -> list[str]:
    """What is wrong with a run's notes: repeated, too many about rows, or too long."""
    rows = [note for note in notes if "metrics." in note or "tfevents" in note]
    wrong = ["a note was repeated"] if len(set(notes)) < len(notes) else []
    if len(rows) > 6:
        wrong.append(f"{len(rows)} notes about rows: {rows}")
    long = [note for note in notes if "\n" in note or len(note) > 1000]
    return wrong + [f"a note of {len(note)} letters" for note in long]


def unusable(experiment: Any, run: Path, at_least: int) -> list[str]:
    """What is wrong with the newest checkpoint on disk, of round ``at_least`` or later."""
    from fedjax_sim.core.errors import FedError
    from fedjax_sim.experiments.run import starting_variables
    from fedjax_sim.persistence.checkpoint import open_store

    program = experiment.program
    like = program.logical(program.init(starting_variables(experiment), 0))
    try:
        restored = open_store(run / scenes.CHECKPOINTS).restore(like)
    except FedError as error:
        return [f"no checkpoint is left: {error}"]
    if restored.step >= at_least and not restored.notes:
        return []
    return [f"the newest checkpoint is that of round {restored.step}: {restored.notes}"]


def lacking(like: Path, run: Path, state: bool = True) -> list[str]:
    """How a resumed run differs from the reference run.

    Rows that could not be written may be missing if a note in the summary says so.

    Args:
      like: folder of the reference run.
      run: folder of the resumed run.
      state: whether to compare the hashes of the states, too.
    """
    rows = scenes.rows(run / scenes.ROWS)
    expected = {row["round"]: row for row in scenes.rows(like / scenes.ROWS)}
    wrong = [
        f"another row of round {row['round']}" for row in rows if row != expected[row["round"]]
    ]
    gaps = len(expected) - len(rows)
    if gaps and not any("lacks" in note for note in scenes.summary(run)["notes"]):
        wrong.append(f"{gaps} rows are missing, and no note says so")
    same = not state or scenes.summary(run)["state_hash"] == scenes.summary(like)["state_hash"]
    return wrong if same else [*wrong, "another state"]


if __name__ == "__main__":
    print(attack())
