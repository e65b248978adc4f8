"""Runs that start in Python: their configuration comes from the calls that made their parts."""

from __future__ import annotations

import contextlib
import functools
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fedjax_sim.core import registry
from fedjax_sim.core.calls import Call, arrays_of, call_of, calls_with
from fedjax_sim.core.errors import fail, require
from fedjax_sim.engine.nonfinite import NonFinitePolicy
from fedjax_sim.engine.program import Program, ProgramArguments
from fedjax_sim.experiments.config import Config, dumps, entries_by_kind, resolve
from fedjax_sim.experiments.config.fields import NONE
from fedjax_sim.experiments.config.toml import Document
from fedjax_sim.experiments.experiment import Experiment
from fedjax_sim.experiments.records import RunFolder, open_writers
from fedjax_sim.experiments.run import (
    checkpoint_metadata,
    close_quietly,
    new_folder,
    open_checkpoints,
    reporting_nonfinite,
    write_config,
)
from fedjax_sim.experiments.summary import summarise, write_summary
from fedjax_sim.runtime.processes import is_main_process
from fedjax_sim.simulation import simulate as loop
from fedjax_sim.simulation.loop import MEMORY

if TYPE_CHECKING:
    from fedjax_sim.persistence.checkpoint import Store

ORIGIN = "python"
"""What stands for the file of a configuration that was not read from one."""

REGISTER = "make it with a registered factory, or register yours with fs.register"

MANAGED = {"store", "writers", "resume", "history", "metadata"}
"""Arguments of the loop that a folder takes care of."""


def simulate_into(
    program: Program, variables: Any, rounds: int, out: Path, options: dict[str, Any]
) -> loop.Result:
    """Runs a program into a folder; see :func:`fedjax_sim.simulate`.

    Args:
      program: from :func:`fedjax_sim.make_round`.
      variables: the model to start from.
      rounds: of the run.
      out: the folder.
      options: further arguments of the loop.

    Returns:
      The result of the loop.

    Raises:
      FedError: if a part cannot be named in a configuration, or the folder holds a run already.
    """
    managed = sorted(MANAGED & options.keys())
    require(
        not managed,
        "with out, the folder brings its own writers and checkpoints",
        got=", ".join(managed),
        fix=f"leave out {', '.join(managed)}, or the argument out",
    )
    config = configuration(program, rounds, **options)
    arguments = _arguments(program)
    parts = (arguments.algorithm, arguments.sampler, arguments.local_work)
    rest = (arguments.engine, arguments.guard, program)
    experiment = Experiment(config, None, *parts, *rest)  # type: ignore[arg-type]
    place = RunFolder(new_folder(config, out))
    if is_main_process():
        write_config(experiment, place)
    with contextlib.ExitStack() as stack:
        store = open_checkpoints(experiment, place.path)
        stack.callback(close_quietly, store)
        metadata = checkpoint_metadata(experiment)
        first = _save_first_state(program, variables, options.get("seed", 0), store, metadata)
        with reporting_nonfinite(experiment, place.path):
            result = loop.simulate(
                program,
                None,
                rounds=rounds,
                store=store,
                writers=open_writers(place, None, None) if is_main_process() else (),
                metadata=metadata,
                resume=first,
                **{name: value for name, value in options.items() if name != "seed"},
            )
        saved = store.steps()[-1:] == (int(result.state.round),)
    write_summary(place, {**summarise(experiment, result), "saved": saved})
    return result


def _save_first_state(
    program: Program, variables: Any, seed: int, store: Store, metadata: dict[str, Any]
) -> Any:
    """Saves the state before the first round, so that a run that is stopped early resumes from the
    caller's model; returns it.
    """
    state = program.logical(program.init(variables, seed))
    memory = program.host_memory
    store.save(state, metadata | ({MEMORY: memory.snapshot()} if memory else {}))
    store.wait()
    return state


# --------------------------------------------------------------------------- the configuration


def configuration_text(program: Program, rounds: int, **options: Any) -> str:
    """The configuration of a program as TOML; the arguments are those of :func:`configuration`."""
    return dumps(configuration(program, rounds, **options))


def configuration(program: Program, rounds: int, **options: Any) -> Config:
    """The configuration that makes a program, from the calls that made its parts.

    Args:
      program: from :func:`fedjax_sim.make_round`.
      rounds: of the run.
      **options: of :func:`fedjax_sim.simulate`; ``seed``, ``evaluate_every``, ``checkpoint_every``,
        ``rounds_per_call``, ``patience`` and ``target`` are used.

    Raises:
      FedError: if a part did not come from a registered factory, or an argument of it cannot be
        written.
    """
    arguments = _arguments(program)
    tables: dict[str, Any] = {
        "seed": int(options.get("seed", 0)),
        "rounds": _value(rounds, "rounds"),
        "task": _task(arguments),
        "algorithm": _entry(arguments.algorithm, "algorithm", "algorithm"),
        "sampler": _sampler(arguments.sampler),
        "local_work": _fields(arguments.local_work, "local_work"),
        "engine": _engine(arguments, options),
        "guard": _guard(arguments.guard, options),
        "evaluation": _settings({"every": options.get("evaluate_every", 10)}, "evaluation"),
        "checkpoint": _settings(
            {"every": options.get("checkpoint_every", 50) or rounds}, "checkpoint"
        ),
    }
    if options.get("target"):
        metric, least = options["target"]
        tables["stop"] = {"metric": metric, "at_least": float(least)}
    document = Document(ORIGIN, tables, tables, ())
    return resolve(document, entries_by_kind())


