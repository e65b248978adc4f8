"""Compiled programs are kept from one process to the next, and a damaged one is compiled again."""

from __future__ import annotations

import os
import subprocess
import sys
from types import SimpleNamespace

import pytest

from fedjax_sim.runtime import devices

SCRIPT = """
import fedjax_sim as fs
fs.enable_compilation_cache()
import jax, jax.numpy as jnp
print(jax.jit(lambda x: jnp.sin(x) @ x)(jnp.arange(5.0)))
"""


def run(cache):
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        env={**os.environ, "FEDJAX_SIM_CACHE": str(cache)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done


def entries(folder):
    return sorted(folder.glob("*-cache"))


def test_programs_are_kept_and_damage_does_no_harm(tmp_path):
    first = run(tmp_path)
    kept = entries(tmp_path)
    assert kept
    for path in kept:
        path.write_bytes(path.read_bytes()[:50])
    again = run(tmp_path)
    assert again.stdout == first.stdout
    assert again.stderr == first.stderr == ""


def test_what_a_killed_writer_left_is_replaced_and_keeps_nobody_from_writing(tmp_path):
    first = run(tmp_path)
    kept = entries(tmp_path)
    assert len(kept) > 1
    kept[0].write_bytes(kept[0].read_bytes()[:50])
    (tmp_path / kept[0].name.replace("-cache", "-atime")).unlink()
    kept[1].unlink()
    again = run(tmp_path)
    assert again.stdout == first.stdout
    assert again.stderr == ""
    assert entries(tmp_path) == kept
    assert kept[0].stat().st_size > 50


@pytest.mark.parametrize(
    ("plugins", "asked", "files", "hidden", "accelerated"),
    [
        ([], None, [], None, False),
        (["xla_cuda12"], None, [], None, False),
        (["xla_cuda12"], None, ["nvidia0"], None, True),
        (["xla_cuda12"], None, ["nvidia0"], "", False),
        (["xla_cuda13"], None, ["nvidiactl"], None, False),
        (["unheard_of"], None, [], None, True),
        (["xla_cuda12"], "cpu", ["nvidia0"], None, False),
        ([], "tpu,cpu", [], None, True),
    ],
)
def test_a_plugin_alone_makes_no_accelerator(
    tmp_path, monkeypatch, plugins, asked, files, hidden, accelerated
):
    for name in files:
        (tmp_path / name).touch()
    found = [SimpleNamespace(name=name) for name in plugins]
    monkeypatch.setattr(devices, "HARDWARE", {"cuda": (str(tmp_path / "nvidia[0-9]*"),)})
    monkeypatch.setattr(
        devices, "jax", SimpleNamespace(config=SimpleNamespace(jax_platforms=asked))
    )
    monkeypatch.setattr(
        devices,
        "importlib",
        SimpleNamespace(metadata=SimpleNamespace(entry_points=lambda group: found)),
    )
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if hidden is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", hidden)
    assert devices._accelerated() == accelerated


@pytest.mark.parametrize("word", ["off", "OFF"])
def test_one_switch_turns_it_off(tmp_path, monkeypatch, word):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    run(word)
    assert not list(tmp_path.iterdir())
