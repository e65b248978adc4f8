import contextlib
import io
import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
import pytest
from commands import SMALL, summary

from fedjax_sim.cli import main
from fedjax_sim.core.errors import FedError
from fedjax_sim.experiments.config import load_config
from fedjax_sim.experiments.config.load import tables
from fedjax_sim.experiments.config.resume import changed_settings
from fedjax_sim.experiments.run import new_folder
from fedjax_sim.simulation.history import from_jsonl


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("config") / "small.toml"
    path.write_text(SMALL)
    return str(path)


SAME = "algorithm.lr=0.05"
"""Runs with one rate share their compiled programs."""
QUADRATIC = """rounds = 2
[task]
name = "quadratic"
[algorithm]
name = "fedavg"
[sampler]
kind = "uniform"
cohort = 4
"""


class Done(NamedTuple):
    """A finished run of two rounds, and what the command printed."""

    folder: Path
    out: str


@pytest.fixture(scope="module")
def done(small: str, tmp_path_factory: pytest.TempPathFactory) -> Done:
    folder = tmp_path_factory.mktemp("runs") / "run"
    words = [SAME, "evaluation.clients=true"]
    with contextlib.redirect_stdout(io.StringIO()) as out:
        assert main(["run", small, "--out", str(folder), *words]) == 0
    return Done(folder, out.getvalue())


@pytest.fixture
def run(done: Done, tmp_path: Path) -> Path:
    """A copy of the finished run."""
    return Path(shutil.copytree(done.folder, tmp_path / "run"))


# ------------------------------------------------------------------------------------------ running


def test_a_run_leaves_everything_in_its_folder(done: Done):
    folder = done.folder
    made = summary(folder)
    assert made["algorithm"] == "scaffold"
    assert made["rounds"] == 2
    assert made["stopped"] == "finished"
    assert 0 < made["metrics"]["test/accuracy"] < 1
    assert any(name.startswith("clients/") for name in made["metrics"])
    assert made["seconds"] > 0
    assert len(made["state_hash"]) == 64
    assert made["versions"]["jax"] == jax.__version__
    assert load_config(folder / "config.toml").run.algorithm.lr == 0.05
    assert list(from_jsonl(folder / "metrics.jsonl").rows) == [1, 2]
    assert (folder / "metrics.csv").read_text().count("\n") == 3
    assert (folder / "checkpoints" / "2").is_dir()
    assert str(folder) in done.out


def test_a_folder_that_holds_a_run_is_left_alone(
    small: str, run: Path, capsys: pytest.CaptureFixture[str]
):
    folder = run
    before = (folder / "summary.json").read_bytes()
    assert main(["run", small, "--out", str(folder), "seed=1"]) == 2
    assert f"fedjax-sim resume {folder}" in capsys.readouterr().err
    assert (folder / "summary.json").read_bytes() == before


def test_a_resumed_run_is_the_run_that_never_stopped(small: str, tmp_path: Path):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert main(["run", small, "rounds=6", "--out", str(whole)]) == 0
    assert main(["run", small, "--out", str(parts)]) == 0
    assert main(["resume", str(parts), "--rounds", "4"]) == 0
    assert (
        main(["resume", str(parts), "rounds=6", "engine.devices=4", "engine.rounds_per_call=2"])
        == 0
    )
    assert summary(parts)["state_hash"] == summary(whole)["state_hash"]
    assert list(from_jsonl(parts / "metrics.jsonl").rows) == [1, 2, 3, 4, 5, 6]
    assert load_config(parts / "config.toml").run.rounds == 6


def files(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_resume_that_cannot_be_is_refused_in_words(run: Path, capsys: pytest.CaptureFixture[str]):
    folder = run
    before = files(folder)
    for change, said in [
        ("seed=7", "got 7 in place of 0"),
        ("task.partition.alpha=1.0", "got 1.0"),
        ("task.clients=13", "got 13"),
    ]:
        capsys.readouterr()
        assert main(["resume", str(folder), change, "--rounds", "3"]) == 2
        assert capsys.readouterr().err.startswith(
            f"a resumed run keeps its {change.partition('=')[0]}: {said}"
        )
    assert main(["resume", str(folder)]) == 2
    assert "ask for more, such as --rounds 4" in capsys.readouterr().err
    assert files(folder) == before


def test_a_rate_may_change_and_the_run_says_so(
    done: Done, run: Path, capsys: pytest.CaptureFixture[str]
):
    folder = run
    assert "resumed with" not in done.out
    more = [
        "--rounds",
        "3",
        "evaluation.every=3",
        "checkpoint.keep=1",
        "stop={metric='loss', at_most=0.0}",
    ]
    assert main(["resume", str(folder), "algorithm.lr=0.02", *more]) == 0
    note = "resumed with algorithm.lr = 0.02, which was 0.05"
    assert f"note: {note}\n" in capsys.readouterr().out
    assert summary(folder)["notes"] == [note]
    assert load_config(folder / "config.toml").run.algorithm.lr == 0.02


def test_what_a_run_is_resumed_with_is_compared_with_its_checkpoint(
    run: Path, capsys: pytest.CaptureFixture[str]
):
    """And not with the file beside it, which anybody can edit."""
    folder = run
    text = (folder / "config.toml").read_text()
    (folder / "config.toml").write_text(text.replace("seed = 0", "seed = 5", 1))
    assert main(["resume", str(folder), "--rounds", "3"]) == 2
    assert "a resumed run keeps its seed: got 5 in place of 0" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("key", "old", "new"),
    [
        ("seed", "0", "7"),
        ("task.partition.kind", "'dirichlet'", "'iid'"),
        ("sampler.cohort", "4", "5"),
        ("sampler.dropout.rate", "'nothing'", "0.5"),
        ("local_work.epochs", "1", "2"),
        ("algorithm.option", "'II'", "'I'"),
    ],
)
def test_what_a_resumed_run_keeps(key: str, old: str, new: str, small: str):
    before = tables(load_config(small).run)
    with pytest.raises(
        FedError,
        match=f"^a resumed run keeps its {key}: got {new} in place of {old}; leave {key} as it was",
    ):
        changed_settings(load_config(small, [f"{key}={new}"]).run, before)


