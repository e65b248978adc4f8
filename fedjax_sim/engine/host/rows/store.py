"""The vault: what clients remember, in a folder on the host, and snapshots of it that outlive whatever comes after.

* A row is never written over: it goes to a free slot, and where it lay is free again unless a snapshot refers to it. So a write that
  fails changes nothing, and a snapshot is a list of slots, without a copy of any row.
* What is on disk counts only through a snapshot's file, which appears by renaming after all that it vouches for is durable. A process
  may end at any moment; there is no other state on disk to be out of step.
* A snapshot's file holds the crc32 of every row, and its own crc32 is in the description that the caller keeps. A row that is not the
  one that belongs to the snapshot is an error when it is read, whoever wrote it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import threading
import zlib
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from io import FileIO
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fedjax_sim.core import files
from fedjax_sim.core.errors import FedError, fail, positive, require, sentence
from fedjax_sim.core.types import PyTree
from fedjax_sim.engine.host.rows import row_file, row_layout
from fedjax_sim.engine.host.rows import slots as ledgers
from fedjax_sim.engine.host.rows import snapshots as index
from fedjax_sim.engine.host.rows.row_layout import Layout
from fedjax_sim.engine.host.rows.slots import Ledger
from fedjax_sim.engine.host.rows.snapshots import ELSE, ENTRY, Description, Snapshot

ROWS, LOCK = "clients.rows", "lock"
BLOCK = 2**24
"""Bytes of rows that are copied at a time on their way to the file."""


class Vault(NamedTuple):
    """Client memory on the host, made by :func:`open_vault`.

    Calls may come from any thread; one lock serialises them. An id of N or more is absent, as everywhere: it reads the row of a client
    before its first round, and writes nothing.
    """

    read: Callable[[Any], PyTree]
    """``ids int64[k] -> rows [k, ...]``, each checked by its crc32. Views of one new buffer, the caller's own."""
    write: Callable[[Any, PyTree], None]
    """``(ids int64[k], rows [k, ...]) -> None``: no client twice. All of the rows, or an error and none of them."""
    snapshot: Callable[[int], Description]
    """``round -> description``, ready for JSON: from here on ``restore`` brings this state back, until ``keep`` drops it."""
    restore: Callable[[Description], None]
    """``description -> None``: the state of that snapshot, the row of clients before their first round included. Every row is read and
    checked. Where that fails the state stays what it was. Other snapshots stay until ``keep`` drops them."""
    keep: Callable[[Iterable[int]], None]
    """``rounds -> None``: drops the snapshots of all other rounds, and of those rounds all but the one last made or restored here."""
    close: Callable[[], None]
    """``() -> None``: the folder is free for others. Rows written after the last snapshot are forgotten."""
    facts: Callable[[], dict[str, int]]
    """``() -> {"clients": with a row, "rows": on disk, those of snapshots too, "bytes": of all files}``."""


def open_vault(folder: str | Path, like: PyTree, clients: int) -> Vault:
    """The vault in a folder, as it is before the first round; ``restore`` goes on from a snapshot.

    Args:
      folder: made where it is missing. One process at a time.
      like: one client's row before its first round, numpy arrays.
      clients: N. What never takes part costs nothing: 1e8 clients are 25 MB of addresses at most, and whoever has a row costs 150
        bytes of memory besides it.

    Raises:
      FedError: where the folder cannot be used, another process has it open, or it holds snapshots of other rows or of another
        population. The vault's functions raise it too: for a damaged or missing row or snapshot, rows that do not fit, a full or
        failing disk, and once the vault is closed.
    """
    positive("clients", clients)
    folder, layout = Path(folder).absolute(), row_layout.layout_of(like)
    with contextlib.ExitStack() as held:
        file = _claim(folder, held)
        state = _State(
            folder,
            layout,
            clients,
            file,
            ledgers.open_ledger(clients),
            row_layout.record_of(layout, like),
        )
        _adopt(state)
        state.held = held.pop_all()
    actions = (_read, _write, _snapshot, _restore, _keep, _close, _facts)
    return Vault(*(partial(_serially, state, action) for action in actions))


@dataclasses.dataclass
class _State:
    """The one mutable thing here, changed under its lock."""

    folder: Path
    layout: Layout
    clients: int
    file: FileIO
    ledger: Ledger
    default: np.ndarray
    """uint8[record], the row of a client before its first round."""
    snapshots: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)
    """The slots that each snapshot in the folder refers to."""
    latest: dict[int, str] = dataclasses.field(default_factory=dict)
    """Of each round the snapshot last made or restored here."""
    unsure: bool = False
    """Flushing failed: the system may have dropped rows that it took, and would not say so again."""
    held: contextlib.ExitStack = dataclasses.field(default_factory=contextlib.ExitStack)
    lock: threading.Lock = dataclasses.field(default_factory=threading.Lock)


