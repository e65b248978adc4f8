"""Importing this makes a CUDA build of torchvision importable beside a CPU build of torch.

For package indexes that have only the CUDA build: its compiled operators do not load, and its
import then fails because two of them are not declared. The benchmark does not use torchvision; the
frameworks import it for data sets and models of their own.
"""

from __future__ import annotations

import torch

DECLARED: list[torch.library.Library] = []
"""Kept, because a declaration exists as long as its library."""

try:
    import torchvision
except RuntimeError:
    DECLARED.append(torch.library.Library("torchvision", "DEF"))
    for name in ("nms", "qnms"):
        DECLARED[0].define(f"{name}(Tensor boxes, Tensor scores, float threshold) -> Tensor")
    import torchvision  # noqa: F401


def importable() -> None:
    """Does nothing; for frameworks whose workers begin with a call, which imports this module."""
