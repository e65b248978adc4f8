"""A disk that fills up in the middle of a run and may have room again later: said once, and nothing that was saved is lost."""

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
from benchmarks.reliability.tally import Tally, tally, told

ROUNDS, FULL, FREE = 80, 18, 70
"""The disk is full from the end of one round to the end of another, long enough for a page of rows; by then one checkpoint is there."""
WORDS = (f"rounds={ROUNDS}", "checkpoint.every=8", "evaluation.every=14", "task.clients=8")
PAGE = 4096


LEAVES = (0, PAGE, 5 * PAGE, 2**16, 2**20)


def attack(leaves: tuple[int, ...] = LEAVES, ways: tuple[str, ...] = ()) -> Tally:
    """Disks with so many bytes left when they are called full, in some of the ways below, or all."""
    return tally(fresh("benchmarks.reliability.disk:attacked", leaves=leaves, ways=ways))


class Disk(NamedTuple):
    """A place to write to."""

    folder: Path
    fill: Callable[[int], None]
    """``bytes -> None``: takes all room but so much."""
    free: Callable[[], None]
    says: str


@contextlib.contextmanager
def small_disk(size: int = 2**24) -> Iterator[Disk]:
    """A file system of that size where we may mount one, else a limit on the size of files, which fails in the same calls."""
    with tempfile.TemporaryDirectory() as top:
        folder, options = Path(top) / "disk", f"size={size}"
        folder.mkdir()
        with contextlib.suppress(OSError):
            if not subprocess.run(
                ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], capture_output=True
            ).returncode:
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


def _fill(folder: Path, leave: int) -> None:
    """A file that takes all the room, whoever else takes some meanwhile, and then gives so much of it back."""
    with (folder / "filler").open("wb", buffering=0) as file:
        size, step = 0, 2**20
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
    """All attacks, in this process, which is a fresh one."""
    lost, count = [], 0
    os.environ["FEDJAX_SIM_CACHE"] = (
        "off"  # where no file may grow, others' programs must not be written to
    )
    with tempfile.TemporaryDirectory() as top, small_disk() as disk:
        ready, like = whole(Path(top), "device")
        acts: dict[str, Callable[[Path, int], list[str]]] = {
            "for a while": lambda run, leave: passing(disk, ready, like, run, leave),
            "to the end": lambda run, leave: lasting(disk, ready, like, run, leave),
            "with client memory on the host": lambda run, leave: of_memory(
                disk, whole(Path(top), "host")[0], like, run, leave
            ),
            "from the beginning": lambda run, leave: at_start(disk, ready, run, leave),
            "while data are prepared": lambda run, leave: preparing(disk, run, leave),
        }
        for leave in leaves:
            for way in ways or acts:
                run = (
                    disk.folder / f"run-{count}"
                )  # a save that failed may still be written by a thread that Orbax leaves behind
                lost += [f"{leave} bytes left {way}: {text}" for text in acts[way](run, leave)]
                shutil.rmtree(run, ignore_errors=True)
                count += 1
    return told(
        count,
        lost,
        f"by {disk.says}, with {', '.join(f'{leave:,}' for leave in leaves)} bytes left",
    )


def whole(folder: Path, keep: str) -> tuple[Any, Path]:
    """An experiment, and the folder of its run where there is room."""
    from fedjax_sim.cli.run import experiment
    from fedjax_sim.experiments.run import new_folder, run_experiment

    ready, run = (
        experiment(scenes.configured(folder), [*WORDS, f"engine.client_memory={keep}"]),
        folder / keep,
    )
    if keep == "device":
        run_experiment(ready, new_folder(ready.config, run), console=silent())
    return ready, run


def passing(disk: Disk, ready: Any, like: Path, run: Path, leave: int) -> list[str]:
    """Room comes back: nothing is missing at the end, and what was saved before could be used all the time."""
    seen: list[str] = []

    def look() -> None:
        seen.extend(unusable(ready, run, at_least=8))

    result = ridden(disk, ready, run, leave, look)
    if isinstance(result, str):
        return [result]
    return [
        *seen,
        *scenes.differences(like, run),
        *noisy(result["notes"]),
        *([] if result["saved"] else ["it says that it was not saved"]),
    ]


def lasting(disk: Disk, ready: Any, like: Path, run: Path, leave: int) -> list[str]:
    """Room comes back after the end: what was lost is said, and the run can be completed."""
    from fedjax_sim.core.errors import FedError
    from fedjax_sim.experiments.run import run_experiment

    result = ridden(disk, ready, run, leave, None)
    if isinstance(result, str):
        return [result]
    wrong = [*noisy(result["notes"]), *unusable(ready, run, at_least=8)]
    if result["saved"]:
        return wrong + scenes.differences(like, run)
    if not result["notes"]:
        wrong.append("nothing was said")
    try:
        run_experiment(ready, run, resume=True, console=silent())
    except FedError as error:
        return [*wrong, f"it cannot be resumed: {error}"]
    return wrong + lacking(like, run)


