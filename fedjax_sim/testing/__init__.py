"""Checks that every algorithm must pass, for registered ones and for those of other packages.
Needs no test runner."""

from fedjax_sim.testing.checks import LAWS, PREMISES, RUNS, check_algorithm
from fedjax_sim.testing.failures import CheckError

__all__ = ["LAWS", "PREMISES", "RUNS", "CheckError", "check_algorithm"]
