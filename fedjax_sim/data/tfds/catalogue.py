"""Data sets of TensorFlow Datasets: which features are examples, labels and clients.

Few of them have a feature that names the client of an example; the others need a partition. A data
set that is not listed can be read too, with its keys as arguments of :func:`fedjax_sim.data.tfds`.
Speech is left out because decoding it needs TensorFlow.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from fedjax_sim.core import registry
from fedjax_sim.data.text import hashed_words, next_characters

Convert = Callable[[Any, Any], tuple[Any, Any]]
"""``(x, y) -> (x, y)`` on all examples of a split at once: arrays ``[n, ...]`` if all examples have
one shape, otherwise lists."""


class Entry(NamedTuple):
    """How a data set is read."""

    says: str
    """Description in one line."""
    x: str | tuple[str, ...]
    """Feature that becomes ``x``, see :func:`fedjax_sim.data.read_columns`."""
    y: str
    client: str | None = None
    """Feature that names the client of an example; ``None`` if there is none."""
    convert: Convert | None = None
    test: str | None = "test"
    """The split to test on, if the data set has it."""


def upright(x: Any, y: Any) -> tuple[Any, Any]:
    """Transposes EMNIST's images: TFDS and the original files store them mirrored at the diagonal.

    Args:
      x: uint8 ``[n, 28, 28, 1]``.
      y: labels, unchanged.
    """
    return np.swapaxes(x, 1, 2), y


def words(x: Any, y: Any) -> tuple[Any, Any]:
    """Converts texts to 200 hashed words, see :func:`fedjax_sim.data.text.hashed_words`.

    Args:
      x: n UTF-8 strings; become int32 ``[n, 200]``.
      y: labels, unchanged.
    """
    return hashed_words(x), y


def characters(x: Any, y: Any) -> tuple[Any, Any]:
    """Converts texts to their first 80 characters, and the character after each of them.

    Args:
      x: n UTF-8 strings; become int32 ``[n, 80]``.
      y: not used; becomes int32 ``[n, 80]``.
    """
    return next_characters(x)


def polarity(x: Any, y: Any) -> tuple[Any, Any]:
    """Converts tweets to 40 hashed words, and their polarity to a label.

    Args:
      x: n UTF-8 strings; become int32 ``[n, 40]``.
      y: ``[n]``, 0 (negative), 2 (neutral) or 4 (positive); becomes 0 or 1.
    """
    return hashed_words(x, length=40), np.asarray(y, np.int32) // 4


def readings(x: Any, y: Any) -> tuple[Any, Any]:
    """Cuts or pads series of sensors to 50 time steps.

    Args:
      x: n arrays ``[steps, sensors]``; become float32 ``[n, 50, sensors]``.
      y: labels, unchanged.
    """
    out = np.zeros((len(x), 50, *np.shape(x[0])[1:]), np.float32)
    for row, series in zip(out, x, strict=True):
        row[: len(series)] = series[:50]
    return out, y


_AXES = ("features/accel_x", "features/accel_y", "features/accel_z")


def card(name: str, record: Entry) -> str:
    """Returns what ``fedjax-sim describe`` shows: description, features, and commands.

    Args:
      name: the data set's name.
      record: its entry.
    """
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
    """Returns the command that prepares a data set for reading without TensorFlow.

    The command itself needs TensorFlow, once, on any machine.

    Args:
      name: TFDS's name of the data set.
      data_dir: folder of TFDS's data sets; ``None`` for TFDS's default.
    """
    where = f", data_dir={data_dir!r}" if data_dir else ""
    builder = f"tfds.builder({name!r}{where}, file_format='array_record').download_and_prepare()"
    return (
        "pip install tensorflow tensorflow-datasets && "
        f'python -c "import tensorflow_datasets as tfds; {builder}"'
    )


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
        "Handwritten digits, 28x28 bytes, 10 classes; without writers.", "image", "label"
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
