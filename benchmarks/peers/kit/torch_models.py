"""The models of the workloads in torch, and their parameters from and to the layout of flax.

| | flax | torch |
|---|---|---|
| dense | kernel ``[in, out]`` | weight ``[out, in]`` |
| convolution | kernel ``[h, w, in, out]`` | weight ``[out, in, h, w]`` |
| images | ``[n, h, w, c]``, flattened in this order | ``[n, c, h, w]``, flattened in this order |
| LSTM | ``input/kernel [in, 4H]``, ``input/bias [4H]`` | ``weight_ih [4H, in]``, ``bias_ih [4H]`` |
| | ``recurrent [H, 4H]`` | ``weight_hh [4H, H]`` |

Both order an LSTM's gates alike. torch's has a second bias; it is 0 and frozen, because two trained
biases would move twice as fast as one.
"""

from __future__ import annotations

import numpy as np
import torch
from protocol import Job, Params
from torch import nn
from torch.nn import functional as F


def build(job: Job) -> nn.Module:
    """The job's model with its initial parameters, ready to train: ``module(inputs) -> logits``."""
    module = MODELS[job.model](job)
    load(module, job.init)
    return module.train()


def tensors(job: Job) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """``(x, y)`` of every client of the cohort as the module and :func:`loss` take them."""
    return [(inputs(job, x), torch.from_numpy(y).long()) for x, y in job.clients()]


def inputs(job: Job, x: np.ndarray) -> torch.Tensor:
    """Inputs as the module takes them: vectors, images ``[n, c, h, w]``, or tokens ``[n, t]``."""
    if job.model in ("logistic", "mlp"):
        return torch.from_numpy(x.reshape(len(x), -1))
    if job.model == "char_lstm":
        return torch.from_numpy(x).long()
    return torch.from_numpy(np.ascontiguousarray(x.transpose(0, 3, 1, 2)))


