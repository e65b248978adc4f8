"""Data sets of TensorFlow Datasets and how they become federations: which features are examples, labels and clients.

Few of them say whose an example is. The others are dealt out by a partition. Sets that are not here can be read all the same: then
:func:`fedjax_sim.data.tfds` is told their keys. Left out on purpose: speech (decoding it needs TensorFlow).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from fedjax_sim.core import registry
from fedjax_sim.data.text import hashed_words, next_characters

Convert = Callable[[Any, Any], tuple[Any, Any]]
"""``(x, y) -> (x, y)`` on all examples of a split at once; an array where all examples have one shape, else a list."""


class Entry(NamedTuple):
    """How a data set is read."""

    says: str
    """What it is, in a line."""
    x: str | tuple[str, ...]
    """Feature that becomes ``x``, see :func:`fedjax_sim.data.read_columns`."""
    y: str
    client: str | None = None
    """Feature that says whose an example is; ``None`` where the set does not say."""
    convert: Convert | None = None
    test: str | None = "test"
    """The split to test on, if the data set has it."""


def upright(x: Any, y: Any) -> tuple[Any, Any]:
    """EMNIST's images as they were written: TFDS keeps them mirrored at the diagonal, as the original files do."""
    return np.swapaxes(x, 1, 2), y


def words(x: Any, y: Any) -> tuple[Any, Any]:
    """Texts as 200 hashed words, see :func:`fedjax_sim.data.text.hashed_words`."""
    return hashed_words(x), y


def characters(x: Any, y: Any) -> tuple[Any, Any]:
    """Texts as their first 80 characters, and for each of them the next one."""
    return next_characters(x)


def polarity(x: Any, y: Any) -> tuple[Any, Any]:
    """Tweets as 40 hashed words, happy (4 in the data) or not (0)."""
    return hashed_words(x, length=40), np.asarray(y, np.int32) // 4


def readings(x: Any, y: Any) -> tuple[Any, Any]:
    """Series of sensors as float32 ``[n, 50, sensors]``, cut or padded with 0."""
    out = np.zeros((len(x), 50, *np.shape(x[0])[1:]), np.float32)
    for row, series in zip(out, x, strict=True):
        row[: len(series)] = series[:50]
    return out, y


_AXES = ("features/accel_x", "features/accel_y", "features/accel_z")


def card(name: str, record: Entry) -> str:
    """The text that ``fedjax-sim describe`` shows of a data set: what it is, how it is read, how it is prepared."""
    features = record.x if isinstance(record.x, str) else ", ".join(record.x)
    clients = f"clients by {record.client}" if record.client else "without clients of its own"
    partition = "" if record.client else ", partition='dirichlet', clients=100"
    return "\n\n".join(
        (
            record.says,
            f"x from {features}, y from {record.y}, {clients}",
            f"read: fedjax_sim.data.tfds({name!r}{partition})",
            f"prepare, once: {command(name)}",
        )
    )


def command(name: str, data_dir: str | None = None) -> str:
    """The command that prepares a data set so that it can be read without TensorFlow: on any machine, once, with it."""
    where = f", data_dir={data_dir!r}" if data_dir else ""
    builder = f"tfds.builder({name!r}{where}, file_format='array_record').download_and_prepare()"
    return f'pip install tensorflow tensorflow-datasets && python -c "import tensorflow_datasets as tfds; {builder}"'


registry.declare(
    registry.Kind("dataset", "datasets", "a data set of TensorFlow Datasets", is_factory=False)
)
for name, record in {
    "emnist": Entry(
        "Handwritten characters, 28x28 bytes; emnist/byclass has 62 classes.",
        "image",
        "label",
        convert=upright,
    ),
    "mnist": Entry(
        "Handwritten digits, 28x28 bytes, 10 classes; the writers are not told.", "image", "label"
    ),
    "fashion_mnist": Entry("Articles of clothing, 28x28 bytes, 10 classes.", "image", "label"),
    "kmnist": Entry("Cursive Japanese characters, 28x28 bytes, 10 classes.", "image", "label"),
    "cifar10": Entry("Small photographs, 32x32x3 bytes, 10 classes.", "image", "label"),
    "cifar100": Entry(
        "Small photographs, 32x32x3 bytes, 100 classes in 20 groups (coarse_label).",
        "image",
        "label",
    ),
    "svhn_cropped": Entry("House numbers, 32x32x3 bytes, 10 classes.", "image", "label"),
    "imdb_reviews": Entry(
        "Film reviews as 200 hashed words, 2 classes.", "text", "label", convert=words
    ),
    "ag_news_subset": Entry(
        "News as 200 hashed words, 4 classes.", "description", "label", convert=words
    ),
    "sentiment140": Entry(
        "Tweets by user as 40 hashed words, 2 classes (3 in test).",
        "text",
        "polarity",
        "user",
        polarity,
        None,
    ),
    "reddit": Entry(
        "Posts by author: 80 characters of each, and the next.",
        "content",
        "content",
        "author",
        characters,
    ),
    "media_sum": Entry(
        "Interviews by speaker: 80 characters of each utterance, and the next.",
        "utt",
        "utt",
        "speaker",
        characters,
    ),
    "smartwatch_gestures": Entry(
        "Accelerations by participant, 50x3, 20 classes.", _AXES, "gesture", "participant", readings
    ),
}.items():
    registry.register("dataset", name, record, card=card(name, record))

CATALOGUE = registry.records("dataset")
"""Data sets by name: how each is read."""
