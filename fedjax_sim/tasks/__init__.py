"""Tasks: data, a model and an objective, by name. Data sets and the libraries that hold them load when a factory is called."""

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
for factory in (
    digits,
    synthetic,
    quadratic,
    mnist,
    har,
    shakespeare,
    emnist,
    cifar10,
    cifar100,
    imdb,
    prepared,
):
    registry.register("task", factory)

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
