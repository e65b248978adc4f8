"""What the tests of configurations share."""

from pathlib import Path

import pytest

from fedjax_sim.experiments.build import build
from fedjax_sim.experiments.config import ConfigErrors, load_config

CONFIGS = Path(__file__).parents[2] / "configs"

GOOD = """
rounds = 4
[task]
name = "digits"
clients = 12
[algorithm]
name = "fedavg"
lr = 0.1
aggregator = [{ kind = "clip", max_norm = 1.0 }, { kind = "mean" }]
[sampler]
kind = "uniform"
cohort = 4
dropout = 0.1
stragglers = { share = 0.5, least = 0.2 }
[local_work]
batch_size = 8
"""


def complaint(path: Path, overrides: list[str] | None = None, made: bool = False) -> list[str]:
    def go() -> None:
        config = load_config(path, overrides or [])
        if made:
            build(config)

    with pytest.raises(ConfigErrors) as caught:
        go()
    return caught.value.problems
