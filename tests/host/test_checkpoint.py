import hashlib
import struct
import subprocess
import sys
import zlib
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from stores import blank, filled, flip_all, same

from fedjax_sim.core.errors import FedError
from fedjax_sim.persistence.checkpoint import SaveError, open_store, state_hash
from fedjax_sim.persistence.manifest import manifest

# Complaints of reads that outlive a failed load may come late on a busy machine.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


def test_round_trip_keeps_every_leaf_type_and_bit(tmp_path):
    back = filled(tmp_path).restore(blank())
    assert same(back.state, tiny.after(2))
    assert type(back.state.algorithm[0]) is type(tiny.variables())
    assert {str(leaf.dtype) for leaf in jax.tree.leaves(back.state)} == {
        "float32",
        "float16",
        "bfloat16",
        "int32",
        "uint32",
        "bool",
    }
    assert all(isinstance(leaf, np.ndarray) for leaf in jax.tree.leaves(back.state))
    assert (back.step, back.notes) == (2, ())


def test_special_values_survive(tmp_path):
    odd = np.array(
        [np.nan, -np.nan, np.inf, -0.0, 1e-45, np.uint32(0x7FC00123).view(np.float32)], np.float32
    )
    state = tiny.after(1).replace(
        memory={
            "odd": odd,
            "wide": np.arange(3, dtype=np.int64),
            "eight": jnp.ones(2, jnp.float8_e4m3fn),
        }
    )
    store = open_store(tmp_path)
    store.save(state)
    assert same(store.restore(state).state, state)


@pytest.mark.parametrize("impl", ["threefry2x32", "rbg"])
def test_typed_keys_survive(tmp_path, impl):
    state = tiny.after(1).replace(sampler=jax.random.split(jax.random.key(7, impl=impl), 3))
    store = open_store(tmp_path)
    store.save(state)
    back = store.restore(jax.eval_shape(lambda: state)).state.sampler
    assert back.dtype == state.sampler.dtype
    assert np.array_equal(jax.random.key_data(back), jax.random.key_data(state.sampler))


def test_metadata_tells_config_versions_and_round(tmp_path):
    found = filled(tmp_path).restore(blank()).metadata
    assert found["config"] == {"rounds": 9}
    assert found["round"] == 2
    assert found["versions"]["jax"] == jax.__version__
    assert {
        "flax",
        "optax",
        "orbax-checkpoint",
        "numpy",
        "fedjax-sim",
        "python",
        "platform",
    } <= found["versions"].keys()


def test_metadata_can_be_read_without_the_state(tmp_path):
    store = filled(tmp_path)
    assert store.metadata() == store.restore(blank()).metadata
    (tmp_path / "2" / "_CHECKPOINT_METADATA").unlink()
    assert store.metadata()["round"] == 1
    assert open_store(tmp_path / "elsewhere").metadata() == {}


def test_metadata_must_be_json(tmp_path):
    with pytest.raises(FedError, match="must be JSON"):
        open_store(tmp_path).save(tiny.after(0), {"odd": object()})


def test_other_versions_are_noted(tmp_path, monkeypatch):
    filled(tmp_path)
    monkeypatch.setattr("fedjax_sim.persistence.manifest._version", lambda package: "9.9")
    notes = open_store(tmp_path).restore(blank()).notes
    assert len(notes) == 1
    assert f"jax {jax.__version__} -> 9.9" in notes[0]


def test_donating_the_state_right_after_save_does_not_reach_the_checkpoint(tmp_path):
    program, store = tiny.program(), open_store(tmp_path, keep=None)
    state = program.init(tiny.variables(), 0)
    for _ in range(6):
        state, _ = program.run(state)
        store.save(program.logical(state))
    state, _ = program.run(state, 3)
    store.wait()
    for round_ in range(1, 7):
        assert same(store.restore(blank(), round_).state, tiny.after(round_)), round_


def test_numpy_leaves_may_be_overwritten_after_save(tmp_path):
    state, store = tiny.after(1), open_store(tmp_path)
    store.save(state)
    state.memory["c"][:] = -1
    assert same(store.restore(blank()).state, tiny.after(1))


