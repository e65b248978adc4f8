"""Every check of :mod:`fedjax_sim.testing` fails for an algorithm that is broken where it looks."""

from functools import cache

import jax
import jax.numpy as jnp
import optax
import pytest
from jax import lax
from jax.random import fold_in

from fedjax_sim import testing
from fedjax_sim.aggregators import mean
from fedjax_sim.algorithms import REGISTRY
from fedjax_sim.clients.learner import gradient_learner
from fedjax_sim.core import tree
from fedjax_sim.core.law import Law
from fedjax_sim.engine.federate import federate
from fedjax_sim.optimizers.corrections import local_optimizer
from fedjax_sim.servers.optimizer import optimizer_server
from fedjax_sim.testing import problem, program, runs
from fedjax_sim.testing.checks import LAWS, PREMISES, RUNS
from fedjax_sim.testing.jaxpr import walk
from fedjax_sim.testing.settings import Structure, divide, fingerprint
from fedjax_sim.testing.trips import signature


def parts(objective, lr, momentum=None):
    server = optimizer_server(optax.sgd(1.0, momentum=momentum))
    return gradient_learner(objective, local_optimizer(lr)), mean(), server


def plain(objective, *, lr: float = 0.1):
    return federate(*parts(objective, lr))


def with_finish(change):
    """Factory of an algorithm whose upload a function ``(key, local, delta) -> delta`` changes."""

    def factory(objective, *, lr: float = 0.1):
        learner, aggregator, server = parts(objective, lr)

        def finish(key, message, memory, local):
            upload, memory, metrics = learner.finish(key, message, memory, local)
            return upload._replace(delta=change(key, local, upload.delta)), memory, metrics

        return federate(learner._replace(finish=finish), aggregator, server)

    return factory


def with_update(change):
    """Factory of an algorithm whose upload a function ``(roster, delta) -> delta`` changes on the
    server."""

    def factory(objective, *, lr: float = 0.1):
        learner, aggregator, server = parts(objective, lr)

        def update(key, state, upload, roster):
            changed = upload._replace(delta=change(roster, upload.delta))
            return server.update(key, state, changed, roster)

        return federate(learner, aggregator, server._replace(update=update))

    return factory


def with_round(change):
    """Factory of an algorithm with client memory, of which a function changes the results of a
    round."""

    def factory(objective, *, lr: float = 0.1):
        learner, aggregator, server = parts(objective, lr)
        counting = learner._replace(
            init=lambda variables: jnp.float32(0),
            finish=lambda key, message, memory, local: (
                learner.finish(key, message, (), local)[0],
                memory + 1,
                {},
            ),
        )
        algorithm = federate(counting, aggregator, server)

        def round(trip, key, state, memory, roster):
            return change(memory, roster, *algorithm.round(trip, key, state, memory, roster))

        return algorithm._replace(round=round)

    return factory


def two_trips(roster_of, outcome_of):
    """Factory of an algorithm of two trips that hands on rosters and outcomes as two functions
    say."""

    def factory(objective, *, lr: float = 0.1):
        learner, aggregator, server = parts(objective, lr)
        algorithm = federate(learner, aggregator, server)

        def round(trip, key, state, memory, roster):
            def go(number, memory, roster):
                stream = fold_in(key, number)
                broadcast = lambda member: server.broadcast(state.server, member)  # noqa: E731
                return trip(learner, aggregator, stream, broadcast, (), memory, roster)

            first = go(0, memory, roster)
            second = go(1, first.memory, roster_of(roster, first))
            after = server.update(key, state.server, second.upload, second.roster)
            return state._replace(server=after), second.memory, outcome_of(first, second)

        return algorithm._replace(round=round)

    return factory


def noisy(key, delta):
    return jax.tree.map(lambda leaf: leaf + jax.random.normal(key, leaf.shape), delta)


def made_before():
    key = jax.random.key(3)
    return with_finish(lambda _, local, delta: noisy(key, delta))


def printing(key, local, delta):
    jax.debug.print("{}", local.steps)
    return delta


def wide(memory, roster, state, after, outcome):
    return jax.tree.map(lambda leaf: leaf.astype(jnp.float32), state), after, outcome


