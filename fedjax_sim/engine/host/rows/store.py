"""The row store: client memory in a folder on the host, and snapshots of it that no later write
changes.

* A row is never overwritten: a new row goes to a free slot, and the earlier slot becomes free
  unless a snapshot refers to it. So a write that fails changes nothing, and a snapshot is a list of
  slots, without a copy of any row.
* Only a snapshot's file makes rows on disk valid. It appears by renaming after everything it refers
  to is durable. A process may end at any moment: there is no other state on disk that could
  disagree with it.
* A snapshot's file holds the crc32 of every row, and its own crc32 is in the description that the
  caller keeps. A row that differs from the snapshot's raises an error when it is read.
"""

from __future__ import annotations

import contextlib
import os
import threading
import zlib
from collections.abc import Iterable, Iterator
from io import FileIO
from pathlib import Path
from typing import Any

import numpy as np

from fedjax_sim.core import files
from fedjax_sim.core.errors import fail, positive, require
from fedjax_sim.core.types import PyTree
from fedjax_sim.engine.host.rows import row_file, row_layout, snapshots
from fedjax_sim.engine.host.rows.row_file import disk_errors
from fedjax_sim.engine.host.rows.row_layout import Layout
from fedjax_sim.engine.host.rows.slots import SlotTable
from fedjax_sim.engine.host.rows.snapshots import ENTRY, RECOVERY, Description, Snapshot

ROWS = "clients.rows"
LOCK = "lock"
BLOCK = 2**24
"""Bytes of rows that are copied at a time on their way to the file."""


def open_row_store(folder: str | Path, like: PyTree, clients: int) -> RowStore:
    """Opens the row store in a folder, in its state before the first round.

    Args:
      folder: created if it is missing. One process at a time.
      like: one client's row before its first round, numpy arrays.
      clients: N. Clients that never take part cost no disk space: the directory of 1e8 clients
        takes 25 MB of address space at most. A client with a row costs up to 150 bytes of host RAM.

    Raises:
      FedError: if the folder cannot be used, another process has it open, or it holds snapshots of
        other rows or of another population. The store's methods raise it too: for a damaged or
        missing row or snapshot, rows that do not fit, a full or failing disk, and after ``close``.

    >>> import tempfile
    >>> import numpy as np
    >>> with (
    ...     tempfile.TemporaryDirectory() as folder,
    ...     open_row_store(folder, np.zeros(2), 100) as store,
    ... ):
    ...     store.write([3, 7], np.array([[1.0, 2.0], [3.0, 4.0]]))
    ...     description = store.snapshot(round=1)
    ...     store.write([3], np.array([[9.0, 9.0]]))
    ...     store.restore(description)
    ...     rows = store.read([7, 3, 50])
    >>> rows
    array([[3., 4.],
           [1., 2.],
           [0., 0.]])
    """
    positive("clients", clients)
    folder = Path(folder).absolute()
    layout = row_layout.layout_of(like)
    default = row_layout.record_of(layout, like)
    resources = contextlib.ExitStack()
    try:
        file = _claim(folder, resources)
        return RowStore(folder, layout, clients, file, default, resources)
    except BaseException:
        resources.close()
        raise


