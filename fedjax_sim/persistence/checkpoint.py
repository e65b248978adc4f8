"""Checkpoints: the whole logical :class:`RoundState` of a round, written in the background and verified when read back.

Orbax writes the bytes; this module alone knows it, and imports it late. What Orbax leaves open is closed here:

* every leaf's shape, dtype and crc32 lie beside the data, under a crc of their own, and are checked after loading;
* a state that does not fit is refused before anything is loaded, never cast;
* where the newest checkpoint is damaged, an older one is taken and the reader is told;
* a save that fails in the background is reported once, at the next call, and the save after it starts afresh.

Leaves are written flat, by name, from copies on the host: the next round may donate the state's buffers at once, and what is
restored is unplaced, so it fits any number of devices. Several processes save together, the first one
writing, and each reads: the folder must be on a file system that all of them see.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import os
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from fedjax_sim.core import files
from fedjax_sim.core.errors import FedError, fail, positive, require, sentence
from fedjax_sim.core.types import RoundState
from fedjax_sim.persistence import manifest as manifests
from fedjax_sim.persistence.manifest import Manifest, state_hash, versions
from fedjax_sim.persistence.orbax_logging import cause, hush, hushed, unhush
from fedjax_sim.runtime.processes import is_main_process

__all__ = ["Restored", "SaveError", "Store", "open_store", "state_hash", "versions"]

RECORD = "fedjax_sim"
"""Key of our record (manifest, metadata, seal) in a checkpoint's metadata."""

LOOKS, PAUSE = 4, 0.05
"""How often what a failed save left is looked for, and the seconds between: Orbax says that a save has failed as soon as one of its
writes has, while others go on."""


class SaveError(FedError):
    """A checkpoint could not be written. The run goes on; the next save starts afresh."""


class Restored(NamedTuple):
    """What ``Store.restore`` found."""

    state: RoundState
    """The logical state, numpy leaves, bit for bit what was saved. ``program.place`` puts it on devices."""
    step: int
    """Rounds completed."""
    metadata: dict[str, Any]
    """What was given to ``save``, and ``round`` and ``versions``."""
    notes: tuple[str, ...]
    """Sentences for the user: damaged checkpoints passed over, versions or a machine that changed."""


class Store(NamedTuple):
    """One run's checkpoints, made by :func:`open_store`. Every function first reports a save that failed in the background."""

    save: Callable[..., None]
    """``(logical state, metadata={}) -> None``: returns once the state is copied to the host; writing goes on behind."""
    restore: Callable[..., Restored]
    """``(like, step=None, along=None) -> Restored``: the newest usable checkpoint, or that of one round. ``like`` is a logical state of
    arrays or of ``ShapeDtypeStruct``; ``along(metadata)`` brings back what is kept elsewhere, and raises ``FedError`` where it is not
    intact."""
    steps: Callable[[], tuple[int, ...]]
    """``() -> rounds`` that have a checkpoint, ascending."""
    wait: Callable[[], None]
    """``() -> None``: returns when everything is on disk."""
    close: Callable[[], None]
    """``() -> None``: the same, for ``contextlib.closing``."""
    metadata: Callable[[], dict[str, Any]]
    """``() -> metadata`` of the newest checkpoint that can be read; ``{}`` where there is none. Loads no array."""


def open_store(directory: str | Path, keep: int | None = 3, every: int | None = None) -> Store:
    """The checkpoints of one run, in ``directory/<round>``.

    A folder that already holds checkpoints is only written to after ``restore``. The next save then drops those of rounds after
    the restored one: they are damaged, or a future that is not this run's any more.

    Args:
      directory: made when something is saved.
      keep: how many of the newest to keep; ``None`` for all.
      every: besides these, those of each ``every``-th round are kept forever.

    Raises:
      FedError: where ``keep`` or ``every`` is not positive. The store's functions raise it too: for a folder of another run, a
        state that does not fit, where nothing usable is left, and, as :class:`SaveError`, for a save that failed.
    """
    for name, value in (("keep", keep), ("every", every)):
        if value is not None:
            positive(name, value)
    odd = os.path.lexists(directory) and not Path(directory).is_dir()
    require(
        not odd,
        "checkpoints are kept in a folder",
        got=f"something else called {directory}",
        fix="move it away, or choose another folder",
    )
    folder = _Folder(Path(directory).absolute(), keep, every, found=_steps(Path(directory)))
    settle = partial(_settle, folder)
    return Store(
        partial(_save, folder),
        partial(_restore, folder),
        partial(_list, folder),
        settle,
        settle,
        partial(_metadata, folder),
    )


