"""Running an experiment: from a configuration to a folder with rows, checkpoints and a summary."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedjax_sim.core import files
from fedjax_sim.core.errors import FedError, fail, require
from fedjax_sim.experiments.build import build
from fedjax_sim.experiments.config import Config, dumps, load_config
from fedjax_sim.experiments.config.fields import chosen_entries
from fedjax_sim.experiments.config.load import tables
from fedjax_sim.experiments.config.messages import variant_tag
from fedjax_sim.experiments.config.resume import changed_settings
from fedjax_sim.experiments.experiment import Experiment
from fedjax_sim.experiments.plugins import record_plugins, require_plugins, used_plugins
from fedjax_sim.experiments.records import (
    RunFolder,
    Summary,
    missing_rows,
    open_writers,
)
from fedjax_sim.experiments.summary import summarise, write_summary
from fedjax_sim.runtime.processes import is_main_process, run_on_main

if TYPE_CHECKING:
    from rich.console import Console

    from fedjax_sim.persistence.checkpoint import Restored, Store
    from fedjax_sim.simulation.callbacks import Callback
    from fedjax_sim.simulation.history import History
    from fedjax_sim.simulation.simulate import Result
    from fedjax_sim.simulation.writers import Writer

STARTED_AGAIN = "the run had no checkpoint yet and was started again"


def run(
    config: str | Path | Config,
    overrides: Sequence[str] = (),
    *,
    out: str | Path | None = None,
    callbacks: Iterable[Callback] = (),
    console: Console | None = None,
) -> RunFolder:
    """Runs a configuration and writes everything into a folder, as ``fedjax-sim run`` does.

    Args:
      config: a TOML file, or what :func:`fedjax_sim.load_config` returned.
      overrides: ``"key=value"`` settings to change, if ``config`` is a file.
      out: the folder; by default the next free ``runs/<file>-<algorithm>-<seed>-<number>``.
      callbacks: besides those that the configuration asks for.
      console: where progress is shown; standard error by default.

    Returns:
      The folder of the run.

    Raises:
      FedError: if the configuration is not valid, the folder holds a run already, or the run is
        refused.

    >>> import fedjax_sim as fs
    >>> fs.run("no_such_file.toml")
    Traceback (most recent call last):
    ...
    fedjax_sim.experiments.config.toml.ConfigErrors: no_such_file.toml: (file): cannot be read: ...
    """
    loaded = config if isinstance(config, Config) else load_config(config, overrides)
    experiment = build(loaded)
    folder = new_folder(experiment.config, out)
    run_experiment(experiment, folder, console=console, callbacks=callbacks)
    return RunFolder(folder)


def new_folder(config: Config, out: str | Path | None = None, root: str | Path = "runs") -> Path:
    """Makes the folder of a new run, the same for all of its processes.

    Args:
      config: of the run.
      out: the folder; by default the next free ``root/<file>-<algorithm>-<seed>-<number>``.
      root: where default folders are made.

    Raises:
      FedError: if ``out`` holds a run already, or is a file.
    """
    return Path(run_on_main(lambda: str(_new_folder(config, out, root))))


def _new_folder(config: Config, out: str | Path | None, root: str | Path) -> Path:
    if out is not None:
        return _claim(RunFolder(out))
    file = Path(config.document.file).stem
    name = f"{file}-{variant_tag(config.run.algorithm)}-{config.run.seed}"
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


def _claim(folder: RunFolder) -> Path:
    contents = folder.contents()
    resume = f"continue it: fedjax-sim resume {folder.path}"
    require(
        not contents,
        "the folder already holds a run",
        got=f"{folder.path} with {', '.join(contents)}",
        fix=f"choose another --out, delete the folder, or {resume}",
    )
    require(
        not folder.path.is_file(),
        "a run needs a folder",
        got=f"the file {folder.path}",
        fix="choose another --out",
    )
    folder.path.mkdir(parents=True, exist_ok=True)
    return folder.path


def run_experiment(
    experiment: Experiment,
    folder: str | Path,
    resume: bool = False,
    console: Console | None = None,
    callbacks: Iterable[Callback] = (),
) -> Summary:
    """Runs or continues an experiment and writes everything into its folder.

    Args:
      experiment: from :func:`fedjax_sim.experiments.build`.
      folder: from :func:`new_folder`, or that of the run to continue.
      resume: whether to continue from the newest checkpoint in the folder.
      console: where progress is shown; standard error by default.
      callbacks: besides those that the configuration asks for.

    Returns:
      What ``summary.json`` holds; its ``saved`` is false if the last state or the summary itself
      could not be written.

    Raises:
      FedError: if there is nothing to resume, nothing left to do, or the configuration differs
        from that of the run so far.
    """
    place = RunFolder(folder)
    with contextlib.ExitStack() as stack:
        store = open_checkpoints(experiment, place.path)
        stack.callback(close_quietly, store)
        notes = _notes_of_changes(experiment, place, store) if resume else ()
        restored = _restored(experiment, place, store) if resume else None
        _require_unfinished(place, restored, experiment.config.run.rounds)
        step = restored.step if restored else None
        past = place.rows_before(step)
        writers = _open(experiment, place, resume, step, past) if is_main_process() else []
        with reporting_nonfinite(experiment, place.path):
            result = _simulate(experiment, writers, store, restored, past, console, callbacks)
        saved = store.steps()[-1:] == (int(result.state.round),)
    earlier = (past.latest("seconds") or 0.0) if past else 0.0
    if resume:
        notes = (*notes, *(restored.notes if restored else (STARTED_AGAIN,)))
    notes = (*notes, *missing_rows(past, step))
    return write_summary(place, {**summarise(experiment, result, earlier, notes), "saved": saved})


def _notes_of_changes(experiment: Experiment, place: RunFolder, store: Store) -> tuple[str, ...]:
    """What differs from the run so far, of plug-ins and settings that may differ."""
    changed = changed_settings(experiment.config.run, store.metadata().get("config"))
    return (*require_plugins(place.path), *changed)


def _restored(experiment: Experiment, place: RunFolder, store: Store) -> Restored | None:
    """The newest checkpoint; ``None`` for a run that ended before its first one, which is started
    again.
    """
    return (
        None if _ended_before_checkpoint(experiment, place, store) else restore(experiment, store)
    )


def _open(
    experiment: Experiment,
    place: RunFolder,
    resume: bool,
    step: int | None,
    past: History | None,
) -> list[Writer]:
    """Writes the configuration and opens the writers of rows.

    A new run writes its configuration before its rows, and can be resumed as soon as that file is
    there. A resumed run writes it last, after all checks have passed.
    """
    if not resume:
        write_config(experiment, place)
    writers = open_writers(place, step, past)
    if resume:
        write_config(experiment, place)
    return writers


def write_config(experiment: Experiment, place: RunFolder) -> None:
    """Writes the configuration, and which plug-ins it uses, into a run's folder."""
    record_plugins(place.path, _used_plugins(experiment))
    files.save(place.config_path, dumps(experiment.config))


