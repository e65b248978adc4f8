"""The parts of an experiment, from the tables of a valid configuration."""

from __future__ import annotations

from typing import Any, NamedTuple

from fedjax_sim.core.errors import sentence
from fedjax_sim.experiments.config.construct import FAILED, Log, make
from fedjax_sim.experiments.config.fields import Settings, settings_of
from fedjax_sim.experiments.config.messages import variant_tag


class Parts(NamedTuple):
    """What the tables describe. A part is ``FAILED`` where its table was wrong, and ``None`` where it was not asked for."""

    task: Any
    algorithm: Any
    sampler: Any
    local_work: Any
    engine: Any
    guard: Any


def assemble(sections: dict[str, Any], log: Log, data: bool = True) -> Parts:
    """Calls the factories of all tables that are there.

    Args:
      sections: table name to validated settings; wrong ones are missing.
      log: takes the factories' complaints.
      data: whether to make the task, which loads data. Without it, the algorithm gets a stand-in for the objective, which is
        enough for its factory to check its settings.
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
    """What the task calls with its number of outputs; tried once here, so that complaints are about the right table."""
    if settings is None:
        return None
    from fedjax_sim.models import mixed_precision

    compute: Any = getattr(settings, "compute", "float32")
    tried = make(settings, "model", log, 10)
    return (
        tried
        if tried is FAILED
        else lambda outputs: mixed_precision(make(settings, "model", Log([]), outputs), compute)
    )


def _task(settings: Settings | None, model: Any, log: Log) -> Any:
    if settings is None or model is FAILED:
        return FAILED
    if model is None:
        return make(settings, "task", log)
    got, key = None, "model"
    if "model" not in settings_of(type(settings).factory):
        got = sentence(
            f"task {variant_tag(settings)!r} brings its own model",
            got="a table [model]",
            fix="remove it, or choose another task",
        )
    elif "model" in settings.model_fields_set:
        key, got = (
            "task.model",
            sentence(
                "the model is chosen twice",
                got="task.model and a table [model]",
                fix="remove one of them",
            ),
        )
    if got:
        log.entries.append((key, got))
        return FAILED
    return make(settings, "task", log, model=model)


def _sampler(settings: Settings | None, log: Log) -> Any:
    """The sampler in its wrappers, first wrapper innermost."""
    from fedjax_sim.samplers import full

    sampler = make(settings, "sampler", log)
    own = settings_of(type(settings).factory) if settings is not None else {}
    for name in type(settings).model_fields if settings is not None else ():
        wrapper = getattr(settings, name)
        if name not in own and isinstance(wrapper, Settings):
            wrapped = make(
                wrapper, f"sampler.{name}", log, full() if sampler is FAILED else sampler
            )
            sampler = FAILED if FAILED in (sampler, wrapped) else wrapped
    return sampler


def _stand_in() -> Any:
    """An objective that is 0 everywhere."""
    import jax.numpy as jnp

    from fedjax_sim.core.types import Array, Batch, Key, Metrics, Objective, PyTree, Variables

    def loss(
        variables: Variables, key: Key, batch: Batch, train: bool
    ) -> tuple[Array, tuple[PyTree, Metrics]]:
        return jnp.zeros(()), (variables.state, {})

    return Objective(loss)
