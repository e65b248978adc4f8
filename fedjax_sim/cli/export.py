"""``fedjax-sim export``: the model of a run as one file."""

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

from fedjax_sim.cli.run import experiment, say
from fedjax_sim.core import tree
from fedjax_sim.core.errors import fail
from fedjax_sim.data.prepared.writer import form
from fedjax_sim.engine.round import initial_state
from fedjax_sim.experiments import Experiment
from fedjax_sim.experiments.config.load import tables
from fedjax_sim.experiments.config.messages import variant_tag
from fedjax_sim.experiments.estimate import size
from fedjax_sim.experiments.records import ROWS
from fedjax_sim.experiments.run import CHECKPOINTS, config_of, starting_variables
from fedjax_sim.models import Model
from fedjax_sim.persistence.checkpoint import Restored, open_store
from fedjax_sim.persistence.export import PROGRAM, Card, save_program, save_weights
from fedjax_sim.persistence.manifest import state_hash
from fedjax_sim.simulation.history import from_jsonl

READ = {
    "safetensors": "safetensors.numpy.load_file(FILE), or fedjax_sim.export.load_weights(FILE, like)",
    "stablehlo": "fedjax_sim.export.load_program(FILE)(x)",
    "msgpack": "fedjax_sim.export.load_weights(FILE, like)",
    "npz": "numpy.load(FILE), or fedjax_sim.export.load_weights(FILE, like)",
}
"""How a file of each format is read."""

ANYWHERE = (
    "engine.devices=none",
    "engine.shards=none",
    "engine.devices_per_client=1",
    "engine.backend=auto",
    "engine.memory_limit=none",
)
"""A run of another machine can be exported on this one."""


def export(asked: argparse.Namespace) -> None:
    """``export RUN [--format NAME] [--out FILE] [--round N] [--force]``."""
    folder, kind = Path(asked.run), asked.format
    ready = experiment(config_of(folder), ANYWHERE)
    found = checkpoint_of(ready, folder, asked.round)
    variables = ready.algorithm.variables(found.state.algorithm)
    path = Path(asked.out) if asked.out else folder / f"model-{found.step}.{kind}"
    card = {**card_of(ready, found, folder), "read": READ[kind]}
    if kind == PROGRAM:
        save_program(path, _model(ready), variables, ready.task.data.train.x, card, asked.force)
    else:
        save_weights(path, variables, card, kind, asked.force)
    console = Console()
    for note in found.notes:
        say(console, f"note: {note}")
    say(
        console,
        f"wrote {path}: the model of round {found.step}, {card['parameters']:,} parameters, {size(path.stat().st_size)}",
    )
    say(console, f"read it with: {READ[kind].replace('FILE', repr(str(path)))}")


def checkpoint_of(ready: Experiment, folder: Path, step: int | None = None) -> Restored:
    """The newest usable checkpoint of a run, or that of one round, on shapes alone: no state is made, nothing in the folder is touched."""
    sizes = jnp.asarray(ready.task.data.train.sizes, jnp.int32)
    start = partial(initial_state, ready.algorithm, ready.sampler, sizes, ready.local_work)
    like = jax.eval_shape(lambda: start(starting_variables(ready), ready.config.run.seed))
    store = open_store(folder / CHECKPOINTS)
    return store.restore(replace(like, memory=()) if ready.program.host_memory else like, step)


def card_of(ready: Experiment, found: Restored, folder: Path) -> Card:
    """What is known of a run's model. ``input`` is one example; ``metrics`` are the last ones at that round; ``config_hash`` is that of
    the configuration that the checkpoint was made with."""
    run, record = ready.config.run, folder / ROWS
    past = from_jsonl(record, found.step) if record.is_file() else None
    numbers = (
        {name: float(past.latest(name) or 0.0) for name in past.names() if "/" in name}
        if past
        else {}
    )
    return {
        "task": variant_tag(run.task),
        "algorithm": variant_tag(run.algorithm),
        "seed": run.seed,
        "rounds": found.step,
        "metrics": {
            name: value if math.isfinite(value) else str(value) for name, value in numbers.items()
        },
        "parameters": tree.size(ready.algorithm.variables(found.state.algorithm).params),
        "input": form(ready.task.data.train.x),
        "config_hash": hash_of(found.metadata.get("config", tables(run))),
        "state_hash": state_hash(found.state),
        "versions": found.metadata.get("versions", {}),
    }


def _model(ready: Experiment) -> Model:
    """What can be written as a program."""
    if ready.task.model is None:
        what = f"the task {ready.task.name!r} has parameters, but no model that predicts"
        fail(what, got="--format stablehlo", fix="export its parameters, with --format safetensors")
    return ready.task.model


def hash_of(config: Any) -> str:
    """sha256 of a configuration with all its defaults, as JSON with sorted keys."""
    return hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()
