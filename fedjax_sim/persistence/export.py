"""A trained model as one file for other programs: its weights, or the whole model as a StableHLO program; each with a card.

| format | holds | read by |
|---|---|---|
| ``safetensors`` | weights by name, the card in the header | the safetensors library, in any language |
| ``msgpack`` | weights by name, each with its checksum, and the card | :func:`load_weights`, msgpack |
| ``npz`` | weights by name, and the card as the array ``card`` | numpy |
| ``stablehlo`` | the model with its weights, for CPU, CUDA and TPU; the card in a file beside it | :func:`load_program`, ``jax.export`` |

Reading runs no code of the file's: nothing here is pickled.
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
    from_named,
    known_dtype,
    read_bytes,
    to_bytes,
    to_named,
)

PROGRAM = "stablehlo"
"""Name of the format that is not of weights alone."""
PLATFORMS = ("cpu", "cuda", "tpu")
"""What a program can run on."""
CARD, HASH = "card", "weights_hash"
"""Names of the card in a file, and of the hash of all leaves in the card."""
CODES = {"BOOL": "bool", "BF16": "bfloat16", "F8_E4M3": "float8_e4m3fn", "F8_E5M2": "float8_e5m2"}
CODES |= {
    f"{name[0].upper()}{bits}": f"{name}{bits}"
    for name in ("float", "int", "uint", "complex")
    for bits in (8, 16, 32, 64)
}
"""safetensors' names of dtypes, and numpy's."""


class Format(NamedTuple):
    """A format of weights."""

    write: Callable[[Arrays, Card], bytes]
    read: Callable[[bytes], tuple[Arrays, Card]]


# ---------------------------------------------------------------------------------------------------------------- weights


def save_weights(
    path: str | Path,
    variables: Variables,
    card: Card | None = None,
    form: str = "safetensors",
    force: bool = False,
) -> Path:
    """Writes a model's leaves, under the names that :func:`fedjax_sim.core.tree.name` gives them, and a card.

    Args:
      path: the file; it appears whole or not at all.
      variables: the model.
      card: what is said about it; whatever JSON can say. ``weights_hash`` is added, which :func:`load_weights` compares.
      form: ``"safetensors"``, ``"msgpack"`` or ``"npz"``.
      force: whether a file that is there may be replaced.

    Raises:
      FedError: where there is a file already, it cannot be written, or the format cannot hold the model.
    """
    written = lookup("format of weights", form, WEIGHTS).write
    _free(path, force)
    arrays = to_named(variables)
    with _telling(f"{form} cannot hold this model", "choose another format, such as msgpack"):
        data = written(arrays, _hashed(card, arrays))
    return _put(path, data)


def load_weights(path: str | Path, like: PyTree) -> PyTree:
    """A model from a file that :func:`save_weights` wrote, whatever its format; leaves are numpy arrays, bit for bit what was saved.

    Args:
      path: the file.
      like: a tree of the same structure, of arrays or of ``jax.ShapeDtypeStruct``, such as ``jax.eval_shape(task.init, key)``.

    Raises:
      FedError: where the file is absent, damaged, of no known format, or does not fit, with the name of a leaf.
    """
    return from_named(like, _read(path)[0])


def read_card(path: str | Path) -> Card:
    """The card of an exported model, of any format.

    Raises:
      FedError: where there is none.
    """
    beside = _beside(path)
    if not beside.is_file():
        return _read(path)[1]
    with _reading(beside):
        return dict(json.loads(beside.read_bytes()))


def _read(path: str | Path) -> tuple[Arrays, Card]:
    path = Path(path)
    with _reading(path):
        data = path.read_bytes()
        form = "npz" if data[:2] == b"PK" else "safetensors" if data[8:9] == b"{" else "msgpack"
        arrays, card = WEIGHTS[form].read(data)
    wanted, found = card.get(HASH), state_hash(arrays)
    do = "export the model again, or copy the file again"
    require(
        wanted in (None, found),
        f"{path} is damaged: its weights must have the hash {str(wanted)[:12]}...",
        got=f"{found[:12]}...",
        fix=do,
    )
    return arrays, card


def _hashed(card: Card | None, arrays: Arrays) -> Card:
    return {**(card or {}), HASH: state_hash(arrays)}


def _write_safetensors(arrays: Arrays, card: Card) -> bytes:
    from safetensors.numpy import save

    return save(arrays, {CARD: json.dumps(card)})


def _read_safetensors(data: bytes) -> tuple[Arrays, Card]:
    from safetensors import deserialize

    # The library's way to numpy knows no bfloat16.
    arrays = {
        name: np.frombuffer(held["data"], known_dtype(CODES[held["dtype"]])).reshape(held["shape"])
        for name, held in deserialize(data)
    }
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    return arrays, dict(json.loads(header.get("__metadata__", {}).get(CARD, "{}")))


def _write_npz(arrays: Arrays, card: Card) -> bytes:
    kinds = {name: str(array.dtype) for name, array in arrays.items()}
    # Dtypes that numpy's files do not know are bare bytes in them.
    plain = {
        name: array.view(f"V{array.itemsize}")
        if array.dtype.type.__module__ == "ml_dtypes"
        else array
        for name, array in arrays.items()
    }
    held: dict[str, Any] = {**plain, CARD: np.array(json.dumps({"card": card, "dtypes": kinds}))}
    file = io.BytesIO()
    np.savez(file, **held)
    return file.getvalue()


def _read_npz(data: bytes) -> tuple[Arrays, Card]:
    with np.load(io.BytesIO(data), allow_pickle=False) as archive:
        held = json.loads(str(archive[CARD]))
        return {
            name: archive[name].view(known_dtype(kind)) for name, kind in held["dtypes"].items()
        }, dict(held["card"])


WEIGHTS = {
    "safetensors": Format(_write_safetensors, _read_safetensors),
    "msgpack": Format(to_bytes, read_bytes),
    "npz": Format(_write_npz, _read_npz),
}
"""Formats of weights, by name."""


# ---------------------------------------------------------------------------------------------------------------- program


def save_program(
    path: str | Path,
    model: Model,
    variables: Variables,
    x: PyTree,
    card: Card | None = None,
    force: bool = False,
) -> Path:
    """Writes a model in evaluation mode, its weights inside, as a program that needs no Python of its own; the card beside it.

    The number of examples is left open where the model allows. Where it does not, the program takes one example at a time, which
    :func:`load_program` hides.

    Args:
      path: the file; the card goes to the same name with ``.json`` after it.
      model: ``apply(params, state, x, train=False, key=None)`` is what is written.
      variables: its weights.
      x: some examples ``[n, ...]``, of which only shapes and dtypes matter.
      card, force: as for :func:`save_weights`.

    Raises:
      FedError: where there is a file already, it cannot be written, or the model cannot be told in StableHLO.
    """
    for each in (path, _beside(path)):
        _free(each, force)
    with _telling(
        "the model cannot be written as a program",
        "export its weights, with the format safetensors",
    ):
        program = bytes(_exported(model, jax.tree.map(jnp.asarray, variables), x).serialize())
    _put(_beside(path), (json.dumps(_hashed(card, to_named(variables)), indent=1) + "\n").encode())
    return _put(path, program)


def load_program(path: str | Path) -> Callable[[PyTree], Array]:
    """The function ``x -> out`` in a file that :func:`save_program` wrote; ``x`` is ``[n, ...]`` in every leaf, for any n.

    It needs neither the model's code nor the library it was written with, and may be called inside ``jax.jit``.

    Raises:
      FedError: where the file is absent, damaged, or of a version that this JAX cannot read.
    """
    path = Path(path)
    with _reading(path):
        exported = programs.deserialize(bytearray(path.read_bytes()))
        single = all(isinstance(aval.shape[0], int) for aval in exported.in_avals)

    def one(example: PyTree) -> Array:
        return jax.tree.map(
            lambda leaf: leaf[0], exported.call(jax.tree.map(lambda leaf: leaf[None], example))
        )

    return jax.jit((lambda x: jax.lax.map(one, x)) if single else exported.call)


def _exported(model: Model, variables: Variables, x: PyTree) -> programs.Exported:
    def predict(x: PyTree) -> PyTree:
        return model.apply(variables.params, variables.state, x, train=False, key=None)[0]

    def of(count: Any) -> programs.Exported:
        shapes = jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(
                (count, *leaf.shape[1:]), jax.dtypes.canonicalize_dtype(leaf.dtype)
            ),
            x,
        )
        return programs.export(jax.jit(predict), platforms=PLATFORMS)(shapes)

    try:
        return of(programs.symbolic_shape("n")[0])
    except Exception:  # a model that looks at the number of examples
        return of(1)


# ------------------------------------------------------------------------------------------------------------------ files


def _free(path: str | Path, force: bool) -> None:
    """Refuses a path where something is: a folder always, a file unless ``force``."""
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


def _beside(path: str | Path) -> Path:
    return Path(f"{path}.json")


def _put(path: str | Path, data: bytes) -> Path:
    """The file, whole or not at all."""
    path = Path(path)
    with files.saving(path):
        files.replace(path, data)
    return path


def _reading(path: Path) -> contextlib.AbstractContextManager[None]:
    return _telling(
        f"{path} is no exported model, or damaged", "give a file that `fedjax-sim export` wrote"
    )


@contextlib.contextmanager
def _telling(what: str, do: str) -> Iterator[None]:
    """What another library complains about, as one sentence; complaints of this package pass."""
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
        raise FedError(sentence(what, got=got, fix=do)) from error
