"""Snapshots: files that list which client's row lies in which slot. A file's name holds its round
and its own crc32.

A file is a line of JSON, the row of a client before its first round, and 16 bytes for each client
that has a row: its id, its slot and the crc32 of its row. So the checksum of this one file protects
every row, also against a later row of the same client.
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
"""Name of a snapshot's file until it is complete."""

RECOVERY = "restore another checkpoint, or start a new run"
"""Advice if a snapshot is lost."""

Description = dict[str, Any]


class Snapshot(NamedTuple):
    """The content of a snapshot's file."""

    header: dict[str, Any]
    """``format``, ``round``, ``clients`` (N), ``count`` (clients with a row) and ``layout``."""
    default: np.ndarray
    """uint8[record], the row of a client before its first round."""
    entries: np.ndarray
    """ENTRY[count]."""


def save(folder: Path, snapshot: Snapshot) -> Description:
    """Writes a snapshot durably.

    If the process or the disk fails, the folder has the complete file or none.

    Args:
      folder: where the file is written.
      snapshot: its content; ``format`` is added to the header.

    Returns:
      The description that :func:`load` needs: the header, and ``index`` (the file's name),
      ``crc32`` and ``bytes``.

    Raises:
      OSError: if the file cannot be written.
    """
    header = {"format": FORMAT, **snapshot.header}
    parts = [
        json.dumps(header).encode() + b"\n",
        snapshot.default.data,
        snapshot.entries.view(np.uint8).data,
    ]
    crc = 0
    size = 0
    try:
        with open(folder / PART, "wb") as file:
            for part in parts:
                file.write(part)
                crc = zlib.crc32(part, crc)
                size += len(part)
            file.flush()
            os.fsync(file.fileno())
    except OSError:
        with contextlib.suppress(OSError):
            (folder / PART).unlink()
        raise
    name = f"round-{header['round']}-{crc:08x}.index"
    os.replace(folder / PART, folder / name)
    sync_folder(folder)
    return {**header, "index": name, "crc32": crc, "bytes": size}


def load(folder: Path, description: Description) -> Snapshot:
    """Reads the snapshot of a description.

    Args:
      folder: where :func:`save` wrote it.
      description: what :func:`save` returned.

    Raises:
      FedError: if its file is missing or differs from what was written.
    """
    name = str(description.get("index")) if isinstance(description, dict) else ""
    if not NAME.fullmatch(name):
        fail(
            "this does not describe a snapshot of client memory",
            got=description,
            fix="give what snapshot returned",
        )
    try:
        content = files.read(folder / name)
    except OSError as error:
        fail("a snapshot of client memory cannot be read", got=error, fix=RECOVERY)
    if (len(content), zlib.crc32(content)) != (description.get("bytes"), description.get("crc32")):
        fail(
            "a snapshot of client memory is damaged",
            got=f"a wrong crc32 in {folder / name} ({len(content)} bytes, "
            f"{description.get('bytes')} when it was written)",
            fix=RECOVERY,
        )
    return _parse(content, folder / name)


def load_intact(folder: Path) -> dict[str, Snapshot]:
    """Returns every undamaged snapshot of a folder, by the name of its file."""
    found = {}
    for name, crc in list_files(folder).items():
        with contextlib.suppress(OSError):
            content = files.read(folder / name)
            if zlib.crc32(content) == crc:
                found[name] = _parse(content, folder / name)
    return found


def check_fits(snapshot: Snapshot, layout: Layout, clients: int, path: Path) -> None:
    """Checks that a snapshot has this layout and this population, and that its entries are valid.

    Args:
      snapshot: the content of the file.
      layout: the layout of this configuration.
      clients: N of this configuration.
      path: the file, for error messages.

    Raises:
      FedError: naming what differs.
    """
    row_layout.compare(layout, snapshot.header["layout"], path)
    require(
        snapshot.header["clients"] == clients,
        "the client memory is of another population",
        got=f"{snapshot.header['clients']} clients in {path}, {clients} here",
        fix="continue with the population that the run was started with, or choose another folder",
    )
    ids = snapshot.entries["client"]
    slots = snapshot.entries["slot"]
    known = bool(np.all((ids >= 0) & (ids < clients))) and len(snapshot.default) == layout.record
    once = len(np.unique(ids)) == len(np.unique(slots)) == len(ids)
    require(
        known and once,
        "this is not a snapshot of client memory",
        got=f"entries with unknown or repeated clients or slots in {path}",
        fix=RECOVERY,
    )


def list_files(folder: Path) -> dict[str, int]:
    """Returns the crc32 of every snapshot's file, as its name gives it, by that name."""
    matches = (NAME.fullmatch(path.name) for path in folder.iterdir())
    return {match[0]: int(match[2], 16) for match in matches if match}


def round_of(name: str) -> int:
    """Returns the round in the name of a snapshot's file; -1 for another name."""
    match = NAME.fullmatch(name)
    return int(match[1]) if match else -1


def sync_folder(folder: Path) -> None:
    """Flushes a folder's entries to disk, on systems that can."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _parse(content: bytes, path: Path) -> Snapshot:
    line, _, body = content.partition(b"\n")
    try:
        header = files.parse_json(line)
        version = header["format"]
        valid = version != FORMAT or _is_valid(header, len(body))
    except (ValueError, KeyError, TypeError) as error:
        fail("this is not a snapshot of client memory", got=f"{error!r} in {path}", fix=RECOVERY)
    if version != FORMAT:
        fail(
            "a snapshot of client memory has another format",
            got=f"{version} in {path}",
            fix=f"use the version of fedjax_sim that writes format {FORMAT}",
        )
    if not valid:
        fail(
            "this is not a snapshot of client memory",
            got=f"an invalid header in {path}",
            fix=RECOVERY,
        )
    split = len(body) - header["count"] * ENTRY.itemsize
    default = np.frombuffer(body[:split], np.uint8)
    return Snapshot(header, default, np.frombuffer(body[split:], ENTRY))


def _is_valid(header: dict[str, Any], size: int) -> bool:
    """Checks types and sizes in a header, which may be forged with a correct crc32."""
    numbers = all(type(header[name]) is int for name in ("round", "clients", "count"))
    leaves = all(
        len(leaf) == 3 and isinstance(leaf, list) for leaf in header["layout"]
    ) and isinstance(header["layout"], list)
    return numbers and leaves and 0 <= header["count"] * ENTRY.itemsize <= size
