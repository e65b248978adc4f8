"""Saves federations as prepared data sets."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from fedjax_sim.core.errors import fail
from fedjax_sim.data.federation import Federation
from fedjax_sim.data.prepared.card import CARD, FORMAT, VERSION, content
from fedjax_sim.data.prepared.columns import fresh_folder, write_text
from fedjax_sim.data.prepared.writer import Writer


def save(
    data: Federation,
    out: str | Path,
    *,
    name: str,
    source: str = "",
    classes: int | None = None,
    about: Mapping[str, Any] | None = None,
) -> Path:
    """Writes a federation as a folder that :func:`fedjax_sim.data.open_prepared` opens.

    The folder is complete or absent: an error leaves nothing behind. :func:`write_blocks` does the
    same for a federation that does not fit in memory.

    Args:
      data: the federation. ``x`` and ``y`` are arrays, or dictionaries, tuples and lists of them.
      out: the folder to write; must not exist.
      name: name of the data set.
      source: where the data set is from.
      classes: number of labels, if ``y`` is one array of integers; by default the largest label
        plus one.
      about: more entries for the card, such as the names of the classes; JSON data.

    Returns:
      The folder.

    Raises:
      FedError: as :func:`write_blocks`.

    Example:
      >>> import tempfile
      >>> import numpy as np
      >>> import fedjax_sim as fs
      >>> data = fs.data.from_arrays(np.zeros((4, 2)), np.arange(4) % 3, np.repeat([0, 1], 2))
      >>> with tempfile.TemporaryDirectory() as home:
      ...     folder = fs.data.save(data, f"{home}/toy", name="toy")
      ...     fs.data.read_card(folder)["classes"]
      3
    """
    return write_blocks([data], out, name=name, source=source, classes=classes, about=about)


def write_blocks(
    blocks: Iterable[Federation],
    out: str | Path,
    *,
    name: str,
    source: str = "",
    classes: int | None = None,
    about: Mapping[str, Any] | None = None,
) -> Path:
    """Writes a federation that is given in blocks of clients, so that it need not fit in memory.

    Memory holds one block, and 24 bytes for each client.

    Args:
      blocks: federations whose concatenation is written: their clients one after the other, each
        with its test examples if the block has any, and their ``global_test`` examples. All have
        the same structure, shapes and types. ``x`` and ``y`` are arrays, or dictionaries, tuples
        and lists of them.
      out: the folder to write; must not exist. While it is written it is called
        ``.<name>.partial``.
      name: name of the data set.
      source: where the data set is from.
      classes: number of labels, if ``y`` is one array of integers; by default the largest label
        plus one.
      about: more entries for the card, such as the names of the classes; JSON data.

    Returns:
      The folder.

    Raises:
      FedError: if ``out`` exists, the disk is full, blocks differ, a client has no example, a label
        is negative or not below ``classes``, or an example is not finite. Nothing is left behind.

    Example:
      >>> import tempfile
      >>> import numpy as np
      >>> import fedjax_sim as fs
      >>> def blocks():
      ...     for client in range(3):
      ...         yield fs.data.from_arrays(np.zeros((2, 5)), np.zeros(2), np.full(2, client))
      >>> with tempfile.TemporaryDirectory() as home:
      ...     folder = fs.data.write_blocks(blocks(), f"{home}/toy", name="toy")
      ...     fs.data.open_prepared(folder).train.clients
      3
    """
    out = Path(out).expanduser()
    _check_about(about)
    with fresh_folder(out) as part:
        with Writer(part, classes) as writer:
            for block in blocks:
                writer.add_block(block)
            facts, files = writer.finish()
        card = {
            "format": FORMAT,
            "version": VERSION,
            "name": name,
            "source": source,
            **facts,
            "about": dict(about or {}),
            "files": files,
        }
        card["content"] = content(card)
        write_text(part / CARD, json.dumps(card, indent=1, allow_nan=False) + "\n")
    return out


def _check_about(about: Mapping[str, Any] | None) -> None:
    try:
        json.dumps(about, allow_nan=False)
    except (TypeError, ValueError) as error:
        fail(
            "about must be JSON data",
            got=error,
            fix="use text, numbers, lists and dictionaries",
        )