def of_memory(disk: Disk, ready: Any, like: Path, run: Path, leave: int) -> list[str]:
    """Rows of clients that cannot be written end the run, in one sentence; it is resumed from its newest checkpoint."""
    from fedjax_sim.core.errors import FedError
    from fedjax_sim.experiments.run import run_experiment

    result = ridden(disk, ready, run, leave, None)
    wrong = (
        [result] if isinstance(result, str) and ("\n" in result or "Traceback" in result) else []
    )
    try:
        if isinstance(result, str) or not result["saved"]:
            run_experiment(ready, run, resume=True, console=silent())
    except FedError as error:
        return [*wrong, f"it cannot be resumed: {error}"]
    names = ("rounds", "metrics")  # the hash is of a state without the memory
    return (
        wrong
        + [
            f"other {name}"
            for name in names
            if scenes.summary(run).get(name) != scenes.summary(like)[name]
        ]
        + lacking(like, run, False)
    )


def at_start(disk: Disk, ready: Any, run: Path, leave: int) -> list[str]:
    """A run that finds no room at its beginning says so in one sentence, or copes."""
    from fedjax_sim.experiments.run import new_folder, run_experiment

    disk.fill(leave)
    try:
        new_folder(ready.config, run)
        run_experiment(ready, run, console=silent())
    except Exception as error:
        return complaints(error)
    finally:
        disk.free()
    return []


def preparing(disk: Disk, out: Path, leave: int) -> list[str]:
    """A data set that does not fit leaves nothing behind, and is made when there is room."""
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
    return (
        wrong
        if open_prepared(out, verify=True).train.clients == 50
        else [*wrong, "what was prepared later is not whole"]
    )


# -------------------------------------------------------------------------------------------- parts


def ridden(disk: Disk, ready: Any, run: Path, leave: int, look: Callable[[], None] | None) -> Any:
    """The summary of a run whose disk fills up, or the error that ended it. With ``look``, there is room again after that call."""
    from fedjax_sim.experiments.run import new_folder, run_experiment
    from fedjax_sim.simulation.callbacks import callback

    full = False

    def change(event: Any) -> None:
        nonlocal full
        if event.round == FREE and look is not None:
            look()
            disk.free()
            full = False
        elif event.round >= FULL and (
            full or event.round < FREE
        ):  # again and again: what failed gives room back
            disk.fill(leave)
            full = True

    log = (new_folder(ready.config, run) / "log").open("w")  # on that disk, too
    try:
        return run_experiment(
            ready, run, console=silent(log), callbacks=[callback(on_round_end=change)]
        )
    except Exception as error:
        return "\n".join(complaints(error)) or str(error)
    finally:
        if full:
            disk.free()
        log.close()


def silent(file: Any = None) -> Any:
    from rich.console import Console

    return Console(file=file or io.StringIO())


def complaints(error: Exception) -> list[str]:
    """What is wrong with how an error is told."""
    from fedjax_sim.core.errors import FedError

    return (
        []
        if isinstance(error, FedError) and "\n" not in str(error)
        else [f"Traceback of {type(error).__name__}: {error}"]
    )


def noisy(notes: list[str]) -> list[str]:
    """Whether something was said twice, or at length; each checkpoint that failed is told of, and the rows at most once a file."""
    rows = [note for note in notes if "metrics." in note or "tfevents" in note]
    wrong = ["a note was repeated"] if len(set(notes)) < len(notes) else []
    wrong += [f"rows were complained of {len(rows)} times: {rows}"] if len(rows) > 6 else []
    return wrong + [
        f"a note of {len(note)} letters" for note in notes if "\n" in note or len(note) > 1000
    ]


def unusable(ready: Any, run: Path, at_least: int) -> list[str]:
    """What is wrong with the newest checkpoint on disk."""
    from fedjax_sim.core.errors import FedError
    from fedjax_sim.experiments.run import starting_variables
    from fedjax_sim.persistence.checkpoint import open_store

    like = ready.program.logical(ready.program.init(starting_variables(ready), 0))
    try:
        found = open_store(run / scenes.CHECKPOINTS).restore(like)
    except FedError as error:
        return [f"no checkpoint is left: {error}"]
    return (
        []
        if found.step >= at_least and not found.notes
        else [f"the newest checkpoint is that of round {found.step}: {found.notes}"]
    )


def lacking(like: Path, run: Path, state: bool = True) -> list[str]:
    """Differences of a resumed run, but for rows that were lost with the disk: there may be gaps, which its summary tells of."""
    rows, expected = (
        scenes.rows(run / scenes.ROWS),
        {row["round"]: row for row in scenes.rows(like / scenes.ROWS)},
    )
    wrong = [
        f"another row of round {row['round']}" for row in rows if row != expected[row["round"]]
    ]
    gaps = len(expected) - len(rows)
    if gaps and not any("lacks" in note for note in scenes.summary(run)["notes"]):
        wrong.append(f"{gaps} rows are missing, and nothing says so")
    same = not state or scenes.summary(run)["state_hash"] == scenes.summary(like)["state_hash"]
    return wrong if same else [*wrong, "another state"]


if __name__ == "__main__":
    print(attack())
