"""The summary of a run: what was run, how far, how well, how long, the hash of its final state."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from fedjax_sim.core import files
from fedjax_sim.core.errors import FedError
from fedjax_sim.experiments.config.messages import variant_tag
from fedjax_sim.experiments.experiment import Experiment
from fedjax_sim.experiments.records import RunFolder, Summary
from fedjax_sim.runtime.processes import is_main_process

if TYPE_CHECKING:
    from fedjax_sim.simulation.simulate import Result


def summarise(
    experiment: Experiment, result: Result, earlier: float = 0.0, notes: tuple[str, ...] = ()
) -> Summary:
    """The run in numbers: what was run, how far, how well, how long, and the hash of its final
    state.

    Args:
      experiment: what was run.
      result: what ``simulate`` returned.
      earlier: seconds before a resumption.
      notes: besides those of the result.
    """
    from fedjax_sim.persistence.manifest import order, state_hash, versions

    names = [name for name in result.history.names() if "/" in name]
    return {
        "task": variant_tag(experiment.config.run.task),
        "algorithm": variant_tag(experiment.config.run.algorithm),
        "seed": experiment.config.run.seed,
        "rounds": int(result.state.round),
        "metrics": {name: result.history.latest(name) for name in names},
        "seconds": round(earlier + result.seconds, 3),
        "stopped": result.stopped,
        "state_hash": state_hash(experiment.program.logical(result.state)),
        "versions": versions(),
        "order": order(experiment.program.plan),
        "notes": [*notes, *result.notes],
    }


def write_summary(place: RunFolder, summary: Summary) -> Summary:
    """Writes the summary, and returns it, with a note if the disk is full."""
    if is_main_process():
        try:
            files.save(place.summary_path, json.dumps(summary, indent=2) + "\n")
        except FedError as error:
            return {**summary, "saved": False, "notes": [*summary["notes"], str(error)]}
    return summary
