"""A run that starts in Python leaves the folder that the command line leaves."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax
import pytest

import fedjax_sim as fs
from fedjax_sim.cli import main
from fedjax_sim.core.calls import call_of
from fedjax_sim.core.errors import FedError
from fedjax_sim.experiments.from_python import configuration

pytestmark = pytest.mark.xdist_group("from python")


def program(task: Any = None, sampler: Any = None, algorithm: Any = None, **engine: Any) -> Any:
    """A small program, all of whose parts come from registered factories."""
    task = task or fs.tasks.quadratic(clients=5)
    algorithm = algorithm or fs.fedavg(task.objective, lr=0.1)
    work = fs.local_work(batch_size=None, epochs=2)
    sampler = sampler or fs.samplers.uniform(3)
    return fs.make_round(
        algorithm, sampler, task.data.train, work, fs.Engine(devices=1, lanes=2, **engine)
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run from Python: four rounds of SCAFFOLD."""
    task = fs.tasks.quadratic(clients=5)
    algorithm = fs.scaffold(task.objective, lr=0.1)
    made = program(task, algorithm=algorithm)
    out = tmp_path_factory.mktemp("runs") / "mine"
    evaluate = fs.make_evaluation(algorithm, task, made)
    result = fs.simulate(
        made,
        task.init(jax.random.key(7)),
        rounds=4,
        seed=3,
        evaluate=evaluate,
        checkpoint_every=2,
        progress=False,
        out=out,
    )
    assert result.stopped == "finished"
    return out


def test_the_folder_is_that_of_the_command_line(folder: Path, tmp_path: Path):
    run = fs.RunFolder(folder)
    assert run.contents() == ["config.toml", "metrics.jsonl", "checkpoints", "summary.json"]
    assert run.last_round() == 4
    summary = run.summary() or {}
    assert (summary["algorithm"], summary["rounds"], summary["seed"]) == ("scaffold", 4, 3)
    again = fs.run(folder / "config.toml", out=tmp_path / "again")
    assert again.config().run.model_dump() == run.config().run.model_dump()


def test_the_command_line_accepts_it(folder: Path, tmp_path: Path):
    assert main(["evaluate", str(folder)]) == 0
    assert main(["export", str(folder), "--out", str(tmp_path / "model.safetensors")]) == 0
    assert main(["resume", str(folder), "--rounds", "6"]) == 0
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [row["round"] for row in rows] == [1, 2, 3, 4, 5, 6]


def test_a_resumed_run_is_the_run_of_python(tmp_path: Path):
    task = fs.tasks.quadratic(clients=5)
    made = program(task)
    first = task.init(jax.random.key(1))
    whole = fs.simulate(made, first, rounds=5, progress=False)
    options = {"rounds": 2, "progress": False, "checkpoint_every": 2}
    fs.simulate(made, first, out=tmp_path / "run", **options)
    assert main(["resume", str(tmp_path / "run"), "--rounds", "5"]) == 0
    summary = fs.RunFolder(tmp_path / "run").summary() or {}
    assert summary["state_hash"] == fs.state_hash(made.logical(whole.state))


def test_a_run_that_stops_at_once_resumes_from_the_callers_model(tmp_path: Path):
    task = fs.tasks.quadratic(clients=5)
    made = program(task)
    first = task.init(jax.random.key(1))
    stop = fs.callback(on_run_start=lambda event: fs.Stop("enough"))
    fs.simulate(made, first, rounds=3, progress=False, callbacks=[stop], out=tmp_path / "run")
    assert main(["resume", str(tmp_path / "run")]) == 0
    whole = fs.simulate(made, first, rounds=3, progress=False)
    summary = fs.RunFolder(tmp_path / "run").summary() or {}
    assert summary["state_hash"] == fs.state_hash(made.logical(whole.state))