@dataclasses.dataclass
class _Folder:
    """The one mutable thing here: what is on its way to disk, and what is known to be there."""

    path: Path
    keep: int | None
    every: int | None
    found: tuple[int, ...]
    """Checkpoints it held when it was opened: of the run to go on with, or of another one."""
    base: int | None = None
    """The checkpoint that the run goes on from: the last one restored before the first save."""
    begun: bool = False
    """Something has been saved."""
    pending: tuple[int, Any] | None = None
    known: dict[int, Manifest] = dataclasses.field(default_factory=dict)
    """Manifests of checkpoints that were written or verified here."""


def _orbax() -> Any:
    return importlib.import_module("orbax.checkpoint.experimental.v1")


def _steps(directory: Path) -> tuple[int, ...]:
    """Rounds with a committed checkpoint: one is committed by renaming its folder to a bare number."""
    found = directory.iterdir() if directory.is_dir() else ()
    names = (entry.name for entry in found if entry.name.isdecimal() and entry.is_dir())
    return tuple(sorted(int(name) for name in names if str(int(name)) == name))


def _list(folder: _Folder) -> tuple[int, ...]:
    _settle(folder)
    return _steps(folder.path)


# ---------------------------------------------------------------------------------------------------------------- writing


def _save(folder: _Folder, state: RoundState, metadata: dict[str, Any] | None = None) -> None:
    """Copies, describes, and starts to write. The same state of the same round is not written twice."""
    _settle(folder)
    step, there = int(state.round), _steps(folder.path)
    ours = folder.base is not None or not folder.found
    held = f"{folder.path} with rounds {there}"
    require(
        ours,
        "the checkpoint folder holds another run",
        got=held,
        fix="resume that run, or choose an empty folder",
    )
    copies = {
        name: np.array(manifests.to_numpy(leaf)) for name, leaf in manifests.leaves(state).items()
    }
    record = manifests.with_checksum(
        manifests.manifest(state), {**(metadata or {}), "round": step, "versions": versions()}
    )
    if step in there and folder.known.get(step) == record["manifest"]:
        return
    for stale in (s for s in there if s >= step or (s in folder.found and s > (folder.base or 0))):
        _forget(folder, stale)
    _start(folder, step, copies, record)


def _start(
    folder: _Folder, step: int, copies: dict[str, np.ndarray], record: dict[str, Any]
) -> None:
    full = {
        name: copy for name, copy in copies.items() if copy.size
    }  # Orbax refuses empty arrays; the manifest has their shape
    hush()
    try:
        folder.path.mkdir(parents=True, exist_ok=True)
        _tidy(folder)
        response = _orbax().save_async(
            folder.path / str(step), full, custom_metadata={RECORD: record}
        )
    except Exception as error:
        unhush(failed=True)
        raise _unwritten(folder, step, error) from error
    folder.pending, folder.begun = (step, response), True
    folder.known[step] = record["manifest"]


def _settle(folder: _Folder) -> None:
    """Waits for the save in progress, reports its failure once, and applies the keep policies."""
    if folder.pending is None:
        return
    (step, response), folder.pending = folder.pending, None
    try:
        response.result()
    except Exception as error:
        unhush(failed=True)
        folder.known.pop(step, None)
        _tidy(folder, LOOKS)  # where the disk is full, that may be all the room there is
        raise _unwritten(folder, step, error) from error
    unhush()
    steps = _steps(folder.path)
    newest = steps if folder.keep is None else steps[-folder.keep :]
    for old in set(steps) - set(newest):
        if not (folder.every and old % folder.every == 0):
            _forget(folder, old)


def _tidy(folder: _Folder, looks: int = 1) -> None:
    """Removes what is left of saves that failed or were killed, more than once where writers may still be at it and make it anew."""
    for look in range(looks):
        if look:
            time.sleep(PAUSE)
        for leftover in folder.path.glob("*.orbax-checkpoint-tmp*"):
            _remove(leftover)


