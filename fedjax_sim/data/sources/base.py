"""What a reader finds, and what readers share."""

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


class Found(NamedTuple):
    """Clients of the source's own, as blocks, or plain examples, which a partition has to deal out."""

    blocks: Iterable[Federation] | None = None
    """Read while they are written: see :func:`fedjax_sim.data.write_blocks`."""
    examples: Examples | None = None
    global_test: Examples | None = None
    """Test examples, where there are ``examples``; blocks have their own."""
    classes: int | None = None
    """How many labels there are, where the source says so."""
    about: dict[str, Any] = {}
    """For the card."""


class Split(NamedTuple):
    """Clients that can be read one by one."""

    names: Sequence[str]
    read: Callable[[str], tuple[PyTree, PyTree]]
    """``name -> (x, y)``, leaves ``[n, ...]``."""


def aligned(train: Split, test: Split | None = None) -> Iterator[Federation]:
    """The clients of ``train`` in their order, each with its examples in ``test``; what other clients have there is central."""
    both = set(train.names) & set(test.names if test else ())
    clients = (
        Client(
            name, *train.read(name), Examples(*test.read(name)) if test and name in both else None
        )
        for name in train.names
    )
    others = [test.read(name) for name in test.names if name not in both] if test else []
    central = Examples(*concatenated(others)) if others else None
    for block in in_blocks(clients):
        yield block._replace(global_test=central)
        central = None


def as_split(data: Population) -> Split:
    """A population with names, client by client."""
    place = {name: i for i, name in enumerate(data.names or ())}

    def read(name: str) -> tuple[PyTree, PyTree]:
        mine = slice(*data.offsets[place[name] : place[name] + 2])
        return jax.tree.map(lambda leaf: leaf[mine], (data.x, data.y))

    return Split(tuple(place), read)


def library(name: str, what: str) -> Any:
    """An optional library.

    Raises:
      FedError: where it is not installed.
    """
    try:
        return importlib.import_module(name)
    except ImportError:
        fail(
            f"reading {what} needs {name.partition('.')[0]}",
            got="not installed",
            fix="pip install 'fedjax-sim[data]'",
        )


# ---------------------------------------------------------------------------------------------------------------- values


def numbers(values: Any, what: str) -> np.ndarray:
    """An array of at most 32 bits, as devices hold it: whole numbers int32, others float32, smaller types as they are. Strings of one
    length become their bytes, uint8 ``[n, length]``, or ``[n]`` where it is 1.

    Raises:
      FedError: where shapes differ, strings differ in length, or something is neither.
    """
    array = _array(values, what)
    require(
        array.ndim > 0,
        f"{what} must be one value for each example",
        got=array,
        fix="choose another field",
    )
    if array.dtype.kind in "USO":
        strings = _strings(array, what)
        lengths = sorted({len(each) for each in strings})
        require(
            len(lengths) == 1,
            f"strings of {what} must have one length",
            got=f"{lengths[:3]}",
            fix="cut them into windows first",
        )
        return np.frombuffer(b"".join(strings), np.uint8).reshape(
            (-1, lengths[0]) if lengths[0] > 1 else (-1,)
        )
    if (array.dtype.kind in "iu" and array.dtype.itemsize > 4) or array.dtype == np.uint32:
        low, high = (array.min(), array.max()) if array.size else (0, 0)
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
    raw = isinstance(values, list) and bool(values) and isinstance(values[0], bytes)
    try:
        return (
            np.array(values, object) if raw else np.asarray(values)
        )  # numpy's own strings lose zeros at the end
    except (ValueError, OverflowError):
        fail(
            f"{what} must have one shape for all examples",
            got="several",
            fix="pad or cut it, or name other fields",
        )


def _strings(array: np.ndarray, what: str) -> list[bytes]:
    strings = [
        each.encode() if isinstance(each, str) else each for each in array.reshape(-1).tolist()
    ]
    text = all(isinstance(each, bytes) for each in strings) and array.ndim == 1
    require(
        text,
        f"{what} must be numbers or strings, of one shape for all examples",
        got="something else",
        fix="name other fields, or pad it",
    )
    return strings


def labels(values: Any, what: str) -> np.ndarray:
    """Like :func:`numbers`, but whole numbers are int32 whatever their size."""
    array = numbers(values, what)
    return array.astype(np.int32) if array.dtype.kind in "iub" else array


def whole(array: np.ndarray) -> bool:
    """Whether all numbers are whole, so that floats may stand for labels."""
    return array.dtype.kind in "iub" or bool(np.all(array == np.round(array)))


def shaped(x: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Each example in that shape; as it is where none is given."""
    size = int(np.prod(x.shape[1:]))
    fits = not shape or int(np.prod(shape)) == size
    require(
        fits,
        f"an example of shape {list(x.shape[1:])} cannot take another of a different size",
        got=shape,
        fix=f"give shape {size} numbers",
    )
    return x.reshape(len(x), *shape) if shape else x


X, Y = ("x", "pixels", "image", "images", "features"), ("y", "label", "labels", "target")
"""What fields are usually called."""


def fields(
    held: Mapping[str, Any], where: str, x: str = "", y: str = "", shape: tuple[int, ...] = ()
) -> tuple[np.ndarray, Any]:
    """``(x, y)`` of a client's named fields. Strings without a label become one text: its bytes, joined by newlines, and no ``y``.

    Args:
      held: arrays ``[n, ...]`` by name.
      where: for the errors.
      x: the field that becomes ``x``; by default the first of :data:`X` that there is.
      y: as ``x``, of :data:`Y`.
      shape: of one example.
    """
    xs, ys = (
        name or next((usual for usual in known if usual in held), "")
        for name, known in ((x, X), (y, Y))
    )
    choice = f"say which with x= and y=, of {', '.join(sorted(held))}"
    require(
        bool(xs),
        "no field is known to hold examples",
        got=f"none of {', '.join(X)} in {where}",
        fix=choice,
    )
    examples = lookup(f"field of {where}", xs, dict(held))
    array = _array(examples, f"{xs} of {where}")
    if not ys and array.dtype.kind in "SUO":
        return np.frombuffer(b"\n".join(_strings(array, f"{xs} of {where}")), np.uint8), ()
    require(
        bool(ys),
        "no field is known to hold labels",
        got=f"none of {', '.join(Y)} in {where}",
        fix=choice,
    )
    found = labels(lookup(f"field of {where}", ys, dict(held)), f"{ys} of {where}")
    pixels = shaped(numbers(examples, f"{xs} of {where}"), shape)
    require(
        len(pixels) == len(found),
        f"{xs} and {ys} of {where} must be equally many",
        got=(len(pixels), len(found)),
        fix="mend the file",
    )
    return pixels, found
