"""Runs that somebody has put rubbish into, or a trap: a command says a sentence or goes on, and
writes nowhere else.
"""

import json
import os
import shutil
from pathlib import Path

import pytest
from fuzz import command, judge, some
from things import SMALL, contents

from fedjax_sim.persistence import manifest

pytestmark = pytest.mark.xdist_group("things")


RUBBISH = {
    "binary": bytes(range(256)) * 9,
    "list": b"[]\n",
    "empty": b"",
    "text": b"hello, world\n",
}
RUBBISH |= {"brackets": b"{" * 99, "nested": b"[" * 10**6}
KINDS = [*RUBBISH, "nothing", "folder", "loop", "pipe"]
INSIDE = [
    "config.toml",
    "metrics.jsonl",
    "metrics.csv",
    "summary.json",
    "evaluation.json",
    "tensorboard",
]
INSIDE += ["checkpoints", "checkpoints/1", "checkpoints/1/_CHECKPOINT_METADATA"]
PLACES = [
    *(f"run/{name}" for name in INSIDE),
    "kept/memory",
    "kept/memory/clients.rows",
    "kept/checkpoints",
]
AFTERWARDS = {
    "resume": ["resume", "{run}", "--rounds", "2"],
    "evaluate": ["evaluate", "{run}"],
    "export": ["export", "{run}", "--out", "{run}/../model"],
}


def rubbish(path: Path, kind: str) -> None:
    """Puts something else in the place of a file or folder."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
    if kind == "folder":
        (path / "7").mkdir(parents=True)
    elif kind == "loop":
        path.symlink_to(path)
    elif kind == "pipe":
        os.mkfifo(path)  # whoever reads it waits
    elif kind != "nothing":
        path.write_bytes(RUBBISH[kind])


def afterwards(verb: str, place: str, kind: str, things: Path, root: Path) -> None:
    """Whatever lies where, there is no traceback; and where a command refuses, all that was there
    stays as it was.
    """
    run = root / place.partition("/")[0]
    shutil.copytree(things / run.name, run)
    rubbish(root / place, kind)
    before = contents(root)
    done = command(*(word.format(run=run) for word in AFTERWARDS[verb]))
    told = (done.errors if done.status == 2 else done.out).splitlines()
    # 1 is for a run whose end could not be saved, and says so.
    assert done.status in (0, 2) or (
        done.status == 1 and any(line.startswith("note: ") and ": got " in line for line in told)
    ), done
    if done.status == 2:
        assert ": got " in told[-1] or told[-1].endswith("nothing was run."), done
        after = contents(root)
        assert {name: after.pop(name) for name in before} == before, done
        assert {name.partition("/memory/")[1] for name in after} <= {"/memory/"}, (
            done
        )  # an empty vault is opened where there was none
    shutil.rmtree(root)


@pytest.mark.parametrize("place", PLACES)
def test_a_run_with_rubbish_in_it_is_told_or_goes_on(place: str, things: Path, tmp_path: Path):
    afterwards("resume", place, "binary", things, tmp_path / "binary")


@pytest.mark.slow
@pytest.mark.parametrize("verb", AFTERWARDS)
@pytest.mark.parametrize("place", PLACES)
def test_a_run_with_more_rubbish_in_it_is_told_or_goes_on(
    place: str, verb: str, things: Path, tmp_path: Path
):
    for kind in some(KINDS, 4):
        afterwards(verb, place, kind, things, tmp_path / kind)


@pytest.mark.parametrize("verb", AFTERWARDS)
def test_what_is_no_checkpoint_is_not_taken_for_one(verb: str, things: Path, tmp_path: Path):
    shutil.copytree(things / "run", tmp_path / "run")
    checkpoints = tmp_path / "run" / "checkpoints"
    for name in (
        "00",
        "2",
        "999",
        "9" * 30,
        "\u0663",
        "-3",
        "1.5",
        "x",
        "7.orbax-checkpoint-tmp-1",
    ):
        (checkpoints / name).mkdir()
        (checkpoints / name / "_METADATA").write_bytes(bytes(range(256)))
    for name in ("5", "notes.txt"):
        (checkpoints / name).write_text("hello")
    (checkpoints / "8").symlink_to(checkpoints / "8")
    shutil.copytree(checkpoints / "1", checkpoints / "9")
    done = command(*(word.format(run=tmp_path / "run") for word in AFTERWARDS[verb]))
    assert done.status == 0, done
    assert (
        "the checkpoint of round 9 is damaged (it is that of round 1, under another name) "
        "and was passed over" in done.out
    )
    assert "round 3" not in done.out + done.errors


@pytest.mark.slow
def test_a_record_that_was_made_up_is_no_traceback(things: Path, tmp_path: Path):
    """Whoever wrote it knew how to seal it."""
    for described, metadata in (
        ({}, {"round": 1}),
        ([], {"round": 1}),
        ({"x": 3}, {"round": 1}),
        ({}, []),
        ({}, {}),
    ):
        run = tmp_path / "run"
        shutil.rmtree(run, ignore_errors=True)
        shutil.copytree(things / "run", run)
        (path,) = (
            path for path in run.rglob("_CHECKPOINT_METADATA") if b"seal" in path.read_bytes()
        )
        held = json.loads(path.read_bytes())
        record = {
            "manifest": described,
            "metadata": metadata,
            "seal": manifest._seal(described, metadata),
        }
        path.write_text(json.dumps({**held, "custom_metadata": {"fedjax_sim": record}}))
        for words in AFTERWARDS.values():
            assert not judge(command(*(word.format(run=run) for word in words)))


# ------------------------------------------------------------------------- where things are written


def test_nothing_is_written_but_the_run_s_own_folder(
    things: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Whatever a file says, and whatever it is called."""
    inside = tmp_path / "a" / "b"
    inside.mkdir(parents=True)
    monkeypatch.chdir(inside)
    ways = ["../../up", str(tmp_path / "elsewhere"), "~/home"]
    for name in ("..toml", "a b.toml"):
        (inside / name).write_text(SMALL)
        assert judge(command("run", str(inside / name))), name
    for way in ways:
        for said in (
            f"task={{name='prepared', source='{way}'}}",
            f"task={{name='emnist', data_dir='{way}'}}",
            f"stop.metric={way}",
        ):
            assert not judge(command("run", str(inside / "a b.toml"), said))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a"]
    assert sorted(path.name for path in inside.parent.iterdir()) == ["b"]
    assert {path.name for path in inside.iterdir() if path.is_dir()} == {"runs"}
    assert len(list((inside / "runs").iterdir())) == 2


