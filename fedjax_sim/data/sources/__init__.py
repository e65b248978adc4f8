"""Readers of federated data, one per format, and the conversion to a prepared data set.

To add a format, write a file with ``matches(path) -> bool`` and ``read(path, *, ...) ->
SourceData``, and register a :class:`Reader` for it. The options of a reader are its keyword-only
parameters. A reader imports optional libraries when it is called.
"""

from fedjax_sim.data.sources.base import SourceData, Split, aligned
from fedjax_sim.data.sources.prepare import prepare
from fedjax_sim.data.sources.registry import REGISTRY, Reader, choose

__all__ = ["REGISTRY", "Reader", "SourceData", "Split", "aligned", "choose", "prepare"]
