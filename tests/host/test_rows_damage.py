import os
import shutil

import numpy as np
import pytest
from vaults import CLIENTS, LIKE, ROWS, error_of, filled, holds, rows, usable

from fedjax_sim.core.errors import FedError
from fedjax_sim.engine.host.rows import open_row_store

# ------------------------------------------------------------------------------------------- damage


def flipped(part):
    def damage(path):
        content = bytearray(path.read_bytes())
        content[int(part * (len(content) - 1))] ^= 4
        path.write_bytes(bytes(content))

    return damage


DAMAGES = {
    **{f"flipped at {part}": flipped(part) for part in (0.0, 0.02, 0.3, 0.6, 1.0)},
    "halved": lambda path: os.truncate(path, path.stat().st_size // 2),
    "a byte short": lambda path: os.truncate(path, path.stat().st_size - 1),
    "emptied": lambda path: os.truncate(path, 0),
    "removed": lambda path: path.unlink(),
    "garbage": lambda path: path.write_bytes(b"\n" * path.stat().st_size),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_snapshot_is_an_error_and_the_others_are_as_they_were(tmp_path, damage):
    saved = filled(tmp_path / "whole")
    for hurt, _ in saved:
        folder = tmp_path / hurt["index"]
        shutil.copytree(tmp_path / "whole", folder)
        damage(folder / hurt["index"])
        assert [usable(folder, *one) for one in saved] == [
            one["index"] != hurt["index"] for one, _ in saved
        ]


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_damaged_rows_are_an_error_and_never_wrong(tmp_path, damage):
    saved = filled(tmp_path, [1])
    os.truncate(tmp_path / ROWS, 20 * 80)  # what is beyond is free
    assert usable(tmp_path, *saved[0])
    damage(tmp_path / ROWS)
    assert not usable(tmp_path, *saved[0])


def test_every_flipped_byte_of_a_row_is_found(tmp_path):
    saved, model = filled(tmp_path, [1])[0]
    whole = (tmp_path / ROWS).read_bytes()
    vault = open_row_store(tmp_path, LIKE, CLIENTS)
    vault.restore(saved)
    place = int(np.random.default_rng(0).integers(20))
    for byte in range(place * 80, (place + 1) * 80):
        (tmp_path / ROWS).write_bytes(whole[:byte] + bytes([whole[byte] ^ 1]) + whole[byte + 1 :])
        with pytest.raises(
            FedError,
            match=r"the row of client \d+ is damaged: got a wrong crc32 in "
            rf".*{ROWS}, row {place} of 80 bytes",
        ):
            vault.read(np.arange(CLIENTS))
    (tmp_path / ROWS).write_bytes(whole)
    assert holds(vault, model)
    vault.close()


def test_a_file_cut_short_under_an_open_store_is_an_error(tmp_path):
    saved, model = filled(tmp_path, [1])[0]
    vault = open_row_store(tmp_path, LIKE, CLIENTS)
    vault.restore(saved)
    os.truncate(tmp_path / ROWS, 12 * 80 + 79)
    errors = [error_of(vault.read, [client]) for client in range(CLIENTS)]
    lost = {int(error.split(", row ")[1].split()[0]) for error in errors if error}
    assert lost == set(range(12, 20))
    assert all(
        error is None or f"client {client} is damaged: got the file ends before" in error
        for client, error in enumerate(errors)
    )
    order = sorted(model, key=lambda client: errors[client] is not None)
    assert f"client {order[12]} is damaged" in error_of(vault.read, order)
    vault.close()


def test_a_snapshot_that_comes_back_after_its_rows_were_given_away_is_never_wrong(tmp_path):
    """Even if intact later rows of the same clients lie in the slots of the earlier ones."""
    saved = filled(tmp_path)
    (tmp_path / saved[0][0]["index"]).rename(tmp_path / "away")
    rng, vault = np.random.default_rng(1), open_row_store(tmp_path, LIKE, CLIENTS)
    vault.restore(saved[1][0])
    for _ in range(9):
        vault.write(np.arange(40), rows(rng, 40))
    vault.close()
    (tmp_path / "away").rename(tmp_path / saved[0][0]["index"])
    assert [usable(tmp_path, *one) for one in saved] == [False, True, True]


def test_a_snapshot_that_comes_back_in_time_is_kept_from_then_on(tmp_path):
    saved = filled(tmp_path)
    (tmp_path / saved[0][0]["index"]).rename(tmp_path / "away")
    (tmp_path / "index.part").write_bytes(b"of a snapshot that was cut short")
    rng, vault = np.random.default_rng(1), open_row_store(tmp_path, LIKE, CLIENTS)
    assert not (tmp_path / "index.part").exists()
    (tmp_path / "away").rename(tmp_path / saved[0][0]["index"])
    vault.restore(saved[0][0])
    for _ in range(9):
        vault.write(np.arange(40), rows(rng, 40))
    vault.close()
    assert all(usable(tmp_path, *one) for one in saved)
