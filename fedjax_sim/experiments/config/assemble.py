"""The parts of an experiment, made from the tables of a valid configuration."""

from __future__ import annotations

from typing import Any, NamedTuple

from fedjax_sim.core.errors import sentence
from fedjax_sim.experiments.config.construct import FAILED, Log, make
from fedjax_sim.experiments.config.fields import Settings, settings_of
from fedjax_sim.experiments.config.messages import variant_tag


class Parts(NamedTuple):
    """What the tables describe.

    A part is ``FAILED`` if its table was wrong, and ``None`` if it was not asked for.
    """

    task: Any
    algorithm: Any
    sampler: Any
    local_work: Any
    engine: Any
    guard: Any


def assemble(sections: dict[str, Any], log: Log, data: bool = True) -> Parts:
    """Calls the factories of all tables that are present.

    Args:
      sections: table name to validated settings; wrong tables are missing.
      log: takes the errors of the factories.
      data: whether to make the task, which loads data. Without it, the algorithm gets a stand-in
        for the objective, which is enough for its factory to check its settings.
    """
    model = _model(sections.get("model"), log)
    task = _task(sections.get("task"), model, log) if data else None
    objective = task.objective if task not in (None, FAILED) else _stand_in()
    return Parts(
        task,
        make(sections.get("algorithm"), "algorithm", log, objective),
        _sampler(sections.get("sampler"), log),
        make(sections.get("local_work"), "local_work", log),
        make(sections.get("engine"), "engine", log),
        make(sections.get("guard"), "guard", log),
    )


def _model(settings: Settings | None, log: Log) -> Any:
    """The function that the task calls with its number of outputs.

    It is tried once here, so that errors are about the right table.
    """
    if settings is None:
        return None
    from fedjax_sim.models import mixed_precision

    compute: Any = getattr(settings, "compute", "float32")
    if make(settings, "model", log, 10) is FAILED:
        return FAILED
    return lambda outputs: mixed_precision(make(settings, "model", Log([]), outputs), compute)


def _task(settings: Settings | None, model: Any, log: Log) -> Any:
    if settings is None or model is FAILED:
        return FAILED
    if model is None:
        return make(settings, "task", log)
    problem = _model_problem(settings)
    if problem is not None:
        log.entries.append(problem)
        return FAILED
    return make(settings, "task", log, model=model)


def _model_problem(task: Settings) -> tuple[str, str] | None:
    """Why this task cannot use the table ``[model]``: a key and a sentence; ``None`` if it can."""
    if "model" not in settings_of(type(task).factory):
        what = f"task {variant_tag(task)!r} brings its own model"
        fix = "remove it, or choose another task"
        return "model", sentence(what, got="a table [model]", fix=fix)
    if "model" in task.model_fields_set:
        got = "task.model and a table [model]"
        return "task.model", sentence(
            "the model is chosen twice", got=got, fix="remove one of them"
        )
    return None


def _sampler(settings: Settings | None, log: Log) -> Any:
    """The sampler in its wrappers, the first wrapper innermost."""
    from fedjax_sim.samplers import full

    sampler = make(settings, "sampler", log)
    own = settings_of(type(settings).factory) if settings is not None else {}
    for name in type(settings).model_fields if settings is not None else ():
        wrapper = getattr(settings, name)
        if name in own or not isinstance(wrapper, Settings):
            continue
        inner = full() if sampler is FAILED else sampler
        wrapped = make(wrapper, f"sampler.{name}", log, inner)
        sampler = FAILED if FAILED in (sampler, wrapped) else wrapped
    return sampler


def _stand_in() -> Any:
    """An objective whose loss is always 0."""
    import jax.numpy as jnp

    from fedjax_sim.core.types import Array, Batch, Key, Metrics, Objective, PyTree, Variables

    def loss(
        variables: Variables, key: Key, batch: Batch, train: bool
    ) -> tuple[Array, tuple[PyTree, Metrics]]:
        return jnp.zeros(()), (variables.state, {})

    return Objective(loss)
