"""Reader of LEAF's JSON files.

A file has the keys ``users``, ``num_samples`` and ``user_data``; the last has lists ``x`` and ``y``
for each user.

Reference: Caldas et al., "LEAF: a benchmark for federated settings", arXiv 1812.01097.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from fedjax_sim.core.errors import fail, require
from fedjax_sim.data.sources.base import (
    SourceData,
    Split,
    aligned,
    is_whole,
    to_labels,
    to_numbers,
    with_shape,
)


def matches(path: Path) -> bool:
    """Whether the path is a ``.json`` file, or a folder with such files.

    The files are in the folder, or in its ``train`` or ``data/train``.
    """
    return path.suffix == ".json" if path.is_file() else bool(_files(path, "train"))


def read(path: Path, *, shape: tuple[int, ...] = (), test: str = "") -> SourceData:
    """Reads users as clients.

    Strings of one length become bytes, one number per character. Labels such as 3.0 become
    integers if all labels are whole.

    Args:
      path: one file, a folder of files, or a folder with ``train`` and ``test``.
      shape: shape of one example.
      test: path of a file or folder of test examples, if they are not in ``test``.

    Example:
      >>> import json
      >>> import tempfile
      >>> from pathlib import Path
      >>> from fedjax_sim.data.sources.leaf import read
      >>> users = {"ann": {"x": [[1, 2]], "y": [0]}, "bob": {"x": [[3, 4], [5, 6]], "y": [1, 0]}}
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     path = Path(folder, "all.json")
      ...     size = path.write_text(json.dumps({"users": list(users), "user_data": users}))
      ...     (block,) = read(path).blocks
      >>> block.train.names, block.train.x.shape
      (('ann', 'bob'), (3, 2))
    """
    files = _files(path, "train")
    require(
        bool(files),
        "a LEAF data set has .json files",
        got=f"none in {path}",
        fix="give the path of one, or choose another --format",
    )
    train = _users(files, shape)
    require(
        bool(train),
        "a data set needs at least one client",
        got=f"none in {files[0].name}",
        fix="choose another source",
    )
    test_files = _files(Path(test).expanduser(), "") if test else _test_files(path)
    test_users = _users(test_files, shape)
    _unify_types([*train.values(), *test_users.values()])
    return SourceData(aligned(_split(train), _split(test_users)))


def _split(users: dict[str, list[np.ndarray]]) -> Split:
    return Split(tuple(users), lambda name: (users[name][0], users[name][1]))


def _files(path: Path, part: str) -> list[Path]:
    if path.is_file():
        return [path]
    folders = [path / part, path / "data" / part, path]
    return next(filter(None, (sorted(folder.glob("*.json")) for folder in folders)), [])


def _test_files(path: Path) -> list[Path]:
    if path.is_file():
        return []
    folders = [path / "test", path / "data" / "test"]
    return next(filter(None, (sorted(folder.glob("*.json")) for folder in folders)), [])


def _users(files: list[Path], shape: tuple[int, ...]) -> dict[str, list[np.ndarray]]:
    """Returns ``[x, y]`` of every user of some files, by name.

    As arrays they take a tenth of the memory of the lists that the JSON reader returns.
    """
    users: dict[str, list[np.ndarray]] = {}
    for path in files:
        for name, x, y in _file_users(path):
            require(
                name not in users,
                f"a user must be in only one file of {path.parent}",
                got=f"{name!r} twice",
                fix="merge or rename them",
            )
            what = f"of user {name!r} in {path.name}"
            require(
                len(x) == len(y),
                f"x and y {what} must have the same length",
                got=(len(x), len(y)),
                fix="correct the file",
            )
            examples = with_shape(to_numbers(x, f"x {what}"), shape)
            users[name] = [examples, to_labels(y, f"y {what}")]
    return users


def _unify_types(users: list[list[np.ndarray]]) -> None:
    """Converts ``[x, y]`` of all users to common types, in place.

    JSON does not record types: a user whose floats are all whole has integers.
    """
    floats = any(x.dtype.kind == "f" for x, _ in users)
    integers = all(is_whole(y) for _, y in users)
    for user in users:
        x, y = user
        user[0] = x.astype(np.float32) if floats else x
        user[1] = y.astype(np.int32 if integers else np.float32)


def _file_users(path: Path) -> Iterator[tuple[str, list[Any], list[Any]]]:
    """Yields ``(name, x, y)`` for every user of a file."""
    document = _document(path)
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
            fix="correct the file",
        )
        require(
            len(data["x"]) > 0,
            "every client needs at least one example",
            got=f"none for {name!r}",
            fix="drop this user from the file",
        )
        yield str(name), data["x"], data["y"]


def _document(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(path.read_bytes())
    except OSError as error:
        fail(f"{path} cannot be read", got=error.strerror, fix="give the path of a LEAF data set")
    except ValueError as error:
        fail(f"{path} is not JSON", got=error, fix="give the path of a LEAF data set")
    has_keys = (
        isinstance(document, dict)
        and isinstance(document.get("users"), list)
        and isinstance(document.get("user_data"), dict)
    )
    require(
        has_keys,
        f"a LEAF file has the keys users and user_data, which {path.name} must have too",
        got=list(document)[:5] if isinstance(document, dict) else type(document).__name__,
        fix="write it as LEAF does",
    )
    return document
