"""How runs end on the command line, and how they are gone on with after they ended in odd ways."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from commands import summary
from stores import flip_all

from fedjax_sim.cli import main
from fedjax_sim.runtime.signals import exit_status, graceful_stop, second_signal
from fedjax_sim.simulation.history import from_jsonl

TINY = """
rounds = 2
[task]
name = "quadratic"
clients = 8
[algorithm]
name = "fedavg"
[sampler]
kind = "uniform"
cohort = 4
[engine]
devices = 1
shards = 4
"""


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("config") / "small.toml"
    path.write_text(TINY)
    return str(path)


@pytest.fixture(scope="module")
def done(small: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four rounds, with checkpoints of the second and the fourth."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    assert main(["run", small, "rounds=4", "checkpoint.every=2", "--out", str(folder)]) == 0
    return folder


@pytest.fixture
def run(done: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(done, tmp_path / "run"))


def rounds(run: Path) -> list[int]:
    return list(from_jsonl(run / "metrics.jsonl").rows)


# ----------------------------------------------------------------------------------------- going on


def test_a_run_killed_before_its_first_checkpoint_is_begun_again(run: Path, done: Path):
    shutil.rmtree(run / "checkpoints")
    (run / "summary.json").unlink()
    (run / "metrics.jsonl").write_text((run / "metrics.jsonl").read_text()[:-20])
    assert main(["resume", str(run)]) == 0
    assert summary(run)["state_hash"] == summary(done)["state_hash"]
    assert "the run had no checkpoint yet and was started again" in summary(run)["notes"][0]
    assert rounds(run) == [1, 2, 3, 4]


def test_a_run_that_has_lost_its_checkpoints_is_not_thrown_away(
    run: Path, capsys: pytest.CaptureFixture[str]
):
    rows = "".join(json.dumps({"round": number, "loss": 1.0}) + "\n" for number in range(1, 6))
    (run / "metrics.jsonl").write_text(rows)
    shutil.rmtree(run / "checkpoints")
    assert main(["resume", str(run), "--rounds", "9"]) == 2
    assert "no usable checkpoint" in capsys.readouterr().err
    assert (run / "metrics.jsonl").read_text() == rows


@pytest.mark.parametrize("left", [None, "{", '{"rounds": 2}'])
def test_a_run_killed_before_its_summary_is_summed_up(run: Path, done: Path, left: str | None):
    (run / "summary.json").unlink()
    if left is not None:
        (run / "summary.json").write_text(left)
    assert main(["resume", str(run)]) == 0
    again, before = summary(run), summary(done)
    assert {**again, "seconds": 0} == {**before, "seconds": 0}
    assert main(["resume", str(run)]) == 2


def test_a_damaged_checkpoint_is_one_line_and_nothing_else(
    run: Path, capfd: pytest.CaptureFixture[str]
):
    """Also to whoever reads what the process itself says."""
    flip_all(run / "checkpoints" / "4")
    assert main(["resume", str(run), "--rounds", "5"]) == 0
    out, err = capfd.readouterr()
    assert out.count("the checkpoint of round 4 is damaged") == 1
    assert all(word not in err for word in ("Traceback", "asyncio", "absl", "Warning"))
    assert rounds(run) == [1, 2, 3, 4, 5]


def test_rows_that_are_missing_are_told_of_and_the_table_follows_the_record(run: Path):
    lines = (run / "metrics.jsonl").read_text().splitlines(keepends=True)
    (run / "metrics.jsonl").write_text("".join(lines[:1] + lines[2:]))
    (run / "metrics.csv").write_text("round,loss\n1,7.0\n")
    assert main(["resume", str(run), "--rounds", "5"]) == 0
    assert summary(run)["notes"] == [
        "metrics.jsonl lacks rows before the checkpoint: 1 round, the first is 2"
    ]
    assert rounds(run) == [1, 3, 4, 5]
    assert [line.split(",")[0] for line in (run / "metrics.csv").read_text().splitlines()] == [
        "round",
        "1",
        "3",
        "4",
        "5",
    ]


# --------------------------------------------------------------------------------------- conditions


def test_what_the_bits_depend_on_is_in_the_folder(run: Path):
    said = summary(run)
    assert said["order"] == {
        "engine": "queue",
        "lanes": "auto",
        "shards": "4 in a fixed order on any devices",
    }
    assert {"jax", "platform", "processor", "options"} <= said["versions"].keys()
    assert "threefry_partitionable True" in said["versions"]["options"]


@pytest.mark.slow
def test_other_devices_are_nothing_to_tell_and_other_lanes_are(
    run: Path, capsys: pytest.CaptureFixture[str]
):
    assert main(["resume", str(run), "--rounds", "5", "engine.devices=2"]) == 0
    assert "under other conditions" not in capsys.readouterr().out
    assert (
        main(
            [
                "resume",
                str(run),
                "--rounds",
                "6",
                "engine.lanes=1",
                "engine.shards=2",
                "engine.devices=1",
            ]
        )
        == 0
    )
    words = "lanes auto -> 1; shards 4 in a fixed order on any devices -> "
    words += "2 in a fixed order on any devices"
    assert f"saved under other conditions ({words})" in capsys.readouterr().out


def test_clients_who_remember_nothing_may_do_so_anywhere(run: Path):
    """A checkpoint says nothing of their memory, unless the host was to keep it."""
    assert main(["resume", str(run), "--rounds", "5", "engine.client_memory=host"]) == 0
    assert summary(run)["rounds"] == 5


def test_evaluate_tells_it_too(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr("fedjax_sim.persistence.manifest._processor", lambda: "another one")
    assert main(["evaluate", str(run)]) == 0
    assert "-> another one): results may differ in the last bits" in capsys.readouterr().out


# ------------------------------------------------------------------------------------------ endings


def test_a_run_that_could_not_save_its_end_says_so_with_its_status(
    small: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    class Broken:
        def result(self):
            raise OSError("no space left on device")

    monkeypatch.setattr("orbax.checkpoint.experimental.v1.save_async", lambda *_, **__: Broken())
    assert main(["run", small, "--out", str(tmp_path / "run")]) == 1
    assert summary(tmp_path / "run")["saved"] is False
    assert len(summary(tmp_path / "run")["notes"]) == 1


def test_what_the_system_refuses_is_a_sentence(
    small: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    (tmp_path / "file").touch()
    assert main(["run", small, "--out", str(tmp_path / "file" / "below")]) == 2
    error = capsys.readouterr().err
    assert "got Not a directory; " in error
    assert error.count("\n") == 1


def test_ctrl_c_twice_ends_a_run_in_the_middle_of_a_call(small: str, tmp_path: Path):
    """In a process of its own, whose main thread is back in minutes."""
    rare = [
        "rounds=100000000",
        "engine.rounds_per_call=100000000",
        "evaluation.every=100000000",
        "checkpoint.every=100000000",
    ]
    command = [
        sys.executable,
        "-m",
        "fedjax_sim",
        "run",
        small,
        *rare,
        "--out",
        str(tmp_path / "run"),
    ]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while not (tmp_path / "run" / "config.toml").exists():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.05)
    time.sleep(2)  # it has begun the call; if it has not, once is enough
    process.send_signal(signal.SIGINT)
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert (
        "stopped at once; continue from the newest checkpoint with: fedjax-sim resume" in errors
        or errors == "interrupted\n"
    )


def test_statuses_are_those_of_shells():
    assert [
        exit_status(word)
        for word in ("interrupted", "terminated", "finished", "test/loss reached 1")
    ] == [130, 143, 0, 0]


@pytest.mark.slow
def test_the_demo_ends_with_the_run_that_was_asked_to_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    from fedjax_sim.simulation import loop

    monkeypatch.setattr(loop, "any_process", lambda wish: "terminated")
    assert main(["demo", "rounds=2", "--out", str(tmp_path / "demo")]) == 143
    assert len(list((tmp_path / "demo").iterdir())) == 1


@pytest.fixture(
    params=[signal.default_int_handler, signal.SIG_IGN], ids=["in front", "in the background"]
)
def before(request: pytest.FixtureRequest) -> Iterator[Any]:
    """What Ctrl-C did before; to what a script has put into the background, nothing."""
    outside = signal.signal(signal.SIGINT, request.param)
    yield request.param
    signal.signal(signal.SIGINT, outside)


def test_the_second_signal_is_heard_though_python_is_busy(before: Any):
    """The first is a wish; the second reaches another thread, whatever the main one does, and is
    not counted twice.
    """
    told: list[int] = []
    with second_signal(told.append), graceful_stop(lambda text: None) as asked:
        os.kill(os.getpid(), signal.SIGTERM)
        assert asked() == "terminated"
        assert not told
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
        deadline = time.monotonic() + 20
        while not told and time.monotonic() < deadline:
            time.sleep(0.01)
        assert told == [signal.SIGINT]
    assert signal.getsignal(signal.SIGINT) is before
    assert signal.set_wakeup_fd(-1) == -1
