"""Reads prepared TensorFlow Datasets without TensorFlow, from array_record or parquet files.

Nothing here uses the network: TFDS by itself would retry a missing one for minutes, and its
builders need TensorFlow. TFDS is imported only when there is something to read.
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
"""File formats that need no TensorFlow, and the package that reads each."""
_BLOCK = 10_000
"""Records read in one call, which is several times faster than one by one and needs little
memory."""


class Feature(NamedTuple):
    """A feature, possibly nested in others."""

    path: tuple[str, ...]
    """Keys from the record to the feature."""
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
        """TFDS's name, without configuration and version."""
        return self.builder.info.name

    def classes(self, key: str) -> int | None:
        """Returns the number of labels of a feature; ``None`` if the data set does not state it.

        Args:
          key: the feature's name.
        """
        feature: Any = self.builder.info.features
        for name in self.features[key].path if key in self.features else ():
            feature = feature[name]
        return getattr(feature, "num_classes", None)


def open_tfds(source: str | Path, data_dir: str | Path | None = None) -> TfdsSet:
    """Opens a prepared data set of TFDS.

    Args:
      source: a folder or TFDS's name, see :func:`locate`.
      data_dir: folder of TFDS's data sets, see :func:`locate`.

    Raises:
      FedError: if there is no such data set, or it cannot be read without TensorFlow.

    Example:
      >>> import fedjax_sim as fs
      >>> fs.data.open_tfds("no/such/folder/at/all")
      Traceback (most recent call last):
      fedjax_sim.core.errors.FedError: no prepared TFDS data set: got no dataset_info.json in ...
    """
    folder = locate(source, data_dir)
    import tensorflow_datasets as tfds  # a second or two, so only when there is something to read

    with _reading(folder):
        builder: Any = tfds.builder_from_directory(str(folder))
        return TfdsSet(folder, builder, dict(_features(builder.info.features.shape)))


def read_columns(data: TfdsSet, split: str, *keys: Key) -> list[list[Any]]:
    """Reads the records of a split.

    Args:
      data: the result of :func:`open_tfds`.
      split: a TFDS expression, such as ``"train"``, ``"train[:10%]"`` or ``"train+test"``.
      *keys: features. A record's value is an array, a number, bytes (text) or a list; for a tuple
        of keys, an array of their values stacked along a new last axis.

    Returns:
      One list for each key, with one value for each record.

    Raises:
      FedError: if a feature, the split or a file of it is missing.

    Example:
      >>> import fedjax_sim as fs
      >>> data = fs.data.open_tfds("mnist")  # doctest: +SKIP
      >>> images, labels = fs.data.read_columns(data, "test", "image", "label")  # doctest: +SKIP
    """
    paths = [
        [lookup("feature of the TFDS data set", name, data.features).path for name in _names(key)]
        for key in keys
    ]
    records = _records(data, split, {path[0] for group in paths for path in group})
    columns = [[] for _ in keys]
    for start in range(0, len(records), _BLOCK):
        with _reading(data.folder):
            block = records.__getitems__(range(start, min(start + _BLOCK, len(records))))
        for column, key, group in zip(columns, keys, paths, strict=True):
            values = ([_value(record, path) for path in group] for record in block)
            column += [
                value[0] if isinstance(key, str) else np.stack(value, axis=-1) for value in values
            ]
    return columns


def locate(source: str | Path, data_dir: str | Path | None = None) -> Path:
    """Returns the folder that holds ``dataset_info.json``.

    Args:
      source: that folder, or a folder up to two levels above it if there is no other data set
        below; or TFDS's name of a prepared data set: ``"mnist"``, ``"emnist/byclass"``,
        ``"mnist:3.0.1"``. Of several versions the newest is used.
      data_dir: folder in which names are looked up; by default ``$TFDS_DATA_DIR``, otherwise
        ``~/tensorflow_datasets``, as in TFDS.

    Raises:
      FedError: if there is no such data set, more than one, or its files cannot be read without
        TensorFlow.
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
    """Whether there is a TFDS data set in a folder or up to two levels below it.

    Args:
      folder: the folder; need not exist.

    Example:
      >>> import fedjax_sim as fs
      >>> fs.data.is_tfds("no-such-folder")
      False
    """
    return bool(_below(Path(folder).expanduser()))


def _below(root: Path) -> list[Path]:
    """Returns the folders of the nearest data sets; of a data set's versions, the newest."""
    for pattern in ("", "*/", "*/*/"):
        found = [path.parent for path in root.glob(pattern + "dataset_info.json")]
        newest: dict[Path, Path] = {}
        for path in sorted(found, key=_version):
            newest[path.parent if _version(path) else path] = path
        if found:
            return sorted(newest.values())
    return []


def _version(folder: Path) -> tuple[int, ...]:
    if not re.fullmatch(r"\d+\.\d+\.\d+", folder.name):
        return ()
    return tuple(map(int, folder.name.split(".")))


