"""A model's weights for other programs: a list of arrays, arrays by name, or bytes. Nothing is
pickled, nothing is cast.

To convert them back, pass ``like``: a tree of the model's structure, of arrays or of
``jax.ShapeDtypeStruct``, such as ``jax.eval_shape(task.init, jax.random.key(0))``.
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

FORMAT = "fedjax_sim weights"
VERSION = 1

Card = dict[str, Any]
"""Facts about a model, anything that JSON can hold."""
Arrays = dict[str, np.ndarray]
"""Leaves by name, such as ``params.Dense_0.kernel``, in the tree's order."""


def to_named(variables: PyTree) -> Arrays:
    """Returns copies of all leaves by name, in the tree's order.

    Args:
      variables: any tree of arrays; typed keys become unsigned integers.

    >>> import numpy as np
    >>> import fedjax_sim as fs
    >>> fs.weights.to_named({"w": np.ones(2), "b": np.zeros(1)})
    {'b': array([0.]), 'w': array([1., 1.])}
    """
    return {
        name: np.array(manifest.to_numpy(leaf), order="C")
        for name, leaf in manifest.leaves(variables).items()
    }


def from_named(like: PyTree, arrays: Mapping[str, Any]) -> PyTree:
    """Inverts :func:`to_named`.

    Args:
      like: a tree with the structure, shapes and dtypes of the result.
      arrays: all leaves by name.

    Returns:
      A tree like ``like`` of numpy arrays, which are copies.

    Raises:
      FedError: naming one leaf that is missing, superfluous, or of another shape or dtype.

    >>> import numpy as np
    >>> import fedjax_sim as fs
    >>> fs.weights.from_named({"w": np.zeros(2)}, {"w": np.array([1.0, 2.0])})
    {'w': array([1., 2.])}
    """
    wanted = manifest.leaves(like)
    for name in (*wanted, *arrays):
        if (name in wanted) != (name in arrays):
            _misfit(name, _leaf_text(arrays.get(name)), _leaf_text(wanted.get(name)))
    leaves = [
        manifest.from_numpy(leaf, _fitted(name, leaf, arrays[name]))
        for name, leaf in wanted.items()
    ]
    return jax.tree.unflatten(jax.tree.structure(like), leaves)


def to_arrays(variables: PyTree) -> list[np.ndarray]:
    """Returns copies of all leaves in the tree's order, Flower's format of parameters.

    Args:
      variables: any tree of arrays; typed keys become unsigned integers.

    >>> import numpy as np
    >>> import fedjax_sim as fs
    >>> fs.weights.to_arrays({"w": np.ones(2), "b": np.zeros(1)})
    [array([0.]), array([1., 1.])]
    """
    return list(to_named(variables).values())


def from_arrays(like: PyTree, arrays: Sequence[Any]) -> PyTree:
    """Inverts :func:`to_arrays`.

    Args:
      like: a tree with the structure, shapes and dtypes of the result.
      arrays: all leaves in the tree's order. Floats that numpy's files do not support (bfloat16)
        may be raw bytes, dtype ``V2``.

    Returns:
      A tree like ``like`` of numpy arrays, which are copies.

    Raises:
      FedError: if the number of arrays is wrong, and as :func:`from_named`.

    >>> import numpy as np
    >>> import fedjax_sim as fs
    >>> fs.weights.from_arrays({"w": np.zeros(2)}, [np.array([1.0, 2.0])])
    {'w': array([1., 2.])}
    """
    names = list(manifest.leaves(like))
    require(
        len(arrays) == len(names),
        f"the model has {len(names)} leaves",
        got=f"{len(arrays)} arrays",
        fix="give one array for each, in the tree's order",
    )
    return from_named(like, dict(zip(names, arrays, strict=True)))