TRACED = [
    ("check_no_collectives", with_finish(lambda key, local, delta: lax.psum(delta, "clients"))),
    (
        "check_no_collectives",
        with_finish(lambda key, local, delta: tree.scale(1 + lax.axis_index("clients"), delta)),
    ),
    ("check_no_effects", with_finish(printing)),
    ("check_keys_are_derived", with_finish(lambda key, _, delta: noisy(jax.random.key(0), delta))),
    (
        "check_keys_are_derived",
        with_finish(
            lambda key, local, delta: noisy(fold_in(jax.random.key(0), local.steps), delta)
        ),
    ),
    ("check_keys_are_derived", made_before()),
    ("check_trips", two_trips(lambda roster, first: roster, lambda first, second: second.outcome)),
    (
        "check_trips",
        two_trips(lambda roster, first: first.roster, lambda first, second: first.outcome),
    ),
    (
        "check_dtypes",
        with_round(lambda memory, roster, state, after, outcome: (state, after > 0, outcome)),
    ),
    ("check_dtypes", with_round(wide)),
]
"""A check, and an algorithm that it must refuse; nothing is compiled."""


def unguarded(objective, *, lr: float = 0.1):
    """An algorithm whose server moves without clients."""
    learner, aggregator, server = parts(objective, lr, momentum=0.9)
    algorithm = federate(learner, aggregator, server)

    def round(trip, key, state, memory, roster):
        broadcast = lambda member: server.broadcast(state.server, member)  # noqa: E731
        back = trip(learner, aggregator, key, broadcast, (), memory, roster)
        after = server.update(key, state.server, back.upload, back.roster)
        return state._replace(server=after), back.memory, back.outcome

    return algorithm._replace(round=round)


def by_place(roster, delta):
    return tree.scale(1 + 0.1 * roster.id[0].astype(jnp.float32), delta)


def by_rows(roster, delta):
    return tree.scale(1 / jnp.sum(roster.id < roster.population), delta)


def reversed_report(memory, roster, state, after, outcome):
    return state, after, outcome._replace(clients=jax.tree.map(jnp.flip, outcome.clients))


def fewest_steps(key, local, delta):
    return jax.tree.map(jnp.sign, jax.tree.map(jnp.ones_like, delta))


BROKEN = [
    ("check_order", with_update(by_place)),
    ("check_absent_rows", with_update(by_rows)),
    (
        "check_absent_memory",
        with_round(lambda memory, roster, state, after, outcome: (state, after + 1, outcome)),
    ),
    (
        "check_absent_memory",
        with_round(lambda memory, roster, state, after, outcome: (state, memory, outcome)),
    ),
    ("check_empty_cohort", unguarded),
    ("check_partial_work", with_finish(fewest_steps)),
    ("check_seeds_and_rounds", with_finish(fewest_steps)),
    ("check_report", with_round(reversed_report)),
]
"""A check, and an algorithm that it must refuse."""


@pytest.mark.parametrize(("check", "factory"), TRACED)
def test_a_premise_that_does_not_hold_is_seen(check, factory):
    with pytest.raises(testing.CheckError, match=rf"^{check}.*: got .*; "):
        PREMISES[check](factory)


@pytest.mark.slow
@pytest.mark.parametrize(("check", "factory"), BROKEN)
def test_a_broken_algorithm_is_seen(check, factory):
    with pytest.raises(testing.CheckError, match=rf"^{check}.*: got .*; "):
        RUNS[check](factory)


@pytest.mark.slow
def test_nan_in_absent_data_and_lost_state_are_seen(monkeypatch):
    """No algorithm can bring these about: the engine masks, and the state is all that is
    carried."""
    usual = program.usual(plain)

    def multiplied(condition, a, b):
        return jax.tree.map(
            lambda x, y: (
                x * condition.reshape(condition.shape + (1,) * (jnp.ndim(x) - condition.ndim))
                + jnp.zeros_like(y)
            ).astype(x.dtype),
            a,
            b,
        )

    monkeypatch.setattr("fedjax_sim.engine.work.add_present", with_products(multiplied))
    monkeypatch.setattr("fedjax_sim.engine.lanes.queue.add_present", with_products(multiplied))
    masked = with_finish(lambda key, local, delta: delta)
    with pytest.raises(testing.CheckError, match=r"^check_absent_data"):
        RUNS["check_absent_data"](masked)
    monkeypatch.setattr(
        runs, "usual", lambda factory: usual._replace(states=(usual.states[1],) * 3)
    )
    with pytest.raises(testing.CheckError, match=r"^check_resume"):
        RUNS["check_resume"](plain)


def with_products(multiplied):
    """``add_present`` with a product where a mask belongs."""

    def add_present(running, values, present):
        rows = multiplied(present, values, tree.zeros_like(values))
        return tree.add(running, tree.total(rows))

    return add_present


# ------------------------------------------------------------------------------------------ laws


