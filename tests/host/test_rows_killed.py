"""A process that is killed at any moment continues from the last snapshot it reported."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from functools import cache
from pathlib import Path

import numpy as np
import pytest

CLIENTS, COHORT, WIDTH, EVERY = 300, 20, 8000, 3
LIKE = {"c": np.zeros(WIDTH, np.float32), "n": np.int64(-1)}


@cache
def change(round_: int):
    """Returns the clients that a round writes, and their rows."""
    rng = np.random.default_rng(round_)
    new = {"c": rng.normal(size=(COHORT, WIDTH)).astype(np.float32), "n": np.full(COHORT, round_)}
    return rng.permutation(CLIENTS)[:COHORT], new


@cache
def state(round_: int) -> dict[int, int]:
    """Returns the round in which each client was last written, after a number of rounds."""
    return (
        {}
        if round_ == 0
        else {**state(round_ - 1), **dict.fromkeys(change(round_)[0].tolist(), round_)}
    )


def live(folder: Path, saved: list, pipe: int) -> None:
    """Writes rounds and snapshots without end, and reports each snapshot to the parent process."""
    from fedjax_sim.engine.host.rows import open_row_store

    vault, round_ = open_row_store(folder, LIKE, CLIENTS), saved[-1]["round"] if saved else 0
    if saved:
        vault.restore(saved[-1])
    os.write(pipe, b"\n")
    while True:
        round_ += 1
        vault.write(*change(round_))
        if round_ % EVERY == 0:
            os.write(pipe, json.dumps(vault.snapshot(round_)).encode() + b"\n")
            vault.keep([round_ - EVERY, round_])


def check(folder: Path, saved: dict) -> None:
    """Checks that a snapshot holds the rows it held when it was saved."""
    from fedjax_sim.engine.host.rows import open_row_store

    vault = open_row_store(folder, LIKE, CLIENTS)
    vault.restore(saved)
    back, model = vault.read(np.arange(CLIENTS)), state(saved["round"])
    for client in range(CLIENTS):
        last = model.get(client, -1)
        assert back["n"][client] == last, (client, last)
        ids, rows = change(last) if last >= 0 else (np.array([client]), {"c": np.zeros((1, WIDTH))})
        assert (back["c"][client] == rows["c"][np.flatnonzero(ids == client)[0]]).all()
    vault.close()


def main(folder: Path, kills: int) -> None:
    """Prints the rounds of the snapshots that each child process reported."""
    saved: list[dict] = []
    for number in range(kills):
        reader, writer = os.pipe()
        child = os.fork()
        if not child:
            os.close(reader)
            live(folder, saved, writer)
        os.close(writer)
        with open(reader, "rb") as pipe:
            pipe.readline()
            # Every other process lives until its first snapshot, however slow the machine is.
            first = pipe.readline() if number % 2 else b""
            time.sleep(random.Random(number).uniform(0, 0.08))
            os.kill(child, signal.SIGKILL)
            words = (first + pipe.read()).split(b"\n")[:-1]
        os.waitpid(child, 0)
        saved = [*saved, *map(json.loads, words)][-2:]
        for one in saved:
            check(folder, one)
        print(*(json.loads(word)["round"] for word in words), flush=True)


@pytest.mark.parametrize("kills", [10, pytest.param(100, marks=pytest.mark.slow)])
def test_a_reported_snapshot_survives_any_kill(tmp_path, kills):
    done = subprocess.run(
        [sys.executable, "-W", "ignore", __file__, tmp_path, str(kills)],
        capture_output=True,
        text=True,
        timeout=400,
    )
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == kills
    assert len(done.stdout.split()) >= kills // 5, (
        "processes were killed before their first snapshot"
    )
    assert len(list(tmp_path.glob("*.index"))) <= 5


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
