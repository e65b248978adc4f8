"""The result of a reader, and functions that several readers use."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from fedjax_sim.core.errors import fail, lookup, require
from fedjax_sim.core.types import PyTree
from fedjax_sim.data.federation import Federation
from fedjax_sim.data.population import Examples, Population
from fedjax_sim.data.prepared.writer import Client, concatenated, in_blocks


class SourceData(NamedTuple):
    """The data of a source: clients in blocks, or examples without owners.

    Exactly one of ``blocks`` and ``examples`` is given. Examples without owners need a partition.
    """

    blocks: Iterable[Federation] | None = None
    """Blocks of clients, read while they are written; see :func:`fedjax_sim.data.write_blocks`."""
    examples: Examples | None = None
    global_test: Examples | None = None
    """Test examples of ``examples``; blocks have their own."""
    classes: int | None = None
    """Number of labels; ``None`` if the source does not record it."""
    about: dict[str, Any] = {}
    """Entries for the card of the prepared data set."""


class Split(NamedTuple):
    """Clients that are read one by one."""

    names: Sequence[str]
    read: Callable[[str], tuple[PyTree, PyTree]]
    """``name -> (x, y)``, leaves ``[n, ...]``."""


def aligned(train: Split, test: Split | None = None) -> Iterator[Federation]:
    """Yields the clients of ``train`` in blocks, in their order, each with its test examples.

    Args:
      train: the clients, with their training examples.
      test: test examples by client. Those of clients that are not in ``train`` become the global
        test set, which the first block has.
    """
    both = set(train.names) & set(test.names if test else ())
    clients = (
        Client(
            name, *train.read(name), Examples(*test.read(name)) if test and name in both else None
        )
        for name in train.names
    )
    others = [test.read(name) for name in test.names if name not in both] if test else []
    global_test = Examples(*concatenated(others)) if others else None
    for block in in_blocks(clients):
        yield block._replace(global_test=global_test)
        global_test = None


def as_split(data: Population) -> Split:
    """Returns a population with names as a split."""
    index = {name: i for i, name in enumerate(data.names or ())}

    def read(name: str) -> tuple[PyTree, PyTree]:
        rows = slice(*data.offsets[index[name] : index[name] + 2])
        return jax.tree.map(lambda leaf: leaf[rows], (data.x, data.y))

    return Split(tuple(index), read)


def import_library(name: str, what: str) -> Any:
    """Imports an optional library.

    Args:
      name: the module.
      what: the kind of data that needs it, for the message.

    Raises:
      FedError: if it is not installed.
    """
    try:
        return importlib.import_module(name)
    except ImportError:
        fail(
            f"reading {what} needs {name.partition('.')[0]}",
            got="not installed",
            fix="pip install 'fedjax-sim[data]'",
        )


# ----------------------------------------------------------------------------------------- values


def to_numbers(values: Any, what: str) -> np.ndarray:
    """Converts values to an array of at most 32 bits per number, as devices store it.

    Integers of 64 bits and uint32 become int32, float64 becomes float32; smaller types do not
    change. Strings of one length become their bytes: uint8 ``[n, length]``, or ``[n]`` for length
    1.

    Args:
      values: array or nested list ``[n, ...]``.
      what: the name of the values, for the message.

    Raises:
      FedError: if shapes or lengths of strings differ, numbers do not fit, or values are neither
        numbers nor strings.
    """
    array = _array(values, what)
    require(
        array.ndim > 0,
        f"{what} must be one value for each example",
        got=array,
        fix="choose another field",
    )
    if array.dtype.kind in "USO":
        return _string_bytes(array, what)
    if (array.dtype.kind in "iu" and array.dtype.itemsize > 4) or array.dtype == np.uint32:
        low = array.min() if array.size else 0
        high = array.max() if array.size else 0
        require(
            low >= -(2**31) and high < 2**31,
            f"{what} must fit into 32 bits",
            got=f"{low} to {high}",
            fix="use smaller numbers",
        )
        return array.astype(np.int32)
    require(
        array.dtype.kind in "biuf",
        f"{what} must be numbers",
        got=array.dtype,
        fix="name other fields, or convert it",
    )
    return array.astype(np.float32) if array.dtype.itemsize > 4 else array


def _array(values: Any, what: str) -> np.ndarray:
    is_bytes = isinstance(values, list) and bool(values) and isinstance(values[0], bytes)
    try:
        # dtype object, because numpy's own bytes type drops zero bytes at the end.
        return np.array(values, object) if is_bytes else np.asarray(values)
    except (ValueError, OverflowError):
        fail(
            f"{what} must have one shape for all examples",
            got="several",
            fix="pad or cut it, or name other fields",
        )


def _strings(array: np.ndarray, what: str) -> list[bytes]:
    strings = [
        value.encode() if isinstance(value, str) else value for value in array.reshape(-1).tolist()
    ]
    require(
        all(isinstance(value, bytes) for value in strings) and array.ndim == 1,
        f"{what} must be numbers or strings, of one shape for all examples",
        got="other values",
        fix="name other fields, or pad it",
    )
    return strings


def _string_bytes(array: np.ndarray, what: str) -> np.ndarray:
    """Converts strings of one length to uint8 ``[n, length]``, or ``[n]`` for length 1."""
    strings = _strings(array, what)
    lengths = sorted({len(string) for string in strings})
    require(
        len(lengths) == 1,
        f"strings of {what} must have one length",
        got=f"{lengths[:3]}",
        fix="cut them into windows first",
    )
    data = np.frombuffer(b"".join(strings), np.uint8)
    return data.reshape((-1, lengths[0]) if lengths[0] > 1 else (-1,))


def to_labels(values: Any, what: str) -> np.ndarray:
    """Converts values as :func:`to_numbers` does, with integers of every size as int32."""
    array = to_numbers(values, what)
    return array.astype(np.int32) if array.dtype.kind in "iub" else array


def is_whole(array: np.ndarray) -> bool:
    """Whether all numbers are whole, so that floats can be used as labels."""
    return array.dtype.kind in "iub" or bool(np.all(array == np.round(array)))


def with_shape(x: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Reshapes each example of ``x``, ``[n, ...] -> [n, *shape]``; ``()`` keeps its shape.

    Raises:
      FedError: if the shape has another number of elements.
    """
    size = int(np.prod(x.shape[1:]))
    require(
        not shape or int(np.prod(shape)) == size,
        f"an example of shape {list(x.shape[1:])} cannot be reshaped to another size",
        got=shape,
        fix=f"give a shape of {size} numbers",
        setting="shape",
    )
    return x.reshape(len(x), *shape) if shape else x


