"""Several processes on one machine: the same bits as one, and a clean end if one is killed."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from commands import SMALL, summary

from fedjax_sim.cli import main
from fedjax_sim.core.errors import FedError
from fedjax_sim.runtime import processes
from fedjax_sim.simulation.history import from_jsonl

SHARDED = SMALL + "[engine]\nshards = 4\ndevices = 2\n[checkpoint]\nevery = 2\n"


def start(config: Path, out: Path, *more: str, verb: str = "run") -> list[subprocess.Popen]:
    """Two processes of one device each."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    clean = {
        name: value
        for name, value in os.environ.items()
        if name not in ("JAX_NUM_CPU_DEVICES", "XLA_FLAGS")
    }
    env = clean | {"FEDJAX_SIM_CACHE": str(out.parent.parent / "programs")}
    target = [str(config), "--out", str(out)] if verb == "run" else [str(out)]
    flags = ["--coordinator", f"127.0.0.1:{port}", "--processes", "2"]
    command = [sys.executable, "-m", "fedjax_sim", verb, *target, *more, *flags, "--process-id"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return [subprocess.Popen([*command, str(number)], env=env, **pipes) for number in range(2)]


def ends(running: list[subprocess.Popen]) -> list[tuple[int, str, str]]:
    """Status, standard output and standard error of each."""
    texts = [process.communicate(timeout=150) for process in running]
    return [(process.returncode, *pair) for process, pair in zip(running, texts, strict=True)]


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "sharded.toml"
    path.write_text(SHARDED)
    return path


@pytest.mark.slow
def test_two_processes_are_one_bit_for_bit_and_one_of_them_speaks(config: Path, tmp_path: Path):
    one, two = tmp_path / "one", tmp_path / "two"
    running = start(config, two, "rounds=4")
    assert main(["run", str(config), "rounds=4", "--out", str(one)]) == 0
    (status, out, _), (other, silent, _) = ends(running)
    assert status == other == 0
    assert str(two) in out
    assert str(two) not in silent
    assert summary(two)["state_hash"] == summary(one)["state_hash"]
    assert summary(two)["metrics"] == summary(one)["metrics"]
    rows = [from_jsonl(folder / "metrics.jsonl").rows for folder in (one, two)]
    timeless = [
        {t: {k: v for k, v in row.items() if k != "seconds"} for t, row in each.items()}
        for each in rows
    ]
    assert timeless[0] == timeless[1]
    assert main(["resume", str(two), "rounds=6"]) == 0  # one process continues the run of two
    assert main(["resume", str(one), "rounds=6"]) == 0
    assert summary(two)["state_hash"] == summary(one)["state_hash"]


@pytest.mark.slow
def test_when_one_is_killed_the_other_says_so_and_the_run_goes_on_later(
    config: Path, tmp_path: Path
):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    rare = ("evaluation.every=100000", "checkpoint.every=20")
    running = start(config, killed, "rounds=100000", *rare)
    deadline = time.monotonic() + 120
    while (
        not (killed / "metrics.jsonl").is_file()
        or len((killed / "metrics.jsonl").read_text().splitlines()) < 27
    ):
        assert time.monotonic() < deadline
        assert running[0].poll() is None, running[0].stderr.read()
        time.sleep(0.05)
    running[1].send_signal(signal.SIGKILL)
    status, _, errors = ends(running)[0]
    assert status == processes.GONE
    assert f"fedjax-sim resume {killed}" in errors.splitlines()[-1]
    assert "Traceback" not in errors
    newest = max(
        int(path.name) for path in (killed / "checkpoints").iterdir() if path.name.isdecimal()
    )
    rounds = f"rounds={newest + 2}"
    assert [status for status, *_ in ends(start(config, killed, rounds, verb="resume"))] == [0, 0]
    assert main(["run", str(config), rounds, *rare, "--out", str(whole)]) == 0
    assert summary(killed)["state_hash"] == summary(whole)["state_hash"]
    assert summary(killed)["rounds"] == newest + 2


def test_what_one_may_not_do_none_does(config: Path, tmp_path: Path):
    out = tmp_path / "taken"
    out.mkdir()
    (out / "summary.json").touch()
    for status, _, errors in ends(start(config, out)):
        assert status == 2
        assert "the folder already holds a run" in errors


@pytest.mark.parametrize(
    "given",
    [("localhost:1", None, None), (None, 2, 0), ("localhost:1", 2, 2), ("localhost:1", 2, -1)],
)
def test_half_of_an_address_is_refused(given):
    with pytest.raises(FedError, match=r"--process.*got .*; "):
        processes.join(*given)


def test_alone_there_is_nobody_to_agree_with():
    assert processes.is_main_process()
    assert not processes.several()
    assert processes.run_on_main(lambda: "x") == "x"
    assert processes.any_process(None) is None
    assert processes.any_process("enough") == "enough"
    with pytest.raises(ValueError, match="mine"), processes.exit_if_peer_lost(lambda: "again"):
        raise ValueError("mine: a peer")
