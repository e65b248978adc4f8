"""Experiments: from a configuration file to a run and its folder."""

from fedjax_sim.experiments.build import build
from fedjax_sim.experiments.experiment import Experiment

__all__ = ["Experiment", "build"]
