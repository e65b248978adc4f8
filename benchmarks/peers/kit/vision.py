"""Importing this makes torchvision importable where a package index has only its CUDA build, beside a CPU build of torch.

That build's compiled operators do not load, and its import then misses the declaration of two of them. Nothing that the benchmark
runs uses torchvision; the frameworks import it for data sets and models of their own.
"""

from __future__ import annotations

import torch

DECLARED: list[torch.library.Library] = []
"""Kept, for a declaration lives as long as its library."""

try:
    import torchvision
except RuntimeError:
    DECLARED.append(torch.library.Library("torchvision", "DEF"))
    for name in ("nms", "qnms"):
        DECLARED[0].define(f"{name}(Tensor boxes, Tensor scores, float threshold) -> Tensor")
    import torchvision  # noqa: F401


def importable() -> None:
    """Something to call, for frameworks whose workers begin with a call: importing this module has done it."""
