"""Where federated data come from: a reader for each format, chosen by what a path is, and what turns it into a prepared data set.

To add one: a file with ``matches(path) -> bool`` and ``read(path, *, ...) -> Found``, and a line in :data:`REGISTRY`. A reader's
options are its keywords; it imports what is not always installed when it is called.
"""

from fedjax_sim.data.sources.base import Found, Split, aligned
from fedjax_sim.data.sources.prepare import prepare
from fedjax_sim.data.sources.registry import REGISTRY, Reader, choose

__all__ = ["REGISTRY", "Found", "Reader", "Split", "aligned", "choose", "prepare"]
