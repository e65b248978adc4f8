"""``fedjax-sim export``: writes the model of a run to one file."""

from __future__ import annotations

import argparse
import hashlib
import json
import math
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from rich.console import Console

from fedjax_sim.cli.run import experiment_of_run, say
from fedjax_sim.core import tree
from fedjax_sim.core.errors import fail
from fedjax_sim.data.prepared.writer import form
from fedjax_sim.engine.round import initial_state
from fedjax_sim.experiments.config.load import tables
from fedjax_sim.experiments.config.messages import variant_tag
from fedjax_sim.experiments.estimate import format_bytes
from fedjax_sim.experiments.experiment import Experiment
from fedjax_sim.experiments.records import CHECKPOINTS, ROWS
from fedjax_sim.experiments.run import starting_variables
from fedjax_sim.models import Model
from fedjax_sim.persistence.checkpoint import Restored, open_store
from fedjax_sim.persistence.export import PROGRAM, Card, save_program, save_weights
from fedjax_sim.persistence.manifest import state_hash
from fedjax_sim.simulation.history import from_jsonl

READ = {
    "safetensors": (
        "safetensors.numpy.load_file(FILE), or fedjax_sim.export.load_weights(FILE, like)"
    ),
    "stablehlo": "fedjax_sim.export.load_program(FILE)(x)",
    "msgpack": "fedjax_sim.export.load_weights(FILE, like)",
    "npz": "numpy.load(FILE), or fedjax_sim.export.load_weights(FILE, like)",
}
"""Python expressions that read a file of each format."""

ANYWHERE = (
    "engine.devices=none",
    "engine.shards=none",
    "engine.devices_per_client=1",
    "engine.backend=auto",
    "engine.memory_limit=none",
)
"""Overrides with which a run of another machine can be exported on this one."""


def export(args: argparse.Namespace) -> None:
    """``export RUN [--format NAME] [--out FILE] [--round N] [--force]``."""
    folder = Path(args.run)
    kind = args.format
    ready = experiment_of_run(folder, ANYWHERE, args)
    restored = checkpoint_of(ready, folder, args.round)
    variables = ready.algorithm.variables(restored.state.algorithm)
    path = Path(args.out) if args.out else folder / f"model-{restored.step}.{kind}"
    card = {**card_of(ready, restored, folder), "read": READ[kind]}
    if kind == PROGRAM:
        example = ready.task.data.train.x
        save_program(path, _require_model(ready), variables, example, card, args.force)
    else:
        save_weights(path, variables, card, kind, args.force)
    console = Console()
    for note in restored.notes:
        say(console, f"note: {note}")
    size = format_bytes(path.stat().st_size)
    model = f"the model of round {restored.step}, {card['parameters']:,} parameters"
    say(console, f"wrote {path}: {model}, {size}")
    say(console, f"read it with: {READ[kind].replace('FILE', repr(str(path)))}")


def checkpoint_of(ready: Experiment, folder: Path, step: int | None = None) -> Restored:
    """Loads a checkpoint of a run without computing anything or writing to its folder.

    Args:
      ready: the experiment of the run.
      folder: the folder of the run.
      step: the round of the checkpoint; by default the newest one that can be used.

    Raises:
      FedError: if there is no such checkpoint.
    """
    sizes = jnp.asarray(ready.task.data.train.sizes, jnp.int32)
    start = partial(initial_state, ready.algorithm, ready.sampler, sizes, ready.local_work)
    like = jax.eval_shape(lambda: start(starting_variables(ready), ready.config.run.seed))
    store = open_store(folder / CHECKPOINTS)
    return store.restore(replace(like, memory=()) if ready.program.host_memory else like, step)


def card_of(ready: Experiment, restored: Restored, folder: Path) -> Card:
    """Collects what is known about the model of a checkpoint.

    Args:
      ready: the experiment of the run.
      restored: the checkpoint.
      folder: the folder of the run, for its metrics.

    Returns:
      JSON values. ``input`` is the form of one example; ``metrics`` are the last ones up to the
      round of the checkpoint; ``config_hash`` is that of the configuration that wrote the
      checkpoint.
    """
    run = ready.config.run
    return {
        "task": variant_tag(run.task),
        "algorithm": variant_tag(run.algorithm),
        "seed": run.seed,
        "rounds": restored.step,
        "metrics": _evaluation_metrics(folder / ROWS, restored.step),
        "parameters": tree.size(ready.algorithm.variables(restored.state.algorithm).params),
        "input": form(ready.task.data.train.x),
        "config_hash": hash_of(restored.metadata.get("config", tables(run))),
        "state_hash": state_hash(restored.state),
        "versions": restored.metadata.get("versions", {}),
    }


def _evaluation_metrics(path: Path, round_: int) -> dict[str, float | str]:
    """The last results of evaluations up to a round, as strict JSON."""
    if not path.is_file():
        return {}
    history = from_jsonl(path, round_)
    metrics: dict[str, float | str] = {}
    for name in history.names():
        if "/" in name:
            value = float(history.latest(name) or 0.0)
            metrics[name] = value if math.isfinite(value) else str(value)
    return metrics


def _require_model(ready: Experiment) -> Model:
    if ready.task.model is None:
        fail(
            f"the task {ready.task.name!r} has parameters, but no model that predicts",
            got="--format stablehlo",
            fix="export its parameters, with --format safetensors",
        )
    return ready.task.model


def hash_of(config: Any) -> str:
    """Returns the sha256 of a configuration with all its defaults, as JSON with sorted keys.

    Args:
      config: JSON values.

    Example:

        >>> from fedjax_sim.cli.export import hash_of
        >>> hash_of({"rounds": 10, "seed": 0}) == hash_of({"seed": 0, "rounds": 10})
        True
    """
    return hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()
