"""What every other part of the simulator knows about a model: two pure functions."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from fedjax_sim.core.types import PyTree


class Model(NamedTuple):
    """A model. ``x`` is a batch of inputs, ``[B, ...]`` in every leaf; nothing survives a call but what it returns.

    ``params`` is what is trained and sent; ``state`` is everything else (batch statistics, counters), ``{}`` where there is none.
    """

    init: Callable[..., tuple[PyTree, PyTree]]
    """``(key, x) -> (params, state)``. Of ``x`` only the shapes and dtypes matter."""
    apply: Callable[..., tuple[PyTree, PyTree]]
    """``(params, state, x, *, train, key) -> (out, state)``. ``train`` is a Python bool; with ``train=False`` the state comes back
    as it was given. ``key`` may be ``None`` where nothing is drawn."""
