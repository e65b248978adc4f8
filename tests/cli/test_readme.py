import importlib
import importlib.util
import json
import re
import shlex
from pathlib import Path
from types import ModuleType

import jax
import numpy as np
import pytest

import fedjax_sim as fs
from fedjax_sim.algorithms.fedavg import fedavg
from fedjax_sim.cli import main

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
DOCUMENTS = [
    ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "docs/architecture.md")
]
SHRINK = 25
"""Divisor of the README's numbers of rounds; a resumed run still has more rounds than before."""


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", text, flags=re.DOTALL | re.MULTILINE)


def commands(text: str) -> list[list[str]]:
    return [
        shlex.split(line) for block in blocks(text, "sh") for line in block.splitlines() if line
    ]


def shrunk(text: str) -> str:
    return re.sub(
        r"(rounds[= ])(\d+)", lambda found: f"{found[1]}{max(1, int(found[2]) // SHRINK)}", text
    )


def load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# ----------------------------------------------------------------------------------------- commands


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_command_is_one_that_is_tested_here(document: Path):
    targets = re.findall(r"^(\w[\w-]*):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
    text = document.read_text(encoding="utf-8")
    for words in commands(text):
        assert words[0] in ("fedjax-sim", "make", "git", "cd", "pip", "python"), words
        if words[0] == "python":
            assert (ROOT / words[1]).is_file(), words
    named = re.findall(r"`make ([\w-]+)`", text) + [
        words[1] for words in commands(text) if words[0] == "make"
    ]
    assert set(named) <= set(targets)


def test_the_commands_of_the_command_line_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """In their order and in one folder, as a reader would type them, with fewer rounds."""
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    monkeypatch.chdir(tmp_path)
    typed = [words[1:] for words in commands(README) if words[0] == "fedjax-sim"]
    assert {words[0] for words in typed} >= {
        "check",
        "run",
        "resume",
        "evaluate",
        "list",
        "describe",
    }
    for words in typed:
        quick = ["task.model=logistic", "evaluation.clients=false"] if words[0] == "run" else []
        assert main([*shlex.split(shrunk(shlex.join(words))), *quick]) == 0, (
            words,
            capsys.readouterr().err,
        )
    first, one, two = (
        json.loads(Path(f"runs/{name}/summary.json").read_text())
        for name in ("first", "one", "two")
    )
    assert (first["rounds"], one["rounds"]) == (4, 2)
    assert one["state_hash"] == two["state_hash"]


def test_runs_leave_the_files_that_are_listed():
    listed = re.findall(
        r"`([\w.]+(?:json|jsonl|csv|toml)|\w+/)`",
        README.partition("| file |")[2].partition("\n\n")[0],
    )
    assert len(listed) == 5
    folder = fs.RunFolder("run")
    paths = {
        folder.config_path,
        folder.rows_path,
        folder.table_path,
        folder.checkpoints_path,
        folder.summary_path,
    }
    assert {name.rstrip("/") for name in listed} == {path.name for path in paths}


# ------------------------------------------------------------------------------------------- python


@pytest.mark.parametrize("number", range(2))
def test_the_examples_run(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    examples = [block for block in blocks(README, "python") if "import fedjax_sim as fs" in block]
    assert len(examples) == 2
    monkeypatch.chdir(tmp_path)
    exec(
        compile(shrunk(examples[number]), f"README example {number}", "exec"),
        {"__name__": "readme"},
    )
    printed = [float(number) for number in re.findall(r"\d+\.\d+", capsys.readouterr().out)]
    assert printed
    assert np.isfinite(printed).all()
    assert (tmp_path / "scaffold.png").exists() == (number == 0)


@pytest.fixture(scope="module")
def fedexp(tmp_path_factory: pytest.TempPathFactory) -> ModuleType:
    (block,) = blocks(
        README.partition("<!-- example -->")[2].partition("<!-- /example -->")[0], "python"
    )
    path = tmp_path_factory.mktemp("readme") / "fedexp.py"
    path.write_text(block)
    return load(path)


def test_the_new_algorithm_obeys_its_law_and_extrapolates(fedexp: ModuleType):
    """Two rounds on quadratics: FedAvg under the law's settings, longer steps otherwise."""
    task = fs.tasks.quadratic(clients=6)
    engine = fs.Engine(devices=1, lanes=2)

    def two_rounds(algorithm: fs.Algorithm):
        program = fs.make_round(
            algorithm, fs.samplers.full(), task.data.train, fs.local_work(steps=3), engine
        )
        state, outcome = program.run(program.init(task.init(jax.random.key(0))), 2)
        return np.asarray(
            algorithm.variables(program.logical(state).algorithm).params["x"]
        ), outcome

    law = fedexp.LAW
    assert law.equals == "fedavg"
    model, outcome = two_rounds(fedexp.fedexp(task.objective, lr=0.1, **law.when))
    averaged, _ = two_rounds(fedavg(task.objective, lr=0.1, **law.given))
    np.testing.assert_allclose(model, averaged, rtol=1e-6)
    np.testing.assert_array_equal(outcome.metrics["server_step"], 1)
    model, outcome = two_rounds(fedexp.fedexp(task.objective, lr=0.1, epsilon=1e-6))
    assert np.all(np.asarray(outcome.metrics["server_step"]) >= 1)
    assert np.any(np.asarray(outcome.metrics["server_step"]) > 1.01)
    assert not np.allclose(model, averaged, rtol=1e-3)


def test_the_new_algorithm_can_be_registered(
    fedexp: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    from fedjax_sim.core import registry
    from fedjax_sim.experiments.config import entries_by_kind

    kept = {kind: dict(entries) for kind, entries in entries_by_kind().items()}
    monkeypatch.setattr(registry, "_ENTRIES", kept)
    fs.register("algorithm", fedexp)
    assert main(["describe", "fedexp"]) == 0
    out = capsys.readouterr().out
    assert 'Extrapolation", 2023' in out
    assert "epsilon" in out
    assert (
        main(
            [
                "check",
                str(ROOT / "configs" / "digits_fedavg.toml"),
                "algorithm.name=fedexp",
                "algorithm.epsilon=0.01",
            ]
        )
        == 0
    )


# -------------------------------------------------------------------------------------------- words


def test_registered_names_in_the_text_are_complete():
    for registry in (
        fs.aggregators.REGISTRY,
        fs.samplers.REGISTRY,
        fs.tasks.REGISTRY,
        fs.data.PARTITIONS,
    ):
        assert all(f"`{name}`" in README for name in registry)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_and_paths_lead_somewhere(document: Path):
    text = document.read_text(encoding="utf-8")
    links = [link for link in re.findall(r"\]\(([^)#]+)[^)]*\)", text) if "://" not in link]
    paths = re.findall(r"`((?:fedjax_sim|tests|docs|configs|notebooks|benchmarks)/[\w./]+)`", text)
    missing = [link for link in links if not (document.parent / link).exists()] + [
        path for path in paths if not (ROOT / path).exists()
    ]
    assert not missing


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_functions_that_the_text_names_exist(document: Path):
    """``module.name`` in backticks behind a path of ours, and ``fs.name`` anywhere."""
    text = document.read_text(encoding="utf-8")
    for name in re.findall(r"\bfs\.([A-Za-z_.]+\w)", text):
        thing = fs
        for part in name.split("."):
            thing = getattr(thing, part)
    for path, names in re.findall(r"`fedjax_sim/([\w/]+)\.py`: ((?:`\w+`(?:, )?)+)", text):
        module = importlib.import_module("fedjax_sim." + path.replace("/", "."))
        assert all(hasattr(module, name) for name in re.findall(r"`(\w+)`", names)), (path, names)
