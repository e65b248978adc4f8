"""Opens prepared data sets: a folder of memory-mapped arrays opens in milliseconds at any size.

| file | holds |
|---|---|
| ``card.json`` | names, counts, types, and the size and hash of every other file |
| ``train.x.npy``, ``train.y.npy`` | the clients' examples, one client after the other; \
``train.x.0.npy``, ... where ``x`` has several leaves |
| ``train.offsets.npy`` | int64[N + 1], each client's first row |
| ``names.text.npy``, ``names.ends.npy`` | the clients' names in one UTF-8 buffer, and their ends |
| ``test.*`` | test examples of the same clients |
| ``central.*`` | the global test set, whose examples have no owner |
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from fedjax_sim.core import files
from fedjax_sim.core.errors import fail, require
from fedjax_sim.core.types import PyTree
from fedjax_sim.data.federation import Federation, federation
from fedjax_sim.data.population import Examples, Names, Population, population
from fedjax_sim.data.prepared.card import (
    CARD,
    FORMAT,
    REQUIRED,
    VERSION,
    Card,
    content,
    malformed,
)
from fedjax_sim.data.prepared.columns import sha256
from fedjax_sim.data.prepared.writer import Form, file_names, form

PREPARE_AGAIN = "prepare the data set again with `fedjax-sim data prepare`"


def is_prepared(directory: str | Path) -> bool:
    """Whether a folder has the card of a prepared data set; nothing else is checked.

    Args:
      directory: the folder; need not exist.

    Example:
      >>> import fedjax_sim as fs
      >>> fs.data.is_prepared("no-such-folder")
      False
    """
    path = Path(directory).expanduser() / CARD
    try:
        return files.parse_json(files.read(path)).get("format") == FORMAT
    except (OSError, ValueError, AttributeError):
        return False


def read_card(directory: str | Path) -> Card:
    """Returns the entries of ``card.json``.

    Args:
      directory: the folder of a prepared data set.

    Raises:
      FedError: if there is no card, it is damaged, or a newer version of this package wrote it.

    Example:
      >>> import tempfile
      >>> import numpy as np
      >>> import fedjax_sim as fs
      >>> data = fs.data.from_arrays(np.zeros((4, 2)), np.zeros(4), np.arange(4))
      >>> with tempfile.TemporaryDirectory() as home:
      ...     card = fs.data.read_card(fs.data.save(data, f"{home}/toy", name="toy"))
      >>> card["name"], card["clients"], card["x"]
      ('toy', 4, {'dtype': 'float64', 'shape': [2]})
    """
    folder = Path(directory).expanduser()
    path = folder / CARD
    require(
        path.is_file(),
        "no prepared data set",
        got=f"no {CARD} in {path.parent}",
        fix="make one with `fedjax-sim data prepare`",
    )
    try:
        card = files.parse_json(path.read_bytes())
    except ValueError as error:
        fail(f"{path} is damaged", got=error, fix=PREPARE_AGAIN)
    _check_card(path, card)
    return {"name": folder.name, "source": "", **card}


def _check_card(path: Path, card: Card) -> None:
    require(
        isinstance(card, dict) and card.get("format") == FORMAT,
        f"{path} is not the card of a prepared data set",
        got="another file of this name",
        fix="choose another folder",
    )
    require(
        card.get("version") == VERSION,
        f"only version {VERSION} of prepared data can be read",
        got=f"version {card.get('version')} in {path.parent}",
        fix=f"update fedjax-sim, or {PREPARE_AGAIN}",
    )
    missing = [key for key in REQUIRED if key not in card]
    require(not missing, f"{path} is damaged", got=f"no {missing}", fix=PREPARE_AGAIN)
    wrong = malformed(card)
    require(
        not wrong,
        f"{path} is damaged",
        got=", ".join(f"{key} = {str(card[key])[:60]!r}" for key in wrong[:1]),
        fix=PREPARE_AGAIN,
    )


def open_prepared(directory: str | Path, verify: bool = False) -> Federation:
    """Opens a prepared data set; examples are read from disk when they are used.

    Args:
      directory: the folder.
      verify: also compare the hash of every file with the card's, which reads all files.

    Returns:
      A federation whose arrays are read-only and memory-mapped.

    Raises:
      FedError: if there is no data set, or a file is missing, has another size than the card
        states, or, with ``verify``, other contents.

    Example:
      >>> import tempfile
      >>> import numpy as np
      >>> import fedjax_sim as fs
      >>> data = fs.data.from_arrays(np.zeros((4, 2)), np.arange(4), np.repeat(["a", "b"], 2))
      >>> with tempfile.TemporaryDirectory() as home:
      ...     folder = fs.data.save(data, f"{home}/toy", name="toy")
      ...     train = fs.data.open_prepared(folder, verify=True).train
      ...     train.names[0], train.sizes.tolist(), train.y.tolist()
      ('a', [2, 2], [0, 1, 2, 3])
    """
    folder = Path(directory).expanduser()
    card = read_card(folder)
    _check_files(folder, card, verify)
    try:
        names = _names(folder) if card["named"] else None
        parts = {
            part: _part(folder, card, part) for part, count in card["examples"].items() if count
        }
        train = _population(folder, "train", parts["train"], names)
        test = None
        if "test" in parts:
            test = _population(folder, "test", parts["test"], names, empty=True)
        return federation(train, test, parts.get("central"))
    except (KeyError, TypeError, ValueError, OSError, EOFError) as error:
        fail(
            f"{folder} is damaged: its card and its files disagree",
            got=error,
            fix=PREPARE_AGAIN,
        )


def _check_files(folder: Path, card: Card, verify: bool) -> None:
    fix = "copy or prepare the data set again"
    for name, about in card["files"].items():
        path = folder / name
        size = path.stat().st_size if path.is_file() else None
        require(
            size == about["bytes"],
            f"{path} must have the {about['bytes']} bytes that its card states",
            got="no such file" if size is None else f"{size} bytes",
            fix=fix,
        )
        if verify:
            _check_hash(path, sha256(path), about["sha256"], "sha256", fix)
    if verify:
        _check_hash(folder / CARD, card["content"], content(card), "content hash", fix)


def _check_hash(path: Path, got: str, expected: str, what: str, fix: str) -> None:
    require(
        got == expected,
        f"{path} is damaged: its {what} must be {expected[:12]}...",
        got=f"{got[:12]}...",
        fix=fix,
    )


def _names(folder: Path) -> Names:
    names = Names(_load(folder, "names.text"), _load(folder, "names.ends"))
    types = (names.text.ndim, names.text.dtype, names.ends.ndim, names.ends.dtype)
    if types != (1, np.uint8, 1, np.int64):
        raise ValueError("names that are no text")
    return names


def _population(
    folder: Path, part: str, examples: Examples, names: Names | None, empty: bool = False
) -> Population:
    # Offsets are read into memory: all of them are checked at once, which a disk serves faster than
    # page by page. ``*examples`` is avoided: its length is the number of examples, and Python would
    # reserve that many arguments.
    offsets = np.load(folder / f"{part}.offsets.npy", allow_pickle=False)
    return population(examples.x, examples.y, offsets, names, empty=empty)


def _part(folder: Path, card: Card, part: str) -> Examples:
    rows = card["examples"][part]
    leaves = {name: _leaves(folder, f"{part}.{name}", card[name], rows) for name in "xy"}
    return Examples(_tree(card["x"], iter(leaves["x"])), _tree(card["y"], iter(leaves["y"])))


def _leaves(folder: Path, stem: str, of: Form, rows: int) -> list[np.ndarray]:
    leaves = [_load(folder, name) for name in file_names(stem, of)]
    for name, leaf in zip(file_names(stem, of), leaves, strict=True):
        if len(leaf) != rows:
            raise ValueError(f"{len(leaf)} rows in {name}, not {rows}")
    return leaves


def _tree(of: Form, leaves: Iterator[np.ndarray]) -> PyTree:
    """Builds the tree of a form from its leaves in JAX's order."""
    if "dict" in of:
        return {key: _tree(of["dict"][key], leaves) for key in sorted(of["dict"])}
    if "tuple" in of:
        return tuple(_tree(item, leaves) for item in of["tuple"])
    if "list" in of:
        return [_tree(item, leaves) for item in of["list"]]
    leaf = next(leaves)
    if form(leaf) != of:
        raise ValueError(f"{form(leaf)}, not {of}")
    return leaf


def _load(folder: Path, name: str) -> np.ndarray:
    # A plain array on mapped memory, not a np.memmap.
    return np.asarray(np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False))
