"""The registered formats of federated data, and the choice of a reader."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from fedjax_sim.core import registry
from fedjax_sim.core.errors import fail, lookup, suggest
from fedjax_sim.data.sources import existing, generated, h5, images, leaf, npz, sqlite, table
from fedjax_sim.data.sources.base import SourceData


class Reader(NamedTuple):
    """The reader of a format."""

    summary: str
    """Description of the format, in one line."""
    matches: Callable[[Path], bool]
    """``path -> bool``: whether a path has this format. It reads at most the first bytes."""
    read: Callable[..., SourceData]
    """``(path, *, ...) -> SourceData``."""


registry.declare(registry.Kind("source", "sources", "a format of federated data", is_factory=False))
for name, reader in {
    "generated": Reader(
        "random clients; the source is the word generated",
        generated.matches,
        generated.read,
    ),
    "prepared": Reader(
        "a folder that `fedjax-sim data prepare` wrote, to be partitioned or split again",
        existing.matches_prepared,
        existing.read_prepared,
    ),
    "tfds": Reader(
        "a folder of TensorFlow Datasets, in array_record or parquet files",
        existing.matches_tfds,
        existing.read_tfds,
    ),
    "leaf": Reader("LEAF's JSON files, or a folder with train/ and test/", leaf.matches, leaf.read),
    "fedjax": Reader("FedJAX's SQLite file", sqlite.matches_fedjax, sqlite.read_fedjax),
    "tff_sqlite": Reader("TensorFlow Federated's SQLite file", sqlite.matches_tff, sqlite.read_tff),
    "tff_h5": Reader("TensorFlow Federated's HDF5 file", h5.matches, h5.read),
    "npz": Reader("numpy arrays x, y and, with clients, client", npz.matches, npz.read),
    "csv": Reader("a table of comma- or tab-separated values", table.matches, table.read),
    "images": Reader(
        "a folder of images for each class, or one for each class of each client",
        images.matches,
        images.read,
    ),
}.items():
    registry.register("source", name, reader, card=reader.summary)

REGISTRY = registry.records("source")
"""Readers by name. The first that matches a path reads it."""


def choose(source: str | Path, form: str | None = None) -> tuple[str, Reader]:
    """Returns the name of a format and its reader.

    Args:
      source: path of a file or folder, or the word ``generated``.
      form: name of the format; by default the first format that the path has.

    Raises:
      FedError: if the source does not exist, or has no registered format.

    Example:
      >>> from fedjax_sim.data.sources import choose
      >>> name, reader = choose("generated")
      >>> name, reader.summary
      ('generated', 'random clients; the source is the word generated')
    """
    path = Path(source).expanduser()
    if form is not None:
        return form, lookup("format", form, REGISTRY)
    for name, reader in REGISTRY.items():
        if reader.matches(path):
            return name, reader
    if not path.exists():
        fail(
            "the source must exist",
            got=path,
            fix="give the path of a file or folder, or the word generated",
        )
    fail(
        "the source has no known format",
        got=path,
        fix=f"name its format with --format ({suggest('', REGISTRY)})",
    )
