"""A trained model as one file for other programs: its weights, or the whole model as a StableHLO
program, each with a card.

| format | holds | read by |
|---|---|---|
| ``safetensors`` | weights by name, the card in the header | the safetensors library |
| ``msgpack`` | weights by name with checksums, and the card | :func:`load_weights`, msgpack |
| ``npz`` | weights by name, and the card as the array ``card`` | numpy |
| ``stablehlo`` | model and weights; the card beside it | :func:`load_program`, ``jax.export`` |

Reading a file never runs code from it: nothing here is pickled.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import export as programs

from fedjax_sim.core import files
from fedjax_sim.core.errors import FedError, lookup, require, sentence
from fedjax_sim.core.types import Array, PyTree, Variables
from fedjax_sim.models import Model
from fedjax_sim.persistence.manifest import state_hash
from fedjax_sim.persistence.weights import (
    Arrays,
    Card,
    bare,
    from_named,
    known_dtype,
    read_bytes,
    to_bytes,
    to_named,
)

PROGRAM = "stablehlo"
"""The format that holds the model and its weights."""
PLATFORMS = ("cpu", "cuda", "tpu")
"""Platforms on which an exported program can run."""
CARD = "card"
"""Name of the card in a file."""
HASH = "weights_hash"
"""Name of the hash of all leaves in the card."""
CODES = {"BOOL": "bool", "BF16": "bfloat16", "F8_E4M3": "float8_e4m3fn", "F8_E5M2": "float8_e5m2"}
CODES |= {
    f"{name[0].upper()}{bits}": f"{name}{bits}"
    for name in ("float", "int", "uint", "complex")
    for bits in (8, 16, 32, 64)
}
"""numpy's names of dtypes, by those of safetensors."""


class Format(NamedTuple):
    """A file format of weights."""

    write: Callable[[Arrays, Card], bytes]
    """``(leaves by name, card) -> bytes``."""
    read: Callable[[bytes], tuple[Arrays, Card]]
    """``bytes -> (leaves by name, card)``; raises an exception of any type for other bytes."""


# ------------------------------------------------------------------------------------------ weights


def save_weights(
    path: str | Path,
    variables: Variables,
    card: Card | None = None,
    form: str = "safetensors",
    force: bool = False,
) -> Path:
    """Writes a model's leaves, named by :func:`fedjax_sim.core.tree.name`, and a card.

    Args:
      path: the file; it is written completely or not at all.
      variables: the model, or any tree of arrays.
      card: facts about it, anything that JSON can hold. ``weights_hash`` is added, which
        :func:`load_weights` compares.
      form: ``"safetensors"``, ``"msgpack"`` or ``"npz"``.
      force: replaces an existing file.

    Returns:
      The path.

    Raises:
      FedError: if the file exists, it cannot be written, or the format cannot hold the model.

    >>> import pathlib, tempfile
    >>> import numpy as np
    >>> import fedjax_sim as fs
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = fs.export.save_weights(
    ...         pathlib.Path(folder) / "model.npz", {"w": np.ones(2)}, {"rounds": 3}, form="npz"
    ...     )
    ...     fs.export.read_card(path)["rounds"], fs.export.load_weights(path, {"w": np.zeros(2)})
    (3, {'w': array([1., 1.])})
    """
    write = lookup("format of weights", form, WEIGHTS).write
    _require_free(path, force)
    arrays = to_named(variables)
    with _as_fed_error(f"{form} cannot hold this model", "choose another format, such as msgpack"):
        data = write(arrays, _with_hash(card, arrays))
    return _put(path, data)


def load_weights(path: str | Path, like: PyTree) -> PyTree:
    """Reads a model from a file that :func:`save_weights` wrote, in any format.

    Args:
      path: the file.
      like: a tree of the model's structure, of arrays or of ``jax.ShapeDtypeStruct``, such as
        ``jax.eval_shape(task.init, key)``.

    Returns:
      A tree like ``like`` of numpy arrays, bit for bit what was saved.

    Raises:
      FedError: if the file is absent, damaged, of an unknown format, or does not fit, with the name
        of a leaf.

    >>> import pathlib, tempfile
    >>> import numpy as np
    >>> import fedjax_sim as fs
    >>> model = {"w": np.arange(3, dtype=np.float32)}
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = fs.export.save_weights(pathlib.Path(folder) / "model.safetensors", model)
    ...     fs.export.load_weights(path, model)
    {'w': array([0., 1., 2.], dtype=float32)}
    """
    return from_named(like, _read(path)[0])


