"""Writes the folder of a prepared data set block by block, and checks every example."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

import jax
import numpy as np

from fedjax_sim.core.errors import fail, positive, require
from fedjax_sim.core.types import PyTree
from fedjax_sim.data.federation import Federation, federation, kind
from fedjax_sim.data.population import Examples, Names, Population, population, rows
from fedjax_sim.data.prepared.columns import CHUNK, Column

BLOCK = 2**26
"""Bytes of a block of clients, approximately."""

Form = dict[str, Any]
"""Structure, type and shape of one example as JSON data: ``{"dtype": "uint8", "shape": [28, 28,
1]}``, or ``{"dict": {name: form}}``, ``{"tuple": [form, ...]}``, ``{"list": [form, ...]}``."""


class Client(NamedTuple):
    """One client, as readers of files make them. Leaves of ``x`` and ``y`` are ``[n, ...]``."""

    name: str | None
    x: PyTree
    y: PyTree
    test: Examples | None = None


class Writer:
    """Fills an empty folder with the columns of a federation.

    Use it as a context manager, or call :meth:`close`: both close all files, complete or not.
    Memory grows by 24 bytes for each client.

    Args:
      folder: the folder.
      classes: number of labels, see :func:`fedjax_sim.data.write_blocks`.
    """

    def __init__(self, folder: Path, classes: int | None = None) -> None:
        if classes is not None:
            positive("classes", classes)
        self.folder = folder
        self.classes = classes
        self._columns: dict[str, Column] = {}  # by the file's name without its ending
        self._first: Federation | None = None  # the first block without its examples
        self._sizes: dict[str, list[np.ndarray]] = {"train": [], "test": []}
        self._global_test = 0
        self._name_ends: list[np.ndarray] = []
        self._largest_label = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Closes all files as they are."""
        for column in self._columns.values():
            column.close()

    def add_block(self, block: Federation) -> None:
        """Appends the clients and the global test examples of a block.

        Args:
          block: a federation whose examples are like those of the blocks before.

        Raises:
          FedError: if they differ, or an example or a label is not valid.
        """
        form((block.train.x, block.train.y))  # first, because the next line needs arrays
        block = federation(population(*block.train), block.test, block.global_test)
        if self._first is None:
            self._first = Federation(_empty(block.train))
        expected = kind(self._first.train)
        require(
            expected == kind(block.train),
            f"all clients' examples must be alike ({expected})",
            got=f"{kind(block.train)} in a later client",
            fix="convert them all the same way",
        )
        self._add_names(block.train.names)
        none = np.zeros(block.train.clients, np.int64)
        self._sizes["train"].append(block.train.sizes)
        self._sizes["test"].append(none if block.test is None else block.test.sizes)
        self._global_test += 0 if block.global_test is None else len(block.global_test)
        parts = {"train": block.train, "test": block.test, "central": block.global_test}
        for part, examples in parts.items():
            if examples is not None:
                self._add_examples(part, examples)

    def finish(self) -> tuple[Form, dict[str, Any]]:
        """Completes every file.

        Returns:
          The card's entries about the data, and for each file's name its ``bytes`` and ``sha256``.

        Raises:
          FedError: if no block was added, or a file cannot be written.
        """
        if self._first is None:
            fail("a data set needs at least one client", got="none", fix="choose another source")
        train = self._first.train
        examples = {part: int(sum(map(np.sum, sizes))) for part, sizes in self._sizes.items()}
        for part in (part for part, count in examples.items() if count):
            offsets = np.cumsum(np.concatenate([[0], *self._sizes[part]]))
            self._column(f"{part}.offsets", np.dtype(np.int64), ()).append(offsets)
        if train.names is not None:
            ends = np.concatenate(self._name_ends)
            self._column("names.ends", np.dtype(np.int64), ()).append(ends)
        labels = has_labels(form(train.y))
        facts = {
            "clients": sum(map(len, self._sizes["train"])),
            "named": train.names is not None,
            "examples": {**examples, "central": self._global_test},
            "x": form(train.x),
            "y": form(train.y),
            "classes": (self.classes or self._largest_label + 1) if labels else None,
        }
        return facts, {column.path.name: column.finish() for column in self._columns.values()}

    def _add_names(self, names: Sequence[str] | None) -> None:
        named = self._first is not None and self._first.train.names is not None
        require(
            named == (names is not None),
            "either all clients have names or none",
            got="both",
            fix="name all clients",
        )
        if names is None:
            return
        names = names if isinstance(names, Names) else _encoded(names)
        column = self._column("names.text", np.dtype(np.uint8), ())
        self._name_ends.append(np.asarray(names.ends) + column.rows)
        column.append(names.text)

    def _add_examples(self, part: str, data: Population | Examples) -> None:
        for name, tree in (("x", data.x), ("y", data.y)):
            labels = name == "y" and has_labels(form(tree))
            leaves = jax.tree.leaves(tree)
            for file, leaf in zip(file_names(f"{part}.{name}", form(tree)), leaves, strict=True):
                column = self._column(file, np.dtype(leaf.dtype), tuple(leaf.shape[1:]))
                step = max(1, CHUNK // max(1, leaf[:1].nbytes))
                for start in range(0, len(leaf), step):
                    piece = np.asarray(leaf[start : start + step])
                    _check_finite(column, piece)
                    if labels and piece.size:
                        _check_labels(column, piece, self.classes)
                        self._largest_label = max(self._largest_label, int(piece.max()))
                    column.append(piece)

    def _column(self, name: str, dtype: np.dtype, shape: tuple[int, ...]) -> Column:
        if name not in self._columns:
            self._columns[name] = Column(self.folder / f"{name}.npy", dtype, shape)
        return self._columns[name]


def _empty(data: Population) -> Population:
    x, y = jax.tree.map(lambda leaf: np.zeros((0, *leaf.shape[1:]), leaf.dtype), (data.x, data.y))
    return Population(x, y, np.zeros(1, np.int64), None if data.names is None else ())


def _encoded(names: Sequence[str]) -> Names:
    pieces = [str(name).encode(errors="backslashreplace") for name in names]
    ends = np.cumsum([len(piece) for piece in pieces], dtype=np.int64)
    return Names(np.frombuffer(b"".join(pieces), np.uint8), ends)


def _check_finite(column: Column, rows: np.ndarray) -> None:
    if rows.dtype.kind in "fc" and not np.isfinite(rows).all():
        bad = ~np.isfinite(rows).reshape(len(rows), -1).all(1)
        row = column.rows + int(np.flatnonzero(bad)[0])
        fail(
            "examples must be finite",
            got=f"nan or infinity in {column.path.stem}, row {row}",
            fix="fill or drop what is missing",
        )


def _check_labels(column: Column, rows: np.ndarray, classes: int | None) -> None:
    low = int(rows.min())
    high = int(rows.max())
    if low >= 0 and (classes is None or high < classes):
        return
    wrong = (rows < 0) | (rows >= (np.inf if classes is None else classes))
    row = column.rows + int(np.flatnonzero(wrong.reshape(len(rows), -1).any(1))[0])
    what = "labels must not be negative"
    if classes is not None:
        what = f"labels of {classes} classes lie in 0 to {classes - 1}"
    fail(
        what,
        got=f"{low if low < 0 else high} in {column.path.stem}, row {row}",
        fix="number the classes from 0",
    )


# ------------------------------------------------------------------------------------------ blocks


def in_blocks(clients: Iterable[Client], size: int = BLOCK) -> Iterator[Federation]:
    """Groups single clients into blocks.

    Args:
      clients: the clients in their order.
      size: bytes of a block; a block ends with the client that reaches them.

    Yields:
      Federations without a global test set.
    """
    group: list[Client] = []
    amount = 0
    for client in clients:
        group.append(client)
        amount += sum(
            np.asarray(leaf).nbytes for leaf in jax.tree.leaves((client.x, client.y, client.test))
        )
        if amount >= size:
            yield _block(group)
            group = []
            amount = 0
    if group:
        yield _block(group)


def _block(clients: Sequence[Client]) -> Federation:
    x, y = concatenated([(client.x, client.y) for client in clients])
    names = None if clients[0].name is None else tuple(str(client.name) for client in clients)
    sizes = [rows((client.x, client.y)) for client in clients]
    train = population(x, y, np.cumsum([0, *sizes]), names)
    tests = [client.test for client in clients if client.test is not None]
    if not tests:
        return federation(train)
    sizes = [0 if client.test is None else rows(tuple(client.test)) for client in clients]
    x, y = concatenated([tuple(test) for test in tests])
    return federation(train, population(x, y, np.cumsum([0, *sizes]), names, empty=True))


def concatenated(trees: Sequence[PyTree]) -> PyTree:
    """Concatenates trees leaf by leaf along the first axis.

    Args:
      trees: of one structure, with leaves ``[n_i, ...]`` of equal dtype and shape. numpy would
        convert different dtypes to a common one.

    Raises:
      FedError: if they differ in structure, dtype or shape of an example.
    """
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


# ------------------------------------------------------------------------------------------- forms


def form(tree: PyTree) -> Form:
    """Returns structure, type and shape of one example as JSON data.

    Args:
      tree: dictionaries with keys of text, tuples and lists of arrays ``[n, ...]``.

    Raises:
      FedError: if the tree has anything else.
    """
    if isinstance(tree, dict) and all(isinstance(key, str) for key in tree):
        return {"dict": {key: form(tree[key]) for key in sorted(tree)}}
    if type(tree) in (tuple, list):
        return {type(tree).__name__: [form(item) for item in tree]}
    array: Any = tree
    require(
        hasattr(array, "dtype") and len(getattr(array, "shape", ())) > 0,
        "examples must be arrays, or dictionaries, tuples and lists of them",
        got=type(tree).__name__,
        fix="convert them",
    )
    return {"dtype": array.dtype.newbyteorder("=").name, "shape": list(array.shape[1:])}


def has_labels(y: Form) -> bool:
    """Whether a form is one array of integers, as labels are."""
    return "dtype" in y and np.dtype(y["dtype"]).kind in "iu"


def file_names(stem: str, of: Form) -> list[str]:
    """Returns the names of the files of a tree's leaves, without their ending.

    Args:
      stem: first part of the names; the whole name if the tree is one array.
      of: the tree's form; a tree that is not one array has one number per leaf in its names.
    """
    return [stem] if "dtype" in of else [f"{stem}.{number}" for number in range(_leaves(of))]


def _leaves(of: Form) -> int:
    if "dtype" in of:
        return 1
    inner = of["dict"].values() if "dict" in of else of.get("tuple", of.get("list", ()))
    return sum(map(_leaves, inner))
