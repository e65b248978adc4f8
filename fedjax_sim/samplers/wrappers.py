"""What goes wrong with a cohort: clients that drop out, and clients that do only part of their work."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from fedjax_sim.core import tree
from fedjax_sim.core.errors import fraction, positive
from fedjax_sim.core.types import Array, Key, PopulationInfo, PyTree, Roster, Sampler


def dropout(sampler: Sampler, rate: float) -> Sampler:
    """Each sampled client fails to report with probability ``rate``, independently; it is then absent and changes nothing."""
    fraction("dropout.rate", rate, zero=True)

    def sample(key: Key, state: PyTree, info: PopulationInfo, round: Array) -> tuple[Roster, PyTree]:
        chosen, state = sampler.sample(jax.random.fold_in(key, 0), state, info, round)
        draws = _per_client(jax.random.fold_in(key, 1), chosen)
        lost = draws < rate
        gone = chosen._replace(id=jnp.where(lost, chosen.population, chosen.id))
        return gone._replace(
            steps=jnp.where(lost, 0, gone.steps), size=jnp.where(lost, 0, gone.size)
        ), state

    return sampler._replace(sample=sample)


def stragglers(sampler: Sampler, share: float, least: float = 0.1) -> Sampler:
    """A ``share`` of the sampled clients does only part of its local steps, between ``least`` of them and all, at least one.

    Partial work is kept, as in FedProx (Li et al. 2020, section 5.2), not thrown away.
    """
    fraction("stragglers.share", share, zero=True)
    fraction("stragglers.least", least)

    def sample(key: Key, state: PyTree, info: PopulationInfo, round: Array) -> tuple[Roster, PyTree]:
        chosen, state = sampler.sample(jax.random.fold_in(key, 0), state, info, round)
        slow = _per_client(jax.random.fold_in(key, 1), chosen) < share
        work = least + (1 - least) * _per_client(jax.random.fold_in(key, 2), chosen)
        part = jnp.clip(jnp.ceil(work * chosen.steps).astype(jnp.int32), 1, chosen.steps)
        return chosen._replace(steps=jnp.where(slow & chosen.present, part, chosen.steps)), state

    return sampler._replace(sample=sample)


def step_budget(sampler: Sampler, steps: int | Array) -> Sampler:
    """No client takes more than ``steps`` local steps in a round, whatever its data: one number for all, or int32[N], one each."""
    positive("step_budget.steps", steps)

    def sample(key: Key, state: PyTree, info: PopulationInfo, round: Array) -> tuple[Roster, PyTree]:
        chosen, state = sampler.sample(key, state, info, round)
        own = (
            steps if isinstance(steps, int) else tree.take(jnp.asarray(steps, jnp.int32), chosen.id)
        )
        return chosen._replace(steps=jnp.minimum(chosen.steps, own)), state

    return sampler._replace(sample=sample)


def _per_client(key: Key, chosen: Roster) -> Array:
    """float32[C] in [0, 1), drawn by client id, so that the order of the cohort does not matter."""
    return jax.vmap(lambda i: jax.random.uniform(jax.random.fold_in(key, i)))(chosen.id)
