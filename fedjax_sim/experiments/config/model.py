"""The whole configuration of a run as one pydantic model, generated from the registry."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, model_validator

from fedjax_sim.core import registry
from fedjax_sim.core.annotations import ANY_SIZE, MAY_CHANGE_ON_RESUME
from fedjax_sim.core.errors import require
from fedjax_sim.experiments.config.fields import (
    NONE,
    Fields,
    Parts,
    Settings,
    arguments,
    fields_of,
    optional,
    table,
    tagged,
)
from fedjax_sim.experiments.plugins import load_plugins

Entries = Mapping[str, Mapping[str, Any]]
"""Name of a kind to its entries by name: what a configuration file can name."""


def entries_by_kind() -> dict[str, Mapping[str, Any]]:
    """Everything that is registered, by installed plug-ins too.

    Imports JAX and every room that declares a kind.
    """
    load_plugins()
    return {name: registry.entries(name) for name in registry.kinds()}


SEED = "of the first model and of all rounds; the data follow from task.seed"
STOP = "early stopping; absent: all rounds"

Count = Annotated[int, Field(ge=1)]
"""How many of something there must be."""


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
    keep_every: optional(Count) = Field(  # type: ignore[valid-type]
        default=None,
        description="besides these, checkpoints whose round is a multiple of this number stay",
    )


class Stop(Settings):
    """When the run may end early."""

    metric: str = Field(default="test/accuracy", description="a number that metrics.jsonl records")
    at_least: optional(float) = Field(  # type: ignore[valid-type]
        default=None, description="the run ends once the metric has reached this"
    )
    at_most: optional(float) = Field(  # type: ignore[valid-type]
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


def run_model(entries: Entries) -> type[Settings]:
    """The model of a whole file."""
    from fedjax_sim.data.batching import local_work
    from fedjax_sim.engine.nonfinite import guard

    parts = parts_of(entries)
    fields = {
        "seed": (Annotated[int, ANY_SIZE], Field(0, ge=0, lt=2**32, description=SEED)),
        "rounds": _may_change(int, Field(100, ge=1, description="communication rounds")),
        "task": _named("task", entries, parts),
        "model": _named("model", entries, parts, _precision(), required=False),
        "algorithm": _named("algorithm", entries, parts),
        "sampler": _named("sampler", entries, parts, _wrappers(entries, parts)),
        "local_work": _section("local_work", local_work, fields_of(local_work, parts)),
        "engine": _may_change(*_section("engine", _engine(), _engine_fields(parts))),
        "guard": _may_change(*_section("guard", guard, fields_of(guard, parts))),
        "evaluation": _may_change(Evaluation, Field(default_factory=Evaluation)),
        "checkpoint": _may_change(Checkpoint, Field(default_factory=Checkpoint)),
        "stop": _may_change(optional(Stop), Field(None, description=STOP)),
    }
    return table("Run", run_model, fields)


def parts_of(entries: Entries) -> Parts:
    """The tables that may stand for one parameter of a factory."""
    return Parts(registry.kinds().values(), entries)


def _named(
    kind_name: str,
    entries: Entries,
    parts: Parts,
    extra: Fields | None = None,
    required: bool = True,
) -> tuple[Any, Any]:
    """The section that holds one entry of a kind."""
    kind = registry.kind(kind_name)
    tables = tagged(kind, entries[kind_name], parts, extra)
    if required:
        return tables, Field(description=kind.meaning)
    return optional(tables), Field(None, description=kind.meaning)


def _may_change(hint: Any, field: Any) -> tuple[Any, Any]:
    """A section, or a setting, that does not decide what the rounds compute."""
    return Annotated[hint, MAY_CHANGE_ON_RESUME], field


def _engine_fields(parts: Parts) -> Fields:
    """The engine's settings, counts at least 1, and how many rounds a program has."""
    described = arguments(_engine())
    counted = {
        "devices": (optional(Count), Field(None, description=described["devices"])),
        "shards": (optional(Count), Field(None, description=described["shards"])),
        "devices_per_client": (Count, Field(1, description=described["devices_per_client"])),
        "rounds_per_call": (Count, Field(1, description="rounds in one compiled program")),
    }
    return fields_of(_engine(), parts) | counted


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


def _wrappers(entries: Entries, parts: Parts) -> Fields:
    """One optional field for each wrapper of samplers: a table of its settings, or its first
    setting alone.
    """
    kinds = [kind for kind in registry.kinds().values() if kind.wraps == "sampler"]
    return {
        name: _wrapper(kind, name, entry, parts)
        for kind in kinds
        for name, entry in entries[kind.name].items()
    }


def _wrapper(kind: registry.Kind, name: str, entry: Any, parts: Parts) -> tuple[Any, Any]:
    factory = getattr(entry, "factory", entry)
    fields = fields_of(factory, parts, kind.provided, kind.wired)
    model = table(f"{kind.wraps}_{name}", factory, fields)
    model.entry = entry
    first = next(iter(fields))

    def expand(value: Any) -> Any:
        is_table = isinstance(value, dict | Settings)
        return value if is_table or value in (None, NONE) else {first: value}

    expanded = BeforeValidator(expand, json_schema_input_type=fields[first][0] | model)
    return optional(Annotated[model, expanded]), Field(None, description=model.__doc__)
