"""Workloads: deterministic data, a model and local work, the same bytes for every contender."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np

from fedjax_sim import samplers
from fedjax_sim.core.types import Algorithm, Objective, Sampler, Variables
from fedjax_sim.data.batching import LocalWork, local_work
from fedjax_sim.data.population import Population, Table, population, to_table
from fedjax_sim.engine import Engine, make_plan
from fedjax_sim.engine.devices.backends import make_backend
from fedjax_sim.models import REGISTRY as MODELS
from fedjax_sim.models import Model, mixed_precision
from fedjax_sim.models.objectives import classification


class Workload(NamedTuple):
    """A fixed cohort of a fixed population, so that every round is the same amount of work."""

    name: str
    description: str
    """A description of one line."""
    model: str
    """Its name in ``fedjax_sim.models.REGISTRY``."""
    data: Population
    network: Model
    objective: Objective
    init: Callable[[], Variables]
    local_work: LocalWork
    cohort: np.ndarray
    """int32[C], ids of the clients in every round."""
    lr: float
    algorithm: str = "fedavg"

    @property
    def table(self) -> Table:
        """The data on the first device.

        All contenders share one copy, because the address of a copy changes the time of a round by
        some per cent.
        """
        return _placed(self.data)

    @property
    def sampler(self) -> Sampler:
        """The fixed cohort as a sampler."""
        return samplers.stateless(
            lambda population: len(self.cohort),
            lambda key, population, round: jax.numpy.asarray(self.cohort),
        )

    def narrowed(self) -> Workload:
        """The same, computed in bfloat16; parameters, gradients and sums stay float32."""
        return self._replace(objective=classification(mixed_precision(self.network, "bfloat16")))

    def federated(self) -> Algorithm:
        """The workload's algorithm with its settings."""
        from fedjax_sim.algorithms import REGISTRY

        return REGISTRY[self.algorithm].factory(self.objective, lr=self.lr)


_PLACED: list[tuple[Population, Table]] = []
"""The last workload's data, and their table on the device."""


def _placed(data: Population) -> Table:
    if not (_PLACED and _PLACED[0][0] is data):
        backend = make_backend(make_plan(Engine(devices=1), int(data.sizes.max())))
        _PLACED[:] = [(data, backend.share(to_table(data)))]
    return _PLACED[0][1]


def lognormal_sizes(
    rng: np.random.Generator, clients: int, mean: float, sigma: float, low: int, high: int
) -> np.ndarray:
    """Sizes of unequal clients, int64[clients]: log-normal with this mean, clipped."""
    sizes = rng.lognormal(np.log(mean) - sigma**2 / 2, sigma, clients)
    return np.clip(sizes, low, high).astype(np.int64)


def images(
    rng: np.random.Generator, sizes: np.ndarray, shape: tuple[int, ...], classes: int
) -> Population:
    """Random images and labels."""
    count = int(sizes.sum())
    x = rng.standard_normal((count, *shape), dtype=np.float32)
    y = rng.integers(0, classes, count).astype(np.int32)
    return population(x, y, np.concatenate([[0], np.cumsum(sizes)]))


def _classify(
    name: str,
    description: str,
    data: Population,
    model: str,
    classes: int,
    cohort: int,
    local_work: LocalWork,
    **settings,
) -> Workload:
    network = MODELS[model](classes, **settings.pop("network", {}))
    example = jax.tree.map(lambda leaf: leaf[:1], data.x)
    ids = np.random.default_rng(1).choice(data.clients, cohort, replace=False).astype(np.int32)

    def init() -> Variables:
        return Variables(*network.init(jax.random.key(0), example))

    return Workload(
        name,
        description,
        model,
        data,
        network,
        classification(network),
        init,
        local_work,
        ids,
        settings.pop("lr", 0.05),
        **settings,
    )


def unequal(shape: tuple[int, ...]) -> Population:
    """1,000 clients with 10 to 800 examples each, log-normal, similar to EMNIST's."""
    rng = np.random.default_rng(0)
    return images(rng, lognormal_sizes(rng, 1000, 200, 0.6, 10, 800), shape, 62)


def w1(cohort: int = 50) -> Workload:
    """Logistic regression on unequal clients."""
    description = f"logistic regression 784-62, log-normal clients, cohort {cohort}, batch 20"
    return _classify("W1", description, unequal((784,)), "logistic", 62, cohort, local_work(20))


def w2() -> Workload:
    """The EMNIST CNN on the same clients."""
    description = "EMNIST CNN, 1.2 M parameters, log-normal clients, cohort 10, batch 20"
    # No dropout: peers draw other random numbers.
    network = {"dropout_convolution": 0.0, "dropout_dense": 0.0}
    return _classify(
        "W2",
        description,
        unequal((28, 28, 1)),
        "emnist_cnn",
        62,
        10,
        local_work(20),
        network=network,
    )


def w3(algorithm: str = "fedavg", name: str = "W3") -> Workload:
    """The 2NN of the FedAvg paper on equal clients."""
    rng = np.random.default_rng(0)
    data = images(rng, np.full(100, 600), (784,), 10)
    return _classify(
        name,
        f"2NN, 100 x 600 examples, cohort 10, batch 10, {algorithm}",
        data,
        "mlp",
        10,
        10,
        local_work(10),
        algorithm=algorithm,
    )


def w4() -> Workload:
    """The character LSTM."""
    rng = np.random.default_rng(0)
    sizes = np.full(50, 30)
    x = rng.integers(0, 90, (int(sizes.sum()), 80)).astype(np.int32)
    data = population(x, np.roll(x, -1, axis=1), np.concatenate([[0], np.cumsum(sizes)]))
    return _classify(
        "W4",
        "char-LSTM 2 x 256, length 80, cohort 10, batch 10",
        data,
        "char_lstm",
        90,
        10,
        local_work(10),
        lr=0.1,
    )


def w5() -> Workload:
    """A tiny linear model, one step each: almost all time is overhead."""
    rng = np.random.default_rng(0)
    return _classify(
        "W5",
        "linear 32-10, cohort 1,000, one step each",
        images(rng, np.full(1000, 20), (32,), 10),
        "logistic",
        10,
        1000,
        local_work(20),
    )


def w6() -> Workload:
    """SCAFFOLD on W3: client memory is read and written in every round."""
    return w3("scaffold", "W6")


def w7() -> Workload:
    """ResNet-18 with GroupNorm."""
    rng = np.random.default_rng(0)
    data = images(rng, np.full(1000, 50), (32, 32, 3), 10)
    return _classify(
        "W7",
        "ResNet-18 GroupNorm on 32x32x3, 50 examples each, cohort 50, batch 10",
        data,
        "resnet",
        10,
        50,
        local_work(10),
    )


WORKLOADS: dict[str, Callable[[], Workload]] = {
    "W1": w1,
    "W2": w2,
    "W3": w3,
    "W4": w4,
    "W5": w5,
    "W6": w6,
    "W7": w7,
}