def test_sharded_state_restores_on_another_number_of_devices(tmp_path):
    def rows(devices):
        return NamedSharding(Mesh(np.array(jax.devices()[:devices]), ("d",)), PartitionSpec("d"))

    table = np.arange(24.0, dtype=np.float32).reshape(8, 3)
    state = tiny.after(1).replace(memory=jax.device_put(table, rows(4)))
    store = open_store(tmp_path)
    store.save(state)
    back = store.restore(state).state
    assert np.array_equal(jax.device_put(back.memory, rows(2)), table)


# ----------------------------------------------------------------------------------------- policies


@pytest.mark.parametrize(
    ("settings", "kept"),
    [
        ({"keep": 1}, (7,)),
        ({"keep": 2}, (6, 7)),
        ({"keep": 2, "every": 3}, (3, 6, 7)),
        ({"keep": None}, (1, 2, 3, 4, 5, 6, 7)),
    ],
)
def test_keep_policies(tmp_path, settings, kept):
    assert filled(tmp_path, range(1, 8), **settings).steps() == kept


@pytest.mark.parametrize("settings", [{"keep": 0}, {"every": -1}])
def test_policies_are_positive(tmp_path, settings):
    with pytest.raises(FedError, match="must be positive"):
        open_store(tmp_path, **settings)


def test_same_state_of_same_round_is_not_written_twice(tmp_path):
    store = filled(tmp_path)
    store.restore(blank())
    before = (tmp_path / "2" / "_CHECKPOINT_METADATA").stat().st_mtime_ns
    store.save(tiny.after(2))
    store.wait()
    assert (tmp_path / "2" / "_CHECKPOINT_METADATA").stat().st_mtime_ns == before


def test_another_runs_folder_is_not_written_to(tmp_path):
    store = filled(tmp_path)
    with pytest.raises(FedError, match=r"holds another run.*rounds \(1, 2\)"):
        store.save(tiny.after(0))
    assert store.steps() == (1, 2)


def test_looking_at_an_older_round_drops_nothing(tmp_path):
    store = filled(tmp_path, (2, 4, 6), keep=None)
    store.restore(blank())
    store.save(tiny.after(7))
    store.restore(blank(), 2)
    store.save(tiny.after(8))
    assert store.steps() == (2, 4, 6, 7, 8)


def test_going_on_from_an_older_round_drops_the_later_ones(tmp_path):
    store = filled(tmp_path, (2, 4, 6, 7))
    flip_all(tmp_path / "6")
    flip_all(tmp_path / "7")
    assert store.restore(blank()).step == 4
    store.save(tiny.after(7))
    assert store.steps() == (4, 7)
    assert same(store.restore(blank()).state, tiny.after(7))


# ------------------------------------------------------------------------------------ failing saves


def test_failed_save_is_reported_once_and_poisons_nothing(tmp_path, monkeypatch):
    class Broken:
        def result(self):
            raise OSError("no space left on device")

    store = open_store(tmp_path)
    store.save(tiny.after(1))
    store.wait()
    with monkeypatch.context() as patch:
        patch.setattr("orbax.checkpoint.experimental.v1.save_async", lambda *_, **__: Broken())
        store.save(tiny.after(2))
    with pytest.raises(
        SaveError, match=r"round 2 could not be written.*no space left on device.*make room"
    ):
        store.wait()
    store.wait()
    assert store.steps() == (1,)
    store.save(tiny.after(2))
    assert same(store.restore(blank()).state, tiny.after(2))