def _used_plugins(experiment: Experiment) -> list[dict[str, Any]]:
    return used_plugins(chosen_entries(experiment.config.run))


def close_quietly(store: Store) -> None:
    """Closes the store.

    After a run that ended by itself nothing is left to write; after one that failed, its own error
    counts.
    """
    with contextlib.suppress(FedError):
        store.close()


def _simulate(
    experiment: Experiment,
    writers: Iterable[Writer],
    store: Store,
    restored: Restored | None,
    past: History | None,
    console: Console | None,
    callbacks: Iterable[Callback],
) -> Result:
    from fedjax_sim.simulation.simulate import simulate

    settings = experiment.config.run
    return simulate(
        experiment.program,
        None if restored else starting_variables(experiment),
        rounds=settings.rounds,
        seed=settings.seed,
        evaluate=evaluation(experiment),
        evaluate_every=settings.evaluation.every,
        rounds_per_call=settings.engine.rounds_per_call,
        store=store,
        checkpoint_every=settings.checkpoint.every,
        metadata=checkpoint_metadata(experiment),
        callbacks=[*_stops(settings.stop), *callbacks],
        writers=writers,
        progress=is_main_process(),
        resume=restored.state if restored else None,
        history=past,
        console=console,
        patience=experiment.guard.patience,
    )


def checkpoint_metadata(experiment: Experiment) -> dict[str, Any]:
    """What is stored with every checkpoint: the configuration, and the order of additions."""
    from fedjax_sim.persistence.manifest import order

    return {
        "config": tables(experiment.config.run),
        "order": order(experiment.program.plan),
    }


