"""Servers: the model's owner. The plain one puts any optax optimizer on the averaged pseudo-gradient."""

from __future__ import annotations

from typing import NamedTuple

import optax

from fedjax_sim.core import tree
from fedjax_sim.core.types import Key, Member, Message, PyTree, Roster, Server, Upload, Variables


class OptimizerServerState(NamedTuple):
    """State of :func:`optimizer_server`: the model and its optimizer."""

    variables: Variables
    optimizer: PyTree


def optimizer_server(optimizer: optax.GradientTransformation) -> Server:
    """FedOpt's server (Reddi et al. 2021, Algorithm 1): the averaged pseudo-gradient is the optimizer's gradient.

    ``optax.sgd(1.0)`` makes it FedAvg. Batch statistics, where there are any, are replaced by their average.
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
        return OptimizerServerState(
            Variables(params, tree.sub(state.variables.state, upload.state)), optimizer_state
        )

    return Server(init, broadcast, update, lambda state: state.variables)
