"""Fills the folder of a prepared data set block by block, with a look at every example on the way."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from fedjax_sim.core.errors import fail, positive, require
from fedjax_sim.core.types import PyTree
from fedjax_sim.data.federation import Federation, federation, kind
from fedjax_sim.data.population import Examples, Names, Population, population, rows
from fedjax_sim.data.prepared.columns import CHUNK, Column, append, finish, open_column

BLOCK = 2**26
"""Bytes of a block of clients, about."""

Form = dict[str, Any]
"""What one example is like, as JSON says it: ``{"dtype": "uint8", "shape": [28, 28, 1]}``, or ``{"dict": {name: form}}``,
``{"tuple": [form, ...]}``, ``{"list": [form, ...]}``."""


class Client(NamedTuple):
    """One client, as readers deliver them. Leaves of ``x`` and ``y`` are ``[n, ...]``."""

    name: str | None
    x: PyTree
    y: PyTree
    test: Examples | None = None


@dataclasses.dataclass
class Writer:
    """A folder that is being filled; what grows with the clients is 24 bytes for each."""

    folder: Path
    classes: int | None
    """How many labels were said to be there."""
    columns: dict[str, Column] = dataclasses.field(default_factory=dict)
    """By the file's name without its ending."""
    first: Federation | None = None
    """The first block, without its examples: what all blocks are like."""
    sizes: dict[str, list[np.ndarray]] = dataclasses.field(
        default_factory=lambda: {"train": [], "test": []}
    )
    central: int = 0
    ends: list[np.ndarray] = dataclasses.field(default_factory=list)
    """Where names end, block by block."""
    largest: int = -1
    """The largest label so far."""


def in_blocks(clients: Iterable[Client], size: int = BLOCK) -> Iterator[Federation]:
    """Groups single clients into blocks of about ``size`` bytes."""
    held: list[Client] = []
    amount = 0
    for client in clients:
        held.append(client)
        amount += sum(
            np.asarray(leaf).nbytes for leaf in jax.tree.leaves((client.x, client.y, client.test))
        )
        if amount >= size:
            yield _block(held)
            held, amount = [], 0
    if held:
        yield _block(held)


def open_writer(folder: Path, classes: int | None = None) -> Writer:
    """A writer into an empty folder; ``classes`` as in :func:`fedjax_sim.data.prepared.reader.write_blocks`."""
    if classes is not None:
        positive("classes", classes)
    return Writer(folder, classes)


def add_block(writer: Writer, block: Federation) -> None:
    """Appends a block's clients and central examples."""
    form((block.train.x, block.train.y))  # before anything is asked of what may be no array
    block = federation(population(*block.train), block.test, block.global_test)
    if writer.first is None:
        writer.first = Federation(_empty(block.train))
    wanted, got = kind(writer.first.train), kind(block.train)
    require(
        wanted == got,
        f"all clients' examples must be alike ({wanted})",
        got=f"{got} in a later client",
        fix="convert them all the same way",
    )
    _add_names(writer, block.train.names)
    none = np.zeros(block.train.clients, np.int64)
    writer.sizes["train"].append(block.train.sizes)
    writer.sizes["test"].append(none if block.test is None else block.test.sizes)
    for part, held in (
        ("train", block.train),
        ("test", block.test),
        ("central", block.global_test),
    ):
        if held is not None:
            _add_examples(writer, part, held)
    writer.central += 0 if block.global_test is None else len(block.global_test)


def close_writer(writer: Writer) -> tuple[Form, dict[str, Any]]:
    """Finishes every file. Returns what the card says of the data, and of each file by its name (``bytes`` and ``sha256``)."""
    first = writer.first
    if first is None:
        fail("a data set needs at least one client", got="none", fix="choose another source")
    examples = {part: int(sum(map(np.sum, sizes))) for part, sizes in writer.sizes.items()}
    for part in (part for part, count in examples.items() if count):
        _whole(writer, f"{part}.offsets", np.cumsum(np.concatenate([[0], *writer.sizes[part]])))
    if first.train.names is not None:
        _whole(writer, "names.ends", np.concatenate(writer.ends))
    labels = has_labels(form(first.train.y))
    facts = {
        "clients": sum(map(len, writer.sizes["train"])),
        "named": first.train.names is not None,
        "examples": {**examples, "central": writer.central},
        "x": form(first.train.x),
        "y": form(first.train.y),
        "classes": (writer.classes or writer.largest + 1) if labels else None,
    }
    return facts, {column.path.name: finish(column) for column in writer.columns.values()}


def form(tree: PyTree) -> Form:
    """What one example is like, of leaves ``[n, ...]``.

    Raises:
      FedError: where the tree is made of anything but dictionaries, tuples, lists and arrays.
    """
    if isinstance(tree, dict) and all(isinstance(key, str) for key in tree):
        return {"dict": {key: form(tree[key]) for key in sorted(tree)}}
    if type(tree) in (tuple, list):
        return {type(tree).__name__: [form(item) for item in tree]}
    array: Any = tree
    known = hasattr(array, "dtype") and len(getattr(array, "shape", ())) > 0
    require(
        known,
        "examples must be arrays, or dictionaries, tuples and lists of them",
        got=type(tree).__name__,
        fix="convert them",
    )
    return {"dtype": array.dtype.newbyteorder("=").name, "shape": list(array.shape[1:])}


