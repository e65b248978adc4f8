"""FedML: ``FedAvgAPI`` of its single-process simulator, with its own trainer.

FedML's own loader of MNIST returns batches in lists, too. FedML has no callbacks: the driver's
words are read where a round samples its clients and where it would test its model.
"""

from __future__ import annotations

import argparse
import contextlib
import copy

from protocol import Gate, Job, serve_loop  # isort: skip  # before the framework, which prints

import torch
import torch_data
import torch_models
import vision  # noqa: F401  # before FedML, which imports torchvision
from fedml.core import mlops
from fedml.ml.trainer.my_model_trainer_classification import ModelTrainerCLS
from fedml.simulation.sp.fedavg.fedavg_api import FedAvgAPI

FOREVER = 10**6


class Over(Exception):
    """Raised when the driver requests no more rounds."""


class Trainer(ModelTrainerCLS):
    """FedML's trainer, which returns its own tensors, except for the first time a copy.

    The first time is the global model before the first round: without the copy it would change with
    every client, and each client of the first round would start where the one before it ended.
    """

    copied = False

    def get_model_params(self) -> dict[str, torch.Tensor]:
        params = super().get_model_params()
        if not self.copied:
            self.copied = True
            params = copy.deepcopy(params)
        return params


class Simulation(FedAvgAPI):
    """FedML's FedAvg, paused between rounds."""

    def __init__(
        self, gate: Gate, args: argparse.Namespace, dataset: list, model: torch.nn.Module
    ) -> None:
        super().__init__(args, torch.device("cpu"), dataset, model)
        self.gate = gate
        self.model_trainer = Trainer(model, args)
        for client in self.client_list:
            client.model_trainer = self.model_trainer

    def _client_sampling(
        self, round_idx: int, client_num_in_total: int, client_num_per_round: int
    ) -> list[int]:
        if not self.gate.begin():
            raise Over
        return super()._client_sampling(round_idx, client_num_in_total, client_num_per_round)

    def _local_test_on_all_clients(self, round_idx: int) -> None:  # noqa: ARG002
        self.gate.end(lambda: torch_models.flatten(self.model_trainer.model))


def run(job: Job, gate: Gate) -> None:
    """The simulation, until the driver ends it."""
    data = torch_data.batches(job)
    sizes = job.sizes()
    clients = range(len(data))
    args = argparse.Namespace(
        dataset=job.workload,
        client_num_in_total=len(data),
        client_num_per_round=len(data),
        comm_round=FOREVER,
        frequency_of_the_test=1,
        client_optimizer="sgd",
        learning_rate=job.lr,
        epochs=job.epochs,
        batch_size=job.batch_size,
        using_mlops=False,
    )
    # Tracking is off. fedml.init would request settings from FedML's own servers.
    mlops.pre_setup(args)
    local = dict(zip(clients, data, strict=True))
    dataset = [
        sum(sizes),
        0,
        None,
        None,
        dict(zip(clients, sizes, strict=True)),
        local,
        dict.fromkeys(clients),
        job.classes,
    ]
    torch.set_num_threads(1 if torch_data.is_small(job) else torch_data.cores())
    with contextlib.suppress(Over):
        Simulation(gate, args, dataset, torch_data.classifier(job)).train()


if __name__ == "__main__":
    serve_loop(run, "fedml", "torch")
