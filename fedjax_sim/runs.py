"""A run and its folder: ``config.toml``, ``metrics.jsonl``, ``metrics.csv``, ``checkpoints/`` and ``summary.json``."""

from __future__ import annotations

import contextlib
import importlib.util
import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedjax_sim.checks import fail, require
from fedjax_sim.config import Config, Experiment, dumps
from fedjax_sim.config.changes import changed_rates
from fedjax_sim.config.load import tables
from fedjax_sim.config.problems import variant_tag
from fedjax_sim.processes import leads, led

if TYPE_CHECKING:
    from rich.console import Console

    from fedjax_sim.callbacks import Callback
    from fedjax_sim.checkpoint import Restored, Store
    from fedjax_sim.history import History, Writer
    from fedjax_sim.loop import Result

CONFIG, ROWS, TABLE, CHECKPOINTS, SUMMARY = "config.toml", "metrics.jsonl", "metrics.csv", "checkpoints", "summary.json"
REMEMBERED = "memory"
"""Folder of what clients remember, where the host keeps it."""

Summary = dict[str, Any]


def new_folder(config: Config, out: str | Path | None = None, root: str | Path = "runs") -> Path:
    """Makes the folder of a new run, the same for all of its processes: ``out``, or the next free
    ``root/<file>-<algorithm>-<seed>-<number>``.

    Raises:
      FedError: where ``out`` holds a run already, or is a file.
    """
    return Path(led(lambda: str(_new_folder(config, out, root))))


def _new_folder(config: Config, out: str | Path | None, root: str | Path) -> Path:
    if out is not None:
        return _claim(Path(out))
    name = f"{Path(config.document.file).stem}-{variant_tag(config.run.algorithm)}-{config.run.seed}"
    for number in range(1, 10**6):
        folder = Path(root) / f"{name}-{number:03}"
        with contextlib.suppress(FileExistsError):
            folder.mkdir(parents=True)
            return folder
    fail("no free folder for the run", f"{root}/{name}-*", "remove old runs, or choose one with --out")


def _claim(folder: Path) -> Path:
    held = [name for name in (CONFIG, ROWS, CHECKPOINTS, SUMMARY) if (folder / name).exists()]
    do = f"choose another --out, delete the folder, or go on with it: fedjax-sim resume {folder}"
    require(not held, "the folder already holds a run", f"{folder} with {', '.join(held)}", do)
    require(not folder.is_file(), "a run needs a folder", f"the file {folder}", "choose another --out")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def config_of(folder: str | Path) -> Path:
    """The configuration in a run's folder.

    Raises:
      FedError: where there is none.
    """
    path = Path(folder) / CONFIG
    require(path.is_file(), "no run in this folder", str(folder), "give the folder of a run, such as one below runs/")
    return path


def run_experiment(
    experiment: Experiment, folder: str | Path, resume: bool = False, console: Console | None = None, callbacks: Iterable[Callback] = ()
) -> Summary:
    """Runs an experiment, or goes on with it, and writes everything into its folder.

    Args:
      experiment: from :func:`fedjax_sim.config.build`.
      folder: from :func:`new_folder`, or that of the run to go on with.
      resume: whether to continue from the newest checkpoint in the folder.
      console: where progress is shown; standard error if none is given.
      callbacks: besides those that the configuration asks for.

    Returns:
      What ``summary.json`` holds.

    Raises:
      FedError: where there is nothing to resume, nothing left to do, or the configuration is another than that of the run so far.
    """
    folder = Path(folder)
    with contextlib.ExitStack() as stack:
        store = open_checkpoints(experiment, folder)
        stack.callback(store.close)
        turned = changed_rates(experiment.config.run, store.metadata().get("config")) if resume else ()
        restored = restore(experiment, store) if resume else None
        _unfinished(restored, experiment.config.run.rounds)
        past = _past(folder, restored)
        if leads():
            (folder / CONFIG).write_text(dumps(experiment.config), encoding="utf-8")
        result = _simulate(experiment, folder, store, restored, past, console, callbacks)
    earlier = (past.latest("seconds") or 0.0) if past else 0.0
    summary = summarise(experiment, result, earlier, (*turned, *(restored.notes if restored else ())))
    if leads():
        (folder / SUMMARY).write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
    return summary


