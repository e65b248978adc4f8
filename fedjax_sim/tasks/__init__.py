"""Tasks: data, a model and an objective, by name.

A data set, and the library that reads it, is loaded when the factory of its task is called.
"""

from fedjax_sim.core import registry
from fedjax_sim.tasks.base import Task, classify
from fedjax_sim.tasks.cifar import cifar10, cifar100
from fedjax_sim.tasks.digits import digits
from fedjax_sim.tasks.emnist import emnist
from fedjax_sim.tasks.har import har
from fedjax_sim.tasks.imdb import imdb
from fedjax_sim.tasks.mnist import mnist
from fedjax_sim.tasks.prepared import prepared
from fedjax_sim.tasks.quadratic import quadratic
from fedjax_sim.tasks.shakespeare import shakespeare
from fedjax_sim.tasks.synthetic import synthetic

registry.declare(
    registry.Kind("task", "tasks", "data, a model and an objective", key="name", section="task")
)
digits = registry.register("task", digits)
synthetic = registry.register("task", synthetic)
quadratic = registry.register("task", quadratic)
mnist = registry.register("task", mnist)
har = registry.register("task", har)
shakespeare = registry.register("task", shakespeare)
emnist = registry.register("task", emnist)
cifar10 = registry.register("task", cifar10)
cifar100 = registry.register("task", cifar100)
imdb = registry.register("task", imdb)
prepared = registry.register("task", prepared)

REGISTRY = registry.entries("task")
"""Tasks by name. A factory takes keyword settings only, all with defaults."""

__all__ = [
    "REGISTRY",
    "Task",
    "cifar10",
    "cifar100",
    "classify",
    "digits",
    "emnist",
    "har",
    "imdb",
    "mnist",
    "prepared",
    "quadratic",
    "shakespeare",
    "synthetic",
]
