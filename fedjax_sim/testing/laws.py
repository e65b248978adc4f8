"""Checks of an algorithm's law: it holds, it could fail, and what it conserves stays conserved."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from fedjax_sim.core.law import Law
from fedjax_sim.core.types import RoundState, Variables
from fedjax_sim.testing import problem
from fedjax_sim.testing.failures import distance, expect, expect_close
from fedjax_sim.testing.problem import as_arguments
from fedjax_sim.testing.program import Factory, History, make, play, usual
from fedjax_sim.testing.settings import defaults_of

Find = Callable[[str], Factory]
"""``name -> factory``: looks up a registered algorithm."""

MOVED = 1e-2
"""How far the model must move in a law's rounds, so that equality says something."""
CONSERVED = 1e-5
"""Relative tolerance of conserved quantities."""
SEEN = 1e-4
"""Smallest relative difference that counts as one, where a law's tolerance is smaller."""


def check_law(factory: Factory, law: Law, find: Find) -> None:
    """Checks that the algorithm with the settings of its law equals the other algorithm, after
    every round.

    Args:
      factory: ``(objective, *, settings) -> algorithm``.
      law: the algorithm's law.
      find: looks up the algorithm that it equals.

    Raises:
      CheckError: if the models differ by more than the law's tolerance, or hardly move.
    """
    check = f"check_law: {law.says}"
    ours = models(factory, law.when, law)
    others = models(find(law.equals), law.given, law)
    for number, (have, want) in enumerate(zip(ours, others, strict=True), start=1):
        text = f"{check} (after round {number})"
        expect_close(have, want, law.tolerance, text, look="signs and scales of its update")
    start = problem.weights().params
    moves = jax.tree.map(lambda a, b: float(np.abs(a - b).max()), ours[-1].params, start)
    expect(
        min(jax.tree.leaves(moves)) > MOVED,
        f"check_law: the model moves by more than {MOVED}",
        got=moves,
        look="settings in law.when with which nothing is learned",
    )


def check_law_can_fail(factory: Factory, law: Law, find: Find) -> None:
    """Checks that a law can fail: without its restriction, the two algorithms differ.

    A law restricts settings, or, where its settings are the defaults, the local work, the number
    of rounds or what is compared. Under the law's own work the algorithm at its default settings
    must differ from the one it equals; where the law sets nothing, the two must differ under the
    usual work, in later rounds, or in client memory.

    Args:
      factory, law, find: as for :func:`check_law`.

    Raises:
      CheckError: if the two are equal all the same, so that the law would hold for a wrong
      algorithm too.
    """
    defaults = defaults_of(factory)
    restricted = {name for name, value in law.when.items() if defaults.get(name) != value}
    other = find(law.equals)
    if restricted:
        gap = distance(models(factory, {}, law), models(other, law.given, law))
        where = "under the law's own work, default settings"
    else:
        ours = play(factory, noise=0.0)
        theirs = play(other, law.given, noise=0.0)
        free = Law(law.says)
        gap = distance(
            variables_of(factory, {}, ours, free), variables_of(other, law.given, theirs, free)
        )
        gap = max(gap, memory_moves(factory))
        where = "without the law's work, in all rounds and in client memory, default settings"
    expect(
        gap > max(SEEN, 10 * law.tolerance),
        "check_law_can_fail: the algorithms differ where the law does not hold",
        got=f"a relative difference of {gap:.1e} {where}",
        look="a law under whose work the algorithm's own settings change the result",
    )


def check_conserved(factory: Factory, law: Law) -> None:
    """Checks that a law's conserved quantity stays conserved, with absent rows and partial work,
    over six rounds.

    Args:
      factory: ``(objective, *, settings) -> algorithm``.
      law: a law with or without ``conserved``.

    Raises:
      CheckError: if the two sides differ after a round, or are zero.
    """
    if law.conserved is None:
        return
    first = usual(factory)
    cohorts = jax.tree.map(lambda leaf: leaf[::-1], problem.COHORTS)
    later = play(factory, start=first.states[-1], cohorts=cohorts)
    for number, state in enumerate(first.states + later.states, start=1):
        check_conserved_after(number, state, law.conserved)


def check_conserved_after(number: int, state: RoundState, conserved: Callable[..., Any]) -> None:
    """Checks one round of :func:`check_conserved`."""
    sides = conserved(state.algorithm, state.memory)
    one, two = jax.tree.map(np.asarray, sides)
    check = f"check_conserved: both sides are equal after round {number}"
    look = "how absent clients, |S| and N enter the server's update"
    expect_close(one, two, CONSERVED, check, look=look)
    size = max(float(np.abs(leaf).max()) for leaf in jax.tree.leaves(one))
    expect(size > 1e-3, "check_conserved: the quantity is not zero", got=size, look=look)


def check_law_is_stated(factory: Factory, law: Law, find: Find) -> None:
    """Checks that a law is stated in words, and names another, known algorithm.

    Args:
      factory, law, find: as for :func:`check_law`.

    Raises:
      CheckError: if the words are missing, or the law names the algorithm itself.
    """
    expect(
        bool(law.says),
        "check_law_is_stated: a law says what holds",
        got="no words",
        look="Law(says=...)",
    )
    expect(
        find(law.equals) is not factory,
        "check_law_is_stated: a law names another algorithm",
        got=law.equals,
        look="Law(equals=...)",
    )


def models(factory: Factory, settings: dict[str, Any], law: Law) -> list[Variables]:
    """The global model after each of a law's rounds, under its work and without noise.

    Args:
      factory: ``(objective, *, settings) -> algorithm``.
      settings: of the factory.
      law: gives work and rounds.
    """
    work = as_arguments(law.local_work)
    history = play(
        factory, settings, cohorts=work.cohorts, data=work.table, noise=0.0, work=work.work
    )
    return variables_of(factory, settings, history, law)


def variables_of(
    factory: Factory, settings: dict[str, Any], history: History, law: Law
) -> list[Variables]:
    """The global model after each of a law's rounds, from a run."""
    algorithm = make(factory, settings)
    states = history.states[: law.rounds]
    return [jax.tree.map(np.asarray, algorithm.variables(state.algorithm)) for state in states]


def memory_moves(factory: Factory) -> float:
    """How far client memory moves in the usual run; 0 where clients keep none."""
    first, *_, last = usual(factory).states
    return distance(first.memory, last.memory)
