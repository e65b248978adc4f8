"""Which client's row lies where: a directory of clients, and the account of the file's slots.

The directory has a number for every 16 clients, and a page of 16 slots for those of them where somebody has a row: for 1e8 clients
25 MB, of which the system hands out what is touched, and at most 64 bytes for each client that took part. A slot has its
client's number, its row's crc32, a mark and a place in the stack of free ones: 21 bytes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

import numpy as np

PAGE = 16
"""Clients in a page of the directory."""


@dataclasses.dataclass
class Ledger:
    """The account of one file of rows, changed in place by the functions of this module."""

    blocks: np.ndarray
    """int32[N / PAGE], the page of so many clients; 0 where none of them has a row."""
    pages: np.ndarray
    """int32[pages, PAGE], a client's slot and one; 0 where it has no row. Page 0 stays empty."""
    used: int
    """Pages in use, page 0 among them."""
    owner: np.ndarray
    """int64[slots], whose present row it is; -1 for nobody's."""
    crc: np.ndarray
    """uint32[slots], crc32 of that row."""
    pinned: np.ndarray
    """bool[slots], whether a snapshot refers to it."""
    stack: np.ndarray
    """int64[slots]: free slots, the next one last."""
    free: int
    """How many of the stack are."""


def open_ledger(clients: int) -> Ledger:
    """Of nobody's rows and no slots."""
    blocks, pages = np.zeros(clients // PAGE + 1, np.int32), np.zeros((1, PAGE), np.int32)
    none = np.zeros(0, np.int64)
    return Ledger(blocks, pages, 1, none, np.zeros(0, np.uint32), np.zeros(0, bool), none, 0)


def find(ledger: Ledger, ids: np.ndarray) -> np.ndarray:
    """int64[k]: the slots of these clients' rows, all of them of the population; -1 where one has none."""
    return ledger.pages[ledger.blocks[ids // PAGE], ids % PAGE].astype(np.int64) - 1


def take(ledger: Ledger, count: int) -> np.ndarray:
    """int64[count]: free slots, ascending. They stay free until :func:`commit`."""
    return np.sort(ledger.stack[ledger.free - count : ledger.free])


def commit(ledger: Ledger, ids: np.ndarray, slots: np.ndarray, crcs: np.ndarray) -> None:
    """These clients' rows are now in the slots that :func:`take` gave; where they were is free unless a snapshot needs it."""
    before = find(ledger, ids)
    before = before[before >= 0]
    ledger.owner[before] = -1
    ledger.owner[slots], ledger.crc[slots] = ids, crcs
    ledger.free -= len(slots)
    _release(ledger, before[~ledger.pinned[before]])
    _enter(ledger, ids, slots)


def grow(ledger: Ledger, slots: int) -> None:
    """So many slots in all; the new ones are free, the first of them next."""
    have = len(ledger.owner)
    ledger.owner = _longer(ledger.owner, slots, -1)
    ledger.crc, ledger.pinned = _longer(ledger.crc, slots, 0), _longer(ledger.pinned, slots, False)
    ledger.stack = _longer(ledger.stack, slots, -1)
    _release(ledger, np.arange(slots - 1, have - 1, -1))


def live(ledger: Ledger) -> np.ndarray:
    """int64[clients written]: the slots of all present rows, ascending."""
    return np.flatnonzero(ledger.owner >= 0)


def replace(ledger: Ledger, ids: np.ndarray, slots: np.ndarray, crcs: np.ndarray) -> None:
    """These are all the present rows. To be followed by :func:`pin`."""
    ledger.blocks = np.zeros_like(ledger.blocks)
    ledger.pages, ledger.used = np.zeros((1, PAGE), np.int32), 1
    ledger.owner[:] = -1
    ledger.owner[slots], ledger.crc[slots] = ids, crcs
    _enter(ledger, ids, slots)


def pin(ledger: Ledger, snapshots: Iterable[np.ndarray]) -> None:
    """Snapshots refer to these slots and no others; what is neither theirs nor a present row is free, the first slot next."""
    ledger.pinned[:] = False
    for slots in snapshots:
        ledger.pinned[slots[slots < len(ledger.pinned)]] = (
            True  # a file cut short has lost the others
        )
    ledger.free = 0
    _release(ledger, np.flatnonzero(~ledger.pinned & (ledger.owner < 0))[::-1])


def _release(ledger: Ledger, slots: np.ndarray) -> None:
    ledger.stack[ledger.free : ledger.free + len(slots)] = slots
    ledger.free += len(slots)


def _enter(ledger: Ledger, ids: np.ndarray, slots: np.ndarray) -> None:
    new = np.sort(ids[ledger.blocks[ids // PAGE] == 0] // PAGE)
    new = new[np.diff(new, prepend=-1) > 0]  # several times as fast as np.unique
    if ledger.used + len(new) > len(ledger.pages):
        ledger.pages = _longer(ledger.pages, 2 * (ledger.used + len(new)), 0)
    ledger.blocks[new] = ledger.used + np.arange(len(new))
    ledger.used += len(new)
    ledger.pages[ledger.blocks[ids // PAGE], ids % PAGE] = slots + 1


def _longer(array: np.ndarray, length: int, fill: int) -> np.ndarray:
    longer = (
        np.full((length, *array.shape[1:]), fill, array.dtype)
        if fill
        else np.zeros((length, *array.shape[1:]), array.dtype)
    )
    longer[: len(array)] = array
    return longer
