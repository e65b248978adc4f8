"""The server that applies an optax optimizer to the reduced pseudo-gradient."""

from __future__ import annotations

from typing import NamedTuple

import optax

from fedjax_sim.core import tree
from fedjax_sim.core.types import Key, Member, Message, PyTree, Roster, Server, Upload, Variables


class OptimizerServerState(NamedTuple):
    """State of :func:`optimizer_server`.

    Attributes:
      variables: the global model x.
      optimizer: state of the optimizer.
    """

    variables: Variables
    optimizer: PyTree


def optimizer_server(optimizer: optax.GradientTransformation) -> Server:
    """FedOpt's server: the reduced pseudo-gradient is the gradient of an optimizer.

    Batch statistics, if the model has any, are replaced by their average over the cohort.
    Reference: Reddi et al. 2021, Algorithm 1.

    Args:
      optimizer: any optax optimizer; ``optax.sgd(1.0)`` gives FedAvg.

    Example:
      >>> import jax
      >>> import jax.numpy as jnp
      >>> import optax
      >>> import fedjax_sim as fs
      >>> from fedjax_sim.servers.optimizer import optimizer_server
      >>> server = optimizer_server(optax.sgd(1.0))
      >>> state = server.init(fs.Variables(jnp.array([5.0])))
      >>> upload = fs.Upload(delta=jnp.array([2.0]))  # the clients' average is 5 - 2
      >>> roster = fs.Roster(*[jnp.array([0])] * 4, population=1)
      >>> state = server.update(jax.random.key(0), state, upload, roster)
      >>> server.variables(state).params.tolist()
      [3.0]
    """

    def init(variables: Variables) -> OptimizerServerState:
        return OptimizerServerState(variables, optimizer.init(variables.params))

    def broadcast(state: OptimizerServerState, member: Member) -> Message:
        return Message(*state.variables)

    def update(
        key: Key, state: OptimizerServerState, upload: Upload, roster: Roster
    ) -> OptimizerServerState:
        params = state.variables.params
        updates, optimizer_state = optimizer.update(upload.delta, state.optimizer, params)
        params = optax.apply_updates(params, updates)
        statistics = tree.sub(state.variables.state, upload.state)
        return OptimizerServerState(Variables(params, statistics), optimizer_state)

    return Server(init, broadcast, update, lambda state: state.variables)
