"""Commands that are given the wrong thing: a file for a folder, a run for data.

Each is told in sentences, with exit status 2 and nothing
changed; or there was nothing wrong with it."""

import shutil
from pathlib import Path

import pytest
from fuzz import command, judge
from things import contents

pytestmark = pytest.mark.xdist_group("things")


THINGS = ["small.toml", "run", "data", "text/below", "empty"]
MORE_THINGS = [
    "run/metrics.jsonl",
    "run/checkpoints",
    "run/checkpoints/1",
    "data/train.x.npy",
    "data/card.json",
    "model",
    "text",
    "binary",
]
MORE_THINGS += ["absent", "nothing", "loop", "a\nb", "x" * 300, "", ".", "-", "*"]
VERBS = {
    "run": ["run", "{thing}", "--out", "{root}/new"],
    "check": ["check", "{thing}"],
    "resume": ["resume", "{thing}"],
    "evaluate": ["evaluate", "{thing}"],
    "export": ["export", "{thing}", "--out", "{root}/new"],
    "describe": ["data", "describe", "{thing}"],
    "prepare": ["data", "prepare", "{thing}", "--out", "{root}/new"],
    "run on it": ["run", "{root}/small.toml", "--out", "{thing}"],
    "export to it": ["export", "{root}/run", "--out", "{thing}"],
    "prepare to it": ["data", "prepare", "generated", "--clients", "2", "--out", "{thing}"],
    "task": ["check", "{root}/small.toml", "task={{name='prepared', source='''{thing}'''}}"],
    "mnist": ["check", "{root}/small.toml", "task={{name='mnist', source='''{thing}'''}}"],
    "shakespeare": [
        "check",
        "{root}/small.toml",
        "task={{name='shakespeare', source='''{thing}'''}}",
    ],
    "cifar10": ["check", "{root}/small.toml", "task={{name='cifar10', source='''{thing}'''}}"],
    "data_dir": ["check", "{root}/small.toml", "task={{name='cifar10', data_dir='''{thing}'''}}"],
    "describe a name": ["describe", "{thing}"],
}
RIGHT = {
    ("run", "small.toml"),
    ("check", "small.toml"),
    ("evaluate", "run"),
    ("export", "run"),
    ("describe", "data"),
    ("prepare", "data"),
    ("task", "data"), ("run on it", "empty"),
}  # fmt: skip
ALIKE = ("mnist", "shakespeare", "data_dir")
"""Much like others: left to the slow part."""
NEW = {"run on it", "export to it", "prepare to it"}
"""What makes a thing that is not there."""


@pytest.mark.parametrize("verb", [verb for verb in VERBS if verb not in ALIKE])
def test_the_wrong_thing_is_told(
    verb: str, things: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    told(verb, THINGS, things, tmp_path / "things", monkeypatch)


@pytest.mark.slow
@pytest.mark.parametrize("verb", VERBS)
def test_more_wrong_things_are_told(
    verb: str, things: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    told(
        verb,
        [*MORE_THINGS, *(THINGS if verb in ALIKE else ())],
        things,
        tmp_path / "things",
        monkeypatch,
    )


def told(
    verb: str, names: list[str], things: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = contents(things)
    for thing in names:
        if not root.exists():
            shutil.copytree(things, root, symlinks=True)
        monkeypatch.chdir(root)
        place = thing if thing in ("", "-", "*") else str(root / thing)
        done = command(*(word.format(thing=place, root=root) for word in VERBS[verb]))
        after = contents(root)
        if judge(done):
            assert (verb, thing) in RIGHT or verb in NEW, (thing, done)
            assert {name: after[name] for name in before} == before, (thing, done)
            shutil.rmtree(root)
        else:
            assert (verb, thing) not in RIGHT, (thing, done)
            assert after == before, (thing, done)
