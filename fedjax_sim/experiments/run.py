"""A run and its folder: ``config.toml``, ``metrics.jsonl``, ``metrics.csv``, ``checkpoints/`` and ``summary.json``."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedjax_sim.core import files
from fedjax_sim.core.errors import FedError, fail, require
from fedjax_sim.experiments import Experiment, records
from fedjax_sim.experiments.config import Config, dumps
from fedjax_sim.experiments.config.load import tables
from fedjax_sim.experiments.config.messages import variant_tag
from fedjax_sim.experiments.config.resume import changed_settings
from fedjax_sim.experiments.records import BOARDS, ROWS, SUMMARY
from fedjax_sim.runtime.processes import is_main_process, run_on_main

if TYPE_CHECKING:
    from rich.console import Console

    from fedjax_sim.persistence.checkpoint import Restored, Store
    from fedjax_sim.simulation.callbacks import Callback
    from fedjax_sim.simulation.history import History
    from fedjax_sim.simulation.simulate import Result
    from fedjax_sim.simulation.writers import Writer

CONFIG, CHECKPOINTS = "config.toml", "checkpoints"
REMEMBERED = "memory"
"""Folder of what clients remember, where the host keeps it."""

Summary = dict[str, Any]

ANEW = "the run had no checkpoint yet and was begun again"


def new_folder(config: Config, out: str | Path | None = None, root: str | Path = "runs") -> Path:
    """Makes the folder of a new run, the same for all of its processes: ``out``, or the next free
    ``root/<file>-<algorithm>-<seed>-<number>``.

    Raises:
      FedError: where ``out`` holds a run already, or is a file.
    """
    return Path(run_on_main(lambda: str(_new_folder(config, out, root))))


def _new_folder(config: Config, out: str | Path | None, root: str | Path) -> Path:
    if out is not None:
        return _claim(Path(out))
    name = (
        f"{Path(config.document.file).stem}-{variant_tag(config.run.algorithm)}-{config.run.seed}"
    )
    for number in range(1, 10**6):
        folder = Path(root) / f"{name}-{number:03}"
        with contextlib.suppress(FileExistsError):
            folder.mkdir(parents=True)
            return folder
    fail(
        "no free folder for the run",
        got=f"{root}/{name}-*",
        fix="remove old runs, or choose one with --out",
    )


def _claim(folder: Path) -> Path:
    held = [name for name in (CONFIG, ROWS, CHECKPOINTS, SUMMARY) if (folder / name).exists()]
    do = f"choose another --out, delete the folder, or go on with it: fedjax-sim resume {folder}"
    require(
        not held, "the folder already holds a run", got=f"{folder} with {', '.join(held)}", fix=do
    )
    require(
        not folder.is_file(),
        "a run needs a folder",
        got=f"the file {folder}",
        fix="choose another --out",
    )
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def config_of(folder: str | Path) -> Path:
    """The configuration in a run's folder.

    Raises:
      FedError: where there is none.
    """
    path = Path(folder) / CONFIG
    require(
        path.is_file(),
        "no run in this folder",
        got=path.parent,
        fix="give the folder of a run, such as one below runs/",
    )
    return path


def run_experiment(
    experiment: Experiment,
    folder: str | Path,
    resume: bool = False,
    console: Console | None = None,
    callbacks: Iterable[Callback] = (),
) -> Summary:
    """Runs an experiment, or goes on with it, and writes everything into its folder.

    Args:
      experiment: from :func:`fedjax_sim.experiments.build`.
      folder: from :func:`new_folder`, or that of the run to go on with.
      resume: whether to continue from the newest checkpoint in the folder.
      console: where progress is shown; standard error if none is given.
      callbacks: besides those that the configuration asks for.

    Returns:
      What ``summary.json`` holds; ``saved`` in it is false where the last state or the summary itself could not be written.

    Raises:
      FedError: where there is nothing to resume, nothing left to do, or the configuration is another than that of the run so far.
    """
    folder = Path(folder)
    with contextlib.ExitStack() as stack:
        store = open_checkpoints(experiment, folder)
        stack.callback(_close, store)
        turned = (
            changed_settings(experiment.config.run, store.metadata().get("config"))
            if resume
            else ()
        )
        restored = (
            restore(experiment, store) if resume and not _fresh(experiment, folder, store) else None
        )
        _unfinished(folder, restored, experiment.config.run.rounds)
        step = restored.step if restored else None
        past = records.past(folder, step)
        writers = _begun(experiment, folder, resume, step, past) if is_main_process() else []
        with filing(experiment, folder):
            result = _simulate(experiment, writers, store, restored, past, console, callbacks)
        saved = store.steps()[-1:] == (int(result.state.round),)
    earlier = (past.latest("seconds") or 0.0) if past else 0.0
    notes = (
        *turned,
        *(restored.notes if restored else (ANEW,) if resume else ()),
        *records.gaps(past, step),
    )
    return _written(folder, {**summarise(experiment, result, earlier, notes), "saved": saved})


def _begun(
    experiment: Experiment, folder: Path, resume: bool, step: int | None, past: History | None
) -> list[Writer]:
    """The writers of a run's rows, and its configuration: the first file of a new run, which can be gone on with as soon as that is there;
    the last one of a run that goes on, when nothing refuses any more."""

    def configured() -> None:
        files.save(folder / CONFIG, dumps(experiment.config))

    if not resume:
        configured()
    writers = records.writers(folder, step, past)
    if resume:
        configured()
    return writers


def _close(store: Store) -> None:
    """After a run that ended by itself nothing is left to write; after one that failed, why it did is what counts."""
    with contextlib.suppress(FedError):
        store.close()


def _written(folder: Path, summary: Summary) -> Summary:
    """The summary, and the file of it; with a note instead where there is no room."""
    if is_main_process():
        try:
            files.save(folder / SUMMARY, json.dumps(summary, indent=2) + "\n")
        except FedError as error:
            return {**summary, "saved": False, "notes": [*summary["notes"], str(error)]}
    return summary


def _simulate(
    experiment: Experiment,
    writers: Iterable[Writer],
    store: Store,
    restored: Restored | None,
    past: History | None,
    console: Console | None,
    callbacks: Iterable[Callback],
) -> Result:
    from fedjax_sim.persistence.manifest import order
    from fedjax_sim.simulation.simulate import simulate

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
        metadata={"config": tables(run), "order": order(experiment.program.plan)},
        callbacks=[*_stops(run.stop), *callbacks],
        writers=writers,
        progress=is_main_process(),
        resume=restored.state if restored else None,
        history=past,
        console=console,
        patience=experiment.guard.patience,
    )


@contextlib.contextmanager
def filing(experiment: Experiment, folder: Path) -> Iterator[None]:
    """While open, a round that is refused leaves files in the run's folder, and the error says what to do with them."""
    from fedjax_sim.simulation.nonfinite_report import NonFinite, save

    try:
        yield
    except NonFinite as error:
        if not error.culprits.clients:
            raise
        try:
            path = save(folder, error.round, error.culprits, dumps(experiment.config))
        except FedError as trouble:
            raise NonFinite(error.round, error.culprits, f"look at their data; {trouble}") from None
        do = f"look at it with: fedjax-sim replay {path}; go on without them: fedjax-sim resume {folder} guard.nonfinite=drop"
        raise NonFinite(error.round, error.culprits, do) from None


