"""Runs of the tiny program."""

import io

import jax
import tiny
from rich.console import Console

from fedjax_sim.simulation.simulate import simulate


def go(program=None, rounds=6, **settings):
    settings = {"progress": False, "console": Console(file=io.StringIO()), **settings}
    return simulate(program or tiny.program(), tiny.variables(), rounds=rounds, **settings)


def accuracy(state):
    """An evaluation that tells at which round it was made."""
    return {"test/accuracy": jax.numpy.float32(int(state.round) / 10)}


def blank():
    return jax.eval_shape(lambda: tiny.first(tiny.variables()))
