"""Prepared TFDS folders for tests, written without TensorFlow."""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np


def write(
    out: Path,
    features: Callable[[Any], Any] | Any,
    splits: Mapping[str, Iterable[Mapping[str, Any]]],
    name: str = "tiny",
    file_format: str = "array_record",
) -> Path:
    """``features`` is TFDS's own, or a function from ``tfds.features`` to a dictionary."""
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core.dataset_info import DatasetIdentity

    out.mkdir(parents=True)
    kinds = (
        features
        if isinstance(features, tfds.features.FeatureConnector)
        else tfds.features.FeaturesDict(features(tfds.features))
    )
    info = tfds.core.DatasetInfo(
        builder=DatasetIdentity(name, tfds.core.Version("1.0.0"), str(out), "tests"), features=kinds
    )
    writer = tfds.core.SequentialWriter(
        info, max_examples_per_shard=100_000, file_format=file_format
    )
    writer.initialize_splits(list(splits))
    for split, records in splits.items():
        writer.add_examples({split: list(records)})
    writer.close_all()
    return out


CLIENTS = {"train": {"zoe": 3, "abe": 5, "kim": 1}, "test": {"kim": 2, "zoe": 2, "new": 4}}


def records(split):
    start = 0 if split == "train" else 100
    for name, n in CLIENTS[split].items():
        numbers = np.arange(start, start + n)
        start += n
        yield {
            "client_id": name,
            "image": np.tile(numbers[:, None].astype(np.uint8), 4),
            "label": numbers.astype(np.int32),
        }


def tensors(f):
    image = f.Tensor(shape=(None, 4), dtype=np.uint8, encoding="bytes")
    return {
        "client_id": f.Text(),
        "image": image,
        "label": f.Tensor(shape=(None,), dtype=np.int32, encoding="bytes"),
    }


def ordinary(home: Path, file_format: str = "array_record") -> Path:
    """One record per example, written by a builder of TFDS as an ordinary data set is."""
    import tensorflow_datasets as tfds

    class Ordinary(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        VERSION = tfds.core.Version("1.0.0")

        def _info(self):
            f = tfds.features
            image = f.Tensor(shape=(4,), dtype=np.uint8, encoding="bytes")
            kinds = {
                "writer": f.Scalar(dtype=np.int32),
                "image": image,
                "label": f.ClassLabel(num_classes=200),
            }
            return tfds.core.DatasetInfo(builder=self, features=f.FeaturesDict(kinds))

        def _split_generators(self, dl_manager):  # noqa: ARG002
            return {split: self._generate_examples(split) for split in CLIENTS}

        def _generate_examples(self, split):
            place = 0
            for client, record in enumerate(records(split)):
                for image, label in zip(record["image"], record["label"], strict=True):
                    yield place, {"writer": client, "image": image, "label": int(label)}
                    place += 1

    tfds.disable_progress_bar()
    builder = Ordinary(data_dir=str(home), file_format=file_format)
    builder.download_and_prepare()
    return Path(builder.data_dir)


def fake(feature: Any, rng: np.random.Generator) -> Any:
    """Something that a feature can hold."""
    import tensorflow_datasets as tfds
    from PIL import Image

    if isinstance(feature, tfds.features.FeaturesDict):
        return {name: fake(inner, rng) for name, inner in feature.items()}
    if isinstance(feature, tfds.features.Sequence):
        inner, n = feature.feature, 3
        if isinstance(inner, tfds.features.FeaturesDict):
            return {name: [fake(each, rng) for _ in range(n)] for name, each in inner.items()}
        return [fake(inner, rng) for _ in range(n)]
    if isinstance(feature, tfds.features.Image):
        pixels = rng.integers(0, 256, feature.shape).astype(np.uint8)
        return Image.fromarray(pixels if pixels.shape[-1] == 3 else pixels[..., 0])
    if isinstance(feature, tfds.features.ClassLabel):
        return int(rng.integers(feature.num_classes))
    if np.dtype(feature.np_dtype).kind == "O":
        return " ".join(rng.choice(["good", "bad", "film", "tweet"], 6))
    return np.asarray(rng.integers(0, 5), feature.np_dtype)
