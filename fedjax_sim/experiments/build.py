"""From a configuration to a runnable experiment."""

from __future__ import annotations

from fedjax_sim.core.errors import FedError
from fedjax_sim.experiments.config.assemble import assemble
from fedjax_sim.experiments.config.construct import Log
from fedjax_sim.experiments.config.fields import Settings, tag_of
from fedjax_sim.experiments.config.load import Config
from fedjax_sim.experiments.config.messages import line
from fedjax_sim.experiments.config.preflight import check_model_fits, memory_fits, stop_problem
from fedjax_sim.experiments.config.toml import ConfigErrors
from fedjax_sim.experiments.experiment import Experiment


def build(config: Config) -> Experiment:
    """Loads the data, makes the parts, composes the round, and shows on shapes that they fit. Nothing is compiled yet.

    Raises:
      ConfigErrors: where parts do not fit each other, the data or the machine; with the key that is to blame.
    """
    from fedjax_sim.engine import make_plan
    from fedjax_sim.engine.program import make_round

    run, log = config.run, Log([])
    parts = assemble({name: getattr(run, name) for name in type(run).model_fields}, log)
    _stop(config, log)
    train = parts.task.data.train
    log.guard("engine", type(run.engine).model_fields, lambda: make_plan(parts.engine, 1))
    log.guard(
        "sampler", type(run.sampler).model_fields, lambda: parts.sampler.cohort(train.clients)
    )
    check_model_fits(config, parts.task, log)
    _stop(config, log)
    log.guard(
        "engine",
        type(run.engine).model_fields,
        lambda: memory_fits(parts.task, parts.algorithm, parts.engine),
    )
    _stop(config, log)
    try:
        program = make_round(
            parts.algorithm, parts.sampler, train, parts.local_work, parts.engine, parts.guard
        )
    except FedError as error:
        raise ConfigErrors(
            line(config.document, _key_in_any_table(run, error), str(error))
        ) from error
    made = Experiment(config, *parts, program)
    problem = stop_problem(made)
    if problem:
        raise ConfigErrors(line(config.document, "stop.metric", problem))
    return made


def _key_in_any_table(run: Settings, error: FedError) -> str:
    """The dotted key of an error that may be about any table: its setting is ``table.setting`` or ``entry.setting``."""
    owner, _, name = (error.setting or "").rpartition(".")
    for section in type(run).model_fields:
        settings = getattr(run, section)
        if isinstance(settings, Settings) and owner in (section, tag_of(type(settings))[1]):
            return f"{section}.{name}" if name in type(settings).model_fields else section
    return "algorithm"


def _stop(config: Config, log: Log) -> None:
    """Raises what has been noted so far."""
    if log.entries:
        raise ConfigErrors("\n".join(line(config.document, key, text) for key, text in log.entries))
