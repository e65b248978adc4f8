"""Tiny data for the tasks that read some: task to settings."""

from pathlib import Path
from typing import Any

import numpy as np
from tfds_folder import fake, write

from fedjax_sim.data import Examples, Federation, by_client, population, save


def sources(home: Path) -> dict[str, dict[str, Any]]:
    rng = np.random.default_rng(0)
    settings: dict[str, dict[str, Any]] = {
        "mnist": {"source": str(save(pictures(rng), home / "mnist", name="mnist"))},
        "har": {"source": str(save(windows(rng), home / "har", name="har", classes=6))},
        "shakespeare": {"source": str(save(roles(), home / "roles", name="roles")), "window": 12},
        "prepared": {"source": str(save(windows(rng), home / "own", name="own"))},
    }
    for task, name in {
        "emnist": "emnist",
        "cifar10": "cifar10",
        "cifar100": "cifar100",
        "imdb": "imdb_reviews",
    }.items():
        by_tfds(name, home / "tfds", rng)
        settings[task] = {"data_dir": str(home / "tfds"), "clients": 4, "partition": "iid"}
    for task in ("cifar10", "cifar100"):  # whose own model takes long to compile
        settings[task]["model"] = "mlp"
    return settings


def pictures(rng: np.random.Generator) -> Federation:
    """Seven writers of 90 digits, and 20 digits of others."""
    x, y = (
        rng.integers(0, 256, (110, 28, 28, 1)).astype(np.uint8),
        np.arange(110, dtype=np.int32) % 10,
    )
    return Federation(
        by_client(x[:90], y[:90], np.array([f"w{i % 7}" for i in range(90)])),
        None,
        Examples(x[90:], y[90:]),
    )


def windows(rng: np.random.Generator) -> Federation:
    x = rng.normal(size=(60, 32, 9)).astype(np.float32)
    return Federation(by_client(x, np.arange(60, dtype=np.int32) % 6, np.arange(60) % 3))


def roles() -> Federation:
    """What is said, one byte an example."""
    texts = {
        "a|KING": b"to be or not to be\n" * 20,
        "a|FOOL": b"ha",
        "b|QUEEN": b"that is the question " * 12,
    }
    return Federation(
        population(
            np.frombuffer(b"".join(texts.values()), np.uint8),
            (),
            np.cumsum([0, *map(len, texts.values())]),
            tuple(texts),
        )
    )


def by_tfds(name: str, home: Path, rng: np.random.Generator) -> None:
    import tensorflow_datasets

    info = tensorflow_datasets.builder(name, data_dir=str(home / "none")).info
    rows = {
        split: [fake(info.features, rng) for _ in range(n)]
        for split, n in (("train", 40), ("test", 6))
    }
    write(home / info.full_name, info.features, rows, name)
