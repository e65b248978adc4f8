"""The configurations that are shipped run, and so does the demo."""

import re
from pathlib import Path

import pytest
from commands import CONFIGS, summary
from shared_data import shared

from fedjax_sim.cli import demo, main
from fedjax_sim.experiments.config import load_config


@pytest.mark.parametrize(
    "name",
    [
        *(pytest.param(name, marks=pytest.mark.slow) for name in demo.PAIR),  # the demo runs them
        pytest.param("digits_fedadam", marks=pytest.mark.slow),
        "synthetic_fedprox",
    ],
)
def test_shipped_files_run(name: str, tmp_path: Path):
    assert (
        main(["run", str(CONFIGS / f"{name}.toml"), "rounds=2", "--out", str(tmp_path / "run")])
        == 0
    )
    assert summary(tmp_path / "run")["rounds"] == 2
    assert 0 < summary(tmp_path / "run")["metrics"]["test/accuracy"] <= 1


@pytest.mark.parametrize(
    ("name", "source", "words"),
    [
        ("mnist_cnn", "mnist.npz", ["model.name=logistic"]),
        pytest.param("har_fedavg", "uci_har.npz", [], marks=pytest.mark.slow),
        pytest.param(
            "shakespeare_lstm",
            "shakespeare_roles.npz",
            ["task.clients=4", "model.width=16"],
            marks=pytest.mark.slow,
        ),
    ],
)
def test_files_of_prepared_data_run(name: str, source: str, words: list[str], tmp_path: Path):
    """After the command that their first lines give."""
    text = (CONFIGS / f"{name}.toml").read_text()
    (said,) = re.findall(
        rf"^#   fedjax-sim (data prepare {source} --out (data/\w+))$", text, flags=re.MULTILINE
    )
    assert f'source = "{said[1]}"' in text
    data = str(tmp_path / "data")
    assert (
        main(said[0].replace(said[1], data).replace(f" {source}", f" {shared(source)}").split())
        == 0
    )
    more = [
        "rounds=2",
        f"task.source={data}",
        "sampler.cohort=2",
        "evaluation.every=2",
        "--out",
        str(tmp_path / "run"),
    ]
    assert main(["run", str(CONFIGS / f"{name}.toml"), *words, *more]) == 0
    assert summary(tmp_path / "run")["rounds"] == 2


def test_the_demo_compares_both_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    words = ["rounds=2", "evaluation.every=1", "task.model=logistic", "evaluation.clients=false"]
    assert main(["demo", *words, "--out", str(tmp_path / "demo")]) == 0
    out = capsys.readouterr().out
    assert (tmp_path / "demo" / "comparison.png").read_bytes().startswith(b"\x89PNG")
    for name in demo.PAIR:
        label = load_config(demo.shipped(name)).run.algorithm.name
        assert summary(tmp_path / "demo" / label)["algorithm"] == label
        assert str(tmp_path / "demo" / label) in out


def test_files_of_the_demo_differ_in_the_algorithm_alone():
    pair = [load_config(demo.shipped(name)).run.model_dump() for name in demo.PAIR]
    algorithms = [each.pop("algorithm")["name"] for each in pair]
    assert pair[0] == pair[1]
    assert len(set(algorithms)) == 2
    assert pair[0]["task"]["clients"] >= 50
