"""Upload codecs, and the wrapper that lets a client send later what a codec leaves out today."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from fedjax_sim.clients.personalization import Private
from fedjax_sim.core import tree
from fedjax_sim.core.errors import fraction as check_fraction
from fedjax_sim.core.types import (
    Array,
    Key,
    Learner,
    Mean,
    Message,
    Metrics,
    PyTree,
    Upload,
    Variables,
)


class Codec(NamedTuple):
    """A lossy code for pseudo-gradients."""

    transmit: Callable[[Key, PyTree], PyTree]
    """``(key, tree) -> tree``: what the server decodes."""
    nbytes: Callable[[PyTree], int]
    """``tree (or its shapes) -> bytes`` on the wire."""


def top_k(fraction: float) -> Codec:
    """Keeps the largest ``fraction`` of each leaf's entries by magnitude, at least one; sends values (4 bytes) and places (4 bytes)."""
    check_fraction("top_k.fraction", fraction)

    def kept(size: int) -> int:
        return max(1, round(fraction * size))

    def sparse(leaf: Array) -> Array:
        flat = leaf.reshape(-1)
        _, places = lax.top_k(jnp.abs(flat), kept(flat.size))
        return jnp.zeros_like(flat).at[places].set(flat[places]).reshape(leaf.shape)

    def nbytes(values: PyTree) -> int:
        return sum(8 * kept(math.prod(leaf.shape)) for leaf in jax.tree.leaves(values))

    return Codec(lambda key, values: jax.tree.map(sparse, values), nbytes)


def error_feedback(learner: Learner, codec: Codec) -> Learner:
    """Sends the codec's version of ``delta + residual`` and remembers the rest (Seide et al. 2014; Karimireddy et al. 2019, Algorithm 1).

    Law: what was sent, added up, plus the residual equals what was wanted, added up.
    """

    def init(variables: Variables) -> Private:
        return Private(learner.init(variables), tree.zeros_like(variables.params))

    def start(key: Key, message: Message, memory: Private) -> PyTree:
        return learner.start(key, message, memory.inner)

    def step(
        key: Key, message: Message, memory: Private, local: PyTree, batch: PyTree
    ) -> tuple[PyTree, Metrics]:
        return learner.step(key, message, memory.inner, local, batch)

    def finish(
        key: Key, message: Message, memory: Private, local: PyTree
    ) -> tuple[Upload, Private, Metrics]:
        upload, inner, metrics = learner.finish(key, message, memory.inner, local)
        wanted = tree.add(upload.delta, memory.own)
        sent = codec.transmit(jax.random.fold_in(key, 1), wanted)
        residual = tree.sub(wanted, sent)
        report = {"residual_norm": Mean(tree.norm(residual), jnp.float32(1))}
        return upload._replace(delta=sent), Private(inner, residual), {**metrics, **report}

    def personal(message: Message, memory: Private) -> Variables:
        return learner.personal(message, memory.inner)

    return Learner(init, start, step, finish, personal)