def scaled(objective, *, lr: float = 0.1, factor: float = 1.0):
    return with_update(lambda roster, delta: tree.scale(factor, delta))(objective, lr=lr)


def flipped(objective, *, lr: float = 0.1, mu: float = 0.1):
    return with_update(lambda roster, delta: tree.scale(mu - 1, delta))(objective, lr=lr)


OTHER = next(name for name in REGISTRY if signature(REGISTRY[name].factory) == signature(plain))
HOLDS = Law("a factor of 1 changes nothing", {"factor": 1.0}, OTHER)


@pytest.mark.slow
def test_laws_that_do_not_hold_or_cannot_fail_are_seen():
    def refused(check, factory, law):
        with pytest.raises(testing.CheckError, match=rf"^{check}.*: got .*; "):
            LAWS[check](factory, law)

    law = Law("half a step is a whole one", {"factor": 0.5}, OTHER)
    LAWS["check_law"](scaled, HOLDS)
    refused("check_law", scaled, law)
    refused("check_law", flipped, Law("mu = 0 changes nothing", {"mu": 0.0}, OTHER))
    refused("check_law", scaled, Law("nothing moves", {"lr": 1e-6}, OTHER, {"lr": 1e-6}))
    refused("check_law_can_fail", scaled, HOLDS)  # its default is 1, and nothing else differs
    refused("check_law_is_stated", scaled, Law("", {}, OTHER))
    refused("check_law_is_stated", REGISTRY[OTHER].factory, Law("itself", {}, OTHER))
    wrong = HOLDS._replace(
        conserved=lambda state, memory: (state.server.variables.params, problem.weights().params)
    )
    refused("check_conserved", scaled, wrong)
    zero = HOLDS._replace(conserved=lambda state, memory: (jnp.zeros(2), jnp.zeros(2)))
    refused("check_conserved", scaled, zero)


@pytest.mark.slow
def test_an_algorithm_of_somebody_else_is_checked_with_one_call():
    testing.check_algorithm(plain)
    testing.check_algorithm(plain, layouts_too=True)
    with pytest.raises(testing.CheckError):
        testing.check_algorithm(scaled, HOLDS)


# ------------------------------------------------------------------------------------------ parts


def test_numbers_are_traced_and_structure_is_not():
    def factory(objective, *, lr=0.1, flag=False, kind="a", count=3, part=None, rate=None):
        raise NotImplementedError

    given = {"lr": 1, "flag": True, "kind": "a", "count": 4, "rate": 0.5}
    divided = divide(factory, given, frozenset())
    assert divided.numbers == {"lr": 1.0, "rate": 0.5}
    assert divided.structure == {"flag": True, "count": 4}
    assert divide(factory, {"lr": 0.3}, frozenset({"lr"})).structure == {"lr": 0.3}
    assert divide(factory, {}, frozenset({"lr"})).structure == {}


def test_structure_that_was_made_twice_is_the_same():
    assert Structure({"aggregator": mean()}) == Structure({"aggregator": mean()})
    assert Structure({"rate": optax.sgd(0.1)}) != Structure({"rate": optax.sgd(0.2)})
    assert fingerprint(1) != fingerprint(True)
    assert fingerprint(object()) != fingerprint(object())


def test_numbers_that_decide_a_shape_are_found():
    def factory(objective, *, lr: float = 0.1, share: float = 0.5):
        kept = max(1, round(share * 4))
        return with_finish(lambda key, local, delta: tree.scale(kept / 2, delta))(objective, lr=lr)

    assert program.static_numbers(factory) == {"share"}
    assert program.static_numbers(plain) == frozenset()


@cache
def loops():
    """A program in which one of two inputs reaches the second output through loops and branches."""

    def both(a, b):
        def turn(carry, _):
            x, y = carry
            return (y, lax.cond(x > 0, lambda: y + 1, lambda: y)), x

        (x, y), _ = lax.scan(turn, (a, 1.0), length=3)
        return x, lax.while_loop(lambda c: c[0] < 3, lambda c: (c[0] + 1, b), (0.0, y))[1]

    return jax.make_jaxpr(jax.jit(both))(1.0, 2.0)


def test_the_walk_follows_loops_branches_and_calls():
    names = []

    def visit(equation, depends):
        names.append(equation.primitive.name)

    assert walk(loops(), [False, False], visit) == [False, False]
    assert walk(loops(), [True, False], visit) == [True, False]
    assert walk(loops(), [False, True], visit) == [False, True]
    assert {"scan", "while", "cond", "add"} <= set(names)