def _simulate(
    experiment: Experiment,
    folder: Path,
    store: Store,
    restored: Restored | None,
    past: History | None,
    console: Console | None,
    callbacks: Iterable[Callback],
) -> Result:
    from fedjax_sim.loop import simulate

    run = experiment.config.run
    return simulate(
        experiment.program,
        None if restored else starting_variables(experiment),
        rounds=run.rounds,
        seed=run.seed,
        evaluate=evaluation(experiment),
        evaluate_every=run.evaluation.every,
        rounds_per_call=run.engine.rounds_per_call,
        store=store,
        checkpoint_every=run.checkpoint.every,
        metadata={"config": tables(run)},
        callbacks=[*_stops(run.stop), *callbacks],
        writers=_writers(folder, restored.step if restored else None) if leads() else (),
        progress=leads(),
        resume=restored.state if restored else None,
        history=past,
        console=console,
    )


def open_checkpoints(experiment: Experiment, folder: Path) -> Store:
    """The run's checkpoints, as its configuration keeps them; what clients remember is then kept beside them."""
    from fedjax_sim.checkpoint import open_store

    kept = experiment.config.run.checkpoint
    if experiment.program.keeping:
        experiment.program.keeping.use(folder / REMEMBERED)
    return open_store(folder / CHECKPOINTS, keep=kept.keep, every=kept.keep_every)


def starting_variables(experiment: Experiment) -> Any:
    """The model before the first round; its key is a stream of the seed that no round uses."""
    import jax

    return experiment.task.init(jax.random.fold_in(jax.random.key(experiment.config.run.seed), 2**32 - 1))


def restore(experiment: Experiment, store: Store) -> Restored:
    """The newest usable checkpoint of a run.

    Raises:
      FedError: where there is none, or it does not fit the configuration.
    """
    from fedjax_sim.loop import MEMORY

    program = experiment.program
    like = program.logical(program.init(starting_variables(experiment), experiment.config.run.seed))
    restored = store.restore(like)
    if program.keeping:
        program.keeping.restore(restored.metadata[MEMORY])
    return restored


def evaluation(experiment: Experiment, clients: bool | None = None) -> Any:
    """``state -> numbers``, as the configuration asks for it."""
    from fedjax_sim.evaluate import make_evaluation

    asked = experiment.config.run.evaluation
    wanted = asked.clients if clients is None else clients
    return make_evaluation(experiment.algorithm, experiment.task, experiment.program, batch_size=asked.batch_size, clients=wanted)


def summarise(experiment: Experiment, result: Result, earlier: float = 0.0, notes: tuple[str, ...] = ()) -> Summary:
    """The run in numbers: what was run, how far, how well, how long, and the hash of its final state."""
    from fedjax_sim.checkpoint import state_hash, versions

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
        "notes": [*notes, *result.notes],
    }


def _unfinished(restored: Restored | None, rounds: int) -> None:
    done = restored.step if restored else 0
    require(done < rounds, "the run already has its rounds", f"{done} of {rounds}", f"ask for more, such as --rounds {2 * done}")


def _stops(stop: Any) -> list[Callback]:
    from fedjax_sim.callbacks import until_above, until_below

    if stop is None:
        return []
    return [until_below(stop.metric, stop.at_most) if stop.at_least is None else until_above(stop.metric, stop.at_least)]


def _past(folder: Path, restored: Restored | None) -> History | None:
    """The rows up to the checkpoint; none where the record is lost."""
    from fedjax_sim.history import from_jsonl

    return from_jsonl(folder / ROWS, restored.step) if restored and (folder / ROWS).is_file() else None


def _writers(folder: Path, after: int | None) -> list[Writer]:
    from fedjax_sim.history import csv_writer, jsonl_writer, tensorboard_writer

    writers = [jsonl_writer(folder / ROWS, after), csv_writer(folder / TABLE, after)]
    extra = importlib.util.find_spec("tensorboardX") is not None
    return [*writers, tensorboard_writer(folder / "tensorboard", after)] if extra else writers