def _advice(source: str | Path, data_dir: str | Path | None) -> str:
    name = str(source)
    known = re.split("[/:]", name)[0] in CATALOGUE
    is_name = re.fullmatch(r"\w+(/[\w.-]+)?(:[\d.]+)?", name) and not isinstance(source, Path)
    if not known and not is_name:
        return "give the folder of a prepared one, or a name that `fedjax-sim list datasets` knows"
    check = "" if known else f"check the name ({suggest(name, CATALOGUE)}), or "
    prepare = command(name, None if data_dir is None else str(data_dir))
    return (
        f"{check}prepare it once, on a machine with a network, with `{prepare}` "
        "(reading needs no TensorFlow)"
    )


def _check_readable(folder: Path) -> None:
    with _reading(folder):
        form = json.loads((folder / "dataset_info.json").read_text()).get("fileFormat", "tfrecord")
    require(
        form in _READERS,
        f"only {' and '.join(_READERS)} files can be read without TensorFlow",
        got=f"{form} in {folder}",
        fix="prepare it again with file_format='array_record'",
    )
    reader = _READERS[form]
    require(
        importlib.util.find_spec(reader) is not None,
        f"reading {form} files needs the package {reader}",
        got=f"none, for {folder}",
        fix=f"install it with `pip install {reader}`",
    )
    require(
        (folder / "features.json").is_file(),
        "a TFDS data set needs its features.json",
        got=f"none in {folder}",
        fix="copy the whole folder, or prepare it again",
    )
    _check_classes(folder)


def _check_classes(folder: Path) -> None:
    """Requires all features to be of classes that are loaded; TFDS would import others."""
    with _reading(folder):
        classes = list(_foreign(files.parse_json((folder / "features.json").read_bytes())))
    new = [name for name in classes if name.rpartition(".")[0] not in sys.modules]
    require(
        not new,
        "features must be of TFDS's own classes",
        got=f"{new[:1]} in {folder}",
        fix="import that class's module first, if you trust the author of this folder",
    )


def _foreign(value: Any) -> Iterator[str]:
    """Yields the names of Python classes outside TFDS in ``features.json``.

    Args:
      value: contents of the file, in any of TFDS's versions of it; JSON within a text counts too.
    """
    if isinstance(value, str) and "{" in value:
        with contextlib.suppress(ValueError):
            yield from _foreign(files.parse_json(value))
    if isinstance(value, list):
        for inner in value:
            yield from _foreign(inner)
    if isinstance(value, dict):
        for inner in value.values():
            yield from _foreign(inner)
        keys = ("pythonClassName", "python_class_name", *(("type",) if "content" in value else ()))
        for name in (value[key] for key in keys if key in value):
            if isinstance(name, str) and not name.startswith("tensorflow_datasets."):
                yield name


def _records(data: TfdsSet, split: str, wanted: set[str]) -> Any:
    """Returns the data source of a split; images that are not read are not decoded.

    Args:
      data: the data set.
      split: a TFDS expression.
      wanted: top-level features that will be read.
    """
    import tensorflow_datasets as tfds

    info = data.builder.info
    _check_split_files(info.splits, split)
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


def _check_split_files(splits: Any, split: str) -> None:
    for part in split.split("+"):
        name = part.split("[")[0].strip()
        if name == "all":
            names = list(splits)
        else:
            lookup("split of the TFDS data set", name, splits)
            names = [name]
        absent = [str(path) for key in names for path in splits[key].filepaths if not path.exists()]
        require(
            not absent,
            "a file of the TFDS data set is missing",
            got=absent[:1],
            fix="copy the whole folder, or prepare it again",
        )


@contextlib.contextmanager
def _reading(folder: Path) -> Iterator[None]:
    """Converts any error in the block into a :class:`FedError` about a damaged folder.

    Warnings are hidden: TFDS advises to install OpenCV, which decodes images slightly faster.

    Args:
      folder: the data set's folder, for the error.
    """
    logger = logging.getLogger("absl")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    except Exception as error:  # the type depends on the file format
        first_line = (str(error).strip().splitlines() or [""])[0]
        fail(
            f"{folder} cannot be read",
            got=f"{type(error).__name__}: {first_line[:200]}",
            fix="choose another split, copy the whole folder, or prepare it again",
        )
    finally:
        logger.setLevel(before)


def _features(shape: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, Feature]]:
    if not isinstance(shape, dict):
        yield "/".join(path), Feature(path, tuple(shape))
        return
    for name, inner in shape.items():
        yield from _features(inner, (*path, name))


def _names(key: Key) -> tuple[str, ...]:
    return (key,) if isinstance(key, str) else key


def _value(record: Any, path: tuple[str, ...]) -> Any:
    for name in path:
        record = record[name]
    return record
