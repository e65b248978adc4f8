"""What `fedjax-sim check` predicts, against what a round's arguments then are."""

from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from commands import SMALL

from fedjax_sim.core import tree
from fedjax_sim.engine.host import examples
from fedjax_sim.experiments.build import build
from fedjax_sim.experiments.config import load_config
from fedjax_sim.experiments.estimate import COHORTS_IN_FLIGHT, Estimate, estimate, lines
from fedjax_sim.experiments.experiment import Experiment
from fedjax_sim.experiments.run import starting_variables

PLACES = {
    "device": ("engine.data=device",),
    "data": ("engine.data=host",),
    "both": ("engine.client_memory=host",),
}


@pytest.fixture
def ready(tmp_path: Path):
    path = tmp_path / "small.toml"
    path.write_text(SMALL)

    def make(*words: str) -> tuple[Experiment, Estimate]:
        experiment = build(
            load_config(
                str(path), ["sampler.cohort=5", "engine.lanes=1", "task.model=logistic", *words]
            )
        )
        return experiment, estimate(experiment)

    return make


def arguments(experiment: Experiment) -> int:
    """Bytes that a round is given on each device, by the compiler's account."""
    program = experiment.program
    state = program.init(starting_variables(experiment))
    analysis: Any = program.lower(state).compile().memory_analysis()
    return analysis.argument_size_in_bytes


@pytest.mark.parametrize(
    ("place", "devices"),
    [
        ("device", 1),
        *((place, 2) for place in PLACES),
        pytest.param("data", 1, marks=pytest.mark.slow),
        pytest.param("both", 1, marks=pytest.mark.slow),
    ],
)
def test_a_round_is_given_what_is_predicted(place, devices, ready):
    experiment, costs = ready(*PLACES[place], f"engine.devices={devices}", "task.partition=iid")
    packed = 1 if place == "device" else COHORTS_IN_FLIGHT
    lent = COHORTS_IN_FLIGHT if place == "both" else 1
    passing = (
        COHORTS_IN_FLIGHT * 3 * costs.memory // 12 if place != "both" and devices == 2 else 0
    )  # no arguments, but buffers of the ring
    expected = costs.server + costs.data / packed + (costs.memory_on_device - passing) / lent
    assert arguments(experiment) == pytest.approx(expected, rel=0.03)


@pytest.mark.slow
@pytest.mark.parametrize("devices", [1, 2])
def test_buffers_are_seldom_larger_than_predicted(devices, ready, monkeypatch):
    seen, pack = [], examples.pack
    monkeypatch.setattr(
        examples, "pack", lambda *args: seen.append(tree.nbytes((made := pack(*args))[0])) or made
    )
    experiment, costs = ready("engine.data=host", f"engine.devices={devices}")
    state = experiment.program.init(starting_variables(experiment))
    jax.block_until_ready(experiment.program.run(state, 40))
    assert np.median(seen) > costs.data / COHORTS_IN_FLIGHT / 2
    assert np.mean(np.array(seen) > costs.data / COHORTS_IN_FLIGHT) <= 0.1


def test_what_the_host_holds_grows_with_the_population_alone(ready):
    few, many = (
        ready("engine.client_memory=host", "engine.devices=1", f"task.clients={count}")[1]
        for count in (30, 60)
    )
    assert many.memory == 2 * few.memory
    assert many.memory_on_device == few.memory_on_device
    assert many.client_sizes == 2 * few.client_sizes == 8 * 60
    assert 30 * 12 <= many.host - few.host <= 30 * 13


def test_places_are_told(ready):
    said = {
        place: dict(lines(*ready(*words, "engine.devices=1"))) for place, words in PLACES.items()
    }
    data, memory, host = "  examples", "  client memory", "host memory"
    assert host not in said["device"]
    assert "host" not in said["device"][data]
    assert said["data"][data].endswith("for the current cohort and the next; 300 kB on the host")
    assert said["both"][data] == said["data"][data]
    assert said["device"][memory] == said["data"][memory] == "31.2 kB (31.2 kB in total)"
    assert said["both"][memory].endswith(
        "for the current cohort and the next; up to 31.2 kB in files"
    )
    assert "per process" in said["data"][host]
    assert said["device"]["device memory"].endswith("on each device")
    assert said["both"]["device memory"].endswith("on the device that samples")


@pytest.mark.parametrize(
    ("words", "warned"),
    [
        (("engine.memory_limit=10000",), True),
        (("engine.memory_limit=10000", "engine.client_memory=host"), False),
        (("engine.memory_limit=10000", "algorithm.name=fedavg"), False),
        ((), False),
    ],
    ids=str,
)
def test_a_table_that_is_too_large_is_told_with_its_remedy(words, warned, ready):
    said = dict(lines(*ready(*words, "engine.devices=1")))
    assert ("warning" in said) == warned
    if warned:
        problem = "client memory takes 31.2 kB, but a device has 10 kB"
        assert said["warning"] == f'{problem}; set engine.client_memory = "host"'