def _forget(folder: _Folder, step: int) -> None:
    _remove(folder.path / str(step))
    folder.known.pop(step, None)


def _remove(path: Path) -> None:
    if is_main_process():  # one of several processes is enough
        files.remove(path)


def _unwritten(folder: _Folder, step: int, error: BaseException) -> SaveError:
    what = f"the checkpoint of round {step} could not be written to {folder.path}"
    return SaveError(
        sentence(
            what,
            got=cause(error),
            fix="make room there or choose another folder; the run itself is unharmed",
        )
    )


# ---------------------------------------------------------------------------------------------------------------- reading


class _Damaged(Exception):
    """This checkpoint cannot be used, whatever the configuration."""


def _restore(
    folder: _Folder,
    like: RoundState,
    step: int | None = None,
    along: Callable[[dict[str, Any]], None] | None = None,
) -> Restored:
    """Newest to oldest until one loads and verifies. One that is whole but does not fit ends the search with an error."""
    _settle(folder)
    steps = _steps(folder.path)
    what = f"no checkpoint of round {step} in {folder.path}"
    require(
        step is None or step in steps,
        what,
        got=steps or "an empty folder",
        fix="choose a round that has one",
    )
    notes: list[str] = []
    for candidate in reversed(steps) if step is None else (step,):
        try:
            record = _read(folder.path / str(candidate))
            manifests.compare(candidate, record["manifest"], like)
            state = _load(folder.path / str(candidate), record["manifest"], like)
            _bring(along, record["metadata"])
        except _Damaged as error:
            notes.append(
                f"the checkpoint of round {candidate} is damaged ({error}) and was passed over"
            )
            continue
        folder.known[candidate] = record["manifest"]
        folder.base = folder.base if folder.begun else candidate
        notes.extend(manifests.changed(record["metadata"].get("versions"), versions()))
        return Restored(state, candidate, record["metadata"], tuple(notes))
    fail(
        f"no usable checkpoint in {folder.path}",
        got="; ".join(notes) or "an empty folder",
        fix="choose another round or start the run anew",
    )


def _bring(along: Callable[[dict[str, Any]], None] | None, metadata: dict[str, Any]) -> None:
    try:
        if along is not None:
            along(metadata)
    except FedError as error:
        raise _Damaged(str(error)) from error


def _metadata(folder: _Folder) -> dict[str, Any]:
    for step in reversed(_list(folder)):
        with contextlib.suppress(_Damaged):
            return _read(folder.path / str(step))["metadata"]
    return {}


def _read(path: Path) -> dict[str, Any]:
    """A checkpoint's record, its seal checked."""
    odd = [entry.name for entry in path.rglob("*") if not (entry.is_file() or entry.is_dir())]
    if odd:  # a pipe would be waited for
        raise _Damaged(f"{odd[0]} in it is no file")
    try:
        with hushed():
            record = (_orbax().metadata(path).custom_metadata or {})[RECORD]
        whole, round_ = manifests.checksum_ok(record), record["metadata"]["round"]
    except Exception as error:
        raise _Damaged(cause(error)) from error
    if not whole:
        raise _Damaged("its manifest fails its own crc32")
    if str(round_) != path.name:
        raise _Damaged(f"it is that of round {round_}, under another name")
    return record


def _load(path: Path, described: Manifest, like: RoundState) -> RoundState:
    """The state in the shape of ``like``, every leaf's crc32 checked."""
    wanted = manifests.leaves(like)
    blank = {name: np.zeros(*manifests.storage(leaf)) for name, leaf in wanted.items()}
    try:
        with hushed():
            loaded = _orbax().load(
                path, {name: array for name, array in blank.items() if array.size}
            )
    except Exception as error:
        raise _Damaged(cause(error)) from error
    arrays = {**blank, **loaded}
    bad = [name for name, (_, _, crc) in described.items() if manifests.crc(arrays[name]) != crc]
    if bad:
        raise _Damaged(f"the crc32 of {bad[0]} is wrong")
    return jax.tree.unflatten(
        jax.tree.structure(like),
        [manifests.from_numpy(leaf, arrays[name]) for name, leaf in wanted.items()],
    )
