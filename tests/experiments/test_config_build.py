"""What a build proves before anything is run, and whom it blames."""

from pathlib import Path

import jax.numpy as jnp
import pytest
from configurations import GOOD

from fedjax_sim.core import errors
from fedjax_sim.experiments.build import build, key_in_any_table
from fedjax_sim.experiments.config import ConfigErrors, entries_by_kind, load_config
from fedjax_sim.experiments.config.construct import key_of
from fedjax_sim.experiments.config.preflight import (
    evaluation_metrics,
    reported_metrics,
    round_metrics,
)
from fedjax_sim.models import Model


@pytest.fixture
def good(tmp_path: Path) -> Path:
    path = tmp_path / "good.toml"
    path.write_text(GOOD)
    return path


# -------------------------------------------------------------------------------------------- blame


@pytest.mark.parametrize("check", [errors.positive, errors.not_negative, errors.fraction])
@pytest.mark.parametrize("value", [-1, -0.5, float("inf"), float("nan")])
def test_checks_name_their_setting_and_refuse_what_is_not_finite(check, value):
    with pytest.raises(errors.FedError) as caught:
        check("fedavg.lr", value)
    assert caught.value.setting == "fedavg.lr"
    assert f"got {value}; give fedavg.lr" in str(caught.value)


def test_zero_is_not_negative_and_not_positive():
    errors.not_negative("a", 0)
    with pytest.raises(errors.FedError, match="a must be positive"):
        errors.positive("a", 0)


def test_descriptions_are_no_settings():
    with pytest.raises(errors.FedError) as caught:
        errors.positive("every width of an mlp", 0)
    assert caught.value.setting is None


def test_the_setting_of_an_error_decides_and_its_words_do_not():
    error = errors.FedError("partition by alpha fails: got x; y", "task.alpha")
    assert key_of("task", ["partition", "alpha"], error) == "task.alpha"
    assert key_of("task", ["partition", "clients"], error) == "task"
    assert key_of("task", [], error) == "task"
    assert (
        key_of("task", ["partition"], error, {"alpha": "partition.alpha"}) == "task.partition.alpha"
    )


def test_a_complaint_about_the_whole_finds_its_table(good: Path):
    run = load_config(good).run
    assert (
        key_in_any_table(run, errors.FedError("uniform.cohort is odd: got 1; do", "engine.shards"))
        == "engine.shards"
    )
    words = errors.FedError("uniform.cohort is odd: got 1; do")  # words alone decide nothing
    assert key_in_any_table(run, words) == "algorithm"
    assert (
        key_in_any_table(run, errors.FedError("odd: got 1; do", "uniform.cohort"))
        == "sampler.cohort"
    )
    assert key_in_any_table(run, errors.FedError("odd: got 1; do")) == "algorithm"


def test_an_override_is_blamed_for_a_partition_that_cannot_be(good: Path):
    with pytest.raises(ConfigErrors) as caught:
        build(load_config(good, ["task.partition={kind='dirichlet', alpha=1e-9}"]))
    assert str(caught.value).startswith(
        "command line: task.partition.alpha: no Dirichlet(1e-09) partition"
    )


# -------------------------------------------------------------------------------------------- proof


def foreign(classes: int, wide: bool = False) -> Model:
    """A model whose misfit another library tells."""

    def init(key, x):
        return {"w": jnp.zeros((8 if wide else 5, classes))}, ()

    def apply(params, state, x, *, train, key):
        return x[:, 0, :, 0] @ params["w"], state

    return Model(init, apply)


def test_what_another_library_says_is_told_in_words_and_kept_as_the_cause(good: Path):
    known = entries_by_kind() | {
        "model": {"foreign": foreign, "mlp": entries_by_kind()["model"]["mlp"]}
    }
    with pytest.raises(ConfigErrors) as caught:
        build(load_config(good, ["model.name=foreign"], known))
    (line,) = caught.value.problems
    assert line.startswith(
        "command line: model: the model does not fit the task's data: got TypeError: "
    )
    assert isinstance(caught.value.__cause__, TypeError)
    assert (
        build(load_config(good, ["model={name='foreign', wide=true}"], known)).task.name == "digits"
    )


def test_a_loss_is_one_number(good: Path):
    made = build(load_config(good))
    each = made.task.objective._replace(loss=lambda v, k, b, t: (jnp.zeros(b.mask.shape), ((), {})))
    with pytest.raises(errors.FedError, match=r"a loss is one number: got shape \(7,\)"):
        reported_metrics(made.task._replace(objective=each), True)


def test_a_build_knows_every_name_that_a_run_reports(good: Path):
    from fedjax_sim.experiments.run import evaluation, starting_variables
    from fedjax_sim.simulation.simulate import simulate

    made = build(load_config(good, ["evaluation.clients=true"]))
    result = simulate(
        made.program, starting_variables(made), rounds=1, evaluate=evaluation(made), progress=False
    )
    assert set(result.history.names()) == {
        "seconds",
        *round_metrics(made),
        *evaluation_metrics(made),
    }


@pytest.mark.parametrize(
    "metric",
    [
        "loss",
        "cohort",
        "clipped",
        "seconds",
        "test/loss",
        "clients/accuracy_worst10",
        "clients/loss_d9",
    ],
)
def test_whatever_is_reported_can_end_a_run(good: Path, metric: str):
    made = build(
        load_config(good, [f"stop={{metric='{metric}', at_most=0.5}}", "evaluation.clients=true"])
    )
    assert made.config.run.stop.metric == metric


def test_numbers_of_an_algorithm_can_end_its_run(good: Path):
    stop = "stop={metric='personal_loss', at_most=0.5}"
    assert (
        build(load_config(good, [stop, "algorithm={name='ditto'}"])).config.run.stop.at_least
        is None
    )
