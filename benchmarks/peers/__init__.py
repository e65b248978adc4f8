"""Other simulators on our workloads, each in an environment of its own: see ``race.race``.

A peer is an entry of ``PEERS`` and a script in ``kit/``. Every script runs one epoch of SGD per
client and round through the framework's own simulation engine, and must end in our model before its
time is reported. The environments are in a cache folder.
"""

from __future__ import annotations

from typing import NamedTuple

TORCH = "torch==2.13.0"
TWO = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2")
NO_SCAFFOLD = "has no SCAFFOLD"
PASSIVE = (("OMP_WAIT_POLICY", "passive"),)
"""Waiting threads release their core. By default they spin, which on a machine with other work
makes two threads slower than one."""

CROWD = "runs every client of a round in a process of its own, half a gigabyte each: {} of them"

P2PFL_NEEDS = (
    TORCH,
    "click==8.1.8",
    "datasets==2.15.0",
    "fsspec==2023.10.0",
    "grpcio==1.85.1",
    "grpcio-tools==1.85.1",
    "huggingface_hub==0.25.2",
    "lightning==2.6.6",
    "matplotlib==3.11.2",
    "numpy==1.26.4",
    "opendp==0.13.0",
    "pandas==2.3.3",
    "protobuf==7.36.2",
    "psutil==5.9.8",
    "pyarrow==19.0.1",
    "pyyaml==6.0.3",
    "ray==2.55.1",
    "torchmetrics==1.9.0",
    "tqdm==4.70.1",
    "typer==0.12.5",
)
"""What p2pfl 0.4.4 requires, except for its torchvision (before 0.18), which allows no current
torch; also pins that it does not have."""

TFF_NEEDS = (
    "tensorflow==2.14.1",
    "jax==0.4.13",
    "jaxlib==0.4.13",
    "attrs==23.1.0",
    "cachetools==5.5.2",
    "dm-tree==0.1.8",
    "dp-accounting==0.4.3",
    "google-vizier==0.1.11",
    "googleapis-common-protos==1.61.0",
    "numpy==1.25.2",
    "portpicker==1.6.0",
    "scipy==1.9.3",
    "tensorflow-model-optimization==0.7.5",
    "tensorflow-privacy==0.9.0",
    "tqdm==4.70.1",
    "typing-extensions==4.5.0",
)
"""What TensorFlow Federated 0.87 requires, except for jax and jaxlib 0.4.14: the package index no
longer has that jaxlib."""


class Peer(NamedTuple):
    """Another simulator."""

    name: str
    python: str
    """The interpreter's version, ``"3.11"``."""
    requires: tuple[str, ...]
    """Pinned requirements. torch is always the CPU build."""
    script: str
    """Its script in ``kit/``, without ``.py``."""
    description: str
    """How it runs clients."""
    cannot: dict[str, str] = {"W6": NO_SCAFFOLD}
    """Workloads that it does not run, and why."""
    launch: tuple[str, ...] = ()
    """Words between Python and the script: a launcher of processes."""
    alone: tuple[str, ...] = ()
    """Pinned requirements installed last, without their own requirements, which pin a version of
    another package, or of Python, that is not available (any more) and is not needed."""
    settings: tuple[tuple[str, str], ...] = ()
    """Environment variables of its process, among them those its documentation advises for CPUs."""


PEERS: dict[str, Peer] = {
    peer.name: peer
    for peer in (
        Peer(
            "fedjax",
            "3.12",
            ("fedjax==0.0.17", "dm-haiku==0.0.17", "jax==0.12.0.1"),
            "fedjax_peer",
            "clients in sequence, one dispatch per local step",
        ),
        Peer(
            "drjax",
            "3.12",
            ("drjax==0.2.1", "jax==0.12.0.1"),
            "drjax_peer",
            "one vmap over the padded cohort, sharded over 2 devices",
            {
                "W6": NO_SCAFFOLD,
                "W7": "needs more than 19 GB: it trains all clients of the round at once",
            },
        ),
        Peer(
            "pfl",
            "3.11",
            ("pfl==0.6.0", TORCH),
            "pfl_peer",
            "clients in sequence in each of 2 processes, greedily balanced",
            {},
            TWO,
        ),
        Peer(
            "flower",
            "3.11",
            ("flwr[simulation]==1.41.0", TORCH),
            "flower_peer",
            "Ray, 2 client actors of 1 CPU",
        ),
        Peer(
            "tff",
            "3.11",
            TFF_NEEDS,
            "tff_peer",
            "a C++ executor over TensorFlow graphs",
            alone=("tensorflow-federated==0.87.0",),
        ),
        Peer(
            "fedml",
            "3.11",
            ("fedml==0.9.6", "numpy==1.26.4", "setuptools==80.9.0", TORCH),
            "fedml_peer",
            "clients in sequence in one process",
            cannot={
                "W6": "its SCAFFOLD never stores the control variate that a client has computed"
            },
            settings=PASSIVE,
        ),
        Peer(
            "blazefl",
            "3.11",
            (TORCH, "numpy==2.4.6", "tqdm==4.70.1"),
            "blazefl_peer",
            "clients in sequence, those of larger models in 2 threads",
            alone=("blazefl==2.0.3",),
        ),
        Peer(
            "plato",
            "3.11",
            ("plato-learn==1.0", "numpy==2.4.6", TORCH),
            "plato_peer",
            "one process per client",
            cannot={
                "W1": CROWD.format(50),
                "W5": CROWD.format("1,000"),
                "W6": NO_SCAFFOLD,
                "W7": CROWD.format(50),
            },
        ),
        Peer(
            "p2pfl",
            "3.11",
            P2PFL_NEEDS,
            "p2pfl_peer",
            "every client a node that gossips, training in 2 Ray actors",
            cannot={
                "W5": "has no sampling of clients: 1,000 nodes, each with its threads, that gossip "
                "with all others",
                "W6": "its SCAFFOLD was not tried",
                "W7": "50 nodes, which on W1 do not start within 300 s",
            },
            alone=("p2pfl==0.4.4", "torchvision==0.28.0"),
        ),
    )
}
