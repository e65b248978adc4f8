"""Comparison of runs: a figure and a table."""

from fedjax_sim.report.plots import plot_runs
from fedjax_sim.report.tables import comparison

__all__ = ["comparison", "plot_runs"]