def read_card(path: str | Path) -> Card:
    """Reads the card of an exported model, of any format.

    Args:
      path: the model's file.

    Raises:
      FedError: if the file has no card, is absent or is damaged.

    >>> import pathlib, tempfile
    >>> import numpy as np
    >>> import fedjax_sim as fs
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = fs.export.save_weights(
    ...         pathlib.Path(folder) / "model.safetensors", {"w": np.ones(2)}, {"task": "digits"}
    ...     )
    ...     fs.export.read_card(path)["task"]
    'digits'
    """
    card_path = _card_path(path)
    if not card_path.is_file():
        return _read(path)[1]
    with _reading(card_path):
        return dict(json.loads(card_path.read_bytes()))


def _read(path: str | Path) -> tuple[Arrays, Card]:
    path = Path(path)
    with _reading(path):
        data = path.read_bytes()
        form = "npz" if data[:2] == b"PK" else "safetensors" if data[8:9] == b"{" else "msgpack"
        arrays, card = WEIGHTS[form].read(data)
    expected = card.get(HASH)
    actual = state_hash(arrays)
    require(
        expected in (None, actual),
        f"{path} is damaged: its weights must have the hash {str(expected)[:12]}...",
        got=f"{actual[:12]}...",
        fix="export the model again, or copy the file again",
    )
    return arrays, card


def _with_hash(card: Card | None, arrays: Arrays) -> Card:
    return {**(card or {}), HASH: state_hash(arrays)}


def _write_safetensors(arrays: Arrays, card: Card) -> bytes:
    from safetensors.numpy import save

    return save(arrays, {CARD: json.dumps(card)})


def _read_safetensors(data: bytes) -> tuple[Arrays, Card]:
    from safetensors import deserialize

    # safetensors.numpy does not support bfloat16.
    arrays = {
        name: np.frombuffer(leaf["data"], known_dtype(CODES[leaf["dtype"]])).reshape(leaf["shape"])
        for name, leaf in deserialize(data)
    }
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    return arrays, dict(json.loads(header.get("__metadata__", {}).get(CARD, "{}")))


def _write_npz(arrays: Arrays, card: Card) -> bytes:
    dtypes = {name: str(array.dtype) for name, array in arrays.items()}
    # Dtypes that numpy's files do not support are raw bytes in them.
    plain = {name: array.view(bare(array.dtype)) for name, array in arrays.items()}
    facts = np.array(json.dumps({"card": card, "dtypes": dtypes}))
    content: dict[str, Any] = {**plain, CARD: facts}
    file = io.BytesIO()
    np.savez(file, **content)
    return file.getvalue()


def _read_npz(data: bytes) -> tuple[Arrays, Card]:
    with np.load(io.BytesIO(data), allow_pickle=False) as archive:
        facts = json.loads(str(archive[CARD]))
        arrays = {
            name: archive[name].view(known_dtype(dtype)) for name, dtype in facts["dtypes"].items()
        }
        return arrays, dict(facts["card"])


WEIGHTS = {
    "safetensors": Format(_write_safetensors, _read_safetensors),
    "msgpack": Format(to_bytes, read_bytes),
    "npz": Format(_write_npz, _read_npz),
}
"""Formats of weights, by name."""


# ------------------------------------------------------------------------------------------ program


