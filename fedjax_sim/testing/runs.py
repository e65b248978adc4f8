"""Checks that run the program with other cohorts, data, seeds and starting points, and compare
bits.

Each takes a factory ``(objective, *, settings) -> algorithm`` and raises :class:`CheckError`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import jax
import numpy as np

from fedjax_sim.core.types import Mean, Outcome, PyTree, RoundState
from fedjax_sim.testing.failures import distance, expect, expect_close, is_finite
from fedjax_sim.testing.problem import (
    ABSENT,
    ALONE,
    COHORTS,
    ELSEWHERE,
    IDLE,
    PRESENT,
    ROUNDS,
    SINGLE,
    C,
    N,
    always,
    spoiled,
)
from fedjax_sim.testing.program import Factory, History, make, play, usual
from fedjax_sim.testing.trips import signature

MASKS = "masks: select with where, never with a product, and gather by id"
SAME = 1e-5
"""Relative difference that the order of additions explains."""
KEYS = "keys: derive them from the given key, never from a row's place"


def check_absent_rows(factory: Factory) -> None:
    """Absent rows, and clients without steps, change nothing: the states have the same bits as
    without them."""
    want = play(factory, cohorts=ALONE)
    for name, cohorts in (("other rows", ELSEWHERE), ("no steps", IDLE)):
        have = play(factory, cohorts=cohorts)
        same_run(have, want, f"check_absent_rows: absent clients change nothing ({name})", MASKS)


def check_absent_data(factory: Factory) -> None:
    """NaN and infinities in the data of absent clients change nothing, also where a lane stays
    unused."""
    others = [client for client in range(N) if client != SINGLE["ids"][0][0]]
    cases = {
        "absent": (ALONE, ALONE, ABSENT),
        "without steps": (IDLE, ALONE, ABSENT),
        "absent, beside a single client": (SINGLE, SINGLE, others),
    }
    for value in (np.nan, np.inf):
        for name, (cohorts, plain, clients) in cases.items():
            have = play(factory, cohorts=cohorts, data=spoiled(clients, value))
            check = f"check_absent_data: {value} in the data of clients that are {name}"
            expect(is_finite(without_script(have)), check, got="NaN or inf", look=MASKS)
            same_run(have, play(factory, cohorts=plain), check, MASKS)


def check_absent_memory(factory: Factory) -> None:
    """The memory of absent clients keeps its bits; the memory of present clients changes."""
    before = usual(factory).states[-1]
    after = play(factory, start=before, cohorts=ALONE).states[-1]
    check = "check_absent_memory: absent clients keep their memory"
    look = "finish: return the memory of this client alone"
    expect_close(rows(after.memory, ABSENT), rows(before.memory, ABSENT), 0, check, look=look)
    if not jax.tree.leaves(before.memory):
        return
    pairs = list(zip(jax.tree.leaves(after.memory), jax.tree.leaves(before.memory), strict=True))
    still = [i for i in PRESENT if not any((new[i] != old[i]).any() for new, old in pairs)]
    expect(
        not still,
        "check_absent_memory: clients that take part renew their memory",
        got=f"the old rows of clients {still}",
        look="finish: return the new memory",
    )


def check_empty_cohort(factory: Factory) -> None:
    """A round without clients leaves state and memory as they are, and reports zeros."""
    before = usual(factory).states[-1]
    for name, cohorts in (
        ("absent rows", always([N] * C)),
        ("no steps", always(range(C), [0] * C)),
    ):
        state, outcome = last(play(factory, start=before, cohorts=cohorts))
        check = f"check_empty_cohort: a round of {name} changes nothing"
        look = "the server's update: guard it with roster.count > 0, as federate does"
        have, want = ((s.algorithm, s.memory, s.seed) for s in (state, before))
        expect_close(have, want, 0, check, look=look)
        expect(
            int(state.round) == int(before.round) + ROUNDS,
            check,
            got=f"round {state.round}",
            look=look,
        )
        expect(is_finite(outcome), check, got="metrics that are not finite", look=look)
        weights = [m.weight for m in outcome.metrics.values() if isinstance(m, Mean)]
        silent = outcome.metrics["cohort"] == 0 and not np.any(weights)
        expect(bool(silent), check, got=f"metrics of weight {weights}", look=look)


def check_order(factory: Factory) -> None:
    """The order of a cohort's rows changes nothing but the order of the report."""
    turn = np.random.default_rng(0).permutation(C)
    turned = jax.tree.map(lambda leaf: leaf[:, turn], COHORTS)
    have = play(factory, cohorts=turned)
    want = usual(factory)
    check = "check_order: the order of the cohort does not matter"
    same_run(have, want, check, KEYS)
    for outcome, other in zip(have.outcomes, want.outcomes, strict=True):
        clients = jax.tree.map(lambda leaf: leaf[turn], other.clients)
        expect_close(outcome.clients, clients, 0, f"{check} (clients' metrics)", look=KEYS)


