"""A model's weights as other programs take them: a list of arrays, arrays by name, or bytes. Nothing is pickled, nothing is cast.

The way back needs to be told what the model is like: any tree of the same structure, of arrays or of ``jax.ShapeDtypeStruct``, such as
``jax.eval_shape(task.init, jax.random.key(0))``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import msgpack
import numpy as np

from fedjax_sim.core.errors import fail, require
from fedjax_sim.core.types import PyTree
from fedjax_sim.persistence import manifest

FORMAT, VERSION = "fedjax_sim weights", 1

Card = dict[str, Any]
"""What is said about a model; whatever JSON can say."""
Arrays = dict[str, np.ndarray]
"""Leaves by name, such as ``params.Dense_0.kernel``, in the tree's order."""


def to_named(variables: PyTree) -> Arrays:
    """Copies of all leaves by name, in the tree's order; typed keys as their words."""
    return {
        name: np.array(manifest.to_numpy(leaf), order="C")
        for name, leaf in manifest.leaves(variables).items()
    }


def from_named(like: PyTree, arrays: Mapping[str, Any]) -> PyTree:
    """The way back from :func:`to_named`: a tree like ``like``, of numpy arrays that are the caller's own.

    Raises:
      FedError: naming one leaf that is missing, one too many, or of another shape or dtype, with what was got and what was expected.
    """
    wanted = manifest.leaves(like)
    for name in (name for name in (*wanted, *arrays) if (name in wanted) != (name in arrays)):
        _misfit(name, _words(arrays.get(name)), _words(wanted.get(name)))
    made = [
        manifest.from_numpy(leaf, _fitted(name, leaf, arrays[name]))
        for name, leaf in wanted.items()
    ]
    return jax.tree.unflatten(jax.tree.structure(like), made)


def to_arrays(variables: PyTree) -> list[np.ndarray]:
    """Copies of all leaves in the tree's order: what Flower calls a model's parameters."""
    return list(to_named(variables).values())


def from_arrays(like: PyTree, arrays: Sequence[Any]) -> PyTree:
    """The way back from :func:`to_arrays`. Floats that numpy's own files do not know (bfloat16) may come as bare bytes, ``V2``.

    Raises:
      FedError: where their number is another than the model's, and as :func:`from_named` does.
    """
    names = list(manifest.leaves(like))
    what, do = f"the model has {len(names)} leaves", "give one array for each, in the tree's order"
    require(len(arrays) == len(names), what, got=f"{len(arrays)} arrays", fix=do)
    return from_named(like, dict(zip(names, arrays, strict=True)))


def to_bytes(variables: PyTree, card: Card | None = None) -> bytes:
    """All leaves as msgpack: a header with name, shape, dtype and crc32 of each, the card, then their bytes (little-endian, C order).

    Raises:
      FedError: for a leaf of 4 GiB or more, which msgpack cannot hold.
    """
    arrays = to_named(variables)
    large = [name for name, array in arrays.items() if array.nbytes >= 2**32]
    require(
        not large,
        "msgpack holds leaves below 4 GiB",
        got=large[:1],
        fix="use another format, such as safetensors",
    )
    head = {
        "format": FORMAT,
        "version": VERSION,
        "card": card or {},
        "leaves": manifest.manifest(arrays),
    }
    packed: Any = msgpack.packb(
        {**head, "data": {name: array.tobytes() for name, array in arrays.items()}}
    )
    return packed


def from_bytes(like: PyTree, data: bytes) -> PyTree:
    """The way back from :func:`to_bytes`.

    Raises:
      FedError: where the bytes are something else or damaged, and as :func:`from_named` does.
    """
    return from_named(like, read_bytes(data)[0])


def read_bytes(data: bytes) -> tuple[Arrays, Card]:
    """What :func:`to_bytes` wrote: leaves by name, and the card."""
    do = "take what fedjax_sim.weights.to_bytes made, unchanged"
    try:
        whole = msgpack.unpackb(data)
        version = f"{whole['format']} {whole['version']}"
        facts = whole["leaves"].items()
        arrays = {
            name: np.frombuffer(whole["data"][name], known_dtype(dtype)).reshape(shape)
            for name, (shape, dtype, _) in facts
        }
        bad = [name for name, (_, _, crc) in facts if manifest.crc(arrays[name]) != crc]
        card = dict(whole["card"])
    except (KeyError, TypeError, AttributeError, ValueError, msgpack.UnpackException) as error:
        fail(
            "these bytes are no weights, or damaged",
            got=f"{type(error).__name__}: {error}"[:200],
            fix=do,
        )
    require(
        version == f"{FORMAT} {VERSION}",
        f"only version {VERSION} of {FORMAT} can be read",
        got=version,
        fix=do,
    )
    require(not bad, "the crc32 of a leaf is wrong", got=bad[:1], fix=do)
    return arrays, card


def known_dtype(name: str) -> np.dtype:
    """The dtype of that name, if it is one of numbers.

    Raises:
      ValueError: where it is not.
    """
    dtype = jnp.dtype(name)
    if dtype.kind not in "biufc" and dtype.type.__module__ != "ml_dtypes":
        raise ValueError(f"dtype {name!r}")
    return dtype


def bare(dtype: np.dtype) -> np.dtype:
    """The dtype itself, if numpy's files know it, else one of so many bytes."""
    return np.dtype(f"V{dtype.itemsize}") if dtype.type.__module__ == "ml_dtypes" else dtype


def _fitted(name: str, leaf: Any, array: Any) -> np.ndarray:
    shape, dtype = manifest.storage(leaf)
    if not hasattr(array, "dtype"):
        _misfit(name, type(array).__name__, _words(leaf))
    given = np.array(array.view(dtype) if array.dtype == bare(dtype) else array, order="C")
    if (given.shape, given.dtype) != (shape, dtype):
        _misfit(name, _words(given), _words(leaf))
    return given


def _misfit(name: str, got: str, expected: str) -> None:
    fail(
        f"the weights do not fit the model at {name}",
        got=f"{got}, expected {expected}",
        fix="give weights of the same model",
    )


def _words(leaf: Any) -> str:
    if leaf is None:
        return "nothing"
    shape, dtype = manifest.storage(leaf)
    return f"{dtype}{list(shape)}"
