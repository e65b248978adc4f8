"""Settings of the command line, which replace those of a file."""

from pathlib import Path

import pytest
from configurations import GOOD, complaint

from fedjax_sim.experiments.config import dumps, load_config


@pytest.fixture
def good(tmp_path: Path) -> Path:
    path = tmp_path / "good.toml"
    path.write_text(GOOD)
    return path


def test_overrides_are_read_as_toml_where_they_can_be(good: Path):
    said = [
        "algorithm.lr=1",
        "task.partition=iid",
        "algorithm.aggregator.0.max_norm=2.5",
        "engine.devices=2",
        "stop.at_least=1",
    ]
    run = load_config(good, said).run
    assert run.algorithm.lr == 1.0
    assert isinstance(run.algorithm.lr, float)
    assert (run.task.partition.kind, run.task.partition.shuffle) == ("iid", True)
    assert run.algorithm.aggregator[0].max_norm == 2.5
    assert run.engine.devices == 2
    assert run.stop.at_least == 1.0


@pytest.mark.parametrize(
    ("override", "key", "advice"),
    [
        ("algorithm.lrr=1", "algorithm.lrr", "did you mean 'lr'"),
        ("sampler.chort=1", "sampler.chort", "did you mean 'cohort'"),
        ("cohort=1", "cohort", "did you mean 'sampler.cohort'"),
        ("max_norm=1", "max_norm", "did you mean 'algorithm.aggregator.0.max_norm'"),
        ("rounds", "rounds", "key.sub=value"),
        (".x=1", ".x", "key.sub=value"),
        ("rounds.x=1", "rounds.x", "no such place"),
        ("algorithm.aggregator.7.max_norm=1", "algorithm.aggregator.7.max_norm", "no such place"),
        ("algorithm.lr=quick", "algorithm.lr", "must be a number"),
        ("task.partition=shard", "task.partition", "did you mean 'shards'"),
    ],
)
def test_a_bad_override_is_blamed_on_the_command_line(
    good: Path, override: str, key: str, advice: str
):
    (line,) = complaint(good, [override])
    assert line.startswith(f"command line: {key}: ")
    assert advice in line


def test_settings_of_another_algorithm_are_not_dropped_silently(good: Path):
    (line,) = complaint(good, ["algorithm.name=scaffold"])
    assert line.startswith(
        f"{good}: algorithm.aggregator: unknown key of 'scaffold', written for 'fedavg'"
    )
    assert "algorithm={name='scaffold'}" in line
    assert load_config(good, ["algorithm={name='scaffold', lr=0.2}"]).run.algorithm.lr == 0.2


def test_none_is_a_word(good: Path):
    config = load_config(good, ["local_work.batch_size=none", "local_work.steps=3"])
    assert config.run.local_work.batch_size is None
    assert 'batch_size = "none"' in dumps(config)
