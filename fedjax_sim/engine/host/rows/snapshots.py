"""Snapshots: files that say which client's row lies in which slot, each named by its round and its own crc32.

A line of JSON, the row of a client before its first round, and 16 bytes for each client that has a row: its number, its slot and the
crc32 of the row. So the checksum of this one file vouches for every row, also against a later row of the same client.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import zlib
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fedjax_sim.core import files
from fedjax_sim.core.errors import fail, require
from fedjax_sim.engine.host.rows import row_layout
from fedjax_sim.engine.host.rows.row_layout import Layout

ENTRY = np.dtype([("client", "<i8"), ("slot", "<u4"), ("crc", "<u4")])
FORMAT = 1
NAME = re.compile(r"round-(\d+)-([0-9a-f]{8})\.index")
PART = "index.part"
"""Where a snapshot is written before it has its name."""

ELSE = "go back to another checkpoint, or start the run anew"
"""What is left to do where a snapshot is lost."""

Description = dict[str, Any]


class Snapshot(NamedTuple):
    """What a snapshot's file says."""

    header: dict[str, Any]
    """``format``, ``round``, ``clients`` (N), ``count`` (clients with a row) and ``layout``."""
    default: np.ndarray
    """uint8[record]."""
    entries: np.ndarray
    """ENTRY[count]."""


def save(folder: Path, snapshot: Snapshot) -> Description:
    """Writes a snapshot, durably, and returns what :func:`load` needs. Whatever happens, the folder has all of it or nothing.

    Raises:
      OSError: where it cannot be written.
    """
    header = {"format": FORMAT, **snapshot.header}
    parts = [
        json.dumps(header).encode() + b"\n",
        snapshot.default.data,
        snapshot.entries.view(np.uint8).data,
    ]
    crc, size = 0, 0
    try:
        with open(folder / PART, "wb") as file:
            for part in parts:
                file.write(part)
                crc, size = zlib.crc32(part, crc), size + len(part)
            file.flush()
            os.fsync(file.fileno())
    except OSError:
        with contextlib.suppress(OSError):
            (folder / PART).unlink()
        raise
    name = f"round-{header['round']}-{crc:08x}.index"
    os.replace(folder / PART, folder / name)
    settle(folder)
    return {**header, "index": name, "crc32": crc, "bytes": size}


def load(folder: Path, description: Description) -> Snapshot:
    """The snapshot of a description.

    Raises:
      FedError: where its file is missing or is not what was written.
    """
    name = str(description.get("index")) if isinstance(description, dict) else ""
    if not NAME.fullmatch(name):
        fail(
            "this does not describe a snapshot of client memory",
            got=description,
            fix="give what snapshot returned",
        )
    try:
        content = files.content(folder / name)
    except OSError as error:
        fail("a snapshot of client memory cannot be read", got=error, fix=ELSE)
    if (len(content), zlib.crc32(content)) != (description.get("bytes"), description.get("crc32")):
        got = f"a wrong crc32 in {folder / name} ({len(content)} bytes, {description.get('bytes')} when it was written)"
        fail("a snapshot of client memory is damaged", got=got, fix=ELSE)
    return _parsed(content, folder / name)


def whole(folder: Path) -> dict[str, Snapshot]:
    """Every snapshot in a folder that is as it was written, by the name of its file."""
    found = {}
    for name, crc in names(folder).items():
        with contextlib.suppress(OSError):
            content = files.content(folder / name)
            if zlib.crc32(content) == crc:
                found[name] = _parsed(content, folder / name)
    return found


def fits(snapshot: Snapshot, layout: Layout, clients: int, path: Path) -> None:
    """Refuses a snapshot of other rows or of other clients.

    Raises:
      FedError: naming what differs.
    """
    row_layout.compare(layout, snapshot.header["layout"], path)
    there, do = (
        snapshot.header["clients"],
        "go on with the population that the run was started with, or choose another folder",
    )
    require(
        there == clients,
        "the client memory is of another population",
        got=f"{there} clients in {path}, {clients} here",
        fix=do,
    )
    ids, slots = snapshot.entries["client"], snapshot.entries["slot"]
    known = bool(np.all((ids >= 0) & (ids < clients))) and len(snapshot.default) == layout.record
    once = len(np.unique(ids)) == len(np.unique(slots)) == len(ids)
    require(
        known and once,
        "this is no snapshot of client memory",
        got=f"rows that are nobody's, or whose twice, in {path}",
        fix=ELSE,
    )


def names(folder: Path) -> dict[str, int]:
    """Names of snapshots' files, and their crc32."""
    matches = (NAME.fullmatch(path.name) for path in folder.iterdir())
    return {match[0]: int(match[2], 16) for match in matches if match}


def round_of(name: str) -> int:
    """The round of a snapshot's file."""
    match = NAME.fullmatch(name)
    return int(match[1]) if match else -1


def settle(folder: Path) -> None:
    """Makes the names in a folder durable, where a system lets us."""
    if os.name == "posix":
        number = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(number)
        finally:
            os.close(number)


def _parsed(content: bytes, path: Path) -> Snapshot:
    line, _, body = content.partition(b"\n")
    try:
        header = files.parsed(line)
        made = header["format"]
        formed = made != FORMAT or _formed(header, len(body))
    except (ValueError, KeyError, TypeError) as error:
        fail("this is no snapshot of client memory", got=f"{error!r} in {path}", fix=ELSE)
    if made != FORMAT:
        fail(
            "a snapshot of client memory has another format",
            got=f"{made} in {path}",
            fix=f"use what writes format {FORMAT}",
        )
    if not formed:
        fail("this is no snapshot of client memory", got=f"another header in {path}", fix=ELSE)
    split = len(body) - header["count"] * ENTRY.itemsize
    return Snapshot(
        header, np.frombuffer(body[:split], np.uint8), np.frombuffer(body[split:], ENTRY)
    )


def _formed(header: dict[str, Any], size: int) -> bool:
    """Whether a header is one that we may have written: a checksum is nothing that a stranger could not make, too."""
    numbers = all(type(header[name]) is int for name in ("round", "clients", "count"))
    leaves = all(
        len(leaf) == 3 and isinstance(leaf, list) for leaf in header["layout"]
    ) and isinstance(header["layout"], list)
    return numbers and leaves and 0 <= header["count"] * ENTRY.itemsize <= size
