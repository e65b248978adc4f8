"""That the parts of an experiment fit each other, shown on shapes alone: nothing is computed, and no folder is made yet."""

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
"""Examples in the batch that is tried: a number that few other axes have, so that broadcasting hides no misfit."""


def check_model_fits(config: Config, task: Task, log: Log) -> None:
    """Tries the model and the loss on the shapes of a batch of the task's training data, and notes what does not fit.

    Raises:
      ConfigErrors: where it is not this package that complains, with the complaint as its cause.
    """
    run = config.run
    own = "task.model" if "model" in type(run.task).model_fields else "task"
    key, fields = (own, ()) if run.model is None else ("model", type(run.model).model_fields)
    try:
        log.guard(key, fields, lambda: [reported(task, train) for train in (True, False)])
        log.guard(key, fields, lambda: _model_fits(task))
    except Exception as error:
        first = (str(error).strip().splitlines() or [""])[0][:200]
        text = sentence(
            "the model does not fit the task's data",
            got=f"{type(error).__name__}: {first}",
            fix="choose a model for such examples",
        )
        raise ConfigErrors(line(config.document, key, text)) from error


def _model_fits(task: Task) -> None:
    copies = (
        4 if jax.default_backend() == "cpu" else 1
    )  # with its gradient, a client's copy and the next round's
    model = tree.nbytes(jax.eval_shape(task.init, jax.random.key(0)))
    require_memory(
        "the model" + " and its copies" * (copies > 1), copies * model, "choose a smaller model"
    )


def memory_fits(task: Task, algorithm: Algorithm, engine: Engine) -> None:
    """Refuses clients who remember more than there is room for.

    Raises:
      FedError: where the devices are to keep it, and the machine itself has less.
    """
    row = jax.eval_shape(lambda key: algorithm.memory(task.init(key)), jax.random.key(0))
    if engine.client_memory == "device":
        remembered = tree.nbytes(row) * task.data.train.clients
        require_memory(
            "what all clients remember",
            remembered,
            "keep it in files, with engine.client_memory = 'host'",
            "client_memory",
        )


def reported(task: Task, train: bool) -> Metrics:
    """Shapes of the metrics that the task's objective reports about a batch, in training mode or in evaluation mode."""
    key, data = jax.random.key(0), task.data.train
    x, y = jax.tree.map(
        lambda leaf: np.broadcast_to(leaf[:1], (ROWS, *leaf.shape[1:])), (data.x, data.y)
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


def stop_problem(made: Experiment) -> str | None:
    """What is wrong with ``stop.metric``, if nobody will report it. Rounds are traced only where nothing simpler has the name."""
    run = made.config.run
    if run.stop is None:
        return None
    known = {"seconds", *reported(made.task, True), *evaluated(made)}
    if run.stop.metric in known:
        return None
    known |= set(of_round(made))
    if run.stop.metric in known:
        return None
    return sentence(
        "nobody reports a number of this name",
        got=repr(run.stop.metric),
        fix=suggest(run.stop.metric, known),
    )


def evaluated(made: Experiment) -> Iterator[str]:
    """Names of all numbers that an evaluation of this experiment gives."""
    from fedjax_sim.simulation.evaluate_clients import client_statistics

    data, one = made.task.data, np.ones(1)
    for name in reported(made.task, False):
        if data.global_test is not None:
            yield f"test/{name}"
        if made.config.run.evaluation.clients and data.test is not None:
            yield from client_statistics(name, Mean(one, one))  # type: ignore[arg-type]


def of_round(made: Experiment) -> list[str]:
    """Names of all numbers that a whole round reports, the algorithm's and the aggregator's among them."""
    from fedjax_sim.data.population import outline
    from fedjax_sim.engine.round import initial_state, make_spmd

    plan = made.program.plan
    one = plan._replace(
        devices=plan.devices[:1],
        shards=plan.shards_per_device,
        backend="vmap",
        devices_per_client=1,
    )
    variables = jax.eval_shape(made.task.init, jax.random.key(0))

    def go(variables: Any, table: Any) -> Metrics:
        state = initial_state(
            made.algorithm, made.sampler, table.size, made.local_work, variables, 0
        )
        return make_spmd(made.algorithm, made.sampler, one, made.local_work, made.guard)(
            state, table
        )[1].metrics

    metrics = jax.eval_shape(go, variables, outline(made.task.data.train))
    return [name for name, metric in metrics.items() if np.shape(jax.tree.leaves(metric)[0]) == ()]
