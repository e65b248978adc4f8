"""Checks that the parts of an experiment fit each other, on shapes alone: nothing is computed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from fedjax_sim.core import tree
from fedjax_sim.core.errors import require, sentence, suggest
from fedjax_sim.core.types import Algorithm, Batch, Mean, Metrics
from fedjax_sim.experiments.config.construct import Log
from fedjax_sim.experiments.config.load import Config
from fedjax_sim.experiments.config.messages import line
from fedjax_sim.experiments.config.toml import ConfigErrors
from fedjax_sim.runtime.devices import require_memory

if TYPE_CHECKING:
    from fedjax_sim.engine import Engine
    from fedjax_sim.experiments.experiment import Experiment
    from fedjax_sim.tasks import Task

ROWS = 7
"""Examples in the batch that is tried: few other axes have this size, so broadcasting hides no
misfit."""


def check_model_fits(config: Config, task: Task, log: Log) -> None:
    """Tries the model and the loss on the shapes of a batch of the task's training data.

    Args:
      config: of the run.
      task: what it names.
      log: takes the errors of this package.

    Raises:
      ConfigErrors: if another package raises an error, with that error as its cause.
    """
    run = config.run
    key = "task.model" if "model" in type(run.task).model_fields else "task"
    fields: Any = ()
    if run.model is not None:
        key = "model"
        fields = type(run.model).model_fields
    try:
        log.guard(key, fields, lambda: [reported_metrics(task, train) for train in (True, False)])
        log.guard(key, fields, lambda: _require_memory_for_model(task))
    except Exception as error:
        first = (str(error).strip().splitlines() or [""])[0][:200]
        text = sentence(
            "the model does not fit the task's data",
            got=f"{type(error).__name__}: {first}",
            fix="choose a model for such examples",
        )
        raise ConfigErrors(line(config.document, key, text)) from error


def _require_memory_for_model(task: Task) -> None:
    # On a CPU: with its gradient, a client's copy and the next round's.
    copies = 4 if jax.default_backend() == "cpu" else 1
    what = "the model and its copies" if copies > 1 else "the model"
    nbytes = tree.nbytes(jax.eval_shape(task.init, jax.random.key(0)))
    require_memory(what, copies * nbytes, "choose a smaller model")


def memory_fits(task: Task, algorithm: Algorithm, engine: Engine) -> None:
    """Refuses client memory that is larger than the machine's.

    Args:
      task: with the population.
      algorithm: whose clients have memory.
      engine: says where it is kept.

    Raises:
      FedError: if the devices are to keep it, and the machine has less.
    """
    if engine.client_memory != "device":
        return
    row = jax.eval_shape(lambda key: algorithm.memory(task.init(key)), jax.random.key(0))
    require_memory(
        "the memory of all clients",
        tree.nbytes(row) * task.data.train.clients,
        "keep it in files, with engine.client_memory = 'host'",
        "client_memory",
    )


def reported_metrics(task: Task, train: bool) -> Metrics:
    """Shapes of the metrics that the task's objective reports about a batch.

    Args:
      task: with data, model and objective.
      train: in training mode, or in evaluation mode.

    Raises:
      FedError: if the loss is not one number.
    """
    key = jax.random.key(0)
    train_data = task.data.train
    x, y = jax.tree.map(
        lambda leaf: np.broadcast_to(leaf[:1], (ROWS, *leaf.shape[1:])),
        (train_data.x, train_data.y),
    )
    variables = jax.eval_shape(task.init, key)
    batch = Batch(x, y, np.ones(ROWS, bool))  # type: ignore[arg-type]
    value, (_, metrics) = jax.eval_shape(
        lambda v, k, b: task.objective.loss(v, k, b, train), variables, key, batch
    )
    require(
        value.shape == (),
        "a loss is one number",
        got=f"shape {value.shape}",
        fix="choose a model whose output is like the task's labels",
    )
    return metrics


def stop_problem(experiment: Experiment) -> str | None:
    """What is wrong with ``stop.metric``; ``None`` if it is reported.

    Rounds are traced only if nothing simpler has the name.
    """
    stop = experiment.config.run.stop
    if stop is None:
        return None
    training = reported_metrics(experiment.task, True)
    known = {"seconds", *training, *evaluation_metrics(experiment)}
    if stop.metric in known:
        return None
    known |= set(round_metrics(experiment))
    if stop.metric in known:
        return None
    return sentence(
        "no metric has this name",
        got=repr(stop.metric),
        fix=suggest(stop.metric, known),
    )


def evaluation_metrics(experiment: Experiment) -> Iterator[str]:
    """Names of all numbers that an evaluation of this experiment gives."""
    from fedjax_sim.simulation.evaluate_clients import client_statistics

    data = experiment.task.data
    one = np.ones(1)
    for name in reported_metrics(experiment.task, False):
        if data.global_test is not None:
            yield f"test/{name}"
        if experiment.config.run.evaluation.clients and data.test is not None:
            yield from client_statistics(name, Mean(one, one))  # type: ignore[arg-type]


def round_metrics(experiment: Experiment) -> list[str]:
    """Names of all numbers that a whole round reports, those of algorithm and aggregator too."""
    from fedjax_sim.data.population import outline
    from fedjax_sim.engine.round import initial_state, make_spmd

    plan = experiment.program.plan
    on_one_device = plan._replace(
        devices=plan.devices[:1],
        shards=plan.shards_per_device,
        backend="vmap",
        devices_per_client=1,
    )
    algorithm = experiment.algorithm
    sampler = experiment.sampler
    work = experiment.local_work
    spmd = make_spmd(algorithm, sampler, on_one_device, work, experiment.guard)

    def run(variables: Any, table: Any) -> Metrics:
        state = initial_state(algorithm, sampler, table.size, work, variables, 0)
        return spmd(state, table)[1].metrics

    variables = jax.eval_shape(experiment.task.init, jax.random.key(0))
    metrics = jax.eval_shape(run, variables, outline(experiment.task.data.train))
    return [name for name, metric in metrics.items() if np.shape(jax.tree.leaves(metric)[0]) == ()]
