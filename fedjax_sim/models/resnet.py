"""Residual networks for small images, with group normalisation by default."""

from __future__ import annotations

from typing import Literal

from flax import linen as nn

from fedjax_sim.core.errors import positive, require
from fedjax_sim.core.types import Array
from fedjax_sim.models.adapters import from_linen
from fedjax_sim.models.base import Model
from fedjax_sim.models.images import images


def resnet(
    classes: int,
    stages: tuple[int, ...] = (2, 2, 2, 2),
    width: int = 64,
    groups: int = 2,
    norm: Literal["group", "batch"] = "group",
) -> Model:
    """A residual network of basic blocks with a 3x3 stem, for 32x32 images.

    The default is ResNet-18.

    | layer | output | parameters, 32x32x3 images and 10 classes |
    |---|---|---|
    | convolution 3x3, norm, ReLU | ``[B, 32, 32, 64]`` | 1,856 |
    | 2 blocks of 64 | ``[B, 32, 32, 64]`` | 147,968 |
    | 2 blocks of 128, the first halves the image | ``[B, 16, 16, 128]`` | 525,568 |
    | 2 blocks of 256, likewise | ``[B, 8, 8, 256]`` | 2,099,712 |
    | 2 blocks of 512, likewise | ``[B, 4, 4, 512]`` | 8,393,728 |
    | mean over the image, dense | ``[B, 10]`` | 5,130 |

    11,173,962 parameters. A block is convolution 3x3, norm, ReLU, convolution 3x3, norm, plus the
    input (through a 1x1 convolution and norm if shapes differ), ReLU; convolutions have no bias.

    Args:
      classes: number of logits.
      stages: number of blocks in each stage; each later stage doubles the channels and halves the
        image. ``(3, 4, 6, 3)`` is ResNet-34; ``(3, 3, 3)`` with width 16 is a ResNet-20.
      width: channels of the first stage.
      groups: groups of each group normalisation, a divisor of ``width``; 2 in Reddi et al.
      norm: ``"group"`` has no state. ``"batch"`` keeps running statistics (momentum 0.9) in the
        model's state; they differ between clients with different labels, so it is for comparison.

    Example:
      >>> import fedjax_sim as fs
      >>> import jax
      >>> import numpy as np
      >>> model = fs.models.resnet(classes=10)
      >>> x = np.zeros((4, 32, 32, 3), np.uint8)
      >>> params, state = jax.eval_shape(model.init, jax.random.key(0), x)
      >>> sum(leaf.size for leaf in jax.tree.leaves(params))
      11173962

    Reference: He et al., "Deep Residual Learning for Image Recognition", CVPR 2016; Hsieh et al.,
    "The Non-IID Data Quagmire of Decentralized Machine Learning", ICML 2020 (group for batch
    normalisation); Reddi et al., "Adaptive Federated Optimization", ICLR 2021.
    """
    for name, value in (("classes", classes), ("width", width), ("groups", groups)):
        positive(name, value)
    for blocks in stages:
        positive("stages", blocks)
    require(
        norm in ("group", "batch"),
        "norm must be 'group' or 'batch'",
        got=repr(norm),
        fix="choose 'group' unless you study batch statistics",
        setting="norm",
    )
    require(
        len(stages) > 0,
        "a residual network needs at least one stage",
        got=stages,
        fix="give stages a value such as (2, 2)",
        setting="stages",
    )
    require(
        width % groups == 0,
        "groups must divide width",
        got=f"groups={groups}, width={width}",
        fix="choose groups=2 and an even width",
        setting="groups",
    )
    return from_linen(_ResNet(classes, tuple(stages), width, groups if norm == "group" else None))


def _norm(groups: int | None, train: bool, name: str) -> nn.Module:
    """Returns a group normalisation, or a batch normalisation if ``groups`` is None."""
    if groups is None:
        return nn.BatchNorm(use_running_average=not train, momentum=0.9, name=name)
    return nn.GroupNorm(num_groups=groups, name=name)


class _Block(nn.Module):
    width: int
    stride: int
    groups: int | None

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        strides = (self.stride, self.stride)
        y = nn.Conv(self.width, (3, 3), strides, use_bias=False, name="conv_0")(x)
        y = nn.relu(_norm(self.groups, train, "norm_0")(y))
        y = nn.Conv(self.width, (3, 3), use_bias=False, name="conv_1")(y)
        y = _norm(self.groups, train, "norm_1")(y)
        if x.shape != y.shape:
            x = nn.Conv(self.width, (1, 1), strides, use_bias=False, name="shortcut")(x)
            x = _norm(self.groups, train, "shortcut_norm")(x)
        return nn.relu(x + y)


class _ResNet(nn.Module):
    classes: int
    stages: tuple[int, ...]
    width: int
    groups: int | None

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        x = nn.Conv(self.width, (3, 3), use_bias=False, name="stem")(images(x, least=1))
        x = nn.relu(_norm(self.groups, train, "stem_norm")(x))
        for stage, blocks in enumerate(self.stages):
            for block in range(blocks):
                stride = 2 if stage > 0 and block == 0 else 1
                name = f"stage_{stage}_block_{block}"
                x = _Block(self.width * 2**stage, stride, self.groups, name=name)(x, train)
        return nn.Dense(self.classes, name="head")(x.mean(axis=(1, 2)))