def test_client_memory_on_the_host_is_saved_too(tmp_path: Path):
    task = fs.tasks.quadratic(clients=5)
    algorithm = fs.scaffold(task.objective, lr=0.1)
    made = program(task, algorithm=algorithm, client_memory="host")
    first = task.init(jax.random.key(1))
    fs.simulate(made, first, rounds=2, progress=False, out=tmp_path / "run")
    made.host_memory.close()  # as the end of its process does
    assert main(["resume", str(tmp_path / "run"), "--rounds", "3"]) == 0


def test_every_setting_is_written(tmp_path: Path):
    task = fs.tasks.digits(clients=6, partition=partial(fs.data.dirichlet, alpha=0.3))
    algorithm = fs.fedavg(
        task.objective,
        lr=fs.optimizers.cosine(0.1, 5),
        aggregator=fs.chain(fs.aggregators.clip(2.0), fs.aggregators.mean()),
        server_optimizer=fs.optimizers.adam(lr=np.float64(0.01)),
    )
    sampler = fs.samplers.dropout(fs.samplers.stragglers(fs.samplers.uniform(3), 0.5), 0.1)
    run = configuration(program(task, sampler, algorithm), 2, seed=9, evaluate_every=3).run
    assert (run.seed, run.rounds, run.evaluation.every) == (9, 2, 3)
    assert (run.task.name, run.task.clients, run.task.partition.alpha) == ("digits", 6, 0.3)
    assert (run.algorithm.lr.kind, run.algorithm.lr.steps) == ("cosine", 5)
    assert [stage.kind for stage in run.algorithm.aggregator] == ["clip", "mean"]
    assert run.algorithm.server_optimizer[0].lr == 0.01
    assert (run.sampler.kind, run.sampler.cohort) == ("uniform", 3)
    assert (run.sampler.dropout.rate, run.sampler.stragglers.share) == (0.1, 0.5)
    assert (run.local_work.batch_size, run.local_work.epochs) == (None, 2)
    assert (run.engine.devices, run.engine.lanes) == (1, 2)
    assert run.guard.nonfinite == "propagate"


def unregistered(task: Any) -> dict[str, Any]:
    changed = fs.samplers.uniform(3)._replace(observe=lambda state, roster, metrics: state)
    foreign = fs.fedavg(task.objective, server_optimizer=optax.sgd(1.0))
    return {
        "sampler": program(task, sampler=changed),
        "algorithm.server_optimizer": program(task, algorithm=foreign),
        "algorithm": program(task, algorithm=fs.fedavg(task.objective)._replace(memory=len)),
    }


@pytest.mark.parametrize("part", ["sampler", "algorithm.server_optimizer", "algorithm"])
def test_a_part_that_no_registered_factory_made_is_named(part: str, tmp_path: Path):
    task = fs.tasks.quadratic(clients=5)
    made = unregistered(task)[part]
    with pytest.raises(FedError, match=f"{part} cannot be written to a configuration") as caught:
        fs.simulate(made, None, rounds=1, out=tmp_path / "run")
    assert caught.value.setting == part
    assert not (tmp_path / "run").exists()


def test_other_data_than_the_tasks_are_refused():
    task = fs.tasks.quadratic(clients=5)
    other = task._replace(data=jax.tree.map(np.copy, task.data))
    with pytest.raises(FedError, match=r"runs on the data of its task: got other data"):
        configuration(program(other, algorithm=fs.fedavg(task.objective)), 1)


def test_arguments_of_the_loop_that_the_folder_brings_are_refused(tmp_path: Path):
    with pytest.raises(FedError, match="the folder brings its own writers and checkpoints"):
        fs.simulate(program(), None, rounds=1, out=tmp_path / "run", writers=[])


def test_a_call_is_forgotten_with_what_it_made():
    import gc

    from fedjax_sim.core import calls

    gc.collect()
    before = len(calls._CALLS)
    sampler = fs.samplers.uniform(3)
    call = call_of(sampler)
    assert call is not None
    assert (call.name, call.arguments) == ("uniform", {"cohort": 3})
    del sampler, call
    gc.collect()
    assert len(calls._CALLS) == before