@pytest.mark.parametrize(
    "name", ["checkpoints", "memory", "tensorboard", "memory/clients.rows", "memory/lock"]
)
def test_a_stranger_does_not_choose_where_a_run_writes(name: str, things: Path, tmp_path: Path):
    """Neither when it goes on, nor when it is only looked at."""
    run, mine = Path(shutil.copytree(things / "kept", tmp_path / "run")), tmp_path / "mine"
    if (run / name).is_dir():
        (run / name).rename(mine)
    else:
        shutil.copytree(run / "memory", mine)
        (run / name).unlink(missing_ok=True)
    before = contents(mine)
    (run / name).symlink_to(mine if "/" not in name else mine / Path(name).name)
    for words in (["resume", str(run), "--rounds", "2"], ["evaluate", str(run)]):
        done = command(*words)
        assert not judge(done)
        assert (
            f"{run / name} is written to, and so must not be a link: got a link to {mine}"
            in done.errors
        )
    assert contents(mine) == before


def test_links_among_checkpoints_are_removed_and_not_what_they_lead_to(
    things: Path, tmp_path: Path
):
    run, mine = Path(shutil.copytree(things / "run", tmp_path / "run")), tmp_path / "mine"
    mine.mkdir()
    (mine / "file").write_text("mine")
    for name in ("2", "2.orbax-checkpoint-tmp", "2.orbax-checkpoint-tmp-0", "7"):
        (run / "checkpoints" / name).symlink_to(mine)
    assert judge(command("resume", str(run), "--rounds", "2"))
    assert contents(mine) == {"file": b"mine"}
    assert sorted(path.name for path in (run / "checkpoints").iterdir()) == ["1", "2"]
    assert not (run / "checkpoints" / "2").is_symlink()


@pytest.mark.slow
def test_a_refused_round_of_a_stranger_s_run_is_written_into_the_run(things: Path, tmp_path: Path):
    run, mine = Path(shutil.copytree(things / "run", tmp_path / "run")), tmp_path / "mine"
    mine.mkdir()
    (mine / "file").write_text("mine")
    for name in (".nonfinite-3.new", "nonfinite-3"):
        (run / name).symlink_to(mine)
    for name in ("nonfinite-3.json", "nonfinite-3-client-0.json"):
        (run / name).symlink_to(mine / "file")
        (run / f"{name}.new").symlink_to(mine / "file")
    (run / "nonfinite-3.new").symlink_to(mine / "file")
    assert command("resume", str(run), "--rounds", "3", "algorithm.lr=1e30").status == 2
    assert command("replay", str(run / "nonfinite-3.json"), "--client", "0").status == 0
    assert contents(mine) == {"file": b"mine"}
    assert not any(
        (run / name).is_symlink()
        for name in ("nonfinite-3", "nonfinite-3.json", "nonfinite-3-client-0.json")
    )


def test_names_in_a_stranger_s_run_are_words_and_no_orders(things: Path, tmp_path: Path):
    """For the terminal, and for what colours it."""
    run = Path(shutil.copytree(things / "run", tmp_path / "run"))
    row = json.loads((run / "metrics.jsonl").read_text()) | {
        "a/\x1b[31m": 1.0,
        "[/b]": 2.0,
        "a/[/b]": 3.0,
        "a/\n\u202e": 4.0,
    }
    (run / "metrics.jsonl").write_text(json.dumps(row) + "\n")
    done = command("resume", str(run), "--rounds", "2")
    assert done.status == 0, done
    assert "a/[/b]" in done.out
    assert (done.out + done.errors).replace("\n", "").isprintable()


@pytest.mark.parametrize(
    "words",
    [["evaluate", "{run}"], ["export", "{run}", "--force"], ["resume", "{run}", "--rounds", "2"]],
    ids=lambda words: words[0],
)
def test_links_in_a_stranger_s_run_are_not_followed(words: list[str], things: Path, tmp_path: Path):
    run, mine = tmp_path / "run", tmp_path / "mine"
    shutil.copytree(things / "run", run)
    mine.write_text("mine")
    for name in (
        "evaluation.json",
        "model-1.safetensors",
        "config.toml",
        "summary.json",
        "metrics.jsonl",
        "metrics.csv",
    ):
        (run / f"{name}.new").symlink_to(mine)
    for name in ("evaluation.json", "model-1.safetensors", "summary.json"):
        (run / name).unlink(missing_ok=True)
        (run / name).symlink_to(mine)
    assert judge(command(*(word.format(run=run) for word in words)))
    assert mine.read_text() == "mine"
