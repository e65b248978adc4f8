"""Numpy archives. Nothing in them is ever unpickled.

Plain: ``x``, ``y`` and, where examples have clients, ``client`` (or ``writer``, ``user``, ``subject``); each may be two arrays, with
``_train`` and ``_test`` at the end of their names. Two other layouts are known: windows of sensors by subject (``x_i16``, ``subject``,
``official_test``) and lines of text by role (``text_utf8``, ``offsets``, ``role``, ``role_names``).
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fedjax_sim.core.errors import fail, require
from fedjax_sim.data.federation import Federation
from fedjax_sim.data.population import Examples, Population, by_client, population
from fedjax_sim.data.sources.base import Found, aligned, as_split, labels, numbers, shaped

OWNERS = ("client", "writer", "user", "subject")
"""What the array that says whose an example is may be called."""

Arrays = dict[str, np.ndarray]


class Part(NamedTuple):
    """Examples of a split, in any order."""

    x: np.ndarray
    y: np.ndarray
    client: np.ndarray | None


def matches(path: Path) -> bool:
    """A file called ``.npz``."""
    return path.is_file() and path.suffix == ".npz"


def read(
    path: Path,
    *,
    x: str = "x",
    y: str = "y",
    client: str = "",
    shape: tuple[int, ...] = (),
    merge: bool = False,
) -> Found:
    """Arrays by name; pictures without channels (uint8 ``[n, h, w]``) get one.

    Args:
      path: the file.
      x: name of the array that becomes ``x``, without ``_train``.
      y: as ``x``, of the labels.
      client: as ``x``, of the clients; by default the first of client, writer, user and subject that there is.
      shape: of one example.
      merge: whether test examples join the others, instead of staying apart.
    """
    arrays = load(path)
    if {"text_utf8", "offsets", "role", "role_names"} <= set(arrays):
        return _roles(arrays)
    split = (
        _sensors
        if {"x_i16", "subject", "official_test"} <= set(arrays)
        else _plain(path, x, y, client)
    )
    train, test = split(arrays)
    if merge and test is not None:
        train, test = _merged(train, test), None
    train, test = (part and part._replace(x=shaped(part.x, shape)) for part in (train, test))
    return _found(
        train,
        test,
        client
        or next((name for name in OWNERS for array in arrays if array.startswith(name)), "client"),
    )


def load(path: Path) -> Arrays:
    """All arrays of an archive.

    Raises:
      FedError: where it is no archive, is damaged, or holds pickled objects.
    """
    do = "give the path of an .npz file that numpy.savez wrote"
    require(
        path.is_file() and zipfile.is_zipfile(path),
        "an .npz file is a zip archive",
        got=path,
        fix=do,
    )
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError) as error:
        fail(f"{path} is damaged", got=error, fix=do)
    except ValueError as error:
        pickled = "pickle" in str(error)
        got = "pickled objects, which could run anything" if pickled else error
        fail(f"{path} must hold plain arrays", got=got, fix="save it again with arrays of numbers")


def _plain(path: Path, x: str, y: str, client: str) -> Callable[[Arrays], tuple[Part, Part | None]]:
    def split(arrays: Arrays) -> tuple[Part, Part | None]:
        ending = "" if x in arrays and y in arrays else "_train"
        missing = [name for name in (x + ending, y + ending) if name not in arrays]
        if missing:
            do = f"say which arrays with x= and y=, of {', '.join(sorted(arrays))}"
            fail(
                f"{path.name} needs the arrays {x} and {y}, or {x}_train and {y}_train",
                got=f"no {missing[0]}",
                fix=do,
            )
        test = (
            _part(arrays, x, y, client, "_test")
            if {f"{x}_test", f"{y}_test"} <= set(arrays)
            else None
        )
        return _part(arrays, x, y, client, ending), test

    return split


def _part(arrays: Arrays, x: str, y: str, client: str, ending: str) -> Part:
    known = [name + ending for name in ((client,) if client else OWNERS)]
    owner = next((name for name in known if name in arrays), None)
    absent = bool(client) and owner is None and ending != "_test"
    require(
        not absent,
        "no array says whose an example is",
        got=f"none called {known[0]}",
        fix=f"choose client= of {', '.join(sorted(arrays))}",
    )
    pixels, found = numbers(arrays[x + ending], x + ending), labels(arrays[y + ending], y + ending)
    lengths = {name: len(arrays[name]) for name in (x + ending, y + ending, owner) if name}
    require(
        len(set(lengths.values())) == 1,
        "arrays of examples must be equally long",
        got=lengths,
        fix="mend the file",
    )
    picture = pixels.dtype == np.uint8 and pixels.ndim == 3
    return Part(pixels[..., None] if picture else pixels, found, arrays[owner] if owner else None)


def _sensors(arrays: Arrays) -> tuple[Part, Part | None]:
    """Windows int16 ``[n, channels, time]`` of 1/4096 as float32 ``[n, time, channels]``; the official test subjects apart."""
    x = np.ascontiguousarray(arrays["x_i16"].swapaxes(1, 2)) / np.float32(4096)
    y, test = labels(arrays["y"], "y"), arrays["official_test"]
    train, held = (Part(x[rows], y[rows], arrays["subject"][rows]) for rows in (~test, test))
    return train, held


def _roles(arrays: Arrays) -> Found:
    """A role's lines, joined by newlines in their order: one byte an example, and no labels."""
    text, offsets, role = arrays["text_utf8"], arrays["offsets"], arrays["role"]
    good = (
        len(role) == len(offsets) - 1
        and offsets[-1] == len(text)
        and role.max() < len(arrays["role_names"])
    )
    require(
        bool(good),
        "lines, offsets and roles must fit together",
        got=(len(role), len(offsets), len(text)),
        fix="mend the file",
    )
    order = np.argsort(role, kind="stable")
    pieces = [text[offsets[line] : offsets[line + 1]].tobytes() for line in order]
    ids, start = np.unique(role[order], return_index=True)
    ends = [*start[1:].tolist(), len(order)]
    texts = [
        b"\n".join(pieces[first:last]) for first, last in zip(start.tolist(), ends, strict=True)
    ]
    names = tuple(bytes(arrays["role_names"][i]).decode() for i in ids)
    train = population(
        np.frombuffer(b"".join(texts), np.uint8), (), np.cumsum([0, *map(len, texts)]), names
    )
    return Found([Federation(train)])


def _merged(train: Part, test: Part) -> Part:
    client = (
        None
        if train.client is None or test.client is None
        else np.concatenate([train.client, test.client])
    )
    return Part(np.concatenate([train.x, test.x]), np.concatenate([train.y, test.y]), client)


def _found(train: Part, test: Part | None, prefix: str) -> Found:
    held = None if test is None else Examples(test.x, test.y)
    if train.client is None:
        return Found(examples=Examples(train.x, train.y), global_test=held)
    clients = _named(train, prefix)
    if test is None or test.client is None:
        return Found([Federation(clients, None, held)])
    return Found(aligned(as_split(clients), as_split(_named(test, prefix))))


def _named(part: Part, prefix: str) -> Population:
    """Clients ordered by their number or name."""
    data = by_client(part.x, part.y, np.asarray(part.client))
    if np.asarray(part.client).dtype.kind not in "iu":
        return data
    return data._replace(names=tuple(f"{prefix}{int(name):05d}" for name in data.names or ()))