def save_program(
    path: str | Path,
    model: Model,
    variables: Variables,
    x: PyTree,
    card: Card | None = None,
    force: bool = False,
) -> Path:
    """Writes a model and its weights as a StableHLO program in evaluation mode, and a card.

    The program takes any number of examples if the model can be traced so. Otherwise it takes one
    example at a time, and :func:`load_program` maps it over them.

    Args:
      path: the file; the card's has ``.json`` appended to its name.
      model: ``apply(params, state, x, train=False, key=None)`` is what is written.
      variables: its weights.
      x: some examples ``[n, ...]``, of which only shapes and dtypes matter.
      card, force: as for :func:`save_weights`.

    Returns:
      The path.

    Raises:
      FedError: if one of the files exists, it cannot be written, or the model cannot be exported to
        StableHLO.

    >>> import pathlib, tempfile
    >>> import jax.numpy as jnp
    >>> import fedjax_sim as fs
    >>> model = fs.from_functions(
    ...     lambda key, x: {"w": jnp.ones(2)}, lambda params, x: x @ params["w"]
    ... )
    >>> variables = fs.Variables({"w": jnp.ones(2)}, ())
    >>> x = jnp.arange(6.0).reshape(3, 2)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder) / "model.stablehlo"
    ...     predict = fs.export.load_program(fs.export.save_program(path, model, variables, x))
    >>> predict(x).tolist()
    [1.0, 5.0, 9.0]
    """
    for file in (path, _card_path(path)):
        _require_free(file, force)
    with _as_fed_error(
        "the model cannot be written as a program",
        "export its weights, with the format safetensors",
    ):
        program = bytes(_exported(model, jax.tree.map(jnp.asarray, variables), x).serialize())
    _put(
        _card_path(path),
        (json.dumps(_with_hash(card, to_named(variables)), indent=1) + "\n").encode(),
    )
    return _put(path, program)


def load_program(path: str | Path) -> Callable[[PyTree], Array]:
    """Reads a program that :func:`save_program` wrote.

    It needs neither the model's code nor its library.

    Args:
      path: the program's file.

    Returns:
      The function ``x -> out``, with ``x`` ``[n, ...]`` in every leaf for any n. It may be called
      inside ``jax.jit``.

    Raises:
      FedError: if the file is absent, damaged, or of a version that this JAX cannot read.

    >>> import fedjax_sim as fs
    >>> fs.export.load_program("missing.stablehlo")
    Traceback (most recent call last):
    ...
    fedjax_sim.core.errors.FedError: missing.stablehlo is not an exported model, ...
    """
    path = Path(path)
    with _reading(path):
        exported = programs.deserialize(bytearray(path.read_bytes()))
        single = all(isinstance(aval.shape[0], int) for aval in exported.in_avals)

    def predict_one(example: PyTree) -> Array:
        out = exported.call(jax.tree.map(lambda leaf: leaf[None], example))
        return jax.tree.map(lambda leaf: leaf[0], out)

    return jax.jit((lambda x: jax.lax.map(predict_one, x)) if single else exported.call)


def _exported(model: Model, variables: Variables, x: PyTree) -> programs.Exported:
    def predict(x: PyTree) -> PyTree:
        return model.apply(variables.params, variables.state, x, train=False, key=None)[0]

    def for_count(count: Any) -> programs.Exported:
        shapes = jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(
                (count, *leaf.shape[1:]), jax.dtypes.canonicalize_dtype(leaf.dtype)
            ),
            x,
        )
        return programs.export(jax.jit(predict), platforms=PLATFORMS)(shapes)

    try:
        return for_count(programs.symbolic_shape("n")[0])
    except Exception:  # a model that depends on the number of examples
        return for_count(1)


# -------------------------------------------------------------------------------------------- files


def _require_free(path: str | Path, force: bool) -> None:
    """Refuses the path of a folder always, and of a file unless ``force``."""
    path = Path(path)
    require(
        not path.is_dir(),
        "an exported model is a file",
        got=f"the folder {path}",
        fix="name a file, with --out",
    )
    require(
        force or not os.path.lexists(path),
        "there is a file already",
        got=path,
        fix="replace it with --force, or choose another with --out",
    )


def _card_path(path: str | Path) -> Path:
    return Path(f"{path}.json")


def _put(path: str | Path, data: bytes) -> Path:
    """Writes a file, completely or not at all."""
    path = Path(path)
    with files.saving(path):
        files.replace(path, data)
    return path


def _reading(path: Path) -> contextlib.AbstractContextManager[None]:
    return _as_fed_error(
        f"{path} is not an exported model, or it is damaged",
        "give a file that `fedjax-sim export` wrote",
    )


@contextlib.contextmanager
def _as_fed_error(what: str, fix: str) -> Iterator[None]:
    """Turns any exception of another library into a :class:`FedError`."""
    try:
        yield
    except FedError:
        raise
    except Exception as error:
        first = (str(error).strip().splitlines() or ["no message"])[0][:160]
        got = (
            files.reason(error)
            if isinstance(error, OSError)
            else f"{type(error).__name__}: {first}"
        )
        raise FedError(sentence(what, got=got, fix=fix)) from error
