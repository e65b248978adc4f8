import os
import subprocess
import sys
from pathlib import Path

import jax
import pytest
from commands import CONFIGS, SMALL, python
from rigs import REPRESENTATIVES, parameters

from fedjax_sim.cli import main
from fedjax_sim.cli.run import cpu_devices
from fedjax_sim.core import registry
from fedjax_sim.experiments.build import build
from fedjax_sim.experiments.config import entries_by_kind, load_config
from fedjax_sim.experiments.config.toml import Document
from fedjax_sim.experiments.estimate import estimate, format_bytes, lines
from fedjax_sim.runtime.devices import cores

ENTRIES = entries_by_kind()
PLURALS = [kind.plural for kind in registry.kinds().values()]


@pytest.fixture
def small(tmp_path: Path) -> str:
    path = tmp_path / "small.toml"
    path.write_text(SMALL.replace('model = "logistic"\n', ""))
    return str(path)


# --------------------------------------------------------------------------------------------- help


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["run"],
        ["resume"],
        ["evaluate"],
        ["list"],
        ["describe"],
        ["check"],
        ["schema"],
        ["demo"],
    ],
    ids=str,
)
def test_every_verb_has_help(words: list[str], capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit, match="0"):
        main([*words, "--help"])
    assert f"usage: fedjax-sim{' ' if words else ''}{' '.join(words)}" in capsys.readouterr().out


def test_help_imports_nothing_slow():
    code = "import sys\nfrom fedjax_sim.cli import main\n"
    code += "try: main(['run', '--help'])\nexcept SystemExit: print(sorted(sys.modules))"
    loaded = python(code).rpartition("[")[2]
    for slow in ("jax", "numpy", "flax", "optax", "pydantic", "rich"):
        assert f"'{slow}'" not in loaded


def test_without_a_verb_there_is_help_and_an_error(capsys: pytest.CaptureFixture[str]):
    assert main([]) == 2
    assert "demo" in capsys.readouterr().out


