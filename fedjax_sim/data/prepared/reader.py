"""Prepared data sets: a federation as a folder of memory-mapped arrays, which opens in milliseconds whatever its size.

| file | holds |
|---|---|
| ``card.json`` | what this is: names, counts, types, and the size and hash of every other file |
| ``train.x.npy``, ``train.y.npy`` | the clients' examples, one after the other; ``train.x.0.npy``, ... where ``x`` has several leaves |
| ``train.offsets.npy`` | int64[N + 1], each client's first row |
| ``names.text.npy``, ``names.ends.npy`` | the clients' names in one UTF-8 buffer, and where each ends |
| ``test.*``, ``central.*`` | the same clients' test examples, and a test set that belongs to nobody |
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fedjax_sim.core import files
from fedjax_sim.core.errors import fail, require
from fedjax_sim.core.types import PyTree
from fedjax_sim.data.federation import Federation, federation
from fedjax_sim.data.population import Examples, Names, population
from fedjax_sim.data.prepared.columns import abandon, fresh_folder, sha256, write_text
from fedjax_sim.data.prepared.writer import (
    Form,
    add_block,
    close_writer,
    file_names,
    form,
    open_writer,
)

FORMAT, VERSION, CARD = "fedjax_sim prepared data", 1, "card.json"

Card = dict[str, Any]


# ---------------------------------------------------------------------------------------------------------------- writing


def save(
    data: Federation,
    out: str | Path,
    *,
    name: str,
    source: str = "",
    classes: int | None = None,
    about: Mapping[str, Any] | None = None,
) -> Path:
    """Writes a federation as a folder, complete or not there at all. See :func:`write_blocks`, of which this is the case of one block."""
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
    """Writes a federation that comes in blocks of clients, so that it need not fit in memory: what is kept is one block and 24 bytes
    a client.

    Args:
      blocks: federations, of which the whole is the concatenation: their clients one after the other, each with its test examples
        where the block has any, and their ``central`` examples. All have the same structure, shapes and types. ``x`` and ``y`` are
        arrays, or dictionaries, tuples and lists of them.
      out: the folder to write; must not exist. While it is written it is called ``.<name>.partial``.
      name: of the data set.
      source: where it is from.
      classes: how many labels there are, where ``y`` is one array of integers; otherwise one more than the largest.
      about: more for the card, such as the names of the classes; whatever JSON can say.

    Raises:
      FedError: in one sentence, with nothing left behind: where ``out`` exists, the disk is full, blocks differ, a client has no
        example, a label is negative or not below ``classes``, or an example is not finite.
    """
    out = Path(out).expanduser()
    _check_about(about)
    with fresh_folder(out) as part:
        writer = open_writer(part, classes)
        try:
            for block in blocks:
                add_block(writer, block)
            facts, files = close_writer(writer)
        finally:
            abandon(writer.columns.values())
        card = {
            "format": FORMAT,
            "version": VERSION,
            "name": name,
            "source": source,
            **facts,
            "about": dict(about or {}),
            "files": files,
        }
        write_text(
            part / CARD,
            json.dumps({**card, "content": content(card)}, indent=1, allow_nan=False) + "\n",
        )
    return out


# ---------------------------------------------------------------------------------------------------------------- reading


def is_prepared(directory: str | Path) -> bool:
    """Whether a folder looks like a prepared data set: it has a card of ours. Nothing else is looked at."""
    try:
        return (
            files.parse_json(files.read(Path(directory).expanduser() / CARD)).get("format") == FORMAT
        )
    except (OSError, ValueError, AttributeError):
        return False


def read_card(directory: str | Path) -> Card:
    """What ``card.json`` says.

    Raises:
      FedError: where there is none, it is damaged, or a newer version of this package wrote it.
    """
    folder = Path(directory).expanduser()
    path = folder / CARD
    require(
        path.is_file(),
        "no prepared data set",
        got=f"no {CARD} in {path.parent}",
        fix="make one with `fedjax-sim data prepare`",
    )
    do = "prepare the data set again with `fedjax-sim data prepare`"
    try:
        card = files.parse_json(path.read_bytes())
    except ValueError as error:
        fail(f"{path} is damaged", got=error, fix=do)
    ours = isinstance(card, dict) and card.get("format") == FORMAT
    require(
        ours,
        f"{path} is not the card of a prepared data set",
        got="another file of this name",
        fix="choose another folder",
    )
    new = f"version {card.get('version')} in {path.parent}"
    require(
        card.get("version") == VERSION,
        f"only version {VERSION} of prepared data can be read",
        got=new,
        fix=f"update fedjax-sim, or {do}",
    )
    missing = [
        key
        for key in ("clients", "named", "examples", "x", "y", "classes", "files", "content")
        if key not in card
    ]
    require(not missing, f"{path} is damaged", got=f"no {missing}", fix=do)
    odd = [key for key, formed in FORMED.items() if key in card and not formed(card[key])]
    require(
        not odd,
        f"{path} is damaged",
        got=", ".join(f"{key} = {str(card[key])[:60]!r}" for key in odd[:1]),
        fix=do,
    )
    return {"name": folder.name, "source": "", **card}


def _counts(value: Any) -> bool:
    return type(value) is int and 0 <= value < 2**63


def _is_form(of: Any) -> bool:
    """Whether this may say what an example is like: see :func:`fedjax_sim.data.prepared.writer.form`."""
    if not isinstance(of, dict):
        return False
    if "dtype" in of:
        shape = of.get("shape")
        return isinstance(of["dtype"], str) and isinstance(shape, list) and all(map(_counts, shape))
    inner = (
        list(of["dict"].values())
        if isinstance(of.get("dict"), dict)
        else of.get("tuple", of.get("list"))
    )
    return isinstance(inner, list) and all(map(_is_form, inner))


def _are_files(of: Any) -> bool:
    """Whether this may be the files of a folder, each with its size and hash."""
    return isinstance(of, dict) and all(
        name == Path(name).name
        and isinstance(about, dict)
        and _counts(about.get("bytes"))
        and isinstance(about.get("sha256"), str)
        for name, about in of.items()
    )


FORMED: dict[str, Callable[[Any], bool]] = {
    "name": lambda value: isinstance(value, str),
    "source": lambda value: isinstance(value, str),
    "clients": _counts,
    "examples": lambda value: isinstance(value, dict) and all(map(_counts, value.values())),
    "x": _is_form,
    "y": _is_form,
    "classes": lambda value: value is None or (_counts(value) and value > 0),
    "files": _are_files,
    "content": lambda value: isinstance(value, str),
}
"""What a card's entries must be like: nothing that follows looks whether somebody else wrote it."""