def has_labels(y: Form) -> bool:
    """Whether a form is that of labels: one array of integers."""
    return "dtype" in y and np.dtype(y["dtype"]).kind in "iu"


def _block(clients: Sequence[Client]) -> Federation:
    x, y = concatenated([(client.x, client.y) for client in clients])
    names = None if clients[0].name is None else tuple(str(client.name) for client in clients)
    train = population(
        x, y, np.cumsum([0, *(rows((client.x, client.y)) for client in clients)]), names
    )
    held = [client.test for client in clients if client.test is not None]
    if not held:
        return federation(train)
    sizes = [0 if client.test is None else rows(tuple(client.test)) for client in clients]
    x, y = concatenated([tuple(each) for each in held])
    return federation(train, population(x, y, np.cumsum([0, *sizes]), names, empty=True))


def concatenated(trees: Sequence[PyTree]) -> PyTree:
    """Trees leaf by leaf, one after the other. Their types must agree: numpy would make up one for all."""
    kinds = {
        str(jax.tree.map(lambda leaf: f"{leaf.dtype}{list(leaf.shape[1:])}", tree))
        for tree in trees
    }
    require(
        len(kinds) == 1,
        "all clients' examples must be alike",
        got=" and ".join(sorted(kinds)),
        fix="convert them all the same way",
    )
    return jax.tree.map(lambda *leaves: np.concatenate(leaves), *trees)


def _empty(data: Population) -> Population:
    x, y = jax.tree.map(lambda leaf: np.zeros((0, *leaf.shape[1:]), leaf.dtype), (data.x, data.y))
    return Population(x, y, np.zeros(1, np.int64), None if data.names is None else ())


def _add_names(writer: Writer, names: Sequence[str] | None) -> None:
    named = writer.first is not None and writer.first.train.names is not None
    require(
        named == (names is not None),
        "either all clients have names or none",
        got="both",
        fix="name all clients",
    )
    if names is None:
        return
    if not isinstance(names, Names):
        pieces = [str(name).encode(errors="backslashreplace") for name in names]
        names = Names(
            np.frombuffer(b"".join(pieces), np.uint8),
            np.cumsum([len(piece) for piece in pieces], dtype=np.int64),
        )
    column = _column(writer, "names.text", np.dtype(np.uint8), ())
    writer.ends.append(np.asarray(names.ends) + column.rows)
    append(column, names.text)


def _add_examples(writer: Writer, part: str, data: Population | Examples) -> None:
    for name, tree in (("x", data.x), ("y", data.y)):
        labels = name == "y" and has_labels(form(tree))
        leaves = jax.tree.leaves(tree)
        for file, leaf in zip(file_names(f"{part}.{name}", form(tree)), leaves, strict=True):
            column = _column(writer, file, np.dtype(leaf.dtype), tuple(leaf.shape[1:]))
            step = max(1, CHUNK // max(1, leaf[:1].nbytes))
            for start in range(0, len(leaf), step):
                piece = np.asarray(leaf[start : start + step])
                _check_finite(column, piece)
                if labels and piece.size:
                    _check_labels(writer, column, piece)
                append(column, piece)


def file_names(stem: str, of: Form) -> list[str]:
    """The files of a tree's leaves, without their ending: the stem, followed by a number where there may be several."""
    return [stem] if "dtype" in of else [f"{stem}.{number}" for number in range(_leaves(of))]


def _leaves(of: Form) -> int:
    if "dtype" in of:
        return 1
    inner = of["dict"].values() if "dict" in of else of.get("tuple", of.get("list", ()))
    return sum(map(_leaves, inner))


def _column(writer: Writer, name: str, dtype: np.dtype, shape: tuple[int, ...]) -> Column:
    if name not in writer.columns:
        writer.columns[name] = open_column(writer.folder / f"{name}.npy", dtype, shape)
    return writer.columns[name]


def _whole(writer: Writer, name: str, values: np.ndarray) -> None:
    append(_column(writer, name, np.dtype(np.int64), ()), values)


def _check_finite(column: Column, rows: np.ndarray) -> None:
    if rows.dtype.kind in "fc" and not np.isfinite(rows).all():
        bad = column.rows + int(np.flatnonzero(~np.isfinite(rows).reshape(len(rows), -1).all(1))[0])
        fail(
            "examples must be finite",
            got=f"nan or infinity in {column.path.stem}, row {bad}",
            fix="fill or drop what is missing",
        )


def _check_labels(writer: Writer, column: Column, rows: np.ndarray) -> None:
    low, high = int(rows.min()), int(rows.max())
    limit = writer.classes
    if low < 0 or (limit is not None and high >= limit):
        wrong = (rows < 0) | (rows >= (np.inf if limit is None else limit))
        row = column.rows + int(np.flatnonzero(wrong.reshape(len(rows), -1).any(1))[0])
        what = (
            "labels must not be negative"
            if limit is None
            else f"labels of {limit} classes lie in 0 to {limit - 1}"
        )
        fail(
            what,
            got=f"{low if low < 0 else high} in {column.path.stem}, row {row}",
            fix="number the classes from 0",
        )
    writer.largest = max(writer.largest, high)
