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

REGISTRY = {
    "mean": mean,
    "unweighted_mean": unweighted_mean,
    "scaled_sum": scaled_sum,
    "clip": clip,
    "median": median,
}
"""Stages by the name that a configuration gives them."""

__all__ = ["REGISTRY", "chain", "clip", "mean", "median", "scaled_sum", "stage", "unweighted_mean"]