def open_prepared(directory: str | Path, verify: bool = False) -> Federation:
    """A prepared data set, memory-mapped: examples are read from disk when they are used.

    Args:
      directory: the folder.
      verify: also compare the hash of every file with the card's, which reads them all.

    Raises:
      FedError: where there is none, a file is missing, has another size than the card says or, if asked, other contents.
    """
    folder = Path(directory).expanduser()
    card = read_card(folder)
    _check_files(folder, card, verify)
    try:
        names = _names(folder) if card["named"] else None
        parts = {
            part: _part(folder, card, part) for part, count in card["examples"].items() if count
        }
        # Not ``*parts[...]``: Python takes the number of examples for that of the arguments, and makes room for them.
        train = population(parts["train"].x, parts["train"].y, _offsets(folder, "train"), names)
        test = (
            population(
                parts["test"].x, parts["test"].y, _offsets(folder, "test"), names, empty=True
            )
            if "test" in parts
            else None
        )
        return federation(train, test, parts.get("central"))
    except (KeyError, TypeError, ValueError, OSError, EOFError) as error:
        fail(
            f"{folder} is damaged: its card and its files disagree",
            got=error,
            fix="prepare the data set again with `fedjax-sim data prepare`",
        )


def _check_about(about: Mapping[str, Any] | None) -> None:
    try:
        json.dumps(about, allow_nan=False)
    except (TypeError, ValueError) as error:
        fail(
            "about must be what JSON can say",
            got=error,
            fix="use text, numbers, lists and dictionaries",
        )


def content(card: Card) -> str:
    """One hash over everything in a prepared data set but its name and the words about it: of equal data it is equal."""
    of = {
        "x": card["x"],
        "y": card["y"],
        "files": {name: about["sha256"] for name, about in card["files"].items()},
    }
    return hashlib.sha256(json.dumps(of, sort_keys=True).encode()).hexdigest()


def _check_files(folder: Path, card: Card, verify: bool) -> None:
    do = "copy or prepare the data set again"
    for name, about in card["files"].items():
        path = folder / name
        size = path.stat().st_size if path.is_file() else None
        got = "no such file" if size is None else f"{size} bytes"
        require(
            size == about["bytes"],
            f"{path} must have the {about['bytes']} bytes that its card says",
            got=got,
            fix=do,
        )
        if verify:
            found = sha256(path)
            require(
                found == about["sha256"],
                f"{path} is damaged: its sha256 must be {about['sha256'][:12]}...",
                got=f"{found[:12]}...",
                fix=do,
            )
    if verify:
        same = content(card) == card["content"]
        require(
            same,
            f"{folder / CARD} is damaged: its content hash must be {content(card)[:12]}...",
            got=f"{card['content'][:12]}...",
            fix=do,
        )


def _names(folder: Path) -> Names:
    names = Names(_load(folder, "names.text"), _load(folder, "names.ends"))
    if (names.text.ndim, names.text.dtype, names.ends.ndim, names.ends.dtype) != (
        1,
        np.uint8,
        1,
        np.int64,
    ):
        raise ValueError("names that are no text")
    return names


def _part(folder: Path, card: Card, part: str) -> Examples:
    return Examples(
        *(
            _tree(
                card[name],
                iter(_leaves(folder, f"{part}.{name}", card[name], card["examples"][part])),
            )
            for name in "xy"
        )
    )


def _leaves(folder: Path, stem: str, of: Form, rows: int) -> list[np.ndarray]:
    leaves = [_load(folder, name) for name in file_names(stem, of)]
    for name, leaf in zip(file_names(stem, of), leaves, strict=True):
        if len(leaf) != rows:
            raise ValueError(f"{len(leaf)} rows in {name}, not {rows}")
    return leaves


def _tree(of: Form, leaves: Iterator[np.ndarray]) -> PyTree:
    """The tree of that form, leaves in JAX's order."""
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


def _offsets(folder: Path, part: str) -> np.ndarray:
    """In memory: all are looked at at once, which a disk serves faster than page by page."""
    return np.load(folder / f"{part}.offsets.npy", allow_pickle=False)


def _load(folder: Path, name: str) -> np.ndarray:
    """A file as a plain array on mapped memory."""
    return np.asarray(np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False))
