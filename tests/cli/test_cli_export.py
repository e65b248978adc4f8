"""``fedjax-sim export``: the model of a run as one file, in every format."""

import os
import pickle
import re
from pathlib import Path

import jax
import numpy as np
import pytest
from commands import SMALL, python, summary
from stores import same

import fedjax_sim
from fedjax_sim.cli import FORMATS, main
from fedjax_sim.cli.export import READ, checkpoint_of, hash_of
from fedjax_sim.core.types import Variables
from fedjax_sim.experiments.build import build
from fedjax_sim.experiments.config import load_config
from fedjax_sim.experiments.config.load import tables
from fedjax_sim.experiments.experiment import Experiment
from fedjax_sim.persistence import export

OF_WEIGHTS = sorted(export.WEIGHTS)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two rounds with a checkpoint of each."""
    folder = tmp_path_factory.mktemp("run")
    (folder / "small.toml").write_text(SMALL)
    assert (
        main(
            [
                "run",
                str(folder / "small.toml"),
                "checkpoint.every=1",
                "evaluation.every=1",
                "--out",
                str(folder / "run"),
            ]
        )
        == 0
    )
    return folder / "run"


@pytest.fixture(scope="module")
def made(run: Path) -> Experiment:
    return build(load_config(run / "config.toml"))


def model(made: Experiment, run: Path, step: int | None = None) -> Variables:
    return made.algorithm.variables(checkpoint_of(made, run, step).state.algorithm)


def test_the_parser_knows_the_formats():
    assert set(FORMATS) == {*export.WEIGHTS, export.PROGRAM} == set(READ)


@pytest.mark.parametrize("form", OF_WEIGHTS)
@pytest.mark.parametrize("step", [1, None])
def test_exported_weights_are_those_of_the_checkpoint(
    form: str, step, run: Path, made: Experiment, tmp_path: Path, capsys
):
    path = tmp_path / "m"
    words = [] if step is None else ["--round", str(step)]
    assert main(["export", str(run), "--format", form, "--out", str(path), *words]) == 0
    assert f"wrote {path}: the model of round {step or 2}, " in capsys.readouterr().out
    loaded = export.load_weights(path, jax.eval_shape(made.task.init, jax.random.key(0)))
    wanted = model(made, run, step)
    assert same(loaded, wanted)
    x = made.task.data.global_test.x[:9]
    assert same(
        *(made.task.model.apply(*held, x, train=False, key=None)[0] for held in (loaded, wanted))
    )


def test_an_exported_program_predicts_what_the_model_does(
    run: Path, made: Experiment, tmp_path: Path
):
    path = tmp_path / "m.stablehlo"
    assert main(["export", str(run), "--format", "stablehlo", "--out", str(path)]) == 0
    x = made.task.data.global_test.x
    wanted = made.task.model.apply(*model(made, run), x, train=False, key=None)[0]
    predicted = np.asarray(export.load_program(path)(x))
    np.testing.assert_allclose(predicted, wanted, rtol=1e-5, atol=1e-5)
    hits = np.mean(predicted.argmax(-1) == made.task.data.global_test.y)
    assert hits == pytest.approx(export.read_card(path)["metrics"]["test/accuracy"], abs=0.01)


ALONE = """
import sys, fedjax_sim, numpy as np
predict = fedjax_sim.export.load_program({path!r})
print(predict(np.zeros((3, 8, 8, 1), np.float32)).shape, sorted(sys.modules))
"""


def test_a_program_is_called_without_the_algorithms_and_tasks(run: Path, tmp_path: Path):
    path = tmp_path / "m.stablehlo"
    assert main(["export", str(run), "--format", "stablehlo", "--out", str(path)]) == 0
    out = python(ALONE.format(path=str(path)), JAX_PLATFORMS="cpu")
    assert "(3, 10)" in out
    assert not {"fedjax_sim.algorithms", "fedjax_sim.tasks", "fedjax_sim.engine"} & set(
        re.findall(r"fedjax_sim\.\w+", out)
    )


@pytest.mark.parametrize("form", FORMATS)
def test_the_card_says_what_it_is(form: str, run: Path, made: Experiment, tmp_path: Path):
    assert main(["export", str(run), "--format", form, "--out", str(tmp_path / "m")]) == 0
    card, said = export.read_card(tmp_path / "m"), summary(run)
    assert {
        name: card[name]
        for name in ("task", "algorithm", "seed", "rounds", "state_hash", "versions")
    } == {
        name: said[name]
        for name in ("task", "algorithm", "seed", "rounds", "state_hash", "versions")
    }
    assert card["metrics"] == {
        name: value for name, value in said["metrics"].items() if "/" in name
    }
    assert card["input"] == {"dtype": "float32", "shape": [8, 8, 1]}
    assert card["parameters"] == sum(leaf.size for leaf in jax.tree.leaves(model(made, run).params))
    assert card["config_hash"] == hash_of(tables(load_config(run / "config.toml").run))
    assert "fedjax_sim.export.load_" in card["read"]


def test_the_card_of_an_earlier_round_has_its_numbers(run: Path, tmp_path: Path):
    for step in (1, 2):
        assert (
            main(["export", str(run), "--round", str(step), "--out", str(tmp_path / str(step))])
            == 0
        )
    cards = [export.read_card(tmp_path / str(step)) for step in (1, 2)]
    assert [card["rounds"] for card in cards] == [1, 2]
    for name in ("state_hash", "weights_hash", "metrics"):
        assert cards[0][name] != cards[1][name]


def files(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_nothing_else_in_the_folder_changes(run: Path, capsys):
    before = files(run)
    assert main(["export", str(run)]) == 0
    after = files(run)
    assert set(after) - set(before) == {"model-2.safetensors"}
    assert {name: after[name] for name in before} == before
    capsys.readouterr()
    assert main(["export", str(run)]) == 2
    assert capsys.readouterr().err.startswith(
        f"there is a file already: got {run / 'model-2.safetensors'}; replace it with --force"
    )
    assert main(["export", str(run), "--force"]) == 0
    os.unlink(run / "model-2.safetensors")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ["{run}", "--round", "7"],
            "no checkpoint of round 7 in {run}/checkpoints: got (1, 2); choose",
        ),
        (["{run}", "--round", "-1"], "no checkpoint of round -1"),
        (
            ["{run}", "--out", "{run}"],
            "an exported model is a file: got the folder {run}; name a file",
        ),
        (
            ["{run}", "--out", "{run}/config.toml/x"],
            "{run}/config.toml/x could not be written: got ",
        ),
        (["{run}/config.toml"], "no run in this folder"),
        (["{run}/checkpoints"], "no run in this folder"),
    ],
)
def test_what_cannot_be_exported_is_said_in_one_sentence(words, said, run: Path, capsys):
    before = files(run)
    assert main(["export", *(word.format(run=run) for word in words)]) == 2
    told = capsys.readouterr().err
    assert told.startswith(said.format(run=run))
    assert told.count("\n") == 1
    assert files(run) == before


def test_a_run_of_another_machine_is_exported_on_this_one(run: Path, tmp_path: Path):
    there = tmp_path / "run"
    there.mkdir()
    (there / "checkpoints").symlink_to(run / "checkpoints")
    text = (run / "config.toml").read_text()
    assert "[engine]" in text
    (there / "config.toml").write_text(
        text.replace("[engine]", "[engine]\ndevices = 64\nshards = 64")
    )
    assert main(["export", str(there), "--out", str(tmp_path / "m")]) == 0
    assert export.read_card(tmp_path / "m")["metrics"] == {}
    assert main(["evaluate", str(there)]) == 2


def test_memory_on_the_host_is_left_alone(tmp_path: Path):
    (tmp_path / "small.toml").write_text(SMALL)
    folder = tmp_path / "run"
    assert (
        main(
            [
                "run",
                str(tmp_path / "small.toml"),
                "checkpoint.every=1",
                "engine.client_memory=host",
                "--out",
                str(folder),
            ]
        )
        == 0
    )
    before = files(folder)
    assert main(["export", str(folder), "--round", "1", "--out", str(tmp_path / "m")]) == 0
    assert files(folder) == before


def test_a_task_without_a_model_has_weights_alone(tmp_path: Path, capsys):
    (tmp_path / "q.toml").write_text(
        'rounds=1\ntask.name="quadratic"\nalgorithm.name="fedavg"\nsampler.kind="full"\n'
    )
    assert main(["run", str(tmp_path / "q.toml"), "--out", str(tmp_path / "run")]) == 0
    capsys.readouterr()
    assert main(["export", str(tmp_path / "run"), "--format", "stablehlo"]) == 2
    assert (
        "the task 'quadratic' has parameters, but no model that predicts: got --format stablehlo; "
        "export" in capsys.readouterr().err
    )
    assert main(["export", str(tmp_path / "run")]) == 0


def test_nothing_is_pickled(
    run: Path, made: Experiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """A run of a stranger's can be exported and evaluated: no file of it is code."""

    def refuse(*arguments, **more):
        pytest.fail("pickle was asked")

    for name in ("load", "loads", "Unpickler"):
        monkeypatch.setattr(pickle, name, refuse)
    for form in FORMATS:
        path = tmp_path / form
        assert main(["export", str(run), "--format", form, "--out", str(path)]) == 0
        export.read_card(path)
    export.load_program(tmp_path / "stablehlo")
    for form in OF_WEIGHTS:
        export.load_weights(tmp_path / form, jax.eval_shape(made.task.init, jax.random.key(0)))
    assert main(["evaluate", str(run)]) == 0


def test_the_package_has_no_pickle_in_it():
    package = Path(fedjax_sim.__file__).parent
    lines = [line for path in package.rglob("*.py") for line in path.read_text().splitlines()]
    found = [
        line
        for line in lines
        if re.search(r"pickle|marshal|\bshelve\b|(?<![.\w])(eval|exec)\(", line)
    ]
    assert [
        line for line in found if "allow_pickle=False" not in line and "pickled" not in line
    ] == []
