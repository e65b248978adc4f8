import json
import shutil
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from stores import blank, data_files, filled, flip, flip_all, same

from fedjax_sim.core.errors import FedError
from fedjax_sim.persistence.checkpoint import open_store

# Complaints of reads that outlive a failed load may come late on a busy machine.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


# ------------------------------------------------------------------------------------------- damage


def reseal(step: Path) -> None:
    """Edits the manifest as a flipped bit would."""
    path = step / "_CHECKPOINT_METADATA"
    record = json.loads(path.read_text())
    record["custom_metadata"]["fedjax_sim"]["manifest"]["memory.c"][0][0] += 1
    path.write_text(json.dumps(record))


def damages():
    yield "flipped", flip_all
    yield (
        "truncated",
        lambda step: [
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
            for path in data_files(step)
        ],
    )
    yield (
        "emptied",
        lambda step: [path.write_bytes(b"") for path in step.rglob("*") if path.is_file()],
    )
    yield "data removed", lambda step: [path.unlink() for path in data_files(step)]
    yield "state removed", lambda step: shutil.rmtree(step / "state")
    yield "no metadata", lambda step: (step / "_CHECKPOINT_METADATA").unlink()
    yield (
        "garbage metadata",
        lambda step: (step / "_CHECKPOINT_METADATA").write_bytes(b"\x00garbage"),
    )
    yield "no tree metadata", lambda step: (step / "state" / "_METADATA").unlink()
    yield "index truncated", lambda step: (step / "state" / "manifest.ocdbt").write_bytes(b"\x01")
    yield "manifest edited", reseal
    yield "empty folder", lambda step: [shutil.rmtree(step), step.mkdir()]


@pytest.mark.parametrize(("damage"), [pytest.param(hurt, id=name) for name, hurt in damages()])
def test_damaged_newest_is_passed_over_with_a_note(tmp_path, damage):
    store = filled(tmp_path)
    damage(tmp_path / "2")
    back = store.restore(blank())
    assert back.step == 1
    assert same(back.state, tiny.after(1))
    assert len(back.notes) == 1
    assert "round 2 is damaged" in back.notes[0]


def test_a_flipped_bit_anywhere_never_loads_wrong_values(tmp_path):
    """Large enough that Orbax keeps the values apart from its index; it does not guard them."""
    states = [
        tiny.after(r).replace(memory=np.random.default_rng(r).normal(size=4000)) for r in (1, 2)
    ]
    store = open_store(tmp_path)
    for state in states:
        store.save(state)
    store.close()
    notes = []
    for path in data_files(tmp_path / "2"):
        intact = path.read_bytes()
        for part in (0.0, 0.3, 0.6, 0.999):
            flip(path, part)
            back = store.restore(states[0])
            assert same(back.state, states[back.step - 1]), (path, part)
            notes.extend(back.notes)
            path.write_bytes(intact)
    assert any("the crc32 of memory is wrong" in note for note in notes)


def test_nothing_usable_is_said_with_reasons(tmp_path):
    store = filled(tmp_path)
    flip_all(tmp_path / "1")
    shutil.rmtree(tmp_path / "2" / "state")
    with pytest.raises(
        FedError, match=r"no usable checkpoint.*round 2 is damaged.*round 1 is damaged"
    ):
        store.restore(blank())
    with pytest.raises(FedError, match="an empty folder"):
        open_store(tmp_path / "elsewhere").restore(blank())


def test_a_round_asked_for_by_name_is_not_replaced_by_another(tmp_path):
    store = filled(tmp_path)
    assert store.restore(blank(), 1).step == 1
    with pytest.raises(FedError, match=r"no checkpoint of round 7.*\(1, 2\)"):
        store.restore(blank(), 7)
    flip_all(tmp_path / "2")
    with pytest.raises(FedError, match="round 2 is damaged"):
        store.restore(blank(), 2)


def test_leftovers_of_a_killed_save_are_ignored_and_removed(tmp_path):
    store = filled(tmp_path)
    leftover = tmp_path / "3.orbax-checkpoint-tmp"
    shutil.copytree(tmp_path / "2", leftover)
    assert store.restore(blank()).step == 2
    store.save(tiny.after(3))
    assert store.steps() == (1, 2, 3)
    assert not leftover.exists()


# ---------------------------------------------------------------------------------------- structure


def misfits():
    state = tiny.first(tiny.variables())
    yield (
        "shape",
        state.replace(memory={**state.memory, "c": jnp.zeros((9, 3))}),
        ["memory.c", "float32[5, 3]", "float32[9, 3]"],
    )
    yield "dtype", state.replace(seed=jnp.int32(0)), ["seed", "uint32[]", "int32[]"]
    yield (
        "missing",
        state.replace(sampler=(*state.sampler, jnp.zeros(2))),
        ["sampler.2", "nothing in the checkpoint", "float32[2]"],
    )
    yield (
        "extra",
        state.replace(sampler=()),
        ["sampler.0", "int32[5]", "nothing in this configuration"],
    )


@pytest.mark.parametrize("misfit", ["shape", "dtype", "missing", "extra"])
def test_misfit_names_leaf_both_shapes_and_what_to_do(tmp_path, misfit):
    ((like, words),) = [rest for name, *rest in misfits() if name == misfit]
    store = filled(tmp_path)
    with pytest.raises(FedError, match="does not fit this configuration") as caught:
        store.restore(like)
    assert all(
        word in str(caught.value) for word in [*words, "round 2", "resume with the configuration"]
    )
    assert "\n" not in str(caught.value)


def test_misfit_is_never_skipped_for_an_older_checkpoint_that_fits(tmp_path):
    store = open_store(tmp_path)
    store.save(tiny.after(1))
    store.save(tiny.after(2).replace(memory=()))
    with pytest.raises(FedError, match="round 2 does not fit"):
        store.restore(blank())
