"""p2pfl: nodes that gossip through its in-memory protocol, trained by Lightning in Ray actors.

There is no server and no sampling: every client of the cohort is a node, and a round is a learning
of one round, started at the first node, after which every node has the mean. Settings are those of
p2pfl for runs on one machine, except for the wait for neighbours when a learning starts: all nodes
are connected already.
"""

from __future__ import annotations

import os
import pathlib
import time
from collections.abc import Callable

os.environ["RAY_USAGE_STATS_ENABLED"] = "0"

from protocol import Job, Params, serve  # isort: skip  # before the framework, which prints
import vision  # isort: skip  # noqa: F401  # before Lightning and p2pfl, which import torchvision

import ray

if __name__ == "__main__":
    # p2pfl starts Ray when it is imported, unless it runs. The actors must find this folder, and
    # make torchvision importable first.
    kit = {
        "env_vars": {"PYTHONPATH": str(pathlib.Path(__file__).parent)},
        "worker_process_setup_hook": "vision.importable",
    }
    ray.init(num_cpus=len(os.sched_getaffinity(0)), include_dashboard=False, runtime_env=kit)

import lightning
import torch
import torch_data
import torch_models
from datasets import Dataset, DatasetDict
from p2pfl.communication.protocols.protobuff.memory import MemoryCommunicationProtocol
from p2pfl.learning.dataset.p2pfl_dataset import P2PFLDataset
from p2pfl.learning.frameworks.pytorch.lightning_model import LightningModel
from p2pfl.node import Node
from p2pfl.settings import Settings
from p2pfl.stages.workflows import LearningWorkflow
from p2pfl.utils.topologies import TopologyFactory, TopologyType
from p2pfl.utils.utils import set_standalone_settings, wait_convergence


class Module(lightning.LightningModule):
    """Our module with SGD, as Lightning trains it."""

    def __init__(self, net: torch.nn.Module, lr: float, unflatten: tuple[int, ...]) -> None:
        super().__init__()
        self.net = net
        self.lr = lr
        self.unflatten = unflatten

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """SGD."""
        return torch.optim.SGD(self.net.parameters(), lr=self.lr)

    def training_step(
        self,
        batch: dict[str, torch.Tensor],
        number: int,  # noqa: ARG002
    ) -> torch.Tensor:
        """The loss of one batch."""
        x = batch["x"].reshape(-1, *self.unflatten)
        return torch_models.loss(self.net(x), batch["y"])

    def test_step(self, batch: dict[str, torch.Tensor], number: int) -> None:
        """p2pfl evaluates in every round; the loss is sufficient."""
        self.log("test_loss", self.training_step(batch, number))


def nodes_of(job: Job) -> list[Node]:
    """A started node for every client; each tests on one example."""
    nodes = []
    for number, (x, y) in enumerate(torch_models.tensors(job)):
        rows = {"x": x.flatten(1).numpy(), "y": y.numpy()}
        data = DatasetDict(
            {
                "train": Dataset.from_dict(rows),
                "test": Dataset.from_dict({k: v[:1] for k, v in rows.items()}),
            }
        )
        model = LightningModel(Module(torch_models.build(job), job.lr, tuple(x.shape[1:])))
        dataset = P2PFLDataset(data.with_format("torch"), batch_size=job.batch_size)
        node = Node(model, dataset, protocol=MemoryCommunicationProtocol(), addr=f"node-{number}")
        node.start()
        nodes.append(node)
    return nodes


def setup(job: Job) -> tuple[Callable[[], None], Callable[[], Params]]:
    """Nodes that are all connected to each other."""
    set_standalone_settings()
    Settings.heartbeat.WAIT_CONVERGENCE = 0
    Settings.training.RAY_ACTOR_POOL_SIZE = torch_data.cores()
    nodes = nodes_of(job)
    TopologyFactory.connect_nodes(
        TopologyFactory.generate_matrix(TopologyType.FULL, len(nodes)), nodes
    )
    wait_convergence(nodes, len(nodes) - 1, only_direct=False, wait=60)

    def round() -> None:
        for node in nodes:
            node.learning_workflow = LearningWorkflow()  # the last one has ended
        nodes[0].set_start_learning(rounds=1, epochs=job.epochs, trainset_size=len(nodes))
        while not all(node.learning_workflow.finished for node in nodes):
            time.sleep(0.01)

    return round, lambda: torch_models.flatten(nodes[0].get_model().get_model().net)


if __name__ == "__main__":
    import p2pfl_peer  # by its own name, so that an actor can import the objects sent to it

    serve(p2pfl_peer.setup, "p2pfl", "ray", "torch")
    os._exit(0)  # its threads would keep the process alive
