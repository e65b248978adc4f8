"""Runs of the tiny program."""

import io

import jax
import tiny
from rich.console import Console

from fedjax_sim.simulation.simulate import simulate
from fedjax_sim.simulation.writers import Writer


def go(program=None, rounds=6, **settings):
    settings = {"progress": False, "console": Console(file=io.StringIO()), **settings}
    return simulate(program or tiny.program(), tiny.variables(), rounds=rounds, **settings)


def accuracy(state):
    """An evaluation that tells at which round it was made."""
    return {"test/accuracy": jax.numpy.float32(int(state.round) / 10)}


def blank():
    return jax.eval_shape(lambda: tiny.first(tiny.variables()))


class FakeWriter(Writer):
    """A writer without a file: it notes that it was closed, and then raises its error, if any."""

    def __init__(self, error=None):
        self.error = error
        self.closed = False

    def write(self, round_, row):
        pass

    def close(self):
        self.closed = True
        if self.error is not None:
            raise self.error