class RowStore:
    """Client memory on the host, opened by :func:`open_row_store`.

    Methods may be called from any thread; one lock serialises them. An id of N or more is an absent
    client: it reads the row of a client before its first round, and writes nothing.
    """

    def __init__(
        self,
        folder: Path,
        layout: Layout,
        clients: int,
        file: FileIO,
        default: np.ndarray,
        resources: contextlib.ExitStack,
    ) -> None:
        self.folder = folder
        self.layout = layout
        self.clients = clients
        self._file = file
        self._default = default  # uint8[record], the row of a client before its first round
        self._resources = resources  # the open file and the folder's lock
        self._slots = SlotTable(clients)
        self._latest: dict[int, str] = {}  # of each round the snapshot last saved or restored
        # A flush failed: the system may have dropped written rows, and would not report it again.
        self._flush_failed = False
        self._lock = threading.Lock()
        self._snapshots = self._load_snapshots()  # the slots that each of them refers to

    def __enter__(self) -> RowStore:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Releases the folder. Rows written after the last snapshot are lost."""
        with self._lock:
            self._resources.close()

    def read(self, ids: Any) -> PyTree:
        """Reads clients' rows and checks the crc32 of each.

        Args:
          ids: int[k], clients in any order, also repeated or absent.

        Returns:
          The rows, ``[k, ...]`` in every leaf: views of one new buffer, which the caller may
          change.
        """
        with self._opened():
            ids = row_layout.check_ids(ids)
            slots = np.full(len(ids), -1)
            present = ids < self.clients
            slots[present] = self._slots.find(ids[present])
            records = np.empty((len(ids), self.layout.record), np.uint8)
            records[slots < 0] = self._default
            places = np.flatnonzero(slots >= 0)
            slots = slots[places]
            self._load(ids[places], slots, self._slots.crc[slots], places, records)
            return row_layout.views(self.layout, records)

    def write(self, ids: Any, rows: PyTree) -> None:
        """Writes clients' rows: all of them, or an error and none of them.

        Args:
          ids: int[k], distinct clients, or absent.
          rows: ``[k, ...]`` in every leaf.
        """
        with self._opened():
            ids = row_layout.check_ids(ids)
            leaves = row_layout.check_rows(self.layout, rows, len(ids))
            places = np.flatnonzero(ids < self.clients)
            present = ids[places]
            require(
                bool(np.diff(np.sort(present)).all()),
                "a client's row is written twice at once",
                got=present,
                fix="give every client once",
            )
            with disk_errors("clients' rows cannot be written", self.folder / ROWS):
                self._make_room(len(places))
                slots = self._slots.take(len(places))
                crcs = self._store(slots, leaves, places)
            self._slots.commit(present, slots, crcs)

    def snapshot(self, round: int) -> Description:
        """Saves a snapshot durably: first the rows, then the file that refers to them.

        Args:
          round: rounds completed, part of the description.

        Returns:
          The description that :meth:`restore` takes, ready for JSON. It is valid until :meth:`keep`
          removes the snapshot.
        """
        with self._opened():
            require(
                not self._flush_failed,
                "client memory is no longer known to be on disk",
                got=f"{self.folder / ROWS}, which could not be flushed",
                fix="resume the run from its last checkpoint",
            )
            live = self._slots.live()
            content = self._content(round, live)
            with disk_errors(f"client memory of round {round} could not be saved", self.folder):
                self._flush()
                description = snapshots.save(self.folder, content)
            self._snapshots[description["index"]] = live
            self._latest[int(round)] = description["index"]
            self._slots.pinned[live] = True
            return description

    def restore(self, description: Description) -> None:
        """Restores all rows of a snapshot, and the row of clients before their first round.

        Every row is read and checked first: if that fails, the store is unchanged. Other snapshots
        stay until :meth:`keep` removes them.

        Args:
          description: what :meth:`snapshot` returned, in this process or an earlier one.
        """
        with self._opened():
            snapshot = snapshots.load(self.folder, description)
            path = self.folder / description["index"]
            snapshots.check_fits(snapshot, self.layout, self.clients, path)
            slots = _slots_of(snapshot)
            self._check(snapshot, slots)
            self._slots.replace(snapshot.entries["client"], slots, snapshot.entries["crc"])
            self._default = snapshot.default
            self._flush_failed = False
            self._snapshots[description["index"]] = slots
            self._latest[snapshot.header["round"]] = description["index"]
            self._slots.pin(self._snapshots.values())

    def keep(self, rounds: Iterable[int]) -> None:
        """Removes the snapshots of all other rounds.

        Args:
          rounds: whose snapshots to keep; of each, only the one that this store last saved or
            restored, if it did.
        """
        wanted = {int(round) for round in rounds}
        with self._opened():
            with disk_errors("snapshots of client memory cannot be removed", self.folder):
                for name in snapshots.list_files(self.folder):
                    round = snapshots.round_of(name)
                    if round not in wanted or self._latest.get(round, name) != name:
                        (self.folder / name).unlink()
                        self._snapshots.pop(name, None)
            self._slots.pin(self._snapshots.values())

    def facts(self) -> dict[str, int]:
        """Counts the rows and bytes of the folder.

        Returns:
          ``clients`` with a row, ``rows`` on disk (those of snapshots too) and ``bytes`` of all
          files.
        """
        with self._opened():
            with disk_errors("the folder of client memory cannot be read", self.folder):
                names = (ROWS, *snapshots.list_files(self.folder))
                size = sum((self.folder / name).stat().st_size for name in names)
            return {
                "clients": len(self._slots.live()),
                "rows": self._slots.in_use(),
                "bytes": size,
            }

    @contextlib.contextmanager
    def _opened(self) -> Iterator[None]:
        """Holds the lock of the open store."""
        with self._lock:
            require(
                not self._file.closed,
                "the row store of client memory is closed",
                got=self.folder,
                fix="open it again",
            )
            yield

    def _load_snapshots(self) -> dict[str, np.ndarray]:
        """Reads the folder's snapshots, so that their rows stay.

        A damaged file is left for :meth:`restore` to report; an intact one of other rows or another
        population is refused here.
        """
        with disk_errors("the folder of client memory cannot be read", self.folder):
            found = snapshots.load_intact(self.folder)
            size = os.fstat(self._file.fileno()).st_size
        for name, snapshot in found.items():
            snapshots.check_fits(snapshot, self.layout, self.clients, self.folder / name)
        slots = {name: _slots_of(snapshot) for name, snapshot in found.items()}
        self._slots.grow(size // self.layout.record)
        self._slots.pin(slots.values())
        return slots

    def _load(
        self,
        ids: np.ndarray,
        slots: np.ndarray,
        crcs: np.ndarray,
        places: np.ndarray,
        records: np.ndarray,
    ) -> None:
        """Reads rows into ``records[places]`` and checks them."""
        with disk_errors("clients' rows cannot be read", self.folder / ROWS):
            missing = row_file.load(self._file, slots, places, records)
        if missing is not None:
            self._damaged(ids[missing], slots[missing], "the file ends before its end")
        columns = (ids.tolist(), places.tolist(), slots.tolist(), crcs.tolist())
        for client, place, slot, crc in zip(*columns, strict=True):
            if zlib.crc32(records[place].data) != crc:
                self._damaged(client, slot, "a wrong crc32")

    def _damaged(self, client: int, slot: int, how: str) -> None:
        got = f"{how} in {self.folder / ROWS}, row {slot} of {self.layout.record} bytes"
        fail(f"the row of client {client} is damaged", got=got, fix=RECOVERY)

    def _check(self, snapshot: Snapshot, slots: np.ndarray) -> None:
        """Reads every row of a snapshot, while another one can still be restored instead."""
        have = len(self._slots.owner)
        require(
            bool(np.all(slots < have)),
            "the file of clients' rows is truncated",
            got=f"{have} rows in {self.folder / ROWS}, {slots.max(initial=-1) + 1} needed",
            fix=RECOVERY,
        )
        step = max(1, BLOCK // self.layout.record)
        for begin in range(0, len(slots), step):
            part = snapshot.entries[begin : begin + step]
            records = np.empty((len(part), self.layout.record), np.uint8)
            places = np.arange(len(part))
            self._load(part["client"], slots[begin : begin + step], part["crc"], places, records)

    def _make_room(self, count: int) -> None:
        """Enlarges the file until it has ``count`` free slots."""
        have = len(self._slots.owner)
        lacking = count - self._slots.free
        if lacking > 0:
            require(
                have + lacking < 2**31,
                "a row store holds at most 2**31 rows",
                got=have + lacking,
                fix="keep fewer snapshots, or give the algorithm fewer clients",
            )
            record = self.layout.record
            self._slots.grow(row_file.enlarge(self._file, record, have, have + lacking))

    def _store(self, slots: np.ndarray, leaves: list[np.ndarray], places: np.ndarray) -> np.ndarray:
        """Writes rows ``places`` of the leaves into slots, and returns their crc32."""
        crcs = np.empty(len(places), np.uint32)
        step = max(1, BLOCK // self.layout.record)
        for begin in range(0, len(places), step):
            part = slice(begin, begin + step)
            records = row_layout.pack(self.layout, leaves, places[part])
            crcs[part] = [zlib.crc32(record) for record in records]
            row_file.store(self._file, slots[part], records)
        return crcs

    def _content(self, round: int, live: np.ndarray) -> Snapshot:
        entries = np.empty(len(live), ENTRY)
        entries["client"] = self._slots.owner[live]
        entries["slot"] = live
        entries["crc"] = self._slots.crc[live]
        header = {
            "round": int(round),
            "clients": self.clients,
            "count": len(live),
            "layout": row_layout.describe(self.layout),
        }
        return Snapshot(header, self._default, entries)

    def _flush(self) -> None:
        try:
            os.fsync(self._file.fileno())
        except OSError:
            self._flush_failed = True
            raise


def _claim(folder: Path, resources: contextlib.ExitStack) -> FileIO:
    """Opens the file of rows, in a folder that stays locked until ``resources`` is closed."""
    from filelock import FileLock, Timeout

    for name in (ROWS, LOCK):
        files.refuse_link(folder / name)
    with disk_errors("the folder of client memory cannot be used", folder):
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
        resources.callback(lock.release)
        (folder / snapshots.PART).unlink(missing_ok=True)  # an incomplete snapshot
        (folder / ROWS).touch()
        return resources.enter_context(open(folder / ROWS, "r+b", buffering=0))


def _slots_of(snapshot: Snapshot) -> np.ndarray:
    return snapshot.entries["slot"].astype(np.int64)