def _serially(state: _State, action: Callable[..., Any], *arguments: Any) -> Any:
    with state.lock:
        if action is not _close:
            require(
                not state.file.closed,
                "the vault of client memory is closed",
                got=state.folder,
                fix="open it again",
            )
        return action(state, *arguments)


@contextlib.contextmanager
def _told(what: str, where: Path) -> Iterator[None]:
    """A disk's errors as one sentence."""
    try:
        yield
    except OSError as error:
        got = f"{type(error).__name__}: {error.strerror or error} in {where}"
        raise FedError(
            sentence(
                what,
                got=got,
                fix="make room there or mend it, or choose another folder; what was saved stays",
            )
        ) from error


# ---------------------------------------------------------------------------------------------------------------- opening


def _claim(folder: Path, held: contextlib.ExitStack) -> FileIO:
    """The file of rows, in a folder that is ours until all that is held is let go."""
    from filelock import FileLock, Timeout

    for name in (ROWS, LOCK):
        files.own(folder / name)
    with _told("the folder of client memory cannot be used", folder):
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / LOCK, thread_local=False)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            fail(
                "the folder of client memory is in use",
                got=f"{folder}, open elsewhere",
                fix="wait for the other run, or choose another folder",
            )
        held.callback(lock.release)
        (folder / index.PART).unlink(missing_ok=True)  # of a snapshot that was cut short
        (folder / ROWS).touch()
        return held.enter_context(open(folder / ROWS, "r+b", buffering=0))