def check_partial_work(factory: Factory) -> None:
    """A bound on the local steps changes the result exactly where it is below the local work."""
    want = usual(factory)
    limits = np.where(COHORTS["most"] > 12, 12, COHORTS["most"])
    have = play(factory, cohorts={**COHORTS, "most": limits})
    same_run(have, want, "check_partial_work: a bound above the local work changes nothing", MASKS)
    short = play(factory, cohorts={**COHORTS, "most": np.minimum(limits, 1)})
    gap = distance(*(params(factory, run.states) for run in (short, want)))
    passes = all(leg.epochs is not None for leg in signature(factory).trips)
    expect(
        gap < SAME if passes else SAME < gap < np.inf,
        "check_partial_work: fewer steps change the result, unless trips have their own epochs",
        got=f"a relative difference of {gap:.1e}",
        look="step and finish: they use what the steps of this round left in the local state",
    )


def check_seeds_and_rounds(factory: Factory) -> None:
    """Another seed and another round draw other numbers; without this, no other check could see a
    wrong key."""
    first = usual(factory).states[0]
    starts = {
        "round 0": replace(first, round=np.int32(0)),
        "round 3": replace(first, round=np.int32(ROUNDS)),
        "another seed": replace(first, seed=np.uint32(9)),
    }
    models = {
        name: jax.tree.leaves(params(factory, play(factory, start=start).states[:1]))
        for name, start in starts.items()
    }
    for name in ("round 3", "another seed"):
        same = all((a == b).all() for a, b in zip(models["round 0"], models[name], strict=True))
        expect(
            not same,
            f"check_seeds_and_rounds: {name} draws other numbers",
            got="the same",
            look=KEYS,
        )


def check_resume(factory: Factory) -> None:
    """A run that continues from the state after its first round is the run that never stopped, bit
    for bit."""
    whole = usual(factory)
    check = "check_resume: a resumed run has the same bits"
    look = "state outside the state tuple: keep everything that survives a round in it"
    again = play(factory, start=whole.states[0])
    for t in range(1, ROUNDS):
        have = (again.states[t - 1], again.outcomes[t - 1])
        expect_close(have, (whole.states[t], whole.outcomes[t]), 0, check, look=look)


def check_report(factory: Factory) -> None:
    """A round reports its cohort in the order of the roster, and adds clients' metrics up."""
    for t, outcome in enumerate(usual(factory).outcomes):
        present = (COHORTS["ids"][t] < N) & (COHORTS["most"][t] > 0)
        check = f"check_report: round {t + 1} reports its present clients"
        look = "metrics: Mean(total, weight), weight 0 where absent"
        count = int(outcome.metrics["cohort"])
        expect(count == present.sum(), check, got=f"a cohort of {count}", look=look)
        expect(bool(outcome.clients), check, got="no metrics of clients", look=look)
        for name, metric in outcome.clients.items():
            rows_ = (metric.weight > 0).tolist()
            expect(rows_ == present.tolist(), check, got=f"{name} in rows {rows_}", look=look)
            total = jax.tree.map(lambda leaf: leaf.sum(), metric)
            expect_close(outcome.metrics[name], total, 1e-5, f"{check} ({name})", look=look)


def same_run(have: History, want: History, check: str, look: str) -> None:
    """Requires two runs whose states have the same bits, and whose metrics are equal up to the
    order of additions.

    Args:
      have, want: the runs; what the scripted sampler keeps is not compared.
      check, look: as for :func:`fedjax_sim.testing.failures.expect`.

    Raises:
      CheckError: for the first difference.
    """
    expect_close(without_script(have), without_script(want), 0, check, look=look)
    metrics = [[outcome.metrics for outcome in run.outcomes] for run in (have, want)]
    expect_close(metrics[0], metrics[1], 1e-6, f"{check} (metrics)", look=look)


def params(factory: Factory, states: Sequence[RoundState]) -> list[PyTree]:
    """The parameters of the global model in some states."""
    algorithm = make(factory)
    return [jax.tree.map(np.asarray, algorithm.variables(s.algorithm).params) for s in states]


def without_script(history: History) -> list[RoundState]:
    """The states of a run without what the scripted sampler keeps."""
    return [replace(state, sampler=()) for state in history.states]


def last(history: History) -> tuple[RoundState, Outcome]:
    """State and outcome of a run's last round."""
    return history.states[-1], history.outcomes[-1]


def rows(memory: PyTree, clients: list[int]) -> PyTree:
    """Some clients' rows of a memory table."""
    return jax.tree.map(lambda leaf: leaf[np.asarray(clients)], memory)
