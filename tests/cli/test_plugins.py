"""Plug-ins: loaded because the user names or installs them; a run's folder records them."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from fedjax_sim.cli import main
from fedjax_sim.experiments import plugins
from fedjax_sim.experiments.config import entries_by_kind

pytestmark = pytest.mark.xdist_group("plugins")

EXAMPLE = Path(__file__).parents[2] / "examples" / "plugin"

RUNS = """
import sys
from fedjax_sim.cli import main
folder, config = sys.argv[1:]
assert main(["describe", "fednova"]) == 0
assert main(["run", config, "rounds=2", "--out", folder]) == 0
assert main(["evaluate", folder]) is None or True
"""

TINY = """
import fedjax_sim as fs

@fs.register("sampler")
def tiny_sampler(rows: int = 2) -> fs.Sampler:
    \"\"\"The first clients of the population.\"\"\"
    return fs.samplers.uniform(rows)
"""

CONFIG = """
rounds = 2
[task]
name = "quadratic"
clients = 4
[algorithm]
name = "fedavg"
lr = 0.1
[sampler]
kind = "tiny_sampler"
[checkpoint]
every = 1
"""


@pytest.fixture(autouse=True)
def forgotten(restored_registry: None):
    """The module of a test's plug-in is imported again by the next test."""
    yield
    sys.modules.pop("tiny_plugin", None)


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "config.toml"
    path.write_text(CONFIG)
    return path


@pytest.fixture
def plugin(tmp_path: Path) -> Path:
    path = tmp_path / "tiny_plugin.py"
    path.write_text(TINY)
    return path


def run(code: str, path: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """A fresh Python that finds packages on this path too."""
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=400,
        env={**os.environ, "PYTHONPATH": path},
        check=False,
    )


def test_the_example_is_installed_found_and_run(tmp_path: Path, capsys):
    site = tmp_path / "site"
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps"]
    install += ["--no-build-isolation", "--disable-pip-version-check", "--target", str(site)]
    subprocess.run([*install, str(EXAMPLE)], check=True, capture_output=True, timeout=300)
    folder = tmp_path / "run"
    done = run(RUNS, str(site), folder, EXAMPLE / "digits_fednova.toml")
    assert done.returncode == 0, done.stderr
    assert "algorithm fednova" in done.stdout
    (record,) = json.loads((folder / "plugins.json").read_text())
    assert record["registers"] == ["algorithm fednova"]
    assert (record["distribution"], record["version"]) == ("fedjax-sim-fednova", "0.1.0")
    # Without it, this process asks for it by name.
    assert main(["resume", str(folder), "--rounds", "3"]) == 2
    said = capsys.readouterr().err
    assert "fedjax_sim_fednova 0.1.0 (algorithm fednova)" in said
    assert "install fedjax-sim-fednova 0.1.0, or name the module: --plugin" in said


def test_a_file_that_the_command_line_names_is_loaded(config: Path, plugin: Path, tmp_path, capsys):
    folder = tmp_path / "run"
    assert main(["run", str(config), "--out", str(folder), "--plugin", str(plugin)]) == 0
    (record,) = json.loads((folder / "plugins.json").read_text())
    assert (record["name"], record["registers"]) == ("tiny_plugin", ["sampler tiny_sampler"])
    assert len(record["version"]) == 12
    capsys.readouterr()
    assert main(["list", "samplers", "--plugin", str(plugin)]) == 0
    assert "tiny_sampler" in capsys.readouterr().out


def test_a_resumed_run_notes_another_version(config: Path, plugin: Path, tmp_path: Path):
    folder = tmp_path / "run"
    assert main(["run", str(config), "--out", str(folder), "--plugin", str(plugin)]) == 0
    record = json.loads((folder / "plugins.json").read_text())
    record[0]["version"] = "0123456789ab"
    (folder / "plugins.json").write_text(json.dumps(record))
    again = ["resume", str(folder), "--rounds", "3", "--plugin", str(plugin)]
    assert main(again) == 0
    notes = json.loads((folder / "summary.json").read_text())["notes"]
    assert any("which was 0123456789ab" in note for note in notes)


def test_no_file_and_no_folder_loads_a_plugin(config: Path, plugin: Path, tmp_path: Path, capsys):
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "config.toml").write_text(CONFIG)
    record = [{"name": "tiny_plugin", "distribution": None, "version": "x", "registers": []}]
    (folder / "plugins.json").write_text(json.dumps(record))
    (folder / "tiny_plugin.py").write_text("raise SystemExit('loaded')")
    assert main(["evaluate", str(folder)]) == 2
    assert "this run used a plug-in that is not loaded" in capsys.readouterr().err
    assert "tiny_plugin" not in sys.modules


@pytest.mark.parametrize("text", ["{", "[1]", '{"a": 1}', "null"])
def test_a_record_that_cannot_be_read_is_refused(text: str, tmp_path: Path):
    (tmp_path / "plugins.json").write_text(text)
    with pytest.raises(plugins.FedError, match="the record of a run's plug-ins cannot be read"):
        plugins.require_plugins(tmp_path)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("no_such_module_at_all", "a plug-in could not be imported: got no_such_module_at_all: "),
        ("no/such/file.py", "a plug-in must exist: got no/such/file.py; give the path"),
    ],
)
def test_a_plugin_that_is_not_there(name: str, message: str):
    with pytest.raises(plugins.FedError, match=message):
        plugins.load_plugins([name])


def test_the_environment_names_modules(plugin: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(plugin.parent)
    monkeypatch.setenv("FEDJAX_SIM_PLUGINS", f"tiny_plugin, {plugin.parent / 'tiny_plugin.py'}")
    assert "tiny_plugin" in plugins.load_plugins()
    entry = entries_by_kind()["sampler"]["tiny_sampler"]
    assert entry.plugin == "tiny_plugin"


def test_a_module_that_was_imported_before_is_recorded(plugin: Path, monkeypatch):
    monkeypatch.syspath_prepend(plugin.parent)
    importlib.import_module("tiny_plugin")
    assert entries_by_kind()["sampler"]["tiny_sampler"].plugin is None
    plugins.load_plugins(["tiny_plugin"])
    assert entries_by_kind()["sampler"]["tiny_sampler"].plugin == "tiny_plugin"


def test_a_file_with_the_name_of_another_module_is_refused(tmp_path: Path):
    path = tmp_path / "json.py"
    path.write_text(TINY)
    with pytest.raises(plugins.FedError, match="has the name of another module"):
        plugins.load_plugins([str(path)])
    assert sys.modules["json"] is json