def test_what_writers_leave_after_their_save_has_failed_is_removed(tmp_path, monkeypatch):
    left, pauses = tmp_path / "1.orbax-checkpoint-tmp", []

    class Failed:
        def result(self):
            left.mkdir()
            raise OSError("no space left on device")

    def writes_on(seconds):
        assert not left.exists()
        pauses.append(seconds)
        if len(pauses) == 1:
            (left / "d").mkdir(parents=True)

    monkeypatch.setattr("time.sleep", writes_on)
    store = open_store(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr("orbax.checkpoint.experimental.v1.save_async", lambda *_, **__: Failed())
        store.save(tiny.after(1))
    with pytest.raises(SaveError):
        store.wait()
    assert pauses
    assert not list(tmp_path.iterdir())


def test_unwritable_folder_is_reported_by_the_save_itself(tmp_path):
    (tmp_path / "file").write_text("in the way")
    store = open_store(tmp_path / "file" / "below")
    with pytest.raises(SaveError, match="round 1 could not be written"):
        store.save(tiny.after(1))
    (tmp_path / "file").unlink()
    store.save(tiny.after(1))
    assert store.steps() == (1,)


@pytest.mark.parametrize("kind", ["file", "link to nothing"])
def test_what_is_no_folder_is_refused_at_once(kind, tmp_path):
    path = tmp_path / "checkpoints"
    path.write_text("in the way") if kind == "file" else path.symlink_to(tmp_path / "nowhere")
    with pytest.raises(
        FedError,
        match=r"checkpoints are kept in a folder: got something else called .*checkpoints; "
        r"move it away",
    ):
        open_store(path)


FULL = """
import resource, signal, sys
sys.path.insert(0, sys.argv[2])
import numpy as np
from fedjax_sim.persistence.checkpoint import SaveError, open_store, state_hash
from fedjax_sim.core.types import RoundState

def state(r):
    w = np.random.default_rng(r).normal(size=50_000)
    return RoundState(round=np.int32(r), seed=np.uint32(7), algorithm=w, memory=(), sampler=())

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
store = open_store(sys.argv[1])
store.save(state(1)); store.wait()
resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, resource.RLIM_INFINITY))
store.save(state(2))
try:
    store.save(state(3)); print("silent")
except SaveError as error:
    print("said", "round 2" in str(error))
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
store.save(state(3)); store.wait()
print(store.steps(), state_hash(store.restore(state(0)).state) == state_hash(state(3)))
"""


def test_full_disk(tmp_path):
    support = str(Path(__file__).parents[1] / "support")
    command = [sys.executable, "-c", FULL, str(tmp_path / "run"), support]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.stdout.split("\n")[:2] == ["said True", "(1, 3) True"], done.stderr[-2000:]
    assert "absl" not in done.stderr


# --------------------------------------------------------------------------------------------- hash


def test_hash_is_of_the_values_wherever_they_are():
    state = tiny.after(2)
    assert (
        state_hash(state)
        == state_hash(jax.tree.map(jnp.asarray, state))
        == state_hash(tiny.after(2))
    )
    assert len(state_hash(state)) == 64


@pytest.mark.parametrize(
    "change",
    [
        lambda s: s.replace(round=np.int32(3)),
        lambda s: s.replace(seed=s.seed.astype(np.int32)),
        lambda s: s.replace(memory={**s.memory, "c": s.memory["c"].reshape(3, 5)}),
        lambda s: s.replace(memory={"d": s.memory["c"], "none": s.memory["none"]}),
        lambda s: s.replace(memory={**s.memory, "c": -s.memory["c"] * 0 - 0.0}),
        lambda s: s.replace(memory={**s.memory, "none": np.zeros((0, 5), np.float32)}),
    ],
)
def test_hash_sees_value_dtype_shape_and_name(change):
    assert state_hash(change(tiny.after(2))) != state_hash(tiny.after(2))


def test_hash_is_by_names_not_by_fields_order():
    class Pair(NamedTuple):
        z: np.ndarray
        a: np.ndarray

    state = Pair(np.arange(3, dtype=np.float32), np.uint32(1))
    words = (
        b"a\nuint32\n[]\n"
        + struct.pack("<I", 1)
        + b"z\nfloat32\n[3]\n"
        + struct.pack("<3f", 0, 1, 2)
    )
    assert state_hash(state) == hashlib.sha256(words).hexdigest()


def test_manifest_describes_leaves():
    found = manifest({"w": np.zeros((2, 3), np.float32), "n": ()})
    assert found == {"w": [[2, 3], "float32", zlib.crc32(bytes(24))]}