def _arguments(program: Program) -> ProgramArguments:
    if program.arguments is None:
        fail(
            "a program without arguments has no configuration",
            got="Program.arguments = None",
            fix="make it with fs.make_round",
        )
    return program.arguments


def _task(arguments: ProgramArguments) -> dict[str, Any]:
    """The task whose objective the algorithm got and whose data the program has."""
    algorithm = _call(arguments.algorithm, "algorithm", "algorithm")
    loss = getattr(algorithm.arguments.get("objective"), "loss", None)
    tasks = [call for call in calls_with(loss) if call.kind == "task"]
    require(
        bool(tasks),
        "the run's task cannot be written to a configuration",
        got="an objective that no registered task made",
        fix=REGISTER,
        setting="task",
    )
    examples = next(arrays_of(arguments.data), None)
    task = next((call for call in tasks if call.holds(examples)), None)
    if task is None:
        fail(
            "a program that is written to a folder runs on the data of its task",
            got="other data",
            fix=f"pass task.data.train of {tasks[0].name!r}, or register a task with your data",
            setting="task",
        )
    return _table(task, "task", set())


def _sampler(sampler: Any) -> dict[str, Any]:
    """The sampler's table, with its wrappers as tables in it."""
    call = call_of(sampler)
    if call is None or call.kind != "sampler_wrapper":
        return _entry(sampler, "sampler", "sampler")
    inner = next(iter(call.arguments))
    settings = {name: value for name, value in call.arguments.items() if name != inner}
    table = _sampler(call.arguments[inner])
    require(
        call.name not in table,
        "a configuration has each wrapper of a sampler once",
        got=f"{call.name} around {call.name}",
        fix="combine their settings",
    )
    return {**table, call.name: _settings(settings, f"sampler.{call.name}")}


def _entry(thing: Any, kind: str, key: str) -> dict[str, Any]:
    """The table of a thing that a registered factory made."""
    call = _call(thing, kind, key)
    provided = registry.kind(kind).provided
    return _table(call, key, set(list(call.arguments)[:provided]))


def _call(thing: Any, kind: str, key: str) -> Call:
    call = call_of(thing)
    if call is None or call.kind != kind:
        fail(
            f"the run's {key} cannot be written to a configuration",
            got=f"{type(thing).__name__} that no registered {kind} made",
            fix=REGISTER,
            setting=key,
        )
    return call


def _table(call: Call, key: str, without: set[str]) -> dict[str, Any]:
    settings = {name: value for name, value in call.arguments.items() if name not in without}
    return {registry.kind(call.kind).key: call.name, **_settings(settings, key)}


def _settings(settings: dict[str, Any], key: str) -> dict[str, Any]:
    return {name: _value(value, f"{key}.{name}") for name, value in settings.items()}


def _fields(thing: Any, key: str) -> dict[str, Any]:
    """The fields of a plain record, such as an engine, that differ from its defaults."""
    defaults = getattr(type(thing), "_field_defaults", {})
    fields = thing._asdict().items()
    changed = {name: value for name, value in fields if defaults.get(name, _MISSING) != value}
    return _settings(changed, key)


def _engine(arguments: ProgramArguments, options: dict[str, Any]) -> dict[str, Any]:
    per_call = {"rounds_per_call": options.get("rounds_per_call", 1)}
    return {**_fields(arguments.engine, "engine"), **_settings(per_call, "engine")}


def _guard(policy: NonFinitePolicy, options: dict[str, Any]) -> dict[str, Any]:
    """The policy in full, since a file's default is another; its patience is the loop's."""
    patience = options.get("patience", 3)
    settings = {**policy._asdict(), "patience": patience}
    return _settings(settings, "guard")


_MISSING = object()


def _value(value: Any, key: str) -> Any:
    """A setting as TOML writes it: a plain value, or the table of what made it."""
    if value is None:
        return NONE
    if isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, np.generic):
        return value.item()
    call = call_of(value)
    if call is not None:
        return _made(call, key)
    if isinstance(value, functools.partial) and not value.args:
        return {"kind": _registered_name(value.func, key), **_settings(value.keywords, key)}
    if inspect.isfunction(value):
        return {"kind": _registered_name(value, key)}
    if isinstance(value, tuple | list) and not hasattr(value, "_fields"):
        return [_value(item, f"{key}.{number}") for number, item in enumerate(value)]
    fail(
        f"{key} cannot be written to a configuration",
        got=type(value).__name__,
        fix=REGISTER,
        setting=key,
    )


def _made(call: Call, key: str) -> Any:
    """The table of a call; a list of tables for several that were joined."""
    if call.name:
        return _table(call, key, set())
    (parts,) = call.arguments.values()
    return [_value(part, f"{key}.{number}") for number, part in enumerate(parts)]


def _registered_name(factory: Callable[..., Any], key: str) -> str:
    """The name of a factory that is passed itself, such as a partition."""
    wanted = inspect.unwrap(factory)
    for entries in entries_by_kind().values():
        for name, entry in entries.items():
            if callable(entry.factory) and inspect.unwrap(entry.factory) is wanted:
                return name
    fail(
        f"{key} cannot be written to a configuration",
        got=f"the function {getattr(factory, '__name__', factory)}, which is not registered",
        fix="register it with fs.register",
        setting=key,
    )
