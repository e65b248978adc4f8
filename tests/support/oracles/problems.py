"""Two kinds of problem: softmax regression on unlike, ragged clients, and quadratics, for which
theory has closed forms."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .problem import Leaves, Problem, Vector, build


def softmax(
    sizes: Sequence[int] = (7, 3, 12, 5, 9),
    *,
    rounds: int = 5,
    cohort: int | None = 3,
    seed: int = 0,
    **work: Any,
) -> Problem:
    """Linear softmax regression, 4 features, 3 classes, unlike clients; batches of 4 in 2 epochs
    unless ``work`` says otherwise."""
    rng = np.random.default_rng(seed)
    x = [rng.normal(rng.normal(), 1, (n, 4)) for n in sizes]
    y = [(rows @ rng.normal(size=(4, 3))).argmax(1) for rows in x]
    start = {"w": 0.3 * rng.normal(size=(4, 3)), "b": 0.3 * rng.normal(size=3)}
    return build(
        start, x, y, softmax_gradient, rounds, cohort, **(work or {"batch_size": 4, "epochs": 2})
    )


def scripted_softmax(
    x: Sequence[np.ndarray],
    y: Sequence[np.ndarray],
    start: Leaves,
    ids: np.ndarray,
    most: np.ndarray,
    **work: Any,
) -> Problem:
    """Linear softmax regression on given clients, for given cohorts, some of which do part of
    their work.

    Args:
      x: features of each client, ``[n_i, F]``.
      y: labels of each client, ``[n_i]``.
      start: ``{"w": [F, K], "b": [K]}``.
      ids: int ``[rounds, C]``, the cohorts; rows that name no client are absent.
      most: int ``[rounds, C]``, the most local steps of each row; a client of none is absent.
      **work: local work, as for ``local_batches``.
    """
    rounds = len(ids)
    problem = build(start, list(x), list(y), softmax_gradient, rounds, None, **work)
    batches = [[list(of_client) for of_client in of_round] for of_round in problem.batches]
    cohorts = []
    for t in range(rounds):
        rows = [(i, m) for i, m in zip(ids[t], most[t], strict=True) if i < len(y) and m > 0]
        cohorts.append([int(i) for i, _ in rows])
        for i, m in rows:
            batches[t][i] = batches[t][i][:m]
    return problem._replace(batches=batches, cohorts=cohorts)


def softmax_gradient(params: Leaves, x: np.ndarray, y: np.ndarray) -> Leaves:
    """Of the mean of ``-log softmax(x w + b)[y]``."""
    z = x @ params["w"] + params["b"]
    p = np.exp(z - z.max(1, keepdims=True))
    error = (p / p.sum(1, keepdims=True) - np.eye(len(params["b"]))[y]) / len(y)
    return {"w": x.T @ error, "b": error.sum(0)}


def quadratics(
    A: np.ndarray,
    b: np.ndarray,
    start: Vector,
    sizes: Sequence[int],
    *,
    rounds: int,
    cohort: int | None = None,
    **work: Any,
) -> Problem:
    """``f_i(x) = 1/2 (x - b_i)' A_i (x - b_i)``. Client i has ``sizes[i]`` equal rows ``(A_i,
    b_i)``: any batch is a full gradient."""
    x = [np.repeat(A_i[None], n, 0) for A_i, n in zip(A, sizes, strict=True)]
    y = [np.repeat(b_i[None], n, 0) for b_i, n in zip(b, sizes, strict=True)]
    return build({"x": start}, x, y, quadratic_gradient, rounds, cohort, **work)


def quadratic_gradient(params: Leaves, x: np.ndarray, y: np.ndarray) -> Leaves:
    """Of the mean of ``1/2 (p - y)' x (p - y)`` over rows ``x [n, d, d]`` (symmetric), ``y [n,
    d]``."""
    return {"x": np.einsum("nij,nj->ni", x, params["x"] - y).mean(0)}
