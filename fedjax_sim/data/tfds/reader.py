"""Records of prepared TensorFlow Datasets, read without TensorFlow: through the data source of array_record or parquet files.

Nothing here ever asks the network: left to itself TFDS would retry an absent one for minutes, and its own builders need TensorFlow.
TFDS is imported only once there is something to read.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import logging
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fedjax_sim.core import files
from fedjax_sim.core.errors import fail, lookup, require, suggest
from fedjax_sim.data.tfds.catalogue import CATALOGUE, command

Key = str | tuple[str, ...]

_READERS = {"array_record": "array_record", "parquet": "pyarrow"}
"""Formats that need no TensorFlow, and the package that reads each."""
_BLOCK = 10_000
"""Records read in one call: several times faster than one by one, and little memory."""


class Feature(NamedTuple):
    """A feature that may lie inside others."""

    way: tuple[str, ...]
    shape: tuple[int | None, ...]
    """``None`` for an axis of any length."""


class TfdsSet(NamedTuple):
    """A prepared data set of TFDS."""

    folder: Path
    builder: Any
    features: dict[str, Feature]
    """By name; ``a/b`` is feature ``b`` of feature ``a``."""

    @property
    def name(self) -> str:
        """As TFDS calls it, without configuration and version."""
        return self.builder.info.name

    def classes(self, key: str) -> int | None:
        """How many labels a feature has, where the data set says so."""
        feature: Any = self.builder.info.features
        for name in self.features[key].way if key in self.features else ():
            feature = feature[name]
        return getattr(feature, "num_classes", None)


def open_tfds(source: str | Path, data_dir: str | Path | None = None) -> TfdsSet:
    """Opens a prepared data set, see :func:`locate`."""
    folder = locate(source, data_dir)
    import tensorflow_datasets as tfds  # a second or two, so only when there is something to read

    with _reading(folder):
        builder: Any = tfds.builder_from_directory(str(folder))
        return TfdsSet(folder, builder, dict(_features(builder.info.features.shape)))


def read_columns(data: TfdsSet, split: str, *keys: Key) -> list[list[Any]]:
    """The records of a split, as one list for each key.

    Args:
      data: what :func:`open_tfds` opened.
      split: a TFDS expression, such as ``"train"``, ``"train[:10%]"`` or ``"train+test"``.
      keys: features. A record's value is an array, a number, bytes (text) or a list; for a tuple of keys, an array of their values
        stacked along a new last axis.

    Raises:
      FedError: where a feature, the split or a file of it is missing.
    """
    ways = [
        [lookup("feature of the TFDS data set", name, data.features).way for name in _names(key)]
        for key in keys
    ]
    records = _records(data, split, {way[0] for each in ways for way in each})
    columns = [[] for _ in keys]
    for start in range(0, len(records), _BLOCK):
        with _reading(data.folder):
            block = records.__getitems__(range(start, min(start + _BLOCK, len(records))))
        for column, key, way in zip(columns, keys, ways, strict=True):
            parts = ([_at(record, each) for each in way] for record in block)
            column += [
                part[0] if isinstance(key, str) else np.stack(part, axis=-1) for part in parts
            ]
    return columns


def locate(source: str | Path, data_dir: str | Path | None = None) -> Path:
    """The folder that holds ``dataset_info.json``.

    Args:
      source: a folder, or one up to two levels above if it is the only data set below; or TFDS's name of a prepared set:
        ``"mnist"``, ``"emnist/byclass"``, ``"mnist:3.0.1"``. Of several versions the newest counts.
      data_dir: where names are looked for; by default ``$TFDS_DATA_DIR``, else ``~/tensorflow_datasets``, as TFDS has it.

    Raises:
      FedError: at once, where there is none, more than one, or its files cannot be read without TensorFlow.
    """
    home = Path(data_dir or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets").expanduser()
    places = [Path(source).expanduser(), home / str(source).replace(":", "/")]
    found = next(filter(None, map(_below, places)), [])
    if not found:
        fail(
            "no prepared TFDS data set",
            got=f"no dataset_info.json in {' or '.join(map(str, places))}",
            fix=_advice(source, data_dir),
            setting="source",
        )
    require(
        len(found) == 1,
        "several TFDS data sets",
        got=[str(path) for path in found],
        fix="name one of them",
    )
    _check_readable(found[0])
    return found[0]


def is_tfds(folder: str | Path) -> bool:
    """Whether there is a TFDS data set in a folder or below it."""
    return bool(_below(Path(folder).expanduser()))


def _below(root: Path) -> list[Path]:
    """Folders of data sets, the nearest ones only; of one data set's versions, the newest."""
    for pattern in ("", "*/", "*/*/"):
        found = [path.parent for path in root.glob(pattern + "dataset_info.json")]
        newest: dict[Path, Path] = {}
        for path in sorted(found, key=_version):
            newest[path.parent if _version(path) else path] = path
        if found:
            return sorted(newest.values())
    return []


