"""Quadratic clients, for theory: the limit of federated averaging is known in closed form.

Client ``i`` minimises ``f_i(x) = 1/2 (x - b_i)' A_i (x - b_i)``; the federation minimises
``sum_i p_i f_i`` with ``p_i = n_i / n``.
"""

from __future__ import annotations

from typing import Literal

import jax.numpy as jnp
import numpy as np

from fedjax_sim.core.annotations import Seed
from fedjax_sim.core.errors import positive, require
from fedjax_sim.core.types import Array, Batch, Key, Mean, Metrics, Objective, PyTree, Variables
from fedjax_sim.data.federation import federation
from fedjax_sim.data.partition import generator
from fedjax_sim.data.population import Population, population
from fedjax_sim.runtime.devices import require_memory
from fedjax_sim.tasks.base import Task


def quadratic(
    *,
    clients: int = 10,
    dimension: int = 5,
    condition: float = 10.0,
    curvature: Literal["own", "shared"] = "own",
    copies: int = 1,
    seed: Seed = 0,
) -> Task:
    """Quadratic clients; ``x = {"A": [n, d, d], "b": [n, d]}`` float32, ``y`` unused zeros;
    parameters ``{"x": [d]}`` start at 0.

    Args:
      clients: number of clients, N.
      dimension: number of parameters, d.
      condition: condition number of each A_i, whose eigenvalues are log-uniform in
        [1 / condition, 1]; gradient descent is stable for lr < 2.
      curvature: ``"own"`` gives each client its own A_i; ``"shared"`` gives all clients one A, with
        which averaging is unbiased.
      copies: client ``i`` holds its one example ``1 + i mod copies`` times, so the weights p_i
        differ for copies above 1.
      seed: seed of all draws; b_i ~ N(0, 1).

    Example:
      >>> import fedjax_sim as fs
      >>> task = fs.tasks.quadratic(clients=4, dimension=3, copies=2)
      >>> task.data.train.sizes.tolist()
      [1, 2, 1, 2]
      >>> task.data.train.x["A"].shape
      (6, 3, 3)
    """
    for name, value in (("clients", clients), ("dimension", dimension), ("copies", copies)):
        positive(name, value)
    require(
        1 <= condition < np.inf,
        "a condition number is at least 1",
        got=condition,
        fix="give condition a value such as 10",
        setting="condition",
    )
    examples = clients * (1 + min(copies, clients) / 2)
    larger = "clients" if clients > dimension else "dimension"
    require_memory("the clients' matrices", 12 * examples * dimension**2, f"lower {larger}", larger)
    rng = generator(seed)
    matrices = clients if curvature == "own" else 1
    a = np.stack([_curvature(rng, dimension, condition) for _ in range(matrices)])
    b = rng.normal(size=(clients, dimension))
    owner = np.repeat(np.arange(clients), 1 + np.arange(clients) % copies)
    x = {
        "A": np.broadcast_to(a, (clients, dimension, dimension))[owner].astype(np.float32),
        "b": b[owner].astype(np.float32),
    }
    offsets = np.searchsorted(owner, np.arange(clients + 1))
    data = federation(population(x, np.zeros(len(owner), np.int32), offsets))
    start = {"x": jnp.zeros(dimension, jnp.float32)}
    return Task("quadratic", data, None, Objective(_loss), lambda key: Variables(start))


def optimum(data: Population) -> np.ndarray:
    """Returns the minimiser of the weighted sum, ``x* = (sum p_i A_i)^-1 sum p_i A_i b_i``.

    Args:
      data: training data of a task made by :func:`quadratic`.

    Returns:
      float64 ``[d]``.
    """
    a, b, p = parts(data)
    return np.linalg.solve(np.einsum("i,ijk->jk", p, a), np.einsum("i,ijk,ik->j", p, a, b))


def averaging_fixed_point(data: Population, lr: float, steps: int | np.ndarray) -> np.ndarray:
    """Returns the limit of FedAvg with full participation and full-gradient local steps.

    ``x_inf = [sum p_i (I - M_i)]^-1 sum p_i (I - M_i) b_i`` with ``M_i = (I - lr A_i)^K_i``. It
    equals the optimum only if K = 1, or if all A_i are equal and all K_i are equal. Each round
    multiplies the distance to it by ``sum p_i M_i``.

    Args:
      data: training data of a task made by :func:`quadratic`.
      lr: local learning rate.
      steps: K, one number or one per client ``[N]``.

    Returns:
      float64 ``[d]``.
    """
    _, b, p = parts(data)
    progress = np.eye(b.shape[1]) - contractions(data, lr, steps)
    matrix = np.einsum("i,ijk->jk", p, progress)
    return np.linalg.solve(matrix, np.einsum("i,ijk,ik->j", p, progress, b))


def contractions(data: Population, lr: float, steps: int | np.ndarray) -> np.ndarray:
    """Returns ``M_i = (I - lr A_i)^K_i``, which maps ``x - b_i`` to its value after K_i steps.

    Args:
      data: training data of a task made by :func:`quadratic`.
      lr: local learning rate.
      steps: K, one number or one per client ``[N]``.

    Returns:
      float64 ``[N, d, d]``.
    """
    a, _, _ = parts(data)
    counts = np.broadcast_to(steps, len(a))
    return np.stack(
        [
            np.linalg.matrix_power(np.eye(a.shape[-1]) - lr * matrix, int(k))
            for matrix, k in zip(a, counts, strict=True)
        ]
    )


def parts(data: Population) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns ``(A [N, d, d], b [N, d], p [N])`` in float64, from the float32 training data."""
    first = data.offsets[:-1]
    return (
        data.x["A"][first].astype(np.float64),
        data.x["b"][first].astype(np.float64),
        data.sizes / data.sizes.sum(),
    )


def _curvature(rng: np.random.Generator, dimension: int, condition: float) -> np.ndarray:
    basis, _ = np.linalg.qr(rng.normal(size=(dimension, dimension)))
    return (basis * condition ** -rng.random(dimension)) @ basis.T


def _loss(
    variables: Variables, key: Key, batch: Batch, train: bool
) -> tuple[Array, tuple[PyTree, Metrics]]:
    gap = variables.params["x"] - batch.x["b"]
    losses = 0.5 * jnp.einsum("bj,bjk,bk->b", gap, batch.x["A"], gap)
    loss = Mean(jnp.sum(jnp.where(batch.mask, losses, 0)), jnp.sum(batch.mask, dtype=jnp.float32))
    return loss.value, (variables.state, {"loss": loss})
