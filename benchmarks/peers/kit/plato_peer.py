"""Plato: its FedAvg server and one process for each client of the cohort.

This is how Plato simulates without further settings. With ``max_concurrency`` it would run fewer
processes at a time, but start a new Python for every client and round.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import socket
import sys

from protocol import Gate, Job, serve_loop  # isort: skip  # before the framework, which prints

import vision  # noqa: F401  # a client process imports this module before Plato's modules

FOREVER = 10**6


def settings(job: Job) -> dict:
    """Plato's configuration."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    clients = len(job.cohort)
    return {
        "clients": {
            "type": "simple",
            "total_clients": clients,
            "per_round": clients,
            "do_test": False,
        },
        "server": {"address": "127.0.0.1", "port": port, "do_test": False},
        "data": {"datasource": "custom", "sampler": "all_inclusive", "random_seed": job.seed},
        "trainer": {
            "type": "basic",
            "rounds": FOREVER,
            "epochs": job.epochs,
            "batch_size": job.batch_size,
            "optimizer": "SGD",
            "model_name": job.model,
        },
        "algorithm": {"type": "fedavg"},
        "parameters": {"optimizer": {"lr": job.lr}},
    }


def leave() -> None:
    """Ends the client processes and this one."""
    for child in multiprocessing.active_children():
        child.kill()
    os._exit(0)


def run(job: Job, gate: Gate) -> None:
    """The server, until the driver ends it."""
    config = job.folder / "plato.yml"
    config.write_text(json.dumps(settings(job)))  # YAML is a superset of JSON
    os.environ["PLATO_JOB"] = str(job.folder)
    sys.argv[1:] = ["--config", str(config), "--base", str(job.folder), "--cpu", "--log", "warning"]
    import plato_parts  # reads these arguments when it imports Plato

    server = plato_parts.Server(model=plato_parts.model, trainer=plato_parts.Trainer)
    server.gate = gate
    server.leave = leave
    server.run(plato_parts.Client(model=plato_parts.model, trainer=plato_parts.Trainer))


if __name__ == "__main__":
    serve_loop(run, "plato-learn", "torch")
