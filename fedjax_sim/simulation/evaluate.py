"""Evaluation of the global model on the global test set.

For each client's own model see :mod:`fedjax_sim.simulation.evaluate_clients`.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.random import key as make_key

from fedjax_sim.core import tree
from fedjax_sim.core.errors import positive
from fedjax_sim.core.types import (
    Algorithm,
    Batch,
    Metrics,
    Objective,
    RoundState,
    Variables,
)
from fedjax_sim.data.population import Examples, rows
from fedjax_sim.engine.devices.backends import nearest
from fedjax_sim.engine.plan import Plan
from fedjax_sim.engine.program import Program
from fedjax_sim.engine.xla.rewrite import canonical
from fedjax_sim.simulation.evaluate_clients import Numbers, client_evaluation
from fedjax_sim.tasks import Task


def make_evaluation(
    algorithm: Algorithm,
    task: Task,
    program: Program,
    *,
    batch_size: int = 256,
    clients: bool = True,
) -> Callable[[RoundState], Numbers]:
    """Makes the evaluation of a task.

    Args:
      algorithm: the algorithm of the state.
      task: the test data, and the objective that reports the metrics.
      program: the program of the rounds; the evaluation runs on its devices.
      batch_size: examples evaluated at once; for clients at most 32.
      clients: whether to evaluate each client's model (the global one, unless the algorithm
        personalises it) on the client's own test examples.

    Returns:
      ``state -> numbers``: ``test/<metric>`` on the global test set, and ``clients/<metric>...``,
      statistics over clients. Parts that the task has no data for are left out.

    Raises:
      FedError: if ``batch_size`` is not positive.

    Example:

        >>> import fedjax_sim as fs
        >>> task = fs.tasks.quadratic(clients=4)  # has no test data
        >>> algorithm = fs.fedavg(task.objective, lr=0.1)
        >>> work = fs.local_work(batch_size=None)
        >>> program = fs.make_round(algorithm, fs.samplers.uniform(2), task.data.train, work)
        >>> evaluate = fs.make_evaluation(algorithm, task, program)
        >>> evaluate(state=None)
        {}
    """
    positive("evaluation.batch_size", batch_size)
    parts: list[Callable[[RoundState], Numbers]] = []
    if task.data.global_test is not None:
        parts.append(
            global_evaluation(
                algorithm, task.objective, task.data.global_test, batch_size, program.plan
            )
        )
    if clients and task.data.test is not None:
        parts.append(
            client_evaluation(
                algorithm, task.objective, task.data.test, program, min(batch_size, 32)
            )
        )

    def evaluate(state: RoundState) -> Numbers:
        return {name: value for part in parts for name, value in part(state).items()}

    return evaluate


def global_evaluation(
    algorithm: Algorithm, objective: Objective, examples: Examples, batch_size: int, plan: Plan
) -> Callable[[RoundState], Numbers]:
    """Makes the evaluation of the global model on the global test set.

    Args:
      algorithm: the algorithm of the state.
      objective: reports the metrics.
      examples: the global test set.
      batch_size: examples evaluated at once.
      plan: its devices are used.

    Returns:
      ``state -> {"test/<metric>": value}``.
    """
    evaluate = jax.jit(lambda variables, batches: sum_metrics(objective, variables, batches))
    batches = to_batches(examples, batch_size)

    def numbers(state: RoundState) -> Numbers:
        variables = nearest(plan, algorithm.variables(state.algorithm))
        metrics = jax.device_get(evaluate(variables, batches))
        return {f"test/{name}": float(mean.value) for name, mean in metrics.items()}

    return numbers


def to_batches(examples: Examples, batch_size: int) -> Batch:
    """Splits examples into batches ``[batches, B, ...]``; the last one is padded and masked.

    Args:
      examples: ``[n, ...]`` in every leaf.
      batch_size: the largest B; B is n if there are fewer examples.

    Example:

        >>> import fedjax_sim as fs, numpy as np
        >>> from fedjax_sim.simulation.evaluate import to_batches
        >>> batches = to_batches(fs.Examples(np.arange(3.0), np.arange(3)), batch_size=2)
        >>> batches.mask.tolist()
        [[True, True], [True, False]]
    """
    n = rows(examples.x)
    size = min(batch_size, n)
    place = np.arange(-(-n // size) * size).reshape(-1, size)
    x, y = jax.tree.map(
        lambda leaf: np.asarray(leaf)[np.minimum(place, n - 1)], (examples.x, examples.y)
    )
    return jax.tree.map(jnp.asarray, Batch(x, y, jnp.asarray(place < n)))


def sum_metrics(objective: Objective, variables: Variables, batches: Batch) -> Metrics:
    """Computes the metrics of a model over all batches, in evaluation mode.

    Args:
      objective: reports the metrics.
      variables: the model.
      batches: ``[batches, B, ...]`` in every leaf.
    """

    @canonical
    def batch_metrics(batch: Batch) -> Metrics:
        return objective.loss(variables, make_key(0), batch, False)[1][1]

    def add(running: Metrics, batch: Batch) -> tuple[Metrics, None]:
        return tree.add(running, batch_metrics(batch)), None

    shapes = jax.eval_shape(batch_metrics, jax.tree.map(lambda leaf: leaf[0], batches))
    return lax.scan(add, tree.zeros_like(shapes), batches)[0]