def test_settings_that_are_newer_than_a_checkpoint_had_their_defaults(small: str):
    run = load_config(small).run
    before = tables(run)
    del before["local_work"]["shuffle"]
    assert changed_settings(run, before) == ()
    before["local_work"]["epochs"] = 7
    with pytest.raises(FedError, match=r"its local_work.epochs: got 1 in place of 7"):
        changed_settings(run, before)
    before["nonsense"] = 1
    with pytest.raises(FedError):
        changed_settings(run, before)
    assert changed_settings(run, None) == ()


def test_evaluate_repeats_the_numbers_of_the_run(run: Path):
    folder = run
    assert main(["evaluate", str(folder)]) == 0
    again = json.loads((folder / "evaluation.json").read_text())
    assert again["rounds"] == 2
    assert again["metrics"].keys() == summary(folder)["metrics"].keys()
    np.testing.assert_allclose(
        *(
            [m[name] for name in again["metrics"]]
            for m in (again["metrics"], summary(folder)["metrics"])
        )
    )


def test_a_run_stops_at_its_target(small: str, tmp_path: Path):
    folder = tmp_path / "run"
    assert (
        main(
            [
                "run",
                small,
                SAME,
                "rounds=8",
                "stop.metric=test/accuracy",
                "stop.at_least=0.0",
                "--out",
                str(folder),
            ]
        )
        == 0
    )
    assert summary(folder)["rounds"] == 2
    assert "test/accuracy reached 0" in summary(folder)["stopped"]


def test_a_run_stops_on_the_way_down(small: str, tmp_path: Path):
    folder = tmp_path / "run"
    assert (
        main(
            [
                "run",
                small,
                SAME,
                "rounds=8",
                "stop={metric='test/loss', at_most=100.0}",
                "--out",
                str(folder),
            ]
        )
        == 0
    )
    assert summary(folder)["rounds"] == 2
    assert "test/loss came down to 100" in summary(folder)["stopped"]


def test_folders_of_runs_are_numbered(small: str, tmp_path: Path):
    config = load_config(small, ["seed=7"])
    names = [new_folder(config, root=tmp_path / "runs").name for _ in range(2)]
    assert names == ["small-scaffold-7-001", "small-scaffold-7-002"]


def test_an_interrupted_run_saves_and_goes_on(tmp_path: Path):
    folder, small = tmp_path / "run", tmp_path / "small.toml"
    small.write_text(QUADRATIC)
    command = [
        sys.executable,
        "-m",
        "fedjax_sim",
        "run",
        str(small),
        "rounds=1000000",
        "evaluation.every=1000000",
        "--out",
        str(folder),
    ]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    begun = time.monotonic()
    while not (folder / "metrics.jsonl").exists() or not (folder / "metrics.jsonl").read_text():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() - begun < 120
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 130, errors
    assert "Traceback" not in errors
    assert summary(folder)["stopped"] == "interrupted"
    done = summary(folder)["rounds"]
    assert main(["resume", str(folder), "--rounds", str(done + 1), "engine.devices=1"]) == 0
    assert summary(folder)["rounds"] == done + 1


def test_a_profile_is_written_where_asked(
    small: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    traces = tmp_path / "traces"
    assert (
        main(
            [
                "run",
                small,
                SAME,
                "rounds=5",
                "--out",
                str(tmp_path / "run"),
                "--profile",
                str(traces),
            ]
        )
        == 0
    )
    (trace,) = traces.rglob("*.trace.json.gz")
    assert str(trace) in capsys.readouterr().out


def test_a_run_too_short_for_a_profile_says_so(
    small: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    assert (
        main(
            [
                "run",
                small,
                SAME,
                "rounds=1",
                "--out",
                str(tmp_path / "run"),
                "--profile",
                str(tmp_path / "traces"),
            ]
        )
        == 0
    )
    assert "no profile: the run was too short" in capsys.readouterr().out
