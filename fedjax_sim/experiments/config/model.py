"""The whole configuration of a run as one pydantic model, generated from the registries."""

from __future__ import annotations

from typing import Annotated, Any, NamedTuple

from pydantic import BeforeValidator, Field, model_validator

from fedjax_sim.core.errors import require
from fedjax_sim.experiments.config.fields import (
    NONE,
    Family,
    Parts,
    Settings,
    fields_of,
    listable,
    nameable,
    optional,
    schedulable,
    table,
    tagged,
)


class Registries(NamedTuple):
    """What can be named in a file. Each maps a name to a factory, or to an entry that has it as ``.factory``."""

    tasks: dict[str, Any]
    partitions: dict[str, Any]
    """``(labels, clients, *, seed, ...) -> parts``; the first two and the seed come from the task."""
    models: dict[str, Any]
    algorithms: dict[str, Any]
    samplers: dict[str, Any]
    wrappers: dict[str, Any]
    """Samplers' wrappers: ``(sampler, ...) -> sampler``."""
    aggregators: dict[str, Any]
    optimizers: dict[str, Any]
    schedules: dict[str, Any]


def registries() -> Registries:
    """All registries of the package. Imports JAX."""
    from fedjax_sim import aggregators, algorithms, data, models, optimizers, samplers, tasks

    return Registries(
        tasks.REGISTRY,
        data.PARTITIONS,
        models.REGISTRY,
        algorithms.REGISTRY,
        samplers.REGISTRY,
        samplers.WRAPPERS,
        aggregators.REGISTRY,
        optimizers.REGISTRY,
        optimizers.SCHEDULES,
    )


MODEL = Family("model", "name", skip=1)
"""The task says how many outputs a model needs."""
PARTITION = Family("partition", "kind", skip=2, wired=("seed",), later=True)

Count = Annotated[int, Field(ge=1)]
"""How many of something there must be."""
OptionalCount: Any = optional(Count)
OptionalBound: Any = optional(float)


class Evaluation(Settings):
    """How often and on what the model is evaluated."""

    every: int = Field(default=10, ge=1, description="rounds between evaluations")
    clients: bool = Field(default=False, description="also on every client's own test examples")
    batch_size: int = Field(default=256, ge=1, description="examples at once")


class Checkpoint(Settings):
    """When the state of the run is saved."""

    every: int = Field(
        default=50, ge=1, description="rounds between checkpoints; the last round is always saved"
    )
    keep: int = Field(default=3, ge=1, description="how many of the newest checkpoints stay")
    keep_every: OptionalCount = Field(
        default=None, description="besides these, checkpoints of each so many rounds stay"
    )


class Stop(Settings):
    """When the run may end early."""

    metric: str = Field(default="test/accuracy", description="a number that metrics.jsonl records")
    at_least: OptionalBound = Field(
        default=None, description="the run ends once the metric has reached this"
    )
    at_most: OptionalBound = Field(
        default=None, description="the run ends once the metric has come down to this"
    )

    @model_validator(mode="after")
    def _one_bound(self) -> Stop:
        given = [name for name in ("at_least", "at_most") if getattr(self, name) is not None]
        require(
            len(given) == 1,
            "a run stops at one bound",
            got=" and ".join(given) or "none",
            fix="give either at_least or at_most",
        )
        return self


def run_model(known: Registries) -> type[Settings]:
    """The model of a whole file."""
    from fedjax_sim.data.batching import local_work
    from fedjax_sim.engine.nonfinite import guard

    parts = parts_of(known)
    engine = fields_of(_engine(), parts) | {
        "devices": (optional(Count), Field(None, description="how many; by default all")),
        "shards": (
            optional(Count),
            Field(
                None,
                description="a fixed number gives the same bits on any number of devices that divides it",
            ),
        ),
        "devices_per_client": (
            Count,
            Field(1, description="devices that one client's model is spread over; it divides them"),
        ),
        "rounds_per_call": (Count, Field(1, description="rounds in one compiled program")),
    }
    models = tagged(MODEL._replace(extra=_precision()), known.models, parts)
    samplers = Family("sampler", "kind", extra=_wrappers(known.wrappers, parts))
    fields = {
        "seed": (
            int,
            Field(
                0,
                ge=0,
                lt=2**32,
                description="of the first model and of all rounds; the data follow from task.seed",
            ),
        ),
        "rounds": (int, Field(100, ge=1, description="communication rounds")),
        "task": (
            tagged(Family("task", "name"), known.tasks, parts),
            Field(description="the data, and what is learned from it"),
        ),
        "model": (optional(models), Field(None, description="instead of the task's own")),
        "algorithm": (
            tagged(Family("algorithm", "name"), known.algorithms, parts),
            Field(description="how clients and server learn"),
        ),
        "sampler": (
            tagged(samplers, known.samplers, parts),
            Field(description="who takes part in a round"),
        ),
        "local_work": _section("local_work", local_work, fields_of(local_work, parts)),
        "engine": _section("engine", _engine(), engine),
        "guard": _section("guard", guard, fields_of(guard, parts)),
        "evaluation": (Evaluation, Field(default_factory=lambda: Evaluation())),
        "checkpoint": (Checkpoint, Field(default_factory=lambda: Checkpoint())),
        "stop": (optional(Stop), Field(None, description="early stopping; absent: all rounds")),
    }
    return table("Run", run_model, fields)


def parts_of(known: Registries) -> Parts:
    """Tables that stand for one argument of a factory: schedules, optimizers, aggregators and partitions."""
    import optax

    from fedjax_sim import aggregators, optimizers
    from fedjax_sim.core.types import Aggregator
    from fedjax_sim.data import Partition

    parts: Parts = {"schedule": schedulable(known.schedules)}
    optimizer = listable(
        tagged(Family("optimizer", "kind", join=optimizers.chain), known.optimizers, dict(parts))
    )
    parts |= {
        optax.GradientTransformation: optimizer,
        optax.GradientTransformationExtraArgs: optimizer,
    }
    parts |= {
        Aggregator: listable(
            tagged(
                Family("aggregator", "kind", join=aggregators.chain), known.aggregators, dict(parts)
            )
        )
    }
    return parts | {Partition: nameable(tagged(PARTITION, known.partitions, {}), known.partitions)}


def _engine() -> Any:
    from fedjax_sim.engine.plan import Engine

    return Engine


def _section(title: str, factory: Any, fields: dict[str, Any]) -> tuple[Any, Any]:
    """A table that may be left out, for everything in it has a default."""
    model = table(title, factory, fields)
    return model, Field(default_factory=model)


def _precision() -> dict[str, Any]:
    """What every model may be wrapped in."""
    from fedjax_sim.models.precision import Compute

    return {
        "compute": (
            Compute,
            Field("float32", description="floats to compute in; parameters and sums stay float32"),
        )
    }


def _wrappers(wrappers: dict[str, Any], parts: Parts) -> dict[str, Any]:
    """One optional field for each wrapper: a table of its settings, or its first setting alone."""
    fields = {}
    for name, factory in wrappers.items():
        own = fields_of(factory, parts)
        model, first = table(f"sampler_{name}", factory, own), next(iter(own))

        def short(value: Any, first: str = first) -> Any:
            return (
                value
                if isinstance(value, dict | Settings) or value in (None, NONE)
                else {first: value}
            )

        kind = Annotated[
            model, BeforeValidator(short, json_schema_input_type=own[first][0] | model)
        ]
        fields[name] = (optional(kind), Field(None, description=model.__doc__))
    return fields
