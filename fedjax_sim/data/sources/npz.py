"""Reader of numpy archives. Pickled objects are refused.

The plain layout has the arrays ``x``, ``y`` and, if examples have owners, ``client`` (or
``writer``, ``user``, ``subject``). Each may be two arrays, whose names end in ``_train`` and
``_test``. Two more layouts are known: windows of sensor readings by subject (``x_i16``,
``subject``, ``official_test``) and lines of text by role (``text_utf8``, ``offsets``, ``role``,
``role_names``).
"""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fedjax_sim.core.errors import fail, require
from fedjax_sim.data.federation import Federation
from fedjax_sim.data.population import Examples, Population, by_client, population
from fedjax_sim.data.sources.base import (
    SourceData,
    aligned,
    as_split,
    to_labels,
    to_numbers,
    with_shape,
)

OWNERS = ("client", "writer", "user", "subject")
"""Names of the array with the owner of each example."""

Arrays = dict[str, np.ndarray]


class Part(NamedTuple):
    """Examples of a split, in any order."""

    x: np.ndarray
    """``[n, ...]``."""
    y: np.ndarray
    """``[n]``, or more axes."""
    client: np.ndarray | None
    """``[n]``, number or name of the owner of each example."""


def matches(path: Path) -> bool:
    """Whether the path is a file with the ending ``.npz``."""
    return path.is_file() and path.suffix == ".npz"


def read(
    path: Path,
    *,
    x: str = "x",
    y: str = "y",
    client: str = "",
    shape: tuple[int, ...] = (),
    merge: bool = False,
) -> SourceData:
    """Reads the arrays of an archive; images without channels (uint8 ``[n, h, w]``) get one.

    Args:
      path: the file.
      x: name of the array that becomes ``x``, without ``_train``.
      y: name of the array that becomes ``y``, without ``_train``.
      client: name of the array with the owners, without ``_train``; by default the first of client,
        writer, user and subject that exists.
      shape: shape of one example.
      merge: whether test examples are added to the training examples.

    Example:
      >>> import tempfile
      >>> from pathlib import Path
      >>> import numpy as np
      >>> from fedjax_sim.data.sources.npz import read
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     path = Path(folder, "mine.npz")
      ...     np.savez(path, x=np.zeros((4, 2)), y=np.arange(4), client=np.array([7, 7, 3, 7]))
      ...     (block,) = read(path).blocks
      >>> block.train.names, block.train.y.tolist()
      (('client00003', 'client00007'), [2, 0, 1, 3])
    """
    arrays = load(path)
    if {"text_utf8", "offsets", "role", "role_names"} <= set(arrays):
        return _roles(arrays)
    if {"x_i16", "subject", "official_test"} <= set(arrays):
        train, test = _sensors(arrays)
    else:
        train, test = _plain(arrays, path, x, y, client)
    if merge and test is not None:
        train = _merged(train, test)
        test = None
    train = _reshaped(train, shape)
    test = None if test is None else _reshaped(test, shape)
    owners = (name for name in OWNERS for array in arrays if array.startswith(name))
    return _source_data(train, test, client or next(owners, "client"))


def load(path: Path) -> Arrays:
    """Returns all arrays of an archive, by name.

    Raises:
      FedError: if the file is not an archive, is damaged, or holds pickled objects.
    """
    fix = "give the path of an .npz file that numpy.savez wrote"
    require(
        path.is_file() and zipfile.is_zipfile(path),
        "an .npz file is a zip archive",
        got=path,
        fix=fix,
    )
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError) as error:
        fail(f"{path} is damaged", got=error, fix=fix)
    except ValueError as error:
        pickled = "pickle" in str(error)
        fail(
            f"{path} must hold plain arrays",
            got="pickled objects, which could run any code" if pickled else error,
            fix="save it again with arrays of numbers",
        )


def _plain(arrays: Arrays, path: Path, x: str, y: str, client: str) -> tuple[Part, Part | None]:
    """Returns the training and the test examples of the plain layout; see :func:`read`."""
    ending = "" if x in arrays and y in arrays else "_train"
    missing = [name for name in (x + ending, y + ending) if name not in arrays]
    require(
        not missing,
        f"{path.name} needs the arrays {x} and {y}, or {x}_train and {y}_train",
        got=f"no {next(iter(missing), '')}",
        fix=f"select the arrays with x= and y=, of {', '.join(sorted(arrays))}",
    )
    has_test = {f"{x}_test", f"{y}_test"} <= set(arrays)
    test = _part(arrays, x, y, client, "_test") if has_test else None
    return _part(arrays, x, y, client, ending), test


