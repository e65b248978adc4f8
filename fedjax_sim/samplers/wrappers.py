"""Wrappers ``Sampler -> Sampler``: clients that drop out, or do only part of their local work."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from fedjax_sim.core import tree
from fedjax_sim.core.errors import fraction, positive
from fedjax_sim.core.types import Array, Key, PopulationInfo, PyTree, Roster, Sampler


def dropout(sampler: Sampler, rate: float) -> Sampler:
    """Makes each sampled client absent with some probability, independently of the others.

    Args:
      sampler: chooses the cohort.
      rate: probability that a client drops out, in [0, 1].

    Raises:
      FedError: if ``rate`` lies outside [0, 1].

    Example:
      >>> import jax
      >>> import jax.numpy as jnp
      >>> import fedjax_sim as fs
      >>> from fedjax_sim.core.types import PopulationInfo
      >>> sampler = fs.samplers.dropout(fs.samplers.full(), rate=1.0)
      >>> info = PopulationInfo(size=jnp.array([8, 3]), steps=jnp.array([2, 1]))
      >>> roster, _ = sampler.sample(jax.random.key(0), sampler.init(info), info, 0)
      >>> int(roster.count)
      0
    """
    fraction("dropout.rate", rate, zero=True)

    def sample(
        key: Key, state: PyTree, info: PopulationInfo, round: Array
    ) -> tuple[Roster, PyTree]:
        chosen, state = sampler.sample(jax.random.fold_in(key, 0), state, info, round)
        drops = _per_client(jax.random.fold_in(key, 1), chosen) < rate
        remaining = chosen._replace(
            id=jnp.where(drops, chosen.population, chosen.id),
            steps=jnp.where(drops, 0, chosen.steps),
            size=jnp.where(drops, 0, chosen.size),
        )
        return remaining, state

    return sampler._replace(sample=sample)


def stragglers(sampler: Sampler, share: float, least: float = 0.1) -> Sampler:
    """Lets a share of the sampled clients do only part of their local steps.

    Their partial work is aggregated, as in FedProx (Li et al. 2020, section 5.2), not discarded.

    Args:
      sampler: chooses the cohort.
      share: probability that a client is a straggler, in [0, 1].
      least: smallest part of its steps that a straggler takes, in (0, 1]; the part is uniform
        between this and 1, and at least one step.

    Raises:
      FedError: if ``share`` or ``least`` lies outside its interval.

    Example:
      >>> import jax
      >>> import jax.numpy as jnp
      >>> import fedjax_sim as fs
      >>> from fedjax_sim.core.types import PopulationInfo
      >>> sampler = fs.samplers.stragglers(fs.samplers.full(), share=1.0)
      >>> info = PopulationInfo(size=jnp.array([80, 30]), steps=jnp.array([20, 1]))
      >>> roster, _ = sampler.sample(jax.random.key(0), sampler.init(info), info, 0)
      >>> bool(2 <= roster.steps[0] <= 20), int(roster.steps[1])
      (True, 1)
    """
    fraction("stragglers.share", share, zero=True)
    fraction("stragglers.least", least)

    def sample(
        key: Key, state: PyTree, info: PopulationInfo, round: Array
    ) -> tuple[Roster, PyTree]:
        chosen, state = sampler.sample(jax.random.fold_in(key, 0), state, info, round)
        slow = _per_client(jax.random.fold_in(key, 1), chosen) < share
        work = least + (1 - least) * _per_client(jax.random.fold_in(key, 2), chosen)
        part = jnp.clip(jnp.ceil(work * chosen.steps).astype(jnp.int32), 1, chosen.steps)
        return chosen._replace(steps=jnp.where(slow & chosen.present, part, chosen.steps)), state

    return sampler._replace(sample=sample)


def step_budget(sampler: Sampler, steps: int | Array) -> Sampler:
    """Limits the local steps of a client in a round.

    Args:
      sampler: chooses the cohort.
      steps: largest number of local steps, at least 1; from Python also ``int32[N]``, one limit per
        client.

    Raises:
      FedError: if ``steps`` is not positive.

    Example:
      >>> import jax
      >>> import jax.numpy as jnp
      >>> import fedjax_sim as fs
      >>> from fedjax_sim.core.types import PopulationInfo
      >>> sampler = fs.samplers.step_budget(fs.samplers.full(), steps=5)
      >>> info = PopulationInfo(size=jnp.array([80, 30]), steps=jnp.array([20, 1]))
      >>> roster, _ = sampler.sample(jax.random.key(0), sampler.init(info), info, 0)
      >>> roster.steps.tolist()
      [5, 1]
    """
    positive("step_budget.steps", steps)

    def sample(
        key: Key, state: PyTree, info: PopulationInfo, round: Array
    ) -> tuple[Roster, PyTree]:
        chosen, state = sampler.sample(key, state, info, round)
        limit = (
            steps if isinstance(steps, int) else tree.take(jnp.asarray(steps, jnp.int32), chosen.id)
        )
        return chosen._replace(steps=jnp.minimum(chosen.steps, limit)), state

    return sampler._replace(sample=sample)


def _per_client(key: Key, chosen: Roster) -> Array:
    """float32[C] in [0, 1), drawn by client id, so that the order of the cohort does not matter."""
    return jax.vmap(lambda i: jax.random.uniform(jax.random.fold_in(key, i)))(chosen.id)
