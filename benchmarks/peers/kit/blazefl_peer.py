"""BlazeFL: the server handler and client trainer of its ``contrib.fedavg``."""

from __future__ import annotations

import enum
from collections.abc import Callable

from protocol import Job, Params, serve  # isort: skip  # before the framework, which prints

import torch
import torch_data
import torch_models
from blazefl.contrib import (
    FedAvgBaseClientTrainer,
    FedAvgBaseServerHandler,
    FedAvgThreadPoolClientTrainer,
)

FOREVER = 10**6


class Name(enum.StrEnum):
    """BlazeFL chooses models by name; there is one."""

    ONE = "one"


class Models:
    """BlazeFL's ``ModelSelector``."""

    def __init__(self, job: Job) -> None:
        self.job = job

    def select_model(self, model_name: str) -> torch.nn.Module:  # noqa: ARG002
        """A new model."""
        return torch_data.classifier(self.job)


class Data:
    """BlazeFL's ``PartitionedDataset``: batches made beforehand."""

    def __init__(self, job: Job) -> None:
        self.batches = torch_data.batches(job)

    def get_dataloader(
        self,
        type_: str,  # noqa: ARG002
        cid: int,
        batch_size: int,  # noqa: ARG002
        generator: torch.Generator,  # noqa: ARG002
    ) -> torch_data.Batches:
        """The client's batches, in the order of the data."""
        return self.batches[cid]


def setup(job: Job) -> tuple[Callable[[], None], Callable[[], Params]]:
    """The handler and the trainer, driven as BlazeFL's examples drive theirs."""
    clients = len(job.cohort)
    models = Models(job)
    data = Data(job)
    torch.set_num_threads(1)
    handler = FedAvgBaseServerHandler(
        models, Name.ONE, data, FOREVER, clients, 1.0, "cpu", job.batch_size, job.seed
    )
    settings = (
        models,
        Name.ONE,
        data,
        "cpu",
        clients,
        job.epochs,
        job.batch_size,
        job.lr,
        job.seed,
    )
    # Threads help if torch computes, without holding the lock of Python, for most of a step.
    serial = torch_data.is_small(job)
    trainer = (
        FedAvgBaseClientTrainer(*settings)
        if serial
        else FedAvgThreadPoolClientTrainer(*settings, torch_data.cores())
    )

    def round() -> None:
        sampled = handler.sample_clients()
        trainer.local_process(handler.downlink_package(), sampled)
        for package in trainer.uplink_package():
            handler.load(package)

    return round, lambda: torch_models.flatten(handler.model)


if __name__ == "__main__":
    serve(setup, "blazefl", "torch")
