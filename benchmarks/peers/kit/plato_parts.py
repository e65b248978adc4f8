"""What a user of Plato writes: a model, a client's data, a loader of batches.

Plato's client processes import this module. They find the job by the environment variable
``PLATO_JOB``, and have one thread of torch each, because there are more of them than cores.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator
from typing import Any

from protocol import Job, read_job  # isort: skip  # before the framework, which prints

import torch
import torch_data
import torch_models
from plato.clients import simple
from plato.datasources import base
from plato.servers import fedavg
from plato.trainers import basic


@functools.cache
def job() -> Job:
    """The job of this run."""
    return read_job(os.environ["PLATO_JOB"])


@functools.cache
def batches() -> list[torch_data.Batches]:
    """All clients' batches, computed once per process."""
    return torch_data.batches(job())


def model() -> torch.nn.Module:
    """The model, with its initial parameters."""
    torch.set_num_threads(1)
    return torch_data.classifier(job())


class Examples:
    """A client's training set: as long as it has examples, and iterated in batches."""

    def __init__(self, client: int) -> None:
        self.batches = batches()[client]

    def __len__(self) -> int:
        return sum(len(y) for _, y in self.batches)

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        return iter(self.batches)


class Data(base.DataSource):
    """The data source of one client."""

    def __init__(self, client: int) -> None:
        super().__init__()
        self.trainset = Examples(client)

    def num_train_examples(self) -> int:
        return len(self.trainset)


class Trainer(basic.Trainer):
    """Plato's trainer over batches in the order of the data."""

    def get_train_loader(
        self,
        batch_size: int,  # noqa: ARG002
        trainset: Examples,
        sampler: Any,  # noqa: ARG002
        **kwargs: Any,  # noqa: ARG002
    ) -> Examples:
        return trainset

    def get_loss_criterion(self) -> torch.nn.Module:
        """Plato's default, made here.

        Its own table of losses names one that its libraries no longer have.
        """
        return torch.nn.CrossEntropyLoss()


class Client(simple.Client):
    """Plato's client with the data of the client that it simulates. Plato counts from 1."""

    def _load_data(self) -> None:
        self.datasource = Data(self.client_id - 1)


class Server(fedavg.Server):
    """Plato's FedAvg server, paused between rounds, which takes all clients in each."""

    gate: Any
    leave: Any

    def choose_clients(self, clients_pool: list[int], clients_count: int) -> list[int]:
        if not self.gate.begin():
            self.leave()
        return clients_pool[:clients_count]

    def clients_processed(self) -> None:
        self.gate.end(lambda: torch_models.flatten(self.trainer.model))
