"""LEAF's JSON files: ``users``, ``num_samples`` and ``user_data``, by user ``x`` and ``y``.

Reference: Caldas et al., "LEAF: a benchmark for federated settings", arXiv 1812.01097.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from fedjax_sim.core.errors import fail, require
from fedjax_sim.data.sources.base import Found, Split, aligned, labels, numbers, shaped, whole


def matches(path: Path) -> bool:
    """A ``.json`` file, or a folder with such files in it, or in its ``train`` or ``data/train``."""
    return path.suffix == ".json" if path.is_file() else bool(_files(path, "train"))


def read(path: Path, *, shape: tuple[int, ...] = (), test: str = "") -> Found:
    """Users are clients. Strings of one length become bytes, one number a character; labels such as 3.0 become whole numbers.

    Args:
      path: one file, a folder of files, or a folder with ``train`` and ``test``.
      shape: of one example.
      test: a file or folder of test examples, where they are not in ``test``.
    """
    found = _files(path, "train")
    require(
        bool(found),
        "a LEAF data set has .json files",
        got=f"none in {path}",
        fix="give the path of one, or choose another --format",
    )
    train = _users(found, shape)
    require(
        bool(train),
        "a data set needs at least one client",
        got=f"none in {found[0].name}",
        fix="choose another source",
    )
    held = _users(_files(Path(test).expanduser(), "") if test else _tests(path), shape)
    _make_alike([*train.values(), *held.values()])
    return Found(
        aligned(
            *(
                Split(tuple(part), lambda name, part=part: (part[name][0], part[name][1]))
                for part in (train, held)
            )
        )
    )


def _files(path: Path, part: str) -> list[Path]:
    if path.is_file():
        return [path]
    folders = [path / part, path / "data" / part, path]
    return next(filter(None, (sorted(folder.glob("*.json")) for folder in folders)), [])


def _tests(path: Path) -> list[Path]:
    return (
        []
        if path.is_file()
        else next(
            filter(
                None, (sorted((path / inner).glob("*.json")) for inner in ("test", "data/test"))
            ),
            [],
        )
    )


def _users(files: list[Path], shape: tuple[int, ...]) -> dict[str, list[np.ndarray]]:
    """All users of some files, ``[x, y]`` by name: as arrays, which take a tenth of the memory of what JSON reads."""
    held: dict[str, list[np.ndarray]] = {}
    for path in files:
        for name, x, y in _of_file(path):
            require(
                name not in held,
                f"a user belongs into one file of {path.parent}",
                got=f"{name!r} twice",
                fix="merge or rename them",
            )
            what = f"of user {name!r} in {path.name}"
            require(
                len(x) == len(y),
                f"x and y {what} must be equally many",
                got=(len(x), len(y)),
                fix="mend the file",
            )
            held[name] = [shaped(numbers(x, f"x {what}"), shape), labels(y, f"y {what}")]
    return held


def _make_alike(users: list[list[np.ndarray]]) -> None:
    """One type for all: a user whose examples all are whole numbers looks like one of integers."""
    floats = any(x.dtype.kind == "f" for x, _ in users)
    integers = all(whole(y) for _, y in users)
    for user in users:
        x, y = user
        user[:] = (
            x.astype(np.float32) if floats else x,
            y.astype(np.int32 if integers else np.float32),
        )


def _of_file(path: Path) -> Iterator[tuple[str, list[Any], list[Any]]]:
    try:
        document = json.loads(path.read_bytes())
    except OSError as error:
        fail(f"{path} cannot be read", got=error.strerror, fix="give the path of a LEAF data set")
    except ValueError as error:
        fail(f"{path} is not JSON", got=error, fix="give the path of a LEAF data set")
    good = (
        isinstance(document, dict)
        and isinstance(document.get("users"), list)
        and isinstance(document.get("user_data"), dict)
    )
    got = list(document)[:5] if isinstance(document, dict) else type(document).__name__
    require(
        good,
        f"a LEAF file has the keys users and user_data, which {path.name} must have too",
        got=got,
        fix="write it as LEAF does",
    )
    for name in document["users"]:
        data = document["user_data"].get(name)
        both = (
            isinstance(data, dict)
            and isinstance(data.get("x"), list)
            and isinstance(data.get("y"), list)
        )
        require(
            both,
            f"every user of {path.name} needs lists x and y in user_data",
            got=f"none for {name!r}",
            fix="mend the file",
        )
        require(
            len(data["x"]) > 0,
            "every client needs at least one example",
            got=f"none for {name!r}",
            fix="drop this user from the file",
        )
        yield str(name), data["x"], data["y"]