def open_checkpoints(experiment: Experiment, folder: Path) -> Store:
    """The run's checkpoints, as its configuration keeps them; what clients remember is then kept beside them.

    Raises:
      FedError: where a folder that is written to is somewhere else.
    """
    from fedjax_sim.persistence.checkpoint import open_store

    for name in (CHECKPOINTS, REMEMBERED, BOARDS):
        files.refuse_link(folder / name)
    kept = experiment.config.run.checkpoint
    if experiment.program.host_memory:
        experiment.program.host_memory.use(folder / REMEMBERED)
    return open_store(folder / CHECKPOINTS, keep=kept.keep, every=kept.keep_every)


def starting_variables(experiment: Experiment) -> Any:
    """The model before the first round; its key is a stream of the seed that no round uses."""
    import jax

    return experiment.task.init(
        jax.random.fold_in(jax.random.key(experiment.config.run.seed), 2**32 - 1)
    )


def restore(experiment: Experiment, store: Store) -> Restored:
    """The newest usable checkpoint of a run.

    Raises:
      FedError: where there is none, or it does not fit the configuration.
    """
    from fedjax_sim.persistence.manifest import changed, order
    from fedjax_sim.simulation.loop import MEMORY

    program = experiment.program
    like = program.logical(program.init(starting_variables(experiment), experiment.config.run.seed))
    keeping = program.host_memory
    # Of clients who remember nothing there is a description only if the host was to keep even that.
    along = keeping and (
        lambda metadata: keeping.restore(metadata.get(MEMORY, {"round": metadata["round"]}))
    )
    restored = store.restore(like, along=along)
    moved = changed(restored.metadata.get("order"), order(program.plan))
    return restored._replace(notes=(*restored.notes, *moved))


def evaluation(experiment: Experiment, clients: bool | None = None) -> Any:
    """``state -> numbers``, as the configuration asks for it."""
    from fedjax_sim.simulation.evaluate import make_evaluation

    asked = experiment.config.run.evaluation
    wanted = asked.clients if clients is None else clients
    return make_evaluation(
        experiment.algorithm,
        experiment.task,
        experiment.program,
        batch_size=asked.batch_size,
        clients=wanted,
    )


def summarise(
    experiment: Experiment, result: Result, earlier: float = 0.0, notes: tuple[str, ...] = ()
) -> Summary:
    """The run in numbers: what was run, how far, how well, how long, and the hash of its final state."""
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


def _unfinished(folder: Path, restored: Restored | None, rounds: int) -> None:
    """Refuses a run that is over, unless it ended before that was written down."""
    done = restored.step if restored else 0
    over = done > rounds or (done == rounds and records.summed_up(folder, done))
    require(
        not over,
        "the run already has its rounds",
        got=f"{done} of {rounds}",
        fix=f"ask for more, such as --rounds {2 * done}",
    )


def _fresh(experiment: Experiment, folder: Path, store: Store) -> bool:
    """Whether a run ended before its first checkpoint, so that there is nothing to lose by beginning again."""
    # The first one is being written while the rounds up to the second one run.
    return (
        not store.steps()
        and records.last_round(folder) <= 2 * experiment.config.run.checkpoint.every
    )


def _stops(stop: Any) -> list[Callback]:
    from fedjax_sim.simulation.callbacks import until_above, until_below

    if stop is None:
        return []
    return [
        until_below(stop.metric, stop.at_most)
        if stop.at_least is None
        else until_above(stop.metric, stop.at_least)
    ]
