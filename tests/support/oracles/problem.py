"""A small federated problem in numpy float64, and what a transcription returns. Nothing here knows
of JAX.

Parameters are one flat vector ``[D]`` inside the transcriptions, so that they read like the
papers; :func:`unpack` gives the leaves back by name. ``gradient(vector, client, rows)`` is the
mean gradient over those rows of that client's data.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

Vector = np.ndarray
Leaves = dict[str, np.ndarray]


class Problem(NamedTuple):
    start: Vector  # [D], the parameters before round 0
    shapes: dict[str, tuple[int, ...]]  # the leaves, in the order in which they lie in the vector
    x: list[np.ndarray]  # x[i], y[i]: client i's rows
    y: list[np.ndarray]
    gradient: Callable[[Vector, int, Any], Vector]
    batches: list[
        list[list[np.ndarray]]
    ]  # batches[t][i][k]: the rows of client i's k-th batch in round t
    cohorts: list[list[int]]  # cohorts[t]: ids of the clients that take part in round t

    @property
    def sizes(self) -> np.ndarray:
        return np.array([len(rows) for rows in self.y])


class Result(NamedTuple):
    params: list[Leaves]  # after every round
    state: dict[
        str, list[Leaves]
    ]  # by the paper's letter, after every round; tables have leaves [N, ...]


def unpack(shapes: dict[str, tuple[int, ...]], flat: np.ndarray) -> Leaves:
    """``[..., D]`` as leaves ``[..., *shape]``."""
    ends = np.cumsum([math.prod(shape) for shape in shapes.values()])
    parts = np.split(flat, ends[:-1], axis=-1)
    return {
        name: part.reshape(*flat.shape[:-1], *shapes[name])
        for name, part in zip(shapes, parts, strict=True)
    }


def result(problem: Problem, params: list[Vector], **state: list[np.ndarray]) -> Result:
    named = {
        name: [unpack(problem.shapes, value) for value in values] for name, values in state.items()
    }
    return Result([unpack(problem.shapes, value) for value in params], named)


def full(problem: Problem, params: Vector, client: int) -> Vector:
    """Gradient over all of a client's data."""
    return problem.gradient(params, client, slice(None))


def local_batches(
    size: int, batch_size: int | None = None, epochs: int = 1, steps: int | None = None
) -> list[np.ndarray]:
    """Unshuffled: batch k of an epoch is rows kB..(k+1)B-1, the last one may be partial. ``steps``
    cuts or repeats the epochs."""
    B = batch_size or size
    epoch = [np.arange(at, min(at + B, size)) for at in range(0, size, B)]
    return epoch * epochs if steps is None else [epoch[k % len(epoch)] for k in range(steps)]


def cyclic(clients: int, cohort: int, rounds: int) -> list[list[int]]:
    return [[(t * cohort + j) % clients for j in range(cohort)] for t in range(rounds)]


def build(
    start: Leaves,
    x: list,
    y: list,
    gradient: Callable,
    rounds: int,
    cohort: int | None,
    **work: Any,
) -> Problem:
    """``gradient(leaves, x, y) -> leaves``; ``cohort`` clients a round, in turn (everybody if
    ``None``); ``work`` as local_batches."""
    shapes = {name: leaf.shape for name, leaf in start.items()}
    flat = np.concatenate([leaf.ravel() for leaf in start.values()])

    def packed(params: Vector, client: int, rows: Any) -> Vector:
        grads = gradient(unpack(shapes, params), x[client][rows], y[client][rows])
        return np.concatenate([grads[name].ravel() for name in shapes])

    batches = [[local_batches(len(rows), **work) for rows in y]] * rounds
    return Problem(flat, shapes, x, y, packed, batches, cyclic(len(y), cohort or len(y), rounds))
