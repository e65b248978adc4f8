"""Vaults with rows of several kinds, and what they should hold."""

import contextlib
from pathlib import Path

import jax
import ml_dtypes
import numpy as np
import pytest

from fedjax_sim.core.errors import FedError
from fedjax_sim.engine.host.rows import open_row_store

ROWS = "clients.rows"

CLIENTS = 60
LIKE = {
    "c": np.arange(1, 8, dtype=np.float32),
    "deep": (np.int8(3), np.zeros((0, 2), np.float64), np.ones((2, 3), ml_dtypes.bfloat16)),
    "flag": np.array([True, False]),
}


def rows(rng, count: int, like=LIKE):
    """Random bits: what is not a number, negative zeros and all."""

    def one(leaf):
        shape, dtype = (count, *np.shape(leaf)), np.asarray(leaf).dtype
        bits = rng.integers(
            0, 2 if dtype.kind == "b" else 256, (*shape, dtype.itemsize), dtype=np.uint8
        )
        return bits.view(dtype).reshape(shape)

    return jax.tree.map(one, like)


def row(tree, place: int) -> bytes:
    return b"".join(np.ascontiguousarray(leaf[place]).tobytes() for leaf in jax.tree.leaves(tree))


BLANK = row(jax.tree.map(lambda leaf: np.asarray(leaf)[None], LIKE), 0)


def put(model: dict, ids, new) -> None:
    """What a vault does, with a plain dictionary."""
    model.update(
        {int(client): row(new, place) for place, client in enumerate(ids) if client < CLIENTS}
    )


def holds(vault, model: dict, blank: bytes = BLANK, clients: int = CLIENTS) -> bool:
    """Whether every client's row is the model's."""
    back = vault.read(np.arange(clients))
    return all(row(back, client) == model.get(client, blank) for client in range(clients))


def some(rng, most: int = 12) -> np.ndarray:
    """A few clients, once each, absent ones among them."""
    ids = rng.permutation(CLIENTS)[: rng.integers(0, most)]
    return np.concatenate([ids, np.full(rng.integers(0, 3), CLIENTS)]).astype(np.int64)


def filled(folder: Path, rounds=(1, 2, 3), seed: int = 0):
    """A closed vault's folder: what describes its snapshots, and what they hold."""
    rng, model, saved = np.random.default_rng(seed), {}, []
    vault = open_row_store(folder, LIKE, CLIENTS)
    for round_ in rounds:
        ids = rng.permutation(CLIENTS)[:20]
        new = rows(rng, 20)
        vault.write(ids, new)
        put(model, ids, new)
        saved.append((vault.snapshot(round_), dict(model)))
    vault.close()
    return saved


def error_of(call, *arguments) -> str | None:
    with contextlib.suppress(FedError):
        call(*arguments)
        return None
    with pytest.raises(FedError) as caught:
        call(*arguments)
    return str(caught.value)


def usable(folder, saved, model) -> bool:
    """Returns True if a snapshot is restored and every row read; otherwise checks the errors."""
    vault, errors = open_row_store(folder, LIKE, CLIENTS), 0
    refused = error_of(vault.restore, saved)
    for client in () if refused else range(CLIENTS):
        if error := error_of(vault.read, [client]):
            errors += 1
            assert f"client {client} is damaged" in error
            assert ROWS in error
        else:
            assert row(vault.read([client]), 0) == model.get(client, BLANK)
    vault.close()
    return not (refused or errors)