def loss(logits: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Mean cross-entropy over examples, and over the tokens of sequences."""
    return F.cross_entropy(logits.flatten(0, -2), y.flatten())


# ------------------------------------------------------------------------------------------ modules


class Dense(nn.Module):
    """Dense layers with ReLU between them: the logistic model and the multilayer perceptron."""

    def __init__(self, job: Job) -> None:
        super().__init__()
        hidden = [
            f"hidden_{i}" for i in range(sum(name.endswith("/kernel") for name in job.init) - 1)
        ]
        for name in (*hidden, "head"):
            self.add_module(name, nn.Linear(*job.init[f"{name}/kernel"].shape))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        layers = list(self.children())
        for layer in layers[:-1]:
            x = F.relu(layer(x))
        return layers[-1](x)


class EmnistCnn(nn.Module):
    """The EMNIST CNN, without dropout."""

    def __init__(self, job: Job) -> None:
        super().__init__()
        self.conv_0 = nn.Conv2d(job.init["conv_0/kernel"].shape[2], 32, 3)
        self.conv_1 = nn.Conv2d(32, 64, 3)
        self.hidden = nn.Linear(*job.init["hidden/kernel"].shape)
        self.head = nn.Linear(128, job.classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.conv_1(F.relu(self.conv_0(x))))
        x = F.relu(self.hidden(F.max_pool2d(x, 2).flatten(1)))
        return self.head(x)


class CharLstm(nn.Module):
    """The character LSTM: torch's fused LSTM of all layers."""

    def __init__(self, job: Job) -> None:
        super().__init__()
        self.embedding_of_tokens = nn.Embedding(*job.init["embedding_of_tokens/embedding"].shape)
        width = len(job.init["lstm_0/recurrent"])
        layers = sum(name.endswith("/recurrent") for name in job.init)
        self.lstm = nn.LSTM(self.embedding_of_tokens.embedding_dim, width, layers, batch_first=True)
        for layer in range(layers):
            frozen = getattr(self.lstm, f"bias_hh_l{layer}").requires_grad_(False)
            nn.init.zeros_(frozen)
        self.head = nn.Linear(width, job.classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.lstm(self.embedding_of_tokens(x))[0])


class Block(nn.Module):
    """A residual block."""

    def __init__(self, before: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv_0 = same(before, width, 3, stride)
        self.norm_0 = norm(width)
        self.conv_1 = same(width, width, 3, 1)
        self.norm_1 = norm(width)
        if before != width or stride > 1:
            self.shortcut = same(before, width, 1, stride)
            self.shortcut_norm = norm(width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = F.relu(self.norm_0(self.conv_0(x)))
        y = self.norm_1(self.conv_1(y))
        if hasattr(self, "shortcut"):
            x = self.shortcut_norm(self.shortcut(x))
        return F.relu(x + y)


class Same(nn.Conv2d):
    """A convolution padded as flax's "SAME".

    With stride 2 on an even image the odd pixel of padding is at the end.
    """

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        kernel = self.kernel_size[0]
        stride = self.stride[0]
        total = max(kernel - (input.shape[-1] % stride or stride), 0)
        if total % 2:
            return super().forward(F.pad(input, (total // 2, total - total // 2) * 2))
        return F.conv2d(input, self.weight, None, self.stride, total // 2)


def same(before: int, width: int, kernel: int, stride: int) -> nn.Module:
    """A convolution without bias."""
    return Same(before, width, kernel, stride, bias=False)


def norm(width: int) -> nn.Module:
    """Group normalisation of two groups, with flax's epsilon."""
    return nn.GroupNorm(2, width, eps=1e-6)


class ResNet(nn.Module):
    """ResNet-18 with group normalisation; its shape is that of the initial parameters."""

    def __init__(self, job: Job) -> None:
        super().__init__()
        kernels = {
            name.split("/")[0]: a.shape
            for name, a in job.init.items()
            if name.endswith("conv_0/kernel")
        }
        self.stem = same(*job.init["stem/kernel"].shape[2:], 3, 1)
        self.stem_norm = norm(self.stem.out_channels)
        self.blocks = sorted(kernels)
        for name in self.blocks:
            before, width = job.init[f"{name}/conv_0/kernel"].shape[2:]
            self.add_module(name, Block(before, width, 1 if before == width else 2))
        self.head = nn.Linear(*job.init["head/kernel"].shape)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.stem_norm(self.stem(x)))
        for name in self.blocks:
            x = getattr(self, name)(x)
        return self.head(x.mean(dim=(2, 3)))


MODELS = {
    "logistic": Dense,
    "mlp": Dense,
    "emnist_cnn": EmnistCnn,
    "char_lstm": CharLstm,
    "resnet": ResNet,
}


# --------------------------------------------------------------------------------------- parameters


def load(module: nn.Module, params: Params) -> None:
    """Puts parameters in the layout of flax into a module."""
    own = dict(module.named_parameters())
    with torch.no_grad():
        for name, value in params.items():
            own[torch_name(name)].copy_(
                torch.from_numpy(np.ascontiguousarray(_to_torch(module, name, value)))
            )


def flatten(module: nn.Module) -> Params:
    """A module's parameters in the layout of flax."""
    return from_state(module, module.state_dict())


def from_state(module: nn.Module, state: dict) -> Params:
    """Parameters in the layout of flax from a state dict.

    Args:
      module: the model.
      state: tensors or arrays by torch's names.
    """
    names = [
        flax_name(name, module)
        for name, tensor in module.named_parameters()
        if tensor.requires_grad
    ]
    return {name: _to_flax(module, name, np.asarray(state[torch_name(name)])) for name in names}


def torch_name(name: str) -> str:
    """``"hidden_0/kernel" -> "hidden_0.weight"``."""
    parts = name.split("/")
    if parts[0].startswith("lstm_"):
        kind = {"recurrent": "weight_hh", "kernel": "weight_ih", "bias": "bias_ih"}[parts[-1]]
        return f"lstm.{kind}_l{parts[0].removeprefix('lstm_')}"
    parts[-1] = {"kernel": "weight", "scale": "weight", "embedding": "weight"}.get(
        parts[-1], parts[-1]
    )
    return ".".join(parts)


def flax_name(name: str, module: nn.Module) -> str:
    """The inverse of :func:`torch_name`."""
    *path, kind = name.split(".")
    if path == ["lstm"]:
        kind, layer = kind.rsplit("_l", 1)
        kinds = {"weight_hh": "recurrent", "weight_ih": "input/kernel", "bias_ih": "input/bias"}
        return f"lstm_{layer}/{kinds[kind]}"
    if kind == "weight":
        kind = _kind_of_weight(module.get_submodule(".".join(path)))
    return "/".join((*path, kind))


def _kind_of_weight(module: nn.Module) -> str:
    """flax's name of the parameter that torch calls ``weight``."""
    if isinstance(module, nn.Embedding):
        return "embedding"
    return "scale" if isinstance(module, nn.GroupNorm) else "kernel"


def _to_torch(module: nn.Module, name: str, value: np.ndarray) -> np.ndarray:
    if value.ndim == 4:
        return value.transpose(3, 2, 0, 1)
    if _flattens(module, name):
        side, channels = _image(module, len(value))
        return value.reshape(side, side, channels, -1).transpose(3, 2, 0, 1).reshape(-1, len(value))
    return value.T if value.ndim == 2 and not name.endswith("embedding") else value


def _to_flax(module: nn.Module, name: str, value: np.ndarray) -> np.ndarray:
    if value.ndim == 4:
        return value.transpose(2, 3, 1, 0)
    if _flattens(module, name):
        side, channels = _image(module, value.shape[1])
        return (
            value.reshape(-1, channels, side, side)
            .transpose(2, 3, 1, 0)
            .reshape(value.shape[1], -1)
        )
    return value.T if value.ndim == 2 and not name.endswith("embedding") else value


def _flattens(module: nn.Module, name: str) -> bool:
    """Whether this is the dense layer that reads a flattened image."""
    return isinstance(module, EmnistCnn) and name == "hidden/kernel"


def _image(module: nn.Module, values: int) -> tuple[int, int]:
    channels = module.conv_1.out_channels
    return round((values // channels) ** 0.5), int(channels)