def to_bytes(variables: PyTree, card: Card | None = None) -> bytes:
    """Returns all leaves as msgpack.

    The bytes hold name, shape, dtype and crc32 of each leaf, the card, then the leaves' data
    (little-endian, C order).

    Args:
      variables: any tree of arrays.
      card: facts about the model, anything that JSON can hold.

    Raises:
      FedError: for a leaf of 4 GiB or more, which msgpack cannot hold.

    >>> import numpy as np
    >>> import fedjax_sim as fs
    >>> data = fs.weights.to_bytes({"w": np.ones(2)})
    >>> fs.weights.from_bytes({"w": np.zeros(2)}, data)
    {'w': array([1., 1.])}
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
    data = {name: array.tobytes() for name, array in arrays.items()}
    packed: Any = msgpack.packb({**head, "data": data})
    return packed


def from_bytes(like: PyTree, data: bytes) -> PyTree:
    """Inverts :func:`to_bytes`.

    Args:
      like: a tree with the structure, shapes and dtypes of the result.
      data: what :func:`to_bytes` returned.

    Raises:
      FedError: if the bytes are damaged or something else, and as :func:`from_named`.

    >>> import numpy as np
    >>> import fedjax_sim as fs
    >>> like = {"w": np.zeros(2, np.float32)}
    >>> fs.weights.from_bytes(like, fs.weights.to_bytes(like))
    {'w': array([0., 0.], dtype=float32)}
    """
    return from_named(like, read_bytes(data)[0])


def read_bytes(data: bytes) -> tuple[Arrays, Card]:
    """Returns the leaves by name, and the card, that :func:`to_bytes` wrote.

    Raises:
      FedError: if the bytes are damaged or something else.
    """
    fix = "give the unchanged result of fedjax_sim.weights.to_bytes"
    try:
        content = msgpack.unpackb(data)
        version = f"{content['format']} {content['version']}"
        described = content["leaves"].items()
        arrays = {
            name: np.frombuffer(content["data"][name], known_dtype(dtype)).reshape(shape)
            for name, (shape, dtype, _) in described
        }
        bad = [name for name, (_, _, crc) in described if manifest.crc(arrays[name]) != crc]
        card = dict(content["card"])
    except (KeyError, TypeError, AttributeError, ValueError, msgpack.UnpackException) as error:
        fail(
            "these bytes are not weights, or they are damaged",
            got=f"{type(error).__name__}: {error}"[:200],
            fix=fix,
        )
    require(
        version == f"{FORMAT} {VERSION}",
        f"only version {VERSION} of {FORMAT} can be read",
        got=version,
        fix=fix,
    )
    require(not bad, "the crc32 of a leaf is wrong", got=bad[:1], fix=fix)
    return arrays, card


def known_dtype(name: str) -> np.dtype:
    """Returns the dtype of that name.

    Raises:
      ValueError: if it is not a dtype of numbers.
    """
    dtype = jnp.dtype(name)
    if dtype.kind not in "biufc" and dtype.type.__module__ != "ml_dtypes":
        raise ValueError(f"dtype {name!r}")
    return dtype


def bare(dtype: np.dtype) -> np.dtype:
    """Returns the dtype, or one of raw bytes if numpy's files do not support it."""
    return np.dtype(f"V{dtype.itemsize}") if dtype.type.__module__ == "ml_dtypes" else dtype


def _fitted(name: str, leaf: Any, array: Any) -> np.ndarray:
    shape, dtype = manifest.storage(leaf)
    if not hasattr(array, "dtype"):
        _misfit(name, type(array).__name__, _leaf_text(leaf))
    given = np.array(array.view(dtype) if array.dtype == bare(dtype) else array, order="C")
    if (given.shape, given.dtype) != (shape, dtype):
        _misfit(name, _leaf_text(given), _leaf_text(leaf))
    return given


def _misfit(name: str, got: str, expected: str) -> None:
    fail(
        f"the weights do not fit the model at {name}",
        got=f"{got}, expected {expected}",
        fix="give weights of the same model",
    )


def _leaf_text(leaf: Any) -> str:
    if leaf is None:
        return "nothing"
    shape, dtype = manifest.storage(leaf)
    return f"{dtype}{list(shape)}"
