"""Models and data for frameworks that bring their own loop of SGD with ``nn.CrossEntropyLoss``."""

from __future__ import annotations

import os

import torch
import torch_models
from protocol import Job

Batches = list[tuple[torch.Tensor, torch.Tensor]]


def classifier(job: Job) -> torch.nn.Module:
    """The job's model, its logits as ``nn.CrossEntropyLoss`` expects them: classes second.

    Then tokens are averaged as examples.
    """
    module = torch_models.build(job)
    if job.model == "char_lstm":
        module.register_forward_hook(_classes_second)
    return module


def batches(job: Job) -> list[Batches]:
    """Every client's batches, in the order of the data, the last one partial."""
    return [
        list(zip(x.split(job.batch_size), y.split(job.batch_size), strict=True))
        for x, y in torch_models.tensors(job)
    ]


def is_small(job: Job) -> bool:
    """Whether the model's products are so small that several threads are slower than one."""
    return job.model in ("logistic", "mlp")


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0))


def _classes_second(
    module: torch.nn.Module, inputs: tuple[torch.Tensor, ...], logits: torch.Tensor
) -> torch.Tensor:
    return logits.transpose(1, -1)
