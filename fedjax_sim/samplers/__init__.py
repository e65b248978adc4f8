"""Samplers: which clients take part, with what delay, for how many steps."""

from fedjax_sim.core import registry
from fedjax_sim.samplers.base import cyclic, full, poisson, roster, stateless, uniform, unobserved
from fedjax_sim.samplers.wrappers import dropout, step_budget, stragglers

registry.declare(
    registry.Kind("sampler", "samplers", "which clients take part in a round", section="sampler")
)
uniform = registry.register("sampler", uniform)
poisson = registry.register("sampler", poisson)
full = registry.register("sampler", full)
cyclic = registry.register("sampler", cyclic)

registry.declare(
    registry.Kind(
        "sampler_wrapper",
        "sampler_wrappers",
        "changes what a sampler chose; applied in this order, the first innermost",
        wraps="sampler",
        provided=1,
    )
)
dropout = registry.register("sampler_wrapper", dropout)
stragglers = registry.register("sampler_wrapper", stragglers)
step_budget = registry.register("sampler_wrapper", step_budget)

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