def _version(folder: Path) -> tuple[int, ...]:
    return (
        tuple(map(int, folder.name.split(".")))
        if re.fullmatch(r"\d+\.\d+\.\d+", folder.name)
        else ()
    )


def _advice(source: str | Path, data_dir: str | Path | None) -> str:
    name, known = str(source), re.split("[/:]", str(source))[0] in CATALOGUE
    if not known and (
        isinstance(source, Path) or not re.fullmatch(r"\w+(/[\w.-]+)?(:[\d.]+)?", name)
    ):
        return "give the folder of a prepared one, or a name that `fedjax-sim list datasets` knows"
    where = None if data_dir is None else str(data_dir)
    spelt = "" if known else f"check the name ({suggest(name, CATALOGUE)}), or "
    return f"{spelt}prepare it once, on a machine with a network, with `{command(name, where)}` (reading needs no TensorFlow)"


def _check_readable(folder: Path) -> None:
    with _reading(folder):
        form = json.loads((folder / "dataset_info.json").read_text()).get("fileFormat", "tfrecord")
    do = "prepare it again with file_format='array_record'"
    require(
        form in _READERS,
        f"only {' and '.join(_READERS)} files can be read without TensorFlow",
        got=f"{form} in {folder}",
        fix=do,
    )
    reader = _READERS[form]
    there = importlib.util.find_spec(reader) is not None
    require(
        there,
        f"reading {form} files needs the package {reader}",
        got=f"none, for {folder}",
        fix=f"install it with `pip install {reader}`",
    )
    whole = (folder / "features.json").is_file()
    require(
        whole,
        "a TFDS data set needs its features.json",
        got=f"none in {folder}",
        fix="copy the whole folder, or prepare it again",
    )
    with _reading(folder):
        classes = list(_foreign(files.parse_json((folder / "features.json").read_bytes())))
    new = [
        name for name in classes if name.rpartition(".")[0] not in sys.modules
    ]  # which TFDS would import
    do = "import that class's module first, if you trust whoever wrote this folder"
    require(
        not new, "features must be of classes of TFDS's own", got=f"{new[:1]} in {folder}", fix=do
    )


def _foreign(value: Any) -> Iterator[str]:
    """The Python classes of somebody else's in what ``features.json`` says, of all ages: also in JSON that is a text in it."""
    if isinstance(value, str) and "{" in value:
        with contextlib.suppress(ValueError):
            yield from _foreign(files.parse_json(value))
    for inner in (
        value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    ):
        yield from _foreign(inner)
    if isinstance(value, dict):
        keys = ("pythonClassName", "python_class_name", *(("type",) if "content" in value else ()))
        names = (value[key] for key in keys if key in value)
        yield from (
            name
            for name in names
            if isinstance(name, str) and not name.startswith("tensorflow_datasets.")
        )


def _records(data: TfdsSet, split: str, wanted: set[str]) -> Any:
    """The data source of a split, without decoding images that nobody asked for."""
    import tensorflow_datasets as tfds

    info = data.builder.info
    for part in split.split("+"):
        name = part.split("[")[0].strip()
        parts = (
            info.splits
            if name == "all"
            else [lookup("split of the TFDS data set", name, info.splits) and name]
        )
        absent = [
            str(path) for each in parts for path in info.splits[each].filepaths if not path.exists()
        ]
        require(
            not absent,
            "a file of the TFDS data set is missing",
            got=absent[:1],
            fix="copy the whole folder, or prepare it again",
        )
    images = {
        name for name, feature in info.features.items() if isinstance(feature, tfds.features.Image)
    }
    with _reading(data.folder):
        records = data.builder.as_data_source(
            split=split, decoders={name: tfds.decode.SkipDecoding() for name in images - wanted}
        )
    require(
        len(records) > 0,
        "a split needs at least one record",
        got=f"none in {split} of {data.folder}",
        fix="choose another split",
    )
    return records


@contextlib.contextmanager
def _reading(folder: Path) -> Iterator[None]:
    """Says in a sentence that a folder is damaged, and spares the reader TFDS's advice to install OpenCV (it decodes a little faster)."""
    logger = logging.getLogger("absl")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    except Exception as error:  # of many kinds, by file format
        got = f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0][:200]}"
        fail(
            f"{folder} cannot be read",
            got=got,
            fix="choose another split, copy the whole folder, or prepare it again",
        )
    finally:
        logger.setLevel(before)


def _features(shape: Any, way: tuple[str, ...] = ()) -> Iterator[tuple[str, Feature]]:
    if not isinstance(shape, dict):
        yield "/".join(way), Feature(way, tuple(shape))
        return
    for name, inner in shape.items():
        yield from _features(inner, (*way, name))


def _names(key: Key) -> tuple[str, ...]:
    return (key,) if isinstance(key, str) else key


def _at(record: Any, way: tuple[str, ...]) -> Any:
    for name in way:
        record = record[name]
    return record
