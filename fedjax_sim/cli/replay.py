"""``fedjax-sim replay``: the clients of a round that was refused, step by step."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from fedjax_sim.cli.run import experiment, say
from fedjax_sim.core import files
from fedjax_sim.experiments import Experiment

TAIL = 12
"""Steps that are shown before one at which something is wrong; the file has all."""


def replay(asked: argparse.Namespace) -> None:
    """``replay FILE [--client ID]``: shows, and writes ``nonfinite-<round>-client-<id>.json`` beside the file."""
    from fedjax_sim.simulation.nonfinite_report import CONFIG, read, restore
    from fedjax_sim.simulation.replay import Parts
    from fedjax_sim.simulation.replay import replay as again

    incident = read(asked.file)
    ready = experiment(incident.folder / CONFIG, [])
    found = restore(incident, blank(ready))
    parts = Parts(ready.algorithm, ready.sampler, ready.local_work, ready.guard, ready.program.plan)
    console = Console()
    for note in found.notes:
        say(console, f"note: {note}")
    for client in incident.clients if asked.client is None else [asked.client]:
        name = incident.names.get(client)
        say(console, f"round {incident.round}, client {client}{f' ({name})' if name else ''}")
        passages = []
        for passage in again(parts, ready.task.data.train, found.state, client):
            passages.append(passage)
            show(console, passage)
        path = Path(asked.file).with_name(f"{Path(asked.file).stem}-client-{client}.json")
        files.save(
            path,
            json.dumps(told(incident.round, client, name, passages), indent=1, default=str) + "\n",
        )
        say(console, f"written to {path}")


def blank(ready: Experiment) -> Any:
    """Shapes of what is kept of the state: the memory is that of a cohort."""
    import jax
    import jax.numpy as jnp

    from fedjax_sim.engine.round import initial_state
    from fedjax_sim.experiments.run import starting_variables

    data = ready.task.data.train

    def start() -> Any:
        sizes = jnp.asarray(data.sizes, jnp.int32)
        return initial_state(
            ready.algorithm, ready.sampler, sizes, ready.local_work, starting_variables(ready), 0
        )

    state, cohort = jax.eval_shape(start), ready.sampler.cohort(data.clients)
    return state.replace(
        memory=jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct((cohort, *leaf.shape[1:]), leaf.dtype), state.memory
        )
    )


def show(console: Console, passage: Any) -> None:
    """The last steps of a passage, and what was found."""
    table = Table(
        title=f"trip {passage.trip}: {len(passage.steps)} of {passage.of} steps",
        title_justify="left",
    )
    for heading in ("step", "loss", "norm of delta", "not finite"):
        table.add_column(heading)
    for step in passage.steps[-TAIL:]:
        more = f" and {len(step.odd) - 1} more" if len(step.odd) > 1 else ""
        table.add_row(
            str(step.number),
            "-" if step.loss is None else f"{step.loss:.4g}",
            f"{step.norm:.4g}",
            (step.odd or ("",))[0] + more,
        )
    console.print(table)
    say(
        console,
        f"found: {passage.found}"
        if passage.found
        else "nothing is wrong in this trip when the client runs by itself",
    )


def told(round_: int, client: int, name: str | None, passages: list[Any]) -> dict[str, Any]:
    """The same for a file, in strict JSON."""
    trips = [
        {**each._asdict(), "steps": [step._asdict() for step in each.steps]} for each in passages
    ]
    for trip in trips:
        del trip["client"]
        for step in trip["steps"]:
            step |= {key: strict(step[key]) for key in ("loss", "norm")}
    return {"round": round_, "client": client, "name": name, "trips": trips}


def strict(value: float | None) -> float | str | None:
    """A number as JSON can say it."""
    return value if value is None or abs(value) < float("inf") else str(value)
