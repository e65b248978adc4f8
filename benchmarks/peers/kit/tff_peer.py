"""TensorFlow Federated: ``build_weighted_fed_avg`` in its local C++ execution context."""

from __future__ import annotations

import os
from collections.abc import Callable

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "2"

from protocol import Job, Params, serve  # isort: skip  # before the framework, which prints

import keras_models
import tensorflow as tf
import tensorflow_federated as tff


def setup(job: Job) -> tuple[Callable[[], None], Callable[[], Params]]:
    """The process with our initial parameters, and the cohort as batched data sets."""
    tff.backends.native.set_sync_local_cpp_execution_context(
        default_num_clients=len(job.cohort),
        max_concurrent_computation_calls=int(os.environ.get("MC", "0")),
    )
    data = [
        tf.data.Dataset.from_tensor_slices(client).batch(job.batch_size).repeat(job.epochs)
        for client in job.clients()
    ]

    def model() -> tff.learning.models.VariableModel:
        return tff.learning.models.from_keras_model(
            keras_models.build(job),
            input_spec=data[0].element_spec,
            loss=tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        )

    sgd = tff.learning.optimizers.build_sgdm
    loop = tff.learning.LoopImplementation.DATASET_ITERATOR  # half the time of the default on a CPU
    process = tff.learning.algorithms.build_weighted_fed_avg(
        model, sgd(job.lr), sgd(1.0), loop_implementation=loop
    )
    example = keras_models.build(job)
    order = keras_models.names(example)
    weights = tff.learning.models.ModelWeights(keras_models.in_order(example, job.init), [])
    held = {"state": process.set_model_weights(process.initialize(), weights)}

    def round() -> None:
        held["state"] = process.next(held["state"], data).state

    def params() -> Params:
        return dict(zip(order, process.get_model_weights(held["state"]).trainable, strict=True))

    return round, params


if __name__ == "__main__":
    serve(setup, "tensorflow-federated", "tensorflow")
