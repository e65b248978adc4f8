"""The packages that declare kinds of registered things, and :func:`register` for users, which loads
them first.
"""

from __future__ import annotations

import importlib
from typing import Any

from fedjax_sim.core import registry

ROOMS = (
    "data",
    "data.sources",
    "models",
    "optimizers",
    "aggregators",
    "samplers",
    "tasks",
    "algorithms",
)
"""Packages that declare kinds and register this package's own entries.

Importing them imports JAX.
"""


def load_rooms() -> None:
    """Imports every package that declares a kind."""
    for room in ROOMS:
        importlib.import_module(f"fedjax_sim.{room}")


def register(
    kind: str,
    name: Any = None,
    thing: Any = None,
    *,
    law: Any = None,
    card: str | None = None,
    **metadata: Any,
) -> Any:
    """Registers something of yours under a name, so that configuration files and commands can use
    it.

    Use it as a decorator, ``@fs.register("sampler")`` or ``@fs.register("sampler", "my_name")``,
    or as a call, ``fs.register("sampler", function)``, ``fs.register("sampler", "my_name",
    function)``, or with a module that has a factory of the module's own name and, for an
    algorithm, ``LAW``.

    Args:
      kind: such as ``"algorithm"``, ``"aggregator"``, ``"sampler"``, ``"task"``, ``"model"``,
        ``"partition"``, ``"optimizer"``; ``fedjax-sim list`` shows all kinds.
      name: its name; by default that of the function or module. May be left out, as above.
      thing: a factory, a record, or a module.
      law: the identity that tests an algorithm, see :class:`fedjax_sim.Law`.
      card: what ``fedjax-sim describe`` shows before the docstring.
      **metadata: further facts, kept in ``Entry.metadata``.

    Returns:
      The factory that was registered, which remembers its calls; a module or record unchanged; a
      decorator if nothing was given to register.

    Raises:
      FedError: if the kind is unknown, the name is taken or not an identifier, or a module has no
        factory of its name.

    >>> import fedjax_sim as fs
    >>> @fs.register("partition")
    ... def in_order(labels, clients, *, seed=0):
    ...     import numpy as np
    ...
    ...     return np.array_split(np.arange(len(labels)), clients)
    >>> fs.tasks.digits(clients=5, partition="in_order", test_fraction=0.1).data.train.clients
    5
    """
    load_rooms()
    return registry.register(kind, name, thing, law=law, card=card, **metadata)
