"""Run folders that an earlier version wrote, kept as archives: runs of today continue from them."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

import pytest

from fedjax_sim.cli import main

pytestmark = pytest.mark.xdist_group("kept folders")

KEPT = Path(__file__).parents[1] / "support" / "kept"
"""Runs of four rounds, written by version 0.1 before keys were renamed: one has client memory on
the host, one an aggregator.
"""

LOSSES = {
    "scaffold": [0.12814061781939337, 0.6094168708437965],
    "fedavg": [0.13056597055173388, 0.5906599589756557],
}
"""Training losses of rounds 5 and 6 of the same run, not interrupted, of that version."""


@pytest.fixture(params=LOSSES)
def kept(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """The folder of a run, unpacked."""
    with tarfile.open(KEPT / f"{request.param}-0.1.tar.gz") as archive:
        archive.extractall(tmp_path, filter="data")
    return tmp_path / request.param


def test_a_kept_run_continues(kept: Path):
    assert "[local]" in (kept / "config.toml").read_text()
    assert main(["resume", str(kept), "--rounds", "6"]) == 0
    rows = [json.loads(line) for line in (kept / "metrics.jsonl").read_text().splitlines()]
    assert [row["round"] for row in rows] == [1, 2, 3, 4, 5, 6]
    assert [row["loss"] for row in rows[4:]] == pytest.approx(LOSSES[kept.name], rel=1e-5)
    assert "[local_work]" in (kept / "config.toml").read_text()


def test_a_kept_run_keeps_its_settings(kept: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["resume", str(kept), "local_work.batch_size=4", "--rounds", "6"]) == 2
    assert "a resumed run keeps its local_work.batch_size: got 4 in place of 8" in (
        capsys.readouterr().err
    )


def test_a_file_of_a_user_with_old_keys_gets_a_sentence(
    kept: Path, capsys: pytest.CaptureFixture[str]
):
    copy = kept / "mine.toml"
    copy.write_text((kept / "config.toml").read_text())
    assert main(["check", str(copy)]) == 2
    told = capsys.readouterr().err
    assert "local: this key has a new name: got" in told
    assert "write local_work instead" in told
