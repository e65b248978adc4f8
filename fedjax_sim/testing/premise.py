"""The premise of the layout theorem, read off an algorithm's traced program.

The theorem: lanes, shards, backends and devices do not change an algorithm's results, and neither
does the place of examples and client memory. The engine proves it for every algorithm whose own
functions are pure functions of one client, the message and the given key. What could break that is
visible in the program: a collective, a device's number, a call of the host, or a random number
that is not drawn from the given key.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import jax

from fedjax_sim.core.types import PyTree
from fedjax_sim.testing.failures import expect, fail_check
from fedjax_sim.testing.jaxpr import walk
from fedjax_sim.testing.program import Factory, traced_usually

COLLECTIVES = frozenset(
    {
        "psum",
        "psum2",
        "psum_invariant",
        "pmax",
        "pmin",
        "pmean",
        "ppermute",
        "pshuffle",
        "pbroadcast",
        "pvary",
        "pgather",
        "all_gather",
        "all_gather_invariant",
        "all_to_all",
        "ragged_all_to_all",
        "reduce_scatter",
        "psum_scatter",
        "psend",
        "precv",
        "shard_map",
        "xla_pmap",
        "sharding_constraint",
    }
)
"""Primitives that exchange values between devices or decide their layout."""
HOST = frozenset(
    {"pure_callback", "io_callback", "debug_callback", "debug_print", "infeed", "outfeed"}
)
"""Primitives that call the host."""
DRAWS = frozenset(
    {
        "random_bits",
        "random_split",
        "random_fold_in",
        "random_unwrap",
        "random_gamma",
        "random_clone",
        "threefry2x32",
        "rng_bit_generator",
    }
)
"""Primitives whose first operand is a key."""
UNKEYED = frozenset({"rng_uniform"})
"""Primitives that draw without a key."""


def check_no_collectives(factory: Factory) -> None:
    """Checks that an algorithm's program has no collective and no device number.

    Args:
      factory: ``(objective, *, settings) -> algorithm``.

    Raises:
      CheckError: if it has.
    """
    check = "check_no_collectives: an algorithm must not communicate between devices"
    look = "the collective or axis index; the engine reduces uploads, as the aggregator asks"
    try:
        program = traced_usually(factory)
    except NameError as error:  # the engine binds no axis on one device
        fail_check(check, got=error, look=look)
    names = primitives(program)
    got = sorted(names & (COLLECTIVES | {"axis_index"}))
    expect(not got, check, got=", ".join(got), look=look)


def check_no_effects(factory: Factory) -> None:
    """Checks that an algorithm's program neither calls the host nor has other effects.

    Args:
      factory: ``(objective, *, settings) -> algorithm``.

    Raises:
      CheckError: if it does.
    """
    program = traced_usually(factory)
    got = sorted(primitives(program) & HOST) or sorted(map(str, program.jaxpr.effects))
    expect(
        not got,
        "check_no_effects: an algorithm is a pure function",
        got=", ".join(got),
        look="remove callbacks, debug prints and mutable references; report numbers as metrics",
    )


def check_keys_are_derived(factory: Factory) -> None:
    """Checks that every random number of a program is drawn from a key that derives from the run's
    seed.

    Args:
      factory: ``(objective, *, settings) -> algorithm``.

    Raises:
      CheckError: for a key made from a constant, and for random numbers drawn without a key.
    """
    got = sorted(foreign_draws(traced_usually(factory)))
    expect(
        not got,
        "check_keys_are_derived: random numbers are drawn from the given key",
        got=f"{', '.join(got)} on a key that does not depend on the run's seed",
        look="jax.random.key(...): use fold_in(key, number) of the key that the slot is given",
    )


def primitives(program: Any) -> set[str]:
    """Names of all primitives of a ``jax.stages.Traced``."""
    names: set[str] = set()
    walk(
        program.jaxpr,
        [False] * len(program.jaxpr.jaxpr.invars),
        lambda equation, depends: names.add(equation.primitive.name),
    )
    return names


def foreign_draws(program: Any) -> set[str]:
    """Names of the primitives of a ``jax.stages.Traced`` that draw from a key which does not
    depend on the state's seed."""
    last: dict[int, tuple[str, bool]] = {}

    def visit(equation: Any, depends: list[bool]) -> None:
        name = equation.primitive.name
        if name in DRAWS:
            keys = depends[:2] if name == "threefry2x32" else depends[:1]
            last[id(equation)] = (name, any(keys))
        if name in UNKEYED:
            last[id(equation)] = (name, False)

    walk(program.jaxpr, [*jax.tree.leaves(_is_seed(program.args_info))], visit)
    return {name for name, derived in last.values() if not derived}


def _is_seed(arguments: PyTree) -> PyTree:
    """True for the seed among a program's arguments, False for everything else."""
    (numbers, state, table), _ = arguments
    blank = jax.tree.map(lambda leaf: False, (numbers, state, table))
    return (blank[0], replace(blank[1], seed=True), blank[2])
