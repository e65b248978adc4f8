"""A client's part in a rejected round, step by step, and the files that it is run again from."""

import json
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import rigs
from commands import SMALL, summary
from federation import close, scripted
from rigs import ENGINES, OBJECTIVE, PEOPLE, ROUNDS, START, WORK, C, N, script

from fedjax_sim.algorithms import REGISTRY
from fedjax_sim.cli import main
from fedjax_sim.core import tree
from fedjax_sim.core.errors import FedError
from fedjax_sim.engine.nonfinite import guard
from fedjax_sim.engine.program import make_round
from fedjax_sim.simulation.nonfinite_report import read, restore, save
from fedjax_sim.simulation.replay import RoundParts, replay

NAMES = [rigs.FIRST, *rigs.SEVERAL_TRIPS]
"""One whose clients remember something, and those of more than one trip."""
FIRST = [*range(C)]
"""All clients but client 12."""
ALONE = [2] + [N] * (C - 1)
"""Client 2 alone, whose twelve examples are six batches in two epochs."""


def before_second(name):
    """The program, and its state after a first round."""
    made, logical, parts = first_round(name)
    return made, made.place(logical), parts


@cache
def first_round(name):
    """The same, compiled and run once; the state is on the host, where no round takes it."""
    algorithm, policy = REGISTRY[name].factory(OBJECTIVE), guard()
    made = make_round(algorithm, script(C, ROUNDS), PEOPLE, WORK, ENGINES["vmap"], policy)
    cohorts = scripted([FIRST, ALONE, ALONE])
    state = made.run(made.place(made.logical(made.init(START)).replace(sampler=cohorts)))[0]
    parts = RoundParts(algorithm, script(C, ROUNDS), WORK, policy, made.plan)
    return made, made.logical(state), parts


@pytest.mark.parametrize("name", NAMES)
def test_what_is_run_again_is_what_was_run(name):
    made, state, parts = before_second(name)
    *_, last = replay(parts, PEOPLE, made.find_culprits(state).state, 2)
    model = made.logical(state)
    after = made.logical(made.run(state)[0])
    old, new = (parts.algorithm.variables(each.algorithm).params for each in (model, after))
    assert last.problem is None
    assert [step.number for step in last.steps] == [1, 2, 3, 4, 5, 6]
    np.testing.assert_allclose(last.steps[-1].norm, tree.norm(tree.sub(old, new)), rtol=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_the_first_batch_that_is_not_finite_is_found(name):
    made, state, parts = before_second(name)
    x = PEOPLE.x.copy()
    x[PEOPLE.offsets[2] + 9, 1] = np.nan
    (trace,) = replay(parts, PEOPLE._replace(x=x), made.find_culprits(state).state, 2)
    assert trace.trip == 1
    assert trace.problem is not None
    assert trace.problem.startswith("batch.x is not finite after step 3 of ")
    assert [bool(step.nonfinite) for step in trace.steps] == [False, False, True]


def test_what_grows_too_large_is_found_and_who_was_not_there_is_not():
    made, state, parts = before_second(NAMES[0])
    kept = made.find_culprits(state).state
    norms = [step.norm for step in next(replay(parts, PEOPLE, kept, 2)).steps]
    bound = (max(norms[:3]) + max(norms)) / 2
    (trace,) = replay(parts._replace(guard=guard(max_norm=bound)), PEOPLE, kept, 2)
    assert trace.problem is not None
    assert "above max_norm" in trace.problem
    assert trace.steps[-1].norm > bound > trace.steps[-2].norm
    with pytest.raises(
        FedError, match=r"did not take part in the round: got 12; choose one of \[2\]"
    ):
        next(replay(parts, PEOPLE, kept, 12))


def test_the_files_bring_everything_back(tmp_path):
    made, state, _ = before_second(NAMES[0])
    blame = made.find_culprits(state)._replace(clients=(2,), names=("someone",))
    for _ in range(2):  # the second replaces the first
        path = save(tmp_path, 2, blame, "rounds = 2\n")
    rejected = read(path)
    assert (rejected.round, rejected.clients, rejected.names) == (2, (2,), {2: "someone"})
    close(restore(rejected, blame.state).state, blame.state, 0)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["nonfinite-2", "nonfinite-2.json"]
    (rejected.folder / "config.toml").unlink()
    with pytest.raises(FedError, match="the state of the rejected round is missing"):
        read(path)


@pytest.mark.parametrize(
    "text", ["", "[]", '{"round": 1}', '{"round": "x", "clients": [], "state": "s"}']
)
def test_other_files_are_refused_in_words(tmp_path, text):
    (tmp_path / "file.json").write_text(text)
    with pytest.raises(
        FedError, match=r"does not describe a rejected round: got .*nonfinite-<round>.json"
    ):
        read(tmp_path / "file.json")


def test_the_command_line_says_files_and_replays(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    config, folder = tmp_path / "small.toml", tmp_path / "run"
    config.write_text(SMALL.replace("logistic", "mlp"))  # whose gradients can overflow
    assert main(["run", str(config), "rounds=4", "algorithm.lr=1e30", "--out", str(folder)]) == 2
    said, file = capsys.readouterr().err, folder / "nonfinite-1.json"
    assert "round 1 was rejected" in said
    assert f"fedjax-sim replay {file}" in said
    assert f"fedjax-sim resume {folder} guard.nonfinite=drop" in said
    assert (folder / "checkpoints" / "0").is_dir()
    assert not (folder / "summary.json").exists()
    clients = [client["id"] for client in json.loads(file.read_text())["clients"]]
    assert main(["replay", str(file), "--client", str(clients[0])]) == 0
    out = capsys.readouterr().out
    assert "found: local." in out
    assert "encountered in" in out
    (trip,) = json.loads(
        (folder / f"nonfinite-1-client-{clients[0]}.json").read_text(), parse_constant=pytest.fail
    )["trips"]
    assert trip["steps"][-1]["odd"]
    assert main(["replay", str(folder / "config.toml")]) == 2
    assert main(["resume", str(folder), "guard.nonfinite=drop"]) == 0
    assert summary(folder)["stopped"].startswith("diverged: all clients were dropped")
