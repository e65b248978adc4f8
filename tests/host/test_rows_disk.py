import contextlib
import errno
import os
import re
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from disks import file_limit
from vaults import CLIENTS, LIKE, ROWS, error_of, filled, holds, put, rows, usable

from fedjax_sim.core.errors import FedError
from fedjax_sim.engine.host.rows import open_row_store, row_file

# -------------------------------------------------------------------------- disks that fill or fail


def test_a_full_disk_is_one_sentence_and_loses_nothing(tmp_path):
    """Earlier rows stay, also those after the last snapshot; with room the same write succeeds."""
    rng, model = np.random.default_rng(0), {}
    first, later = rows(rng, 10), rows(rng, 15)
    vault = open_row_store(tmp_path, LIKE, CLIENTS)
    with file_limit(11 * 80 - 1):  # room for what is needed, and none to spare
        vault.write(np.arange(10), first)
        put(model, np.arange(10), first)
        error = error_of(vault.write, np.arange(5, 20), later)
        assert re.fullmatch(
            r"clients' rows cannot be written: got OSError: File too large in \S*; "
            r"make room there .*",
            error,
        )
        assert (tmp_path / ROWS).stat().st_size == 800
        assert holds(vault, model)
    with file_limit(300):
        assert error_of(vault.snapshot, 1).startswith(
            "client memory of round 1 could not be saved: got OSError: File too large"
        )
    assert sorted(path.name for path in tmp_path.iterdir()) == [ROWS, "lock"]
    saved = vault.snapshot(1)
    vault.write(np.arange(5, 20), later)
    put(after := dict(model), np.arange(5, 20), later)
    assert holds(vault, after)
    vault.restore(saved)
    assert holds(vault, model)
    vault.close()


def test_no_space_left_is_found_before_anything_is_written(tmp_path, monkeypatch):
    vault = open_row_store(tmp_path, LIKE, CLIENTS)

    def full(number, offset, length):
        os.truncate(number, offset + length // 2)  # as much as there was
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    monkeypatch.setattr(row_file, "store", lambda *_: pytest.fail("written"))
    with pytest.raises(FedError, match="No space left on device"):
        vault.write([1, 2], rows(np.random.default_rng(0), 2))
    assert vault.facts() == {"clients": 0, "rows": 0, "bytes": 0}
    vault.close()


@pytest.mark.parametrize("how", ["refused", "unknown"])
def test_where_space_cannot_be_promised_files_grow_all_the_same(tmp_path, monkeypatch, how):
    def unable(*_):
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))

    monkeypatch.setattr(os, "posix_fallocate", unable)
    if how == "unknown":
        monkeypatch.delattr(os, "posix_fallocate")
    assert usable(tmp_path, *filled(tmp_path)[-1])


def test_a_write_that_fails_midway_changes_nothing(tmp_path, monkeypatch):
    saved, model = filled(tmp_path)[-1]
    vault, store = open_row_store(tmp_path, LIKE, CLIENTS), row_file.store
    vault.restore(saved)

    def failing(file, slots, records):
        store(file, slots[:3], records[:3])
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patch:
        patch.setattr(row_file, "store", failing)
        with pytest.raises(FedError, match="Input/output error"):
            vault.write(np.arange(9), rows(np.random.default_rng(0), 9))
    assert holds(vault, model)
    vault.write(np.arange(9), new := rows(np.random.default_rng(1), 9))
    put(model, np.arange(9), new)
    assert holds(vault, model)
    vault.close()


def test_after_a_failed_flush_only_a_restoration_helps(tmp_path, monkeypatch):
    """Linux forgets which pages it could not write: the next flush would succeed without them."""
    saved, model = filled(tmp_path)[-1]
    vault, flush = open_row_store(tmp_path, LIKE, CLIENTS), os.fsync
    vault.write([1], rows(np.random.default_rng(0), 1))

    def failing(number):
        flush(number)
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", failing)
        with pytest.raises(
            FedError, match="round 4 could not be saved: got OSError: Input/output error"
        ):
            vault.snapshot(4)
    with pytest.raises(FedError, match="no longer known to be on disk"):
        vault.snapshot(4)
    vault.restore(saved)
    vault.restore(vault.snapshot(5))
    assert holds(vault, model)
    vault.close()


def test_a_snapshot_needs_nothing_that_was_not_flushed(tmp_path, monkeypatch):
    """Power fails: of every file only what it was at its last flush is left."""
    folder, flush, durable = tmp_path / "vault", os.fsync, {}

    def noting(number):
        flush(number)
        path = os.readlink(f"/proc/self/fd/{number}")
        durable[path] = os.listdir(path) if Path(path).is_dir() else Path(path).read_bytes()

    monkeypatch.setattr(os, "fsync", noting)
    rng, model, vault = np.random.default_rng(0), {}, open_row_store(folder, LIKE, CLIENTS)
    for round_ in range(1, 6):
        ids = rng.permutation(CLIENTS)[:20]
        vault.write(ids, new := rows(rng, 20))
        put(model, ids, new)
        saved = vault.snapshot(round_)
        vault.write(ids, rows(rng, 20))  # in the air
        left = tmp_path / f"left {round_}"
        left.mkdir()
        assert saved["index"] in durable[str(folder)]
        (left / saved["index"]).write_bytes(durable[str(folder / "index.part")])
        (left / ROWS).write_bytes(durable[str(folder / ROWS)])
        assert usable(left, saved, model)
        vault.restore(saved)
        vault.keep([round_])
    vault.close()


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("step", range(6))
def test_a_process_may_end_before_and_after_every_step(tmp_path, monkeypatch, step, after):
    """The steps: flush rows, flush index, rename it, flush the folder; then remove two files."""
    kept = filled(tmp_path)
    rng, steps, vault = np.random.default_rng(1), [], open_row_store(tmp_path, LIKE, CLIENTS)
    vault.restore(kept[-1][0])

    def fatal(action, *arguments, **more):
        steps.append(action)
        if len(steps) == step + 1 and not after:
            raise KeyboardInterrupt
        action(*arguments, **more)
        if len(steps) == step + 1:
            raise KeyboardInterrupt

    vault.write(np.arange(9), new := rows(rng, 9))
    saved = []
    with monkeypatch.context() as patch:
        for name in ("fsync", "replace", "unlink"):
            patch.setattr(os, name, partial(fatal, getattr(os, name)))
        with contextlib.suppress(KeyboardInterrupt):
            saved.append(vault.snapshot(4))
            vault.keep([3, 4])
    assert len(steps) == step + 1
    vault.close()
    assert usable(tmp_path, *kept[-1])
    assert bool(saved) == (step >= 4)
    if saved:
        put(model := dict(kept[-1][1]), np.arange(9), new)
        assert usable(tmp_path, saved[0], model)
