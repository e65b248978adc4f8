"""pfl-research: its simulated backend in two processes of one thread under torchrun.

Clients are distributed over the processes by size. Measured on two cores, on W1 and W3: two
processes of one thread take half the time of one process of two threads, or less.
"""

from __future__ import annotations

import itertools
import os
import sys

import multiprocess
import torch
import torch_models
from pfl.aggregate.simulate import SimulatedBackend
from pfl.aggregate.weighting import WeightByDatapoints, WeightByUser, WeightingStrategy
from pfl.algorithm.base import FederatedNNAlgorithm, NNAlgorithmParams
from pfl.algorithm.federated_averaging import FederatedAveraging
from pfl.algorithm.scaffold import SCAFFOLD, SCAFFOLDParams
from pfl.callback.base import TrainingProcessCallback
from pfl.data.dataset import Dataset
from pfl.data.federated_dataset import FederatedDataset
from pfl.data.user_state import InMemoryUserStateStorage
from pfl.hyperparam import NNTrainHyperParams
from pfl.internal.ops import pytorch_ops
from pfl.metrics import Metrics, Weighted
from pfl.model.pytorch import PyTorchModel
from protocol import Gate, Job, job_of_script, serve_loop


class Module(torch.nn.Module):
    """A model with the two methods that pfl calls."""

    def __init__(self, net: torch.nn.Module) -> None:
        super().__init__()
        self.net = net

    def loss(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return torch_models.loss(self.net(x), y)

    def metrics(self, *_: torch.Tensor) -> dict:
        return {"nothing": Weighted(0, 1)}  # pfl evaluates once, and requires a metric


class Rounds(TrainingProcessCallback):
    """Lets the driver decide when the next round begins, and sends that to the other processes."""

    def __init__(self, gate: Gate | None) -> None:
        self.gate = gate

    def on_train_begin(self, **_: object) -> Metrics:
        self._begin()
        return Metrics()

    def after_central_iteration(
        self, _: Metrics, model: PyTorchModel, **__: object
    ) -> tuple[bool, Metrics]:
        if self.gate:
            self.gate.end(lambda: torch_models.flatten(model.pytorch_model.net))
        return self._begin(), Metrics()

    def _begin(self) -> bool:
        stop = torch.tensor([0.0 if self.gate is None or self.gate.begin() else 1.0])
        return bool(pytorch_ops.distributed.all_reduce([stop])[0].item())


def federation(job: Job) -> FederatedDataset:
    """The fixed cohort, in every round, assigned greedily to the processes by size."""
    users = {
        str(i): Dataset(tensors, user_id=str(i))
        for i, tensors in enumerate(torch_models.tensors(job))
    }
    order = itertools.cycle(users)
    return FederatedDataset(
        users.__getitem__, lambda: next(order), dict(zip(users, job.sizes(), strict=True))
    )


def algorithm(job: Job) -> tuple[FederatedNNAlgorithm, NNAlgorithmParams, WeightingStrategy]:
    """The job's algorithm, its settings, and how it weights clients.

    SCAFFOLD of pfl 0.6.0 updates ``c_i`` with ``(y - x) / (K lr)``, the paper with
    ``(x - y) / (K lr)``, so that its second round is that of another algorithm. With the sign
    reversed it ends in our model (measured: 1e-6 apart).
    """
    never = sys.maxsize
    settings = {
        "central_num_iterations": never,
        "evaluation_frequency": never,
        "train_cohort_size": len(job.cohort),
        "val_cohort_size": 0,
    }
    if job.algorithm == "fedavg":
        return FederatedAveraging(), NNAlgorithmParams(**settings), WeightByDatapoints()
    # Each process keeps the states of its own users in memory: the cohort, and the users of each
    # process, are the same in every round.
    scaffold = {
        "population": len(job.offsets) - 1,
        "use_gradient_as_control_variate": False,
        "user_state_storage": InMemoryUserStateStorage(),
    }
    return SCAFFOLD(), SCAFFOLDParams(**settings, **scaffold), WeightByUser()


def run(job: Job, gate: Gate | None) -> None:
    """The simulation, until the driver ends it; only the first process has a gate."""
    module = Module(torch_models.build(job))
    model = PyTorchModel(module, torch.optim.SGD, torch.optim.SGD(module.parameters(), lr=1.0))
    data = federation(job)
    method, settings, weighting = algorithm(job)
    method.run(
        settings,
        SimulatedBackend(data, data, [weighting]),
        model,
        NNTrainHyperParams(
            local_num_epochs=job.epochs, local_learning_rate=job.lr, local_batch_size=job.batch_size
        ),
        callbacks=[Rounds(gate)],
        send_metrics_to_platform=False,
    )
    for sampler in multiprocess.active_children():  # the processes that distribute the cohort
        sampler.terminate()


if __name__ == "__main__":
    if os.environ["RANK"] == "0":
        serve_loop(run, "pfl", "torch")
    else:
        run(job_of_script(), None)
