"""Feature skew: what a client's examples look like depends on the client. It changes ``x``, and who holds what stays as it is."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from fedjax_sim.core.errors import not_negative, require
from fedjax_sim.data.partition import generator
from fedjax_sim.data.population import Population

NOISE = 3
"""Stream of a data set's seed, after those of :mod:`fedjax_sim.data.federation`."""


def feature_noise(data: Population, *, noise: float = 0.1, seed: int = 0) -> Population:
    """Gaussian noise that grows from client to client: of standard deviation ``noise * i / (N - 1)`` for client i = 0..N-1.

    It is drawn once, so that an example looks the same in every epoch; NIID-Bench, whose script has these levels, draws it anew each
    time. A test population gets the levels of the same clients, and noise of its own from another seed.

    Args:
      data: leaves of ``x`` are floating point; the new ones keep their dtype.
      noise: standard deviation for the last client, in units of ``x``.
      seed: of the noise; a client's draws do not hang on the other clients.

    Raises:
      FedError: where the noise is negative, or ``x`` has leaves of whole numbers.

    Reference: Li et al., "Federated Learning on Non-IID Data Silos", arXiv 2102.02079, section IV (noise-based feature imbalance).
    """
    not_negative("noise", noise)
    leaves, structure = jax.tree.flatten(data.x)
    kinds = sorted(
        {str(leaf.dtype) for leaf in leaves if not jnp.issubdtype(leaf.dtype, jnp.floating)}
    )
    require(
        not kinds,
        "noise needs features that are floating point",
        got=", ".join(kinds),
        fix="convert x first, for example to [0, 1]",
    )
    levels = np.linspace(0, noise, data.clients)
    noisy = [
        _noisy(leaf, data.offsets, levels, (seed, NOISE, which))
        for which, leaf in enumerate(leaves)
    ]
    return data._replace(x=jax.tree.unflatten(structure, noisy))


def _noisy(
    x: np.ndarray, offsets: np.ndarray, levels: np.ndarray, stream: tuple[int, int, int]
) -> np.ndarray:
    x = np.array(x)
    for client, level in enumerate(levels):
        mine = x[offsets[client] : offsets[client + 1]]
        mine += (level * generator(*stream, client).standard_normal(mine.shape, np.float32)).astype(
            x.dtype
        )
    return x