X = ("x", "pixels", "image", "images", "features")
"""Usual names of the field of examples."""
Y = ("y", "label", "labels", "target")
"""Usual names of the field of labels."""


def select_fields(
    arrays: Mapping[str, Any], where: str, x: str = "", y: str = "", shape: tuple[int, ...] = ()
) -> tuple[np.ndarray, Any]:
    """Returns ``(x, y)`` of a client.

    Strings without a label become one text: ``x`` holds their bytes, joined by newlines, as uint8
    ``[characters]``, and ``y`` is ``()``.

    Args:
      arrays: arrays ``[n, ...]`` by field.
      where: the client, for the message.
      x: name of the field that becomes ``x``; by default the first of :data:`X` that exists.
      y: name of the field that becomes ``y``; by default the first of :data:`Y` that exists.
      shape: shape of one example; ``()`` keeps that of the field.

    Raises:
      FedError: if a field is missing, or examples and labels differ in number.
    """
    x = x or next((name for name in X if name in arrays), "")
    y = y or next((name for name in Y if name in arrays), "")
    fix = f"select them with x= and y=, of {', '.join(sorted(arrays))}"
    require(
        bool(x),
        "no field is known to hold examples",
        got=f"none of {', '.join(X)} in {where}",
        fix=fix,
        setting="x",
    )
    values = lookup(f"field of {where}", x, dict(arrays))
    array = _array(values, f"{x} of {where}")
    if not y and array.dtype.kind in "SUO":
        return np.frombuffer(b"\n".join(_strings(array, f"{x} of {where}")), np.uint8), ()
    require(
        bool(y),
        "no field is known to hold labels",
        got=f"none of {', '.join(Y)} in {where}",
        fix=fix,
        setting="y",
    )
    labels = to_labels(lookup(f"field of {where}", y, dict(arrays)), f"{y} of {where}")
    examples = with_shape(to_numbers(values, f"{x} of {where}"), shape)
    require(
        len(examples) == len(labels),
        f"{x} and {y} of {where} must have the same length",
        got=(len(examples), len(labels)),
        fix="correct the file",
    )
    return examples, labels
