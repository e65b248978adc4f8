"""What a configuration becomes."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from fedjax_sim.experiments.config.load import Config

if TYPE_CHECKING:
    from fedjax_sim.core.types import Algorithm, Sampler
    from fedjax_sim.data.batching import LocalWork
    from fedjax_sim.engine import Engine
    from fedjax_sim.engine.nonfinite import NonFinitePolicy
    from fedjax_sim.engine.program import Program
    from fedjax_sim.tasks import Task


class Experiment(NamedTuple):
    """Everything that a run needs, made and checked against each other."""

    config: Config
    task: Task
    algorithm: Algorithm
    sampler: Sampler
    local_work: LocalWork
    engine: Engine
    guard: NonFinitePolicy
    program: Program
