"""Checkpoints: the whole logical :class:`RoundState` of a round, written in the background and
verified when read back.

Orbax writes the bytes; only this module imports it, and only when it is needed. What this module
adds to Orbax:

* every leaf's shape, dtype and crc32 are stored beside the data, under a crc32 of their own, and
  are checked after loading;
* a state that does not fit is refused before anything is loaded, never cast;
* if the newest checkpoint is damaged, an older one is restored, with a note for the user;
* a save that fails in the background is reported once, at the next call, and the save after it is
  independent of it.

Leaves are written flat, by name, from copies on the host: the next round may donate the state's
buffers at once, and what is restored is not placed on devices, so it fits any number of them.
Several processes save together, the first one writing, and each reads: the folder must be on a file
system that all of them share.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import time
from collections.abc import Callable
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
"""Key of this package's record (manifest, metadata, seal) in a checkpoint's metadata."""

LOOKS = 4
"""How often leftovers of a failed save are searched for: Orbax reports the failure as soon as one
of its writes has failed, while others still run."""
PAUSE = 0.05
"""Seconds between these searches."""


class SaveError(FedError):
    """A checkpoint could not be written. The run continues; the next save is independent of it."""


class Restored(NamedTuple):
    """The result of :meth:`Store.restore`."""

    state: RoundState
    """The logical state, numpy leaves, bit for bit what was saved. ``program.place`` puts it on
    devices."""
    step: int
    """Rounds completed."""
    metadata: dict[str, Any]
    """What was given to ``save``, and ``round`` and ``versions``."""
    notes: tuple[str, ...]
    """Sentences for the user: damaged checkpoints passed over, versions or a machine that
    changed."""


def open_store(directory: str | Path, keep: int | None = 3, every: int | None = None) -> Store:
    """Opens the checkpoints of one run, in ``directory/<round>``.

    A folder that already holds checkpoints is only written to after ``restore``. The next save then
    removes those of rounds after the restored one: they are damaged, or from rounds that this run
    will compute again.

    Args:
      directory: created when something is saved.
      keep: number of newest checkpoints to keep; ``None`` keeps all.
      every: the checkpoint of each ``every``-th round is kept too, forever.

    Raises:
      FedError: if ``keep`` or ``every`` is not positive, or ``directory`` is a file. The store's
        methods raise it too: for a folder of another run, a state that does not fit, if no usable
        checkpoint is left, and, as :class:`SaveError`, for a save that failed.

    >>> import tempfile
    >>> import numpy as np
    >>> import fedjax_sim as fs
    >>> state = fs.RoundState(
    ...     round=np.int32(1), seed=np.uint32(0), algorithm=np.ones(2), memory=(), sampler=()
    ... )
    >>> with tempfile.TemporaryDirectory() as folder, fs.open_store(folder) as store:
    ...     store.save(state, {"comment": "first"})
    ...     rounds = store.steps()
    ...     restored = store.restore(state)
    >>> rounds, restored.state.algorithm, restored.metadata["comment"]
    ((1,), array([1., 1.]), 'first')
    """
    for name, value in (("keep", keep), ("every", every)):
        if value is not None:
            positive(name, value)
    require(
        not os.path.lexists(directory) or Path(directory).is_dir(),
        "checkpoints are kept in a folder",
        got=f"something else called {directory}",
        fix="move it away, or choose another folder",
    )
    return Store(Path(directory).absolute(), keep, every)


class Store:
    """One run's checkpoints, opened by :func:`open_store`.

    Every method first reports a save that failed in the background.
    """

    def __init__(self, path: Path, keep: int | None, every: int | None) -> None:
        self.path = path
        self.keep = keep
        self.every = every
        # Checkpoints that were there at opening: of the run to continue, or of another one.
        self._found = _committed(path)
        # The checkpoint that the run continues from: the last one restored before the first save.
        self._base: int | None = None
        self._saved = False
        self._pending: tuple[int, Any] | None = None  # a round and Orbax's response to its save
        self._known: dict[int, Manifest] = {}  # of checkpoints written or verified by this store

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Returns when everything is on disk, like :meth:`wait`."""
        self.wait()

    def wait(self) -> None:
        """Waits for the save in progress, and removes the checkpoints that are not kept."""
        if self._pending is None:
            return
        step, response = self._pending
        self._pending = None
        try:
            response.result()
        except Exception as error:
            unhush(failed=True)
            self._known.pop(step, None)
            self._remove_leftovers(LOOKS)  # on a full disk, that may be all the space there is
            raise self._not_written(step, error) from error
        unhush()
        steps = _committed(self.path)
        newest = steps if self.keep is None else steps[-self.keep :]
        for old in set(steps) - set(newest):
            if not (self.every and old % self.every == 0):
                self._remove(old)

    def steps(self) -> tuple[int, ...]:
        """Returns the rounds that have a checkpoint, ascending."""
        self.wait()
        return _committed(self.path)

    def save(self, state: RoundState, metadata: dict[str, Any] | None = None) -> None:
        """Begins to write a checkpoint, and returns once the state is copied to the host.

        The same state of the same round is not written twice.

        Args:
          state: logical, as ``program.logical`` returns it.
          metadata: anything that JSON can hold.
        """
        self.wait()
        step = int(state.round)
        present = _committed(self.path)
        require(
            self._base is not None or not self._found,
            "the checkpoint folder holds another run",
            got=f"{self.path} with rounds {present}",
            fix="resume that run, or choose an empty folder",
        )
        leaves = manifests.leaves(state)
        copies = {name: np.array(manifests.to_numpy(leaf)) for name, leaf in leaves.items()}
        metadata = {**(metadata or {}), "round": step, "versions": versions()}
        record = manifests.with_checksum(manifests.manifest(state), metadata)
        if step in present and self._known.get(step) == record["manifest"]:
            return
        base = self._base or 0
        for old in present:
            if old >= step or (old in self._found and old > base):
                self._remove(old)
        self._start(step, copies, record)

    def restore(
        self,
        like: RoundState,
        step: int | None = None,
        along: Callable[[dict[str, Any]], None] | None = None,
    ) -> Restored:
        """Reads the newest checkpoint that loads and verifies.

        An undamaged one that does not fit ends the search with an error.

        Args:
          like: a logical state of arrays or of ``ShapeDtypeStruct``, with the structure, shapes and
            dtypes to expect.
          step: the round whose checkpoint to read, and no other.
          along: ``metadata -> None``, restores what is kept elsewhere, such as client memory on the
            host; raises ``FedError`` if that is damaged, and with it the checkpoint.
        """
        self.wait()
        steps = _committed(self.path)
        require(
            step is None or step in steps,
            f"no checkpoint of round {step} in {self.path}",
            got=steps or "an empty folder",
            fix="choose a round that has one",
        )
        notes: list[str] = []
        for candidate in reversed(steps) if step is None else (step,):
            try:
                state, record = self._verified(candidate, like)
                _restore_along(along, record["metadata"])
            except _DamagedError as error:
                text = f"the checkpoint of round {candidate} is damaged ({error})"
                notes.append(f"{text} and was passed over")
                continue
            self._known[candidate] = record["manifest"]
            self._base = self._base if self._saved else candidate
            notes.extend(manifests.changed(record["metadata"].get("versions"), versions()))
            return Restored(state, candidate, record["metadata"], tuple(notes))
        fail(
            f"no usable checkpoint in {self.path}",
            got="; ".join(notes) or "an empty folder",
            fix="choose another round or start a new run",
        )

    def metadata(self) -> dict[str, Any]:
        """Returns the metadata of the newest checkpoint that can be read, ``{}`` if there is none.

        Loads no array.
        """
        for step in reversed(self.steps()):
            with contextlib.suppress(_DamagedError):
                return _read_record(self.path / str(step))["metadata"]
        return {}

    def _start(self, step: int, copies: dict[str, np.ndarray], record: dict[str, Any]) -> None:
        # Orbax refuses empty arrays; the manifest has their shapes.
        arrays = {name: copy for name, copy in copies.items() if copy.size}
        hush()
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._remove_leftovers()
            response = _orbax().save_async(
                self.path / str(step), arrays, custom_metadata={RECORD: record}
            )
        except Exception as error:
            unhush(failed=True)
            raise self._not_written(step, error) from error
        self._pending = (step, response)
        self._saved = True
        self._known[step] = record["manifest"]

    def _remove_leftovers(self, looks: int = 1) -> None:
        """Removes the files of failed or killed saves, repeatedly if writers may still run."""
        for look in range(looks):
            if look:
                time.sleep(PAUSE)
            for leftover in self.path.glob("*.orbax-checkpoint-tmp*"):
                _remove_path(leftover)

    def _remove(self, step: int) -> None:
        _remove_path(self.path / str(step))
        self._known.pop(step, None)

    def _not_written(self, step: int, error: BaseException) -> SaveError:
        return SaveError(
            sentence(
                f"the checkpoint of round {step} could not be written to {self.path}",
                got=cause(error),
                fix="make room there or choose another folder; the run itself continues",
            )
        )

    def _verified(self, step: int, like: RoundState) -> tuple[RoundState, dict[str, Any]]:
        """Returns the state of a round, and its record."""
        path = self.path / str(step)
        record = _read_record(path)
        manifests.compare(step, record["manifest"], like)
        return _load_state(path, record["manifest"], like), record


