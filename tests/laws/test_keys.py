"""Keys are derived, never stored: by round, client, purpose and step, and by nothing else."""

import jax
import jax.numpy as jnp
import numpy as np
from rigs import PEOPLE, N

from fedjax_sim.aggregators import stage
from fedjax_sim.core.types import Learner, Member, Message, Upload
from fedjax_sim.data.batching import local_work
from fedjax_sim.data.population import to_table
from fedjax_sim.engine.work import bind

data = jax.random.key_data


def learner():
    """A learner that returns the keys it receives."""

    def finish(key, message, memory, local):
        return Upload({}), memory, {"finish": data(key)}

    return Learner(
        init=lambda variables: (),
        start=lambda key, message, memory: data(key),
        step=lambda key, message, memory, local, batch: (data(key), {}),
        finish=finish,
        personal=lambda message, memory: None,
    )


def keys_of_round(key):
    """Words of all keys of a round: four for every client, and one for each of its three steps."""
    rule = stage(lift=lambda key, state, upload: (upload, {"lift": data(key)}), reduce="sum")
    work = bind(
        learner(), rule, key, lambda member: Message({}), (), to_table(PEOPLE), local_work(4), 12, 3
    )

    def one(i):
        client = work.enrol(Member(i, jnp.int32(3), jnp.int32(12), jnp.int32(0)))
        left = work.finish(client, (), ())
        fixed = [
            work.start(client, ()),
            left.metrics["finish"],
            left.stats["lift"],
            client.shuffle[:2],
        ]
        return jnp.stack(fixed), jnp.stack(
            [
                work.step(client, (), (), jnp.int32(k), work.draw(client, jnp.int32(k)))[0]
                for k in range(3)
            ]
        )

    fixed, steps = jax.jit(jax.vmap(one))(jnp.arange(N, dtype=jnp.int32))
    return {
        tuple(words) for words in np.concatenate([fixed, steps], axis=1).reshape(-1, 2).tolist()
    }


def test_every_client_purpose_and_step_has_a_key_of_its_own_in_every_round():
    rounds = [keys_of_round(jax.random.key(0)), keys_of_round(jax.random.key(1))]
    assert all(len(words) == N * (4 + 3) for words in rounds)
    assert not rounds[0] & rounds[1]