def _adopt(state: _State) -> None:
    """The snapshots in the folder, whose rows are to stay. One whose file is damaged is left to :func:`_restore`
    to complain about; one that is whole and speaks of other clients or rows than this memory has is refused here."""
    with _told("the folder of client memory cannot be read", state.folder):
        found = index.whole(state.folder)
        size = os.fstat(state.file.fileno()).st_size
    for name, snapshot in found.items():
        index.fits(snapshot, state.layout, state.clients, state.folder / name)
    state.snapshots = {name: _slots(snapshot) for name, snapshot in found.items()}
    ledgers.grow(state.ledger, size // state.layout.record)
    ledgers.pin(state.ledger, state.snapshots.values())


def _slots(snapshot: Snapshot) -> np.ndarray:
    return snapshot.entries["slot"].astype(np.int64)


# ------------------------------------------------------------------------------------------------------------------- rows


def _read(state: _State, ids: Any) -> PyTree:
    ids = _checked(ids)
    slots = np.full(len(ids), -1)
    slots[ids < state.clients] = ledgers.find(state.ledger, ids[ids < state.clients])
    records = np.empty((len(ids), state.layout.record), np.uint8)
    records[slots < 0] = state.default
    places = np.flatnonzero(slots >= 0)
    slots = slots[places]
    _load(state, ids[places], slots, state.ledger.crc[slots], places, records)
    return row_layout.views(state.layout, records)


def _load(
    state: _State,
    ids: np.ndarray,
    slots: np.ndarray,
    crcs: np.ndarray,
    places: np.ndarray | None = None,
    records: np.ndarray | None = None,
) -> None:
    """Reads rows into ``records[places]``, or only to see that they are what they should be."""
    places = np.arange(len(slots)) if places is None else places
    records = np.empty((len(slots), state.layout.record), np.uint8) if records is None else records
    with _told("clients' rows cannot be read", state.folder / ROWS):
        lacks = row_file.load(state.file, slots, places, records)
    if lacks is not None:
        _damaged(state, ids[lacks], slots[lacks], "the file ends before its end")
    for client, place, slot, crc in zip(
        ids.tolist(), places.tolist(), slots.tolist(), crcs.tolist(), strict=True
    ):
        if zlib.crc32(records[place].data) != crc:
            _damaged(state, client, slot, "a wrong crc32")


def _damaged(state: _State, client: int, slot: int, how: str) -> None:
    got = f"{how} in {state.folder / ROWS}, row {slot} of {state.layout.record} bytes"
    fail(f"the row of client {client} is damaged", got=got, fix=ELSE)


def _write(state: _State, ids: Any, rows: PyTree) -> None:
    """To free slots, which are taken at the end, when all of the rows are there."""
    ids = _checked(ids)
    leaves = row_layout.checked(state.layout, rows, len(ids))
    mine = np.flatnonzero(ids < state.clients)
    present = ids[mine]
    require(
        bool(np.diff(np.sort(present)).all()),
        "a client's row is written twice at once",
        got=present,
        fix="give every client once",
    )
    with _told("clients' rows cannot be written", state.folder / ROWS):
        _make_room(state, len(mine))
        slots, crcs = ledgers.take(state.ledger, len(mine)), np.empty(len(mine), np.uint32)
        step = max(1, BLOCK // state.layout.record)
        for begin in range(0, len(mine), step):
            part = slice(begin, begin + step)
            records = row_layout.packed(state.layout, leaves, mine[part])
            crcs[part] = [zlib.crc32(record) for record in records]
            row_file.store(state.file, slots[part], records)
    ledgers.commit(state.ledger, present, slots, crcs)


def _make_room(state: _State, count: int) -> None:
    have, lacking = len(state.ledger.owner), count - state.ledger.free
    if lacking > 0:
        what, do = (
            "a vault has no more than 2**31 rows",
            "keep fewer snapshots, or give the algorithm fewer clients",
        )
        require(have + lacking < 2**31, what, got=have + lacking, fix=do)
        ledgers.grow(
            state.ledger, row_file.enlarge(state.file, state.layout.record, have, have + lacking)
        )


def _checked(ids: Any) -> np.ndarray:
    ids = np.asarray(ids)
    fits = ids.ndim == 1 and ids.dtype.kind in "iu"
    require(
        fits,
        "clients are given by their numbers",
        got=f"{ids.dtype}{list(ids.shape)}",
        fix="give integers of one axis",
    )
    require(
        not (ids < 0).any(),
        "a client's number must not be negative",
        got=ids.min(initial=0),
        fix="number clients from 0",
    )
    return ids.astype(np.int64)


# -------------------------------------------------------------------------------------------------------------- snapshots


def _snapshot(state: _State, round_: int) -> Description:
    """First the rows, then what refers to them."""
    got = f"{state.folder / ROWS}, which could not be flushed"
    require(
        not state.unsure,
        "client memory is no longer known to be on disk",
        got=got,
        fix="resume the run from its last checkpoint",
    )
    live = ledgers.live(state.ledger)
    entries = np.empty(len(live), ENTRY)
    entries["client"], entries["slot"], entries["crc"] = (
        state.ledger.owner[live],
        live,
        state.ledger.crc[live],
    )
    header = {
        "round": int(round_),
        "clients": state.clients,
        "count": len(live),
        "layout": row_layout.described(state.layout),
    }
    with _told(f"client memory of round {round_} could not be saved", state.folder):
        try:
            os.fsync(state.file.fileno())
        except OSError:
            state.unsure = True
            raise
        description = index.save(state.folder, Snapshot(header, state.default, entries))
    state.snapshots[description["index"]] = live
    state.latest[int(round_)] = description["index"]
    state.ledger.pinned[live] = True
    return description


def _restore(state: _State, description: Description) -> None:
    snapshot = index.load(state.folder, description)
    index.fits(snapshot, state.layout, state.clients, state.folder / description["index"])
    slots, have = _slots(snapshot), len(state.ledger.owner)
    got = f"{have} rows in {state.folder / ROWS}, {slots.max(initial=-1) + 1} needed"
    require(bool(np.all(slots < have)), "the file of clients' rows is cut short", got=got, fix=ELSE)
    step = max(1, BLOCK // state.layout.record)
    for begin in range(
        0, len(slots), step
    ):  # all of them, while there is another snapshot to go back to
        part = snapshot.entries[begin : begin + step]
        _load(state, part["client"], slots[begin : begin + step], part["crc"])
    ledgers.replace(state.ledger, snapshot.entries["client"], slots, snapshot.entries["crc"])
    state.default, state.unsure = snapshot.default, False
    state.snapshots[description["index"]] = slots
    state.latest[snapshot.header["round"]] = description["index"]
    ledgers.pin(state.ledger, state.snapshots.values())


def _keep(state: _State, rounds: Iterable[int]) -> None:
    wanted = {int(round_) for round_ in rounds}
    with _told("snapshots of client memory cannot be dropped", state.folder):
        for name in index.names(state.folder):
            round_ = index.round_of(name)
            if round_ not in wanted or state.latest.get(round_, name) != name:
                (state.folder / name).unlink()
                state.snapshots.pop(name, None)
    ledgers.pin(state.ledger, state.snapshots.values())


def _close(state: _State) -> None:
    state.held.close()


def _facts(state: _State) -> dict[str, int]:
    used = np.count_nonzero(state.ledger.pinned | (state.ledger.owner >= 0))
    with _told("the folder of client memory cannot be read", state.folder):
        size = sum(
            (state.folder / name).stat().st_size for name in (ROWS, *index.names(state.folder))
        )
    return {"clients": len(ledgers.live(state.ledger)), "rows": int(used), "bytes": size}