def test_the_module_is_the_command():
    done = subprocess.run(
        [sys.executable, "-m", "fedjax_sim", "--help"], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0
    assert done.stdout.startswith("usage: fedjax-sim")


# ------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["run", "absent.toml"], "absent.toml: (file): cannot be read"),
        (["run", "{small}", "algorithm.lrr=1"], "command line: algorithm.lrr: unknown key"),
        (
            ["run", "{small}", "--out", "{folder}/x", "rounds=0", "seed=-1"],
            "2 problems; nothing was run.",
        ),
        (["check", "{small}", "sampler.cohort=99"], "sampler.cohort"),
        (["list", "cats"], "unknown kind: got 'cats'; choose one of: aggregators"),
        (
            ["run", "{small}", "--out", "{folder}/x", "model.name=char_lstm"],
            "command line: model: a sequence model takes",
        ),
        (
            ["run", "{small}", "--out", "{folder}/x", "stop={{metric='loss/test', at_least=1}}"],
            "command line: stop.metric: no metric has",
        ),
        (
            ["run", "{small}", "--out", "{folder}/x", "checkpoint.keep_every=0"],
            "command line: checkpoint.keep_every: must be",
        ),
        (
            ["run", "{small}", "--out", "{folder}/x", "task.seed=-1"],
            "command line: task.seed: seed must not be negative",
        ),
        (["describe", "scafold"], "did you mean 'scaffold'?"),
        (["resume", "{folder}"], "no run in this folder"),
        (["evaluate", "{folder}"], "no run in this folder"),
    ],
    ids=lambda words: words[0] if isinstance(words, list) else "",
)
def test_what_the_user_can_mend_is_said_in_words(
    words, said, small: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    assert main([word.format(small=small, folder=tmp_path) for word in words]) == 2
    streams = capsys.readouterr()
    assert said in streams.err
    assert "Traceback" not in streams.err
    assert list(tmp_path.iterdir()) == [Path(small)]


@pytest.mark.parametrize(
    "words",
    [
        ["run"],
        ["dance"],
        ["check", "{small}", "--fast"],
        ["describe", "mlp", "a=b"],
    ],
    ids=str,
)
def test_wrong_words_are_refused(words, small: str):
    with pytest.raises(SystemExit, match="2"):
        main([word.format(small=small) for word in words])


# ------------------------------------------------------------------------------------------ looking


def test_list_names_everything(capsys: pytest.CaptureFixture[str]):
    assert main(["list"]) == 0
    out = capsys.readouterr().out
    for kind in registry.kinds().values():
        assert kind.plural in out
        assert all(name in out for name in ENTRIES[kind.name])


@pytest.mark.parametrize("kind", PLURALS)
def test_list_of_one_kind_names_only_that(kind: str, capsys: pytest.CaptureFixture[str]):
    assert main(["list", kind]) == 0
    headings = [
        line.strip()
        for line in capsys.readouterr().out.splitlines()
        if line and not line.startswith(" ")
    ]
    assert headings == [kind]


@pytest.mark.parametrize("name", sorted({name for entries in ENTRIES.values() for name in entries}))
def test_describe_shows_the_card_and_the_settings(name: str, capsys: pytest.CaptureFixture[str]):
    assert main(["describe", name]) == 0
    out = capsys.readouterr().out
    for kind, entries in ENTRIES.items():
        assert (f"{kind} {name}\n" in out) == (name in entries)
    if name in ENTRIES["algorithm"]:
        assert ENTRIES["algorithm"][name].card in out


@pytest.mark.parametrize("name", parameters(REPRESENTATIVES, list(ENTRIES["algorithm"])))
def test_check_tells_costs_of_every_algorithm(
    name: str, small: str, capsys: pytest.CaptureFixture[str]
):
    assert main(["check", small, f"algorithm={{name='{name}'}}"]) == 0
    out = capsys.readouterr().out
    for word in (
        "parameters",
        "down per round",
        "up per round",
        "steps per round",
        "lanes",
        "devices",
        "device memory",
    ):
        assert word in out


def test_costs_are_those_of_the_shapes(small: str):
    ready = build(
        load_config(
            small,
            [
                "task.model=logistic",
                "local_work.batch_size=none",
                "local_work.epochs=3",
                "engine.devices=2",
                "engine.lanes=1",
            ],
        )
    )
    costs = estimate(ready)
    assert costs.parameters == 64 * 10 + 10
    (trip,) = costs.trips
    assert trip.down == trip.up == 2 * 4 * costs.parameters  # the model and the control variate
    assert costs.memory == 12 * 4 * costs.parameters
    assert trip.lanes == 1
    said = dict(lines(ready, costs))
    assert said["steps per round"].startswith("about 12 (3.0 per client")
    assert said["devices"].startswith("2 x cpu, 2 shards")


def test_sizes_in_words():
    assert [format_bytes(n) for n in (0, 999, 1500, 2.5e6, 3e9, 4e13)] == [
        "0 B",
        "999 B",
        "1.5 kB",
        "2.5 MB",
        "3 GB",
        "40.0 TB",
    ]


def test_schema_is_printed_or_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["schema"]) == 0
    printed = capsys.readouterr().out
    assert main(["schema", "--out", str(tmp_path / "s.json")]) == 0
    assert (
        (tmp_path / "s.json").read_text()
        == printed
        == (CONFIGS / "fedjax_sim.schema.json").read_text()
    )


def test_versions(capsys: pytest.CaptureFixture[str]):
    assert main(["--version"]) == 0
    assert f"jax                {jax.__version__}" in capsys.readouterr().out


# ------------------------------------------------------------------------------------------ devices

CORES = """
import jax
import fedjax_sim as fs
fs.use_cores(%s)
print(len(jax.devices()))
fs.use_cores(1)
assert len(jax.devices()) > 1
"""


def test_cores_are_those_of_the_process():
    assert cores() == (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    )


@pytest.mark.parametrize(
    ("given", "env", "count"),
    [
        pytest.param("", {}, cores(), marks=pytest.mark.slow),
        ("7", {}, 7),
        ("9", {"JAX_NUM_CPU_DEVICES": "3"}, 3),
        pytest.param(
            "9",
            {"XLA_FLAGS": "--xla_force_host_platform_device_count=2"},
            2,
            marks=pytest.mark.slow,
        ),
    ],
    ids=["cores", "number", "variable", "flag"],
)
def test_cores_become_devices_unless_something_else_was_said(given, env, count):
    assert int(python(CORES % given, JAX_PLATFORMS="cpu", **env)) == count


@pytest.mark.parametrize(
    ("engine", "count"),
    [
        ({}, cores()),
        ({"devices": cores() + 3}, cores() + 3),
        ({"devices": "x"}, cores()),
        (3, cores()),
    ],
)
def test_a_configuration_may_ask_for_more_devices_than_cores(engine, count):
    tables = {"engine": engine}
    assert cpu_devices(Document("x.toml", tables, tables, ())) == count
