"""Who takes part, how late, for how many steps."""

from fedjax_sim.core import registry
from fedjax_sim.samplers.base import cyclic, full, poisson, roster, stateless, uniform, unobserved
from fedjax_sim.samplers.wrappers import dropout, step_budget, stragglers

registry.declare(
    registry.Kind("sampler", "samplers", "who takes part in a round", section="sampler")
)
for factory in (uniform, poisson, full, cyclic):
    registry.register("sampler", factory)

registry.declare(
    registry.Kind(
        "sampler_wrapper",
        "sampler_wrappers",
        "changes what a sampler chose; applied in this order, the first innermost",
        wraps="sampler",
        provided=1,
    )
)
for factory in (dropout, stragglers, step_budget):
    registry.register("sampler_wrapper", factory)

REGISTRY = registry.entries("sampler")
"""Samplers by the name that a configuration file uses."""

WRAPPERS = registry.entries("sampler_wrapper")
"""Wrappers ``(sampler, ...) -> sampler`` by name."""

__all__ = [
    "REGISTRY",
    "WRAPPERS",
    "cyclic",
    "dropout",
    "full",
    "poisson",
    "roster",
    "stateless",
    "step_budget",
    "stragglers",
    "uniform",
    "unobserved",
]
