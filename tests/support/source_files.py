"""Small files of federated data in the formats of others, written from their descriptions."""

import contextlib
import csv
import json
import sqlite3
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest

from fedjax_sim.core.errors import FedError
from fedjax_sim.data.sources import prepare

SIZES = {"zoe": 3, "abe": 5, "kim": 1}
"""Training clients in the order of the files that keep one."""
TEST = {"zoe": 2, "new": 4, "kim": 1}


def client(
    name: str, part: str = "train", sizes: dict[str, int] | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """x float32 [n, 4] and y int32 [n] of a client, different for each."""
    n = (sizes or {"train": SIZES, "test": TEST}[part])[name]
    rng = np.random.default_rng([len(part), *name.encode()])
    return rng.random((n, 4), np.float32).round(3), rng.integers(0, 3, n).astype(np.int32)


def leaf(root: Path) -> Path:
    """A folder with train/ and test/; training users lie in two files."""
    for part, groups in (("train", [["zoe", "abe"], ["kim"]]), ("test", [list(TEST)])):
        (root / part).mkdir(parents=True)
        for number, names in enumerate(groups):
            data = {
                name: {"x": client(name, part)[0].tolist(), "y": client(name, part)[1].tolist()}
                for name in names
            }
            held = {
                "users": names,
                "num_samples": [len(data[name]["y"]) for name in names],
                "user_data": data,
            }
            (root / part / f"all_{number}.json").write_text(json.dumps(held))
    return root


def fedjax(path: Path, part: str = "train") -> Path:
    """FedJAX's SQLite: zipped msgpack of arrays."""
    import msgpack

    def pack(array: np.ndarray) -> object:
        return msgpack.ExtType(
            1, msgpack.packb((array.shape, array.dtype.name, array.tobytes()), use_bin_type=True)
        )

    with contextlib.closing(sqlite3.connect(path)) as database:
        database.execute(
            "CREATE TABLE federated_data (client_id BLOB NOT NULL PRIMARY KEY, "
            "data BLOB NOT NULL, num_examples INTEGER NOT NULL)"
        )
        for name in {"train": SIZES, "test": TEST}[part]:
            x, y = client(name, part)
            data = zlib.compress(msgpack.packb({"pixels": pack(x), "label": pack(y)}))
            database.execute(
                "INSERT INTO federated_data VALUES (?, ?, ?)", [name.encode(), data, len(y)]
            )
        database.commit()
    return path


def tff(path: Path, **texts: list[bytes]) -> Path:
    """TFF's SQLite: one proto a row. With texts, clients have only strings, called snippets."""
    with contextlib.closing(sqlite3.connect(path)) as database:
        database.execute(
            "CREATE TABLE examples (split_name TEXT, client_id TEXT, serialized_example_proto BLOB)"
        )
        database.execute(
            "CREATE TABLE client_metadata (client_id TEXT, split_name TEXT, num_examples INTEGER)"
        )
        rows = [
            ("train", name, [proto(snippets=[text]) for text in lines])
            for name, lines in texts.items()
        ] or [
            (
                part,
                name,
                [
                    proto(pixels=x, label=np.array([y]))
                    for x, y in zip(*client(name, part), strict=True)
                ],
            )
            for part, names in (("train", SIZES), ("test", TEST))
            for name in names
        ]
        for part, name, protos in rows:
            database.execute(
                "INSERT INTO client_metadata VALUES (?, ?, ?)", [name, part, len(protos)]
            )
            database.executemany(
                "INSERT INTO examples VALUES (?, ?, ?)", [(part, name, each) for each in protos]
            )
        database.commit()
    return path


def h5(path: Path, part: str = "train", text: dict[str, list[bytes]] | None = None) -> Path:
    """TFF's HDF5."""
    import h5py

    with h5py.File(path, "w") as file:
        for name in text or {"train": SIZES, "test": TEST}[part]:
            group = file.create_group(f"examples/{name}")
            if text:
                group.create_dataset(
                    "snippets", data=np.array(text[name], object), dtype=h5py.string_dtype()
                )
            else:
                group["pixels"], group["label"] = client(name, part)
    return path


def table(path: Path, part: str = "train", words: bool = False) -> Path:
    """A csv with the columns who, a, b, c, d, kind; rows of all clients in turns."""
    rows = [
        [name, *map(str, x), ("red", "green", "blue")[y] if words else str(y)]
        for name in {"train": SIZES, "test": TEST}[part]
        for x, y in zip(*client(name, part), strict=True)
    ]
    rows = [rows[i] for i in np.random.default_rng(0).permutation(len(rows))]
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([["who", "a", "b", "c", "d", "kind"], *rows])
    return path


def images(
    root: Path,
    clients: bool = False,
    parts: tuple[str, ...] = ("",),
    colour: bool = False,
    size: int = 5,
) -> Path:
    """PNG files: two classes, three images each, of every client."""
    from PIL import Image

    rng = np.random.default_rng(0)
    for part in parts:
        for name in ("ann", "bob") if clients else ("",):
            for label in ("cat", "dog"):
                folder = root / part / name / label
                folder.mkdir(parents=True)
                for number in range(3):
                    pixels = rng.integers(
                        0, 256, (size, size + 1, 3) if colour else (size, size + 1), np.uint8
                    )
                    Image.fromarray(pixels).save(folder / f"{number}.png")
    return root


def refused(tmp_path, source, words, **given):
    """The sentence; the folder that was asked for is not there, and nothing else is that was not
    before.
    """
    before = {path: path.stat().st_size for path in tmp_path.rglob("*")}
    with pytest.raises(FedError, match=words) as caught:
        prepare(source, tmp_path / "out", **given)
    text = str(caught.value)
    assert "\n" not in text
    assert ": got " in text
    assert "; " in text
    assert {path: path.stat().st_size for path in tmp_path.rglob("*")} == before


# ------------------------------------------------------------------------------------------- protos


def varint(value: int) -> bytes:
    out, value = bytearray(), value & (2**64 - 1)
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def field(number: int, data: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(data)) + data


def proto(packed: bool = True, **features: object) -> bytes:
    """A tf.train.Example."""
    entries = b""
    for name, values in features.items():
        if isinstance(values, list):
            held = field(1, b"".join(field(1, each) for each in values))
        elif np.asarray(values).dtype.kind == "f":
            flat = np.asarray(values, "<f4").reshape(-1)
            held = field(
                2,
                field(1, flat.tobytes())
                if packed
                else b"".join(varint(1 << 3 | 5) + struct.pack("<f", v) for v in flat),
            )
        else:
            flat = [varint(int(v)) for v in np.asarray(values).reshape(-1)]
            held = field(
                3,
                field(1, b"".join(flat)) if packed else b"".join(varint(1 << 3) + v for v in flat),
            )
        entries += field(1, field(1, name.encode()) + field(2, held))
    return field(1, entries)
