"""``fedjax-sim replay``: runs clients of a rejected round again, step by step."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from fedjax_sim.cli.run import experiment_of_run, say
from fedjax_sim.core import files
from fedjax_sim.experiments.experiment import Experiment

if TYPE_CHECKING:
    from fedjax_sim.simulation.replay import TripTrace

SHOWN_STEPS = 12
"""Steps that are shown of a trip, the last ones; the file has all."""


def replay(args: argparse.Namespace) -> None:
    """``replay FILE [--client ID]``: prints the steps of the clients, and writes them to files.

    The files are ``nonfinite-<round>-client-<id>.json``, beside the given one.
    """
    from fedjax_sim.simulation.nonfinite_report import read, restore
    from fedjax_sim.simulation.replay import RoundParts
    from fedjax_sim.simulation.replay import replay as replay_client

    path = Path(args.file)
    rejected = read(path)
    ready = experiment_of_run(rejected.folder, [], args)
    restored = restore(rejected, stored_shapes(ready))
    parts = RoundParts(
        ready.algorithm, ready.sampler, ready.local_work, ready.guard, ready.program.plan
    )
    console = Console()
    for note in restored.notes:
        say(console, f"note: {note}")
    for client in rejected.clients if args.client is None else [args.client]:
        name = rejected.names.get(client)
        say(console, f"round {rejected.round}, client {client}{f' ({name})' if name else ''}")
        traces = []
        for trace in replay_client(parts, ready.task.data.train, restored.state, client):
            traces.append(trace)
            print_trace(console, trace)
        target = path.with_name(f"{path.stem}-client-{client}.json")
        content = traces_json(rejected.round, client, name, traces)
        files.save(target, json.dumps(content, indent=1, default=str) + "\n")
        say(console, f"wrote {target}")


def stored_shapes(ready: Experiment) -> Any:
    """Returns the shapes of a rejected round's stored state, whose memory has the cohort's rows
    only.

    Args:
      ready: the experiment of the run.
    """
    import jax
    import jax.numpy as jnp

    from fedjax_sim.engine.round import initial_state
    from fedjax_sim.experiments.run import starting_variables

    data = ready.task.data.train
    cohort = ready.sampler.cohort(data.clients)

    def start() -> Any:
        sizes = jnp.asarray(data.sizes, jnp.int32)
        variables = starting_variables(ready)
        return initial_state(ready.algorithm, ready.sampler, sizes, ready.local_work, variables, 0)

    def cohort_rows(leaf: Any) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((cohort, *leaf.shape[1:]), leaf.dtype)

    state = jax.eval_shape(start)
    return state.replace(memory=jax.tree.map(cohort_rows, state.memory))


def print_trace(console: Console, trace: TripTrace) -> None:
    """Prints the last steps of a trip, and its problem.

    Args:
      console: where to print.
      trace: the client's steps in the trip.
    """
    table = Table(
        title=f"trip {trace.trip}: {len(trace.steps)} of {trace.planned_steps} steps",
        title_justify="left",
    )
    for heading in ("step", "loss", "norm of delta", "not finite"):
        table.add_column(heading)
    for step in trace.steps[-SHOWN_STEPS:]:
        first = step.nonfinite[0] if step.nonfinite else ""
        more = f" and {len(step.nonfinite) - 1} more" if len(step.nonfinite) > 1 else ""
        loss = "-" if step.loss is None else f"{step.loss:.4g}"
        table.add_row(str(step.number), loss, f"{step.norm:.4g}", f"{first}{more}")
    console.print(table)
    no_problem = "every value of this trip is finite when the client runs by itself"
    say(console, f"found: {trace.problem}" if trace.problem else no_problem)


def traces_json(
    round_: int, client: int, name: str | None, traces: list[TripTrace]
) -> dict[str, Any]:
    """Converts the traces of a client to values of strict JSON.

    Args:
      round_: the rejected round, counted from 1.
      client: the client's id.
      name: its name, if it has one.
      traces: its trips.
    """
    trips = []
    for trace in traces:
        steps = [
            {
                "number": step.number,
                "loss": json_number(step.loss),
                "norm": json_number(step.norm),
                "odd": step.nonfinite,
            }
            for step in trace.steps
        ]
        trips.append(
            {
                "trip": trace.trip,
                "of": trace.planned_steps,
                "steps": steps,
                "found": trace.problem,
            }
        )
    return {"round": round_, "client": client, "name": name, "trips": trips}


def json_number(value: float | None) -> float | str | None:
    """Returns a number for strict JSON: NaN and infinity, which JSON lacks, become text.

    Args:
      value: a number, or ``None``.

    Example:

        >>> from fedjax_sim.cli.replay import json_number
        >>> json_number(0.5), json_number(float("inf"))
        (0.5, 'inf')
    """
    return value if value is None or abs(value) < float("inf") else str(value)
