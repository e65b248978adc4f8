"""Flower: ``ServerApp`` and ``ClientApp`` in its Ray simulation, one client actor per core.

One virtual node per client of the cohort, so that every round takes all nodes. Data and module stay
in the actor between messages, where Flower's tutorials keep their data set.
"""

from __future__ import annotations

import functools
import os
import threading

os.environ.update(
    FLWR_TELEMETRY_ENABLED="0", RAY_USAGE_STATS_ENABLED="0", RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO="0"
)

from protocol import Gate, Job, read_job, serve_loop  # isort: skip  # first: the framework prints

import torch
import torch_models
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg
from flwr.simulation import run_simulation

FOREVER = 10**6


@functools.cache
def client_side(
    folder: str,
) -> tuple[Job, torch.nn.Module, list[tuple[torch.Tensor, torch.Tensor]]]:
    """The job, its module and its clients' data, once per actor."""
    job = read_job(folder)
    return job, torch_models.build(job), torch_models.tensors(job)


def client_app(folder: str) -> ClientApp:
    """A client that trains on the data of its node's partition."""
    app = ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        job, module, data = client_side(folder)
        x, y = data[int(context.node_config["partition-id"])]
        module.load_state_dict(message.content["arrays"].to_torch_state_dict())
        optimizer = torch.optim.SGD(module.parameters(), lr=job.lr)
        for _ in range(job.epochs):
            for some_x, some_y in zip(
                x.split(job.batch_size), y.split(job.batch_size), strict=True
            ):
                optimizer.zero_grad()
                torch_models.loss(module(some_x), some_y).backward()
                optimizer.step()
        reply = RecordDict(
            {
                "arrays": ArrayRecord(module.state_dict()),
                "metrics": MetricRecord({"num-examples": len(y)}),
            }
        )
        return Message(content=reply, reply_to=message)

    return app


def server_app(job: Job, gate: Gate, over: threading.Event) -> ServerApp:
    """FedAvg over all nodes.

    The driver's words are read in its evaluation of the global model, which follows every round.
    """
    app = ServerApp()
    module = torch_models.build(job)
    clients = len(job.cohort)

    def between_rounds(done: int, arrays: ArrayRecord) -> None:
        if done:
            state = arrays.to_torch_state_dict()
            gate.end(lambda: torch_models.from_state(module, state))
        if not gate.begin():
            over.set()
            raise RuntimeError("the driver requests no more rounds")

    @app.main()
    def main(grid: Grid, context: Context) -> None:
        strategy = FedAvg(
            fraction_evaluate=0.0, min_train_nodes=clients, min_available_nodes=clients
        )
        strategy.start(
            grid,
            ArrayRecord(module.state_dict()),
            num_rounds=FOREVER,
            timeout=3600,
            evaluate_fn=between_rounds,
        )

    return app


def run(job: Job, gate: Gate) -> None:
    """The simulation, until the driver ends it."""
    cores = len(os.sched_getaffinity(0))
    resources = {
        "client_resources": {"num_cpus": 1, "num_gpus": 0.0},
        "init_args": {"num_cpus": cores},
    }
    over = threading.Event()
    try:
        run_simulation(
            server_app(job, gate, over),
            client_app(str(job.folder)),
            len(job.cohort),
            backend_config=resources,
        )
    except RuntimeError:
        if not over.is_set():
            raise


if __name__ == "__main__":
    import flower_peer  # by its own name, so that an actor imports it and keeps its caches

    serve_loop(flower_peer.run, "flwr", "ray", "torch")
