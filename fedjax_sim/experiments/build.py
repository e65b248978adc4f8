"""From a configuration to a runnable experiment."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fedjax_sim.core.errors import FedError
from fedjax_sim.experiments.config.assemble import Parts, assemble
from fedjax_sim.experiments.config.construct import Log
from fedjax_sim.experiments.config.fields import Settings, tag_of
from fedjax_sim.experiments.config.load import Config
from fedjax_sim.experiments.config.messages import line
from fedjax_sim.experiments.config.preflight import check_model_fits, memory_fits, stop_problem
from fedjax_sim.experiments.config.toml import ConfigErrors
from fedjax_sim.experiments.experiment import Experiment


def build(config: Config) -> Experiment:
    """Loads the data, makes the parts, composes the round, and checks on shapes that they fit.

    Nothing is compiled yet.

    Args:
      config: from :func:`fedjax_sim.load_config`.

    Raises:
      ConfigErrors: if parts do not fit each other, the data or the machine; with the key that
        causes it.
    """
    parts = _parts(config)
    train = parts.task.data.train
    checks = Checks(config)
    checks.run("engine", lambda: _check_engine(parts))
    checks.run("sampler", lambda: parts.sampler.cohort(train.clients))
    check_model_fits(config, parts.task, checks.log)
    checks.stop()
    checks.run("engine", lambda: memory_fits(parts.task, parts.algorithm, parts.engine))
    checks.stop()
    program = _program(config, parts)
    experiment = Experiment(config, *parts, program)
    problem = stop_problem(experiment)
    if problem:
        raise ConfigErrors(line(config.document, "stop.metric", problem))
    return experiment


class Checks:
    """Errors found while an experiment is built, raised together.

    Args:
      config: whose sections the errors are about.
    """

    def __init__(self, config: Config) -> None:
        self.log = Log([])
        self._config = config

    def run(self, section: str, check: Callable[[], Any]) -> None:
        """Calls a check and notes its error under the section."""
        fields = type(getattr(self._config.run, section)).model_fields
        self.log.guard(section, fields, check)

    def stop(self) -> None:
        """Raises the errors noted so far, if there are any."""
        problems = [line(self._config.document, key, text) for key, text in self.log.entries]
        if problems:
            raise ConfigErrors("\n".join(problems))


def _parts(config: Config) -> Parts:
    run = config.run
    checks = Checks(config)
    parts = assemble({name: getattr(run, name) for name in type(run).model_fields}, checks.log)
    checks.stop()
    return parts


def _check_engine(parts: Parts) -> None:
    from fedjax_sim.engine import make_plan

    make_plan(parts.engine, 1)


def _program(config: Config, parts: Parts) -> Any:
    from fedjax_sim.engine.program import make_round

    try:
        return make_round(
            parts.algorithm,
            parts.sampler,
            parts.task.data.train,
            parts.local_work,
            parts.engine,
            parts.guard,
        )
    except FedError as error:
        key = key_in_any_table(config.run, error)
        raise ConfigErrors(line(config.document, key, str(error))) from error


def key_in_any_table(run: Settings, error: FedError) -> str:
    """The dotted key of an error that may be about any table.

    Its setting is ``table.setting`` or ``entry.setting``.
    """
    owner, _, name = (error.setting or "").rpartition(".")
    for section in type(run).model_fields:
        settings = getattr(run, section)
        owners = {section, *tag_of(type(settings))} if isinstance(settings, Settings) else set()
        if owner and owner in owners:
            return f"{section}.{name}" if name in type(settings).model_fields else section
    return "algorithm"
