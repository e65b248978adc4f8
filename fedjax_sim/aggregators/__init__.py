"""How uploads are combined: stages, and the chain that makes one aggregator of several."""

from fedjax_sim.aggregators.stages import (
    chain,
    clip,
    mean,
    median,
    scaled_sum,
    stage,
    unweighted_mean,
)
from fedjax_sim.core import registry
from fedjax_sim.core.calls import recorded
from fedjax_sim.core.types import Aggregator

chain = recorded("aggregator", "", chain)
registry.declare(
    registry.Kind(
        "aggregator",
        "aggregators",
        "how uploads are combined; several in a list are chained",
        stands_for=(Aggregator,),
        join=chain,
    )
)
mean = registry.register("aggregator", mean)
unweighted_mean = registry.register("aggregator", unweighted_mean)
scaled_sum = registry.register("aggregator", scaled_sum)
clip = registry.register("aggregator", clip)
median = registry.register("aggregator", median)

REGISTRY = registry.entries("aggregator")
"""Aggregators and stages by the name that a configuration file uses."""

__all__ = ["REGISTRY", "chain", "clip", "mean", "median", "scaled_sum", "stage", "unweighted_mean"]
