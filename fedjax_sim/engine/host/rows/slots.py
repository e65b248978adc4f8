"""Which client's row lies in which slot of the file: a directory of clients, and the state of every
slot.

The directory has an ``int32`` for every 16 clients, and a page of 16 slot numbers for those blocks
in which a client has a row. For 1e8 clients that is 25 MB, of which the operating system provides
only what is touched, and at most 64 bytes for each client that took part. A slot costs 21 bytes:
its client's id, its row's crc32, a flag and an entry in the stack of free slots.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

PAGE = 16
"""Clients per page of the directory."""


class SlotTable:
    """The clients and slots of one file of rows. Not thread-safe.

    A new table has no slots: :meth:`grow` adds free ones, :meth:`take` selects some of them and
    :meth:`commit` assigns them.

    Args:
      clients: N, the population.

    Attributes:
      blocks: int32[N / PAGE + 1], the page of every block of 16 clients; 0 for a block without
        rows.
      pages: int32[pages, PAGE], slot + 1 of every client of a page; 0 for a client without a row.
        Page 0 stays empty.
      used: pages in use, page 0 included.
      owner: int64[slots], the client whose present row a slot holds; -1 if it holds none.
      crc: uint32[slots], crc32 of that row.
      pinned: bool[slots], whether a snapshot refers to the slot.
      stack: int64[slots], whose first ``free`` entries are the free slots; the last of them is used
        next.
      free: number of free slots.
    """

    def __init__(self, clients: int) -> None:
        self.blocks = np.zeros(clients // PAGE + 1, np.int32)
        self.pages = np.zeros((1, PAGE), np.int32)
        self.used = 1
        self.owner = np.zeros(0, np.int64)
        self.crc = np.zeros(0, np.uint32)
        self.pinned = np.zeros(0, bool)
        self.stack = np.zeros(0, np.int64)
        self.free = 0

    def find(self, ids: np.ndarray) -> np.ndarray:
        """Returns the slots of clients' rows.

        Args:
          ids: int[k], all below N.

        Returns:
          int64[k]; -1 for a client without a row.
        """
        return self.pages[self.blocks[ids // PAGE], ids % PAGE].astype(np.int64) - 1

    def take(self, count: int) -> np.ndarray:
        """Returns ``count`` free slots, int64, ascending. They stay free until :meth:`commit`."""
        return np.sort(self.stack[self.free - count : self.free])

    def commit(self, ids: np.ndarray, slots: np.ndarray, crcs: np.ndarray) -> None:
        """Assigns the slots that :meth:`take` returned.

        The clients' earlier slots become free, unless a snapshot refers to them.

        Args:
          ids: int64[k], distinct clients.
          slots: int64[k], their rows' new slots.
          crcs: uint32[k], their rows' crc32.
        """
        before = self.find(ids)
        before = before[before >= 0]
        self.owner[before] = -1
        self.owner[slots] = ids
        self.crc[slots] = crcs
        self.free -= len(slots)
        self._release(before[~self.pinned[before]])
        self._enter(ids, slots)

    def grow(self, slots: int) -> None:
        """Extends the table to ``slots`` slots in total.

        The new ones are free; the lowest is used first.
        """
        have = len(self.owner)
        self.owner = _extended(self.owner, slots, -1)
        self.crc = _extended(self.crc, slots, 0)
        self.pinned = _extended(self.pinned, slots, False)
        self.stack = _extended(self.stack, slots, -1)
        self._release(np.arange(slots - 1, have - 1, -1))

    def live(self) -> np.ndarray:
        """Returns the slots of all present rows, int64[clients with a row], ascending."""
        return np.flatnonzero(self.owner >= 0)

    def in_use(self) -> int:
        """Returns the number of slots that hold a present row or one of a snapshot."""
        return int(np.count_nonzero(self.pinned | (self.owner >= 0)))

    def replace(self, ids: np.ndarray, slots: np.ndarray, crcs: np.ndarray) -> None:
        """Makes these rows the only present ones.

        The caller must call :meth:`pin` next, which recomputes the free slots.

        Args:
          ids, slots, crcs: as for :meth:`commit`.
        """
        self.blocks = np.zeros_like(self.blocks)
        self.pages = np.zeros((1, PAGE), np.int32)
        self.used = 1
        self.owner[:] = -1
        self.owner[slots] = ids
        self.crc[slots] = crcs
        self._enter(ids, slots)

    def pin(self, snapshots: Iterable[np.ndarray]) -> None:
        """Sets which slots snapshots refer to.

        All others without a present row become free; the lowest is used first.

        Args:
          snapshots: int64[k] of each snapshot, its slots. Those beyond the end of a truncated file
            are ignored.
        """
        self.pinned[:] = False
        for slots in snapshots:
            self.pinned[slots[slots < len(self.pinned)]] = True
        self.free = 0
        self._release(np.flatnonzero(~self.pinned & (self.owner < 0))[::-1])

    def _release(self, slots: np.ndarray) -> None:
        self.stack[self.free : self.free + len(slots)] = slots
        self.free += len(slots)

    def _enter(self, ids: np.ndarray, slots: np.ndarray) -> None:
        """Writes slots into the directory, with new pages where a block had none."""
        new = np.sort(ids[self.blocks[ids // PAGE] == 0] // PAGE)
        new = new[np.diff(new, prepend=-1) > 0]  # several times as fast as np.unique
        if self.used + len(new) > len(self.pages):
            self.pages = _extended(self.pages, 2 * (self.used + len(new)), 0)
        self.blocks[new] = self.used + np.arange(len(new))
        self.used += len(new)
        self.pages[self.blocks[ids // PAGE], ids % PAGE] = slots + 1


def _extended(array: np.ndarray, length: int, fill: int) -> np.ndarray:
    shape = (length, *array.shape[1:])
    # np.zeros touches no memory before it is written, np.full does
    longer = np.full(shape, fill, array.dtype) if fill else np.zeros(shape, array.dtype)
    longer[: len(array)] = array
    return longer