@contextlib.contextmanager
def reporting_nonfinite(experiment: Experiment, folder: Path) -> Iterator[None]:
    """While open, a rejected round leaves files in the run's folder, and its error says what to do
    with them.
    """
    from fedjax_sim.simulation.nonfinite_report import NonFinite, save

    try:
        yield
    except NonFinite as error:
        if not error.culprits.clients:
            raise
        try:
            path = save(folder, error.round, error.culprits, dumps(experiment.config))
            if is_main_process():
                record_plugins(path.with_suffix(""), _used_plugins(experiment))
        except FedError as trouble:
            raise NonFinite(error.round, error.culprits, f"look at their data; {trouble}") from None
        fix = (
            f"look at it with: fedjax-sim replay {path}; continue without these clients: "
            f"fedjax-sim resume {folder} guard.nonfinite=drop"
        )
        raise NonFinite(error.round, error.culprits, fix) from None


def open_checkpoints(experiment: Experiment, folder: Path) -> Store:
    """Opens the checkpoints of a run, as its configuration keeps them, with the clients' memory
    beside them.

    Raises:
      FedError: if a folder that is written to is a link to somewhere else.
    """
    place = RunFolder(folder)
    for path in (place.checkpoints_path, place.memory_path, place.tensorboard_path):
        files.refuse_link(path)
    settings = experiment.config.run.checkpoint
    if experiment.program.host_memory:
        experiment.program.host_memory.use(place.memory_path)
    return place.checkpoints(keep=settings.keep, every=settings.keep_every)


def starting_variables(experiment: Experiment) -> Any:
    """The model before the first round; its key is a stream of the seed that no round uses."""
    import jax

    root = jax.random.key(experiment.config.run.seed)
    return experiment.task.init(jax.random.fold_in(root, 2**32 - 1))


def restore(experiment: Experiment, store: Store) -> Restored:
    """Restores the newest usable checkpoint of a run.

    Raises:
      FedError: if there is none, or it does not fit the configuration.
    """
    from fedjax_sim.persistence.manifest import changed, order
    from fedjax_sim.simulation.loop import MEMORY

    program = experiment.program
    like = program.logical(program.init(starting_variables(experiment), experiment.config.run.seed))
    host_memory = program.host_memory

    def restore_memory(metadata: dict[str, Any]) -> None:
        # Clients without memory have a description only if the host was to keep even that.
        description = metadata.get(MEMORY, {"round": metadata["round"]})
        host_memory.restore(description)  # type: ignore[union-attr]

    restored = store.restore(like, along=restore_memory if host_memory else None)
    moved = changed(restored.metadata.get("order"), order(program.plan))
    return restored._replace(notes=(*restored.notes, *moved))


def evaluation(experiment: Experiment, clients: bool | None = None) -> Any:
    """``state -> numbers``, as the configuration asks for it.

    Args:
      experiment: what to evaluate.
      clients: whether to evaluate on all clients; by default what the configuration says.
    """
    from fedjax_sim.simulation.evaluate import make_evaluation

    settings = experiment.config.run.evaluation
    return make_evaluation(
        experiment.algorithm,
        experiment.task,
        experiment.program,
        batch_size=settings.batch_size,
        clients=settings.clients if clients is None else clients,
    )


def _require_unfinished(place: RunFolder, restored: Restored | None, rounds: int) -> None:
    """Refuses a run that has all its rounds, unless it ended before the summary was written."""
    done = restored.step if restored else 0
    over = done > rounds or (done == rounds and place.is_summed_up(done))
    require(
        not over,
        "the run already has its rounds",
        got=f"{done} of {rounds}",
        fix=f"ask for more, such as --rounds {2 * done}",
    )


def _ended_before_checkpoint(experiment: Experiment, place: RunFolder, store: Store) -> bool:
    """Whether a run ended before its first checkpoint, so that starting again loses nothing."""
    # The first one is being written while the rounds up to the second one run.
    within = 2 * experiment.config.run.checkpoint.every
    return not store.steps() and place.last_round() <= within


def _stops(stop: Any) -> list[Callback]:
    from fedjax_sim.simulation.callbacks import until_above, until_below

    if stop is None:
        return []
    if stop.at_least is None:
        return [until_below(stop.metric, stop.at_most)]
    return [until_above(stop.metric, stop.at_least)]