class _DamagedError(Exception):
    """A checkpoint that no configuration can use."""


def _orbax() -> Any:
    return importlib.import_module("orbax.checkpoint.experimental.v1")


def _committed(directory: Path) -> tuple[int, ...]:
    """Returns the rounds with a complete checkpoint: Orbax renames its folder to a number."""
    entries = directory.iterdir() if directory.is_dir() else ()
    names = (entry.name for entry in entries if entry.name.isdecimal() and entry.is_dir())
    return tuple(sorted(int(name) for name in names if str(int(name)) == name))


def _remove_path(path: Path) -> None:
    if is_main_process():  # one of several processes is enough
        files.remove(path)


def _restore_along(
    along: Callable[[dict[str, Any]], None] | None, metadata: dict[str, Any]
) -> None:
    try:
        if along is not None:
            along(metadata)
    except FedError as error:
        raise _DamagedError(str(error)) from error


def _read_record(path: Path) -> dict[str, Any]:
    """Returns a checkpoint's record, after checking its seal."""
    special = [entry.name for entry in path.rglob("*") if not (entry.is_file() or entry.is_dir())]
    if special:  # reading a pipe would block
        raise _DamagedError(f"{special[0]} in it is not a file")
    try:
        with hushed():
            record = (_orbax().metadata(path).custom_metadata or {})[RECORD]
        intact = manifests.checksum_ok(record)
        round = record["metadata"]["round"]
    except Exception as error:
        raise _DamagedError(cause(error)) from error
    if not intact:
        raise _DamagedError("its manifest fails its own crc32")
    if str(round) != path.name:
        raise _DamagedError(f"it is that of round {round}, under another name")
    return record


def _load_state(path: Path, described: Manifest, like: RoundState) -> RoundState:
    """Returns the state in the structure of ``like``, after checking every leaf's crc32."""
    wanted = manifests.leaves(like)
    blank = {name: np.zeros(*manifests.storage(leaf)) for name, leaf in wanted.items()}
    try:
        with hushed():
            loaded = _orbax().load(
                path, {name: array for name, array in blank.items() if array.size}
            )
    except Exception as error:
        raise _DamagedError(cause(error)) from error
    arrays = {**blank, **loaded}
    bad = [name for name, (_, _, crc) in described.items() if manifests.crc(arrays[name]) != crc]
    if bad:
        raise _DamagedError(f"the crc32 of {bad[0]} is wrong")
    leaves = [manifests.from_numpy(leaf, arrays[name]) for name, leaf in wanted.items()]
    return jax.tree.unflatten(jax.tree.structure(like), leaves)
