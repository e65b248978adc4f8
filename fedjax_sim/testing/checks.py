"""All checks of an algorithm by name, and :func:`check_algorithm`, which runs them."""

from __future__ import annotations

import inspect
from collections.abc import Callable

from fedjax_sim.algorithms import REGISTRY
from fedjax_sim.core.errors import lookup
from fedjax_sim.core.law import Law
from fedjax_sim.testing import laws, layouts, premise, runs, trips
from fedjax_sim.testing.program import Factory

PREMISES: dict[str, Callable[[Factory], None]] = {
    check.__name__: check
    for check in (
        premise.check_no_collectives,
        premise.check_no_effects,
        premise.check_keys_are_derived,
        trips.check_trips,
        trips.check_dtypes,
    )
}
"""Checks that read a traced program or an abstract round; nothing is compiled."""

RUNS: dict[str, Callable[[Factory], None]] = {
    check.__name__: check
    for check in (
        runs.check_absent_rows,
        runs.check_absent_data,
        runs.check_absent_memory,
        runs.check_empty_cohort,
        runs.check_order,
        runs.check_partial_work,
        runs.check_seeds_and_rounds,
        runs.check_resume,
        runs.check_report,
    )
}
"""Checks that run the one compiled program."""

LAWS: dict[str, Callable[[Factory, Law], None]] = {
    "check_law_is_stated": lambda factory, law: laws.check_law_is_stated(factory, law, registered),
    "check_law": lambda factory, law: laws.check_law(factory, law, registered),
    "check_law_can_fail": lambda factory, law: laws.check_law_can_fail(factory, law, registered),
    "check_conserved": laws.check_conserved,
}
"""Checks of a law; the algorithm that it names is looked up in the registry."""


def registered(name: str) -> Factory:
    """The factory of a registered algorithm.

    Raises:
      FedError: if none has this name.
    """
    return lookup("algorithm", name, REGISTRY).factory


def law_of(factory: Factory) -> Law | None:
    """The law of a registered factory, or ``None``.

    Args:
      factory: what the registry holds, or the function that was registered.
    """
    found = (entry.law for entry in REGISTRY.values() if _is_made_of(entry.factory, factory))
    return next(found, None)


def _is_made_of(registered: Factory, factory: Factory) -> bool:
    """Whether the registry wraps this factory, or holds it itself."""
    return inspect.unwrap(registered, stop=lambda made: made is factory) is factory


def own_factories() -> list[Factory]:
    """Factories of this package's algorithms, for which its tests prove the layout theorem."""
    package = __name__.partition(".")[0]
    factories = [entry.factory for entry in REGISTRY.values()]
    return [factory for factory in factories if factory.__module__.partition(".")[0] == package]


def check_algorithm(
    factory: Factory, law: Law | None = None, layouts_too: bool | None = None
) -> None:
    """Runs every check that the registered algorithms pass: laws, conserved quantities, absent
    clients, keys, layouts.

    One program is compiled for the algorithm, and one for each other structure that its law names;
    numbers, data, cohorts and seeds are arguments of it.

    Args:
      factory: ``(objective, *, settings) -> algorithm``, every setting with a default.
      law: the identity that tests it; by default the law that it is registered with. Without any,
        the checks of laws are left out.
      layouts_too: whether the result is also compared over engines, backends and devices, which
        compiles several programs; by default only if no registered algorithm asks the same of the
        engine, so that the registered ones do not prove it.

    Raises:
      CheckError: for the first check that fails, in three parts: which check, what was got, what
      to look for.

    Example:
      >>> import fedjax_sim as fs
      >>> fs.testing.check_algorithm(fs.fedavg)  # doctest: +SKIP

      Compiling takes seconds; a single check that compiles nothing does not:

      >>> fs.testing.PREMISES["check_trips"](fs.fedavg)
    """
    law = law_of(factory) if law is None else law
    for check in PREMISES.values():
        check(factory)
    for check in RUNS.values():
        check(factory)
    if law is not None:
        for check in LAWS.values():
            check(factory, law)
    if layouts_too is None:
        layouts_too = trips.signature(factory) not in map(trips.signature, own_factories())
    if layouts_too:
        layouts.check_layouts(factory)