def _part(arrays: Arrays, x: str, y: str, client: str, ending: str) -> Part:
    """Returns the examples in the arrays whose names have an ending.

    Args:
      arrays: all arrays of the archive.
      x: name of the array of examples, without the ending.
      y: name of the array of labels, without the ending.
      client: name of the array of owners, without the ending; ``""`` looks for :data:`OWNERS`.
      ending: ``""``, ``"_train"`` or ``"_test"``.
    """
    names = [name + ending for name in ((client,) if client else OWNERS)]
    owner = next((name for name in names if name in arrays), None)
    require(
        not client or owner is not None or ending == "_test",
        "no array has the owners of the examples",
        got=f"none called {names[0]}",
        fix=f"choose client= of {', '.join(sorted(arrays))}",
        setting="client",
    )
    examples = to_numbers(arrays[x + ending], x + ending)
    labels = to_labels(arrays[y + ending], y + ending)
    lengths = {name: len(arrays[name]) for name in (x + ending, y + ending, owner) if name}
    require(
        len(set(lengths.values())) == 1,
        "arrays of examples must have the same length",
        got=lengths,
        fix="correct the file",
    )
    is_image = examples.dtype == np.uint8 and examples.ndim == 3
    owners = arrays[owner] if owner else None
    return Part(examples[..., None] if is_image else examples, labels, owners)


def _sensors(arrays: Arrays) -> tuple[Part, Part | None]:
    """Returns windows of sensor readings, with those of the official test subjects apart.

    ``x_i16`` is int16 ``[n, channels, time]`` in units of 1/4096; ``x`` is float32
    ``[n, time, channels]``.
    """
    x = np.ascontiguousarray(arrays["x_i16"].swapaxes(1, 2)) / np.float32(4096)
    y = to_labels(arrays["y"], "y")
    subject = arrays["subject"]
    is_test = arrays["official_test"]
    train = Part(x[~is_test], y[~is_test], subject[~is_test])
    return train, Part(x[is_test], y[is_test], subject[is_test])


def _roles(arrays: Arrays) -> SourceData:
    """Returns one client per role, whose examples are the bytes of its lines, without labels.

    The lines of a role are joined by newlines, in their order.
    """
    text = arrays["text_utf8"]
    offsets = arrays["offsets"]
    role = arrays["role"]
    consistent = (
        len(role) == len(offsets) - 1
        and offsets[-1] == len(text)
        and role.max() < len(arrays["role_names"])
    )
    require(
        bool(consistent),
        "lines, offsets and roles must fit together",
        got=(len(role), len(offsets), len(text)),
        fix="correct the file",
    )
    order = np.argsort(role, kind="stable")
    lines = [text[offsets[line] : offsets[line + 1]].tobytes() for line in order]
    ids, starts = np.unique(role[order], return_index=True)
    ends = [*starts[1:].tolist(), len(order)]
    texts = [b"\n".join(lines[start:end]) for start, end in zip(starts.tolist(), ends, strict=True)]
    names = tuple(bytes(arrays["role_names"][i]).decode() for i in ids)
    train = population(
        np.frombuffer(b"".join(texts), np.uint8), (), np.cumsum([0, *map(len, texts)]), names
    )
    return SourceData([Federation(train)])


def _merged(train: Part, test: Part) -> Part:
    client = (
        None
        if train.client is None or test.client is None
        else np.concatenate([train.client, test.client])
    )
    return Part(np.concatenate([train.x, test.x]), np.concatenate([train.y, test.y]), client)


def _reshaped(part: Part, shape: tuple[int, ...]) -> Part:
    return part._replace(x=with_shape(part.x, shape))


def _source_data(train: Part, test: Part | None, prefix: str) -> SourceData:
    """Returns the data with clients, if the examples have owners.

    Args:
      train: training examples.
      test: test examples; without owners they are the global test set.
      prefix: start of the names of clients that the archive numbers.
    """
    global_test = None if test is None else Examples(test.x, test.y)
    if train.client is None:
        return SourceData(examples=Examples(train.x, train.y), global_test=global_test)
    clients = _by_client(train, prefix)
    if test is None or test.client is None:
        return SourceData([Federation(clients, None, global_test)])
    return SourceData(aligned(as_split(clients), as_split(_by_client(test, prefix))))


def _by_client(part: Part, prefix: str) -> Population:
    """Returns the clients of a part, in ascending order of their numbers or names."""
    data = by_client(part.x, part.y, np.asarray(part.client))
    if np.asarray(part.client).dtype.kind not in "iu":
        return data
    return data._replace(names=tuple(f"{prefix}{int(name):05d}" for name in data.names or ()))
