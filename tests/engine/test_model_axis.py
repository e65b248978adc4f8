"""One client's model over several devices: each holds its part, the numbers are those of one
device, and there is room for more.
"""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from federation import close
from flax import linen as nn
from jax.sharding import PartitionSpec as P
from rigs import COHORTS, OBJECTIVE, PEOPLE, ROUNDS, START, WORK, C, remembers, script

from fedjax_sim import samplers
from fedjax_sim.algorithms import REGISTRY
from fedjax_sim.core import tree
from fedjax_sim.core.errors import FedError
from fedjax_sim.core.types import Variables
from fedjax_sim.data.batching import local_work
from fedjax_sim.data.population import Examples, population
from fedjax_sim.engine import Engine, make_plan
from fedjax_sim.engine.devices.memory_limit import footprint
from fedjax_sim.engine.devices.sharding import nbytes, spec_of, split_largest
from fedjax_sim.engine.program import make_round
from fedjax_sim.models import from_linen
from fedjax_sim.models.objectives import classification
from fedjax_sim.persistence.checkpoint import open_store
from fedjax_sim.persistence.manifest import state_hash
from fedjax_sim.simulation.evaluate import global_evaluation
from fedjax_sim.simulation.evaluate_clients import client_evaluation

PLAIN, KEEPER = (
    next(name for name in REGISTRY if remembers(name) is wanted) for wanted in (False, True)
)
WORDS, PLACES, WIDTH, LAYERS = 64, 6, 64, 2


class Block(nn.Module):
    """Attention with one head, then two dense layers.

    What is made of one product and cut in three is cut across the devices.
    """

    @nn.compact
    def __call__(self, x):
        query, key, value = jnp.split(
            nn.Dense(3 * WIDTH, use_bias=False, name="look")(x), 3, axis=-1
        )
        seen = jnp.tril(jnp.ones((PLACES, PLACES), bool))
        scores = jax.nn.softmax(jnp.where(seen, query @ key.swapaxes(-1, -2) / WIDTH**0.5, -1e9))
        x = x + nn.Dense(WIDTH, use_bias=False, name="tell")(scores @ value)
        return x + nn.Dense(WIDTH, use_bias=False, name="narrow")(
            nn.relu(nn.Dense(4 * WIDTH, use_bias=False, name="widen")(x))
        )


class Transformer(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.Embed(WORDS, WIDTH, name="words")(x) + self.param(
            "places", nn.initializers.normal(0.1), (PLACES, WIDTH)
        )
        for layer in range(LAYERS):
            x = Block(name=f"block_{layer}")(x)
        return nn.Dense(WORDS, use_bias=False, name="head")(x)


MODEL = from_linen(Transformer())
LOSS = classification(MODEL)
SIZES = (9, 1, 2, 7, 1, 3, 1)
TOKENS = np.random.default_rng(0).integers(0, WORDS, (sum(SIZES), PLACES)).astype(np.int32)
TEXTS = population(TOKENS, np.roll(TOKENS, -1, axis=1), np.append(0, np.cumsum(SIZES)))


@cache
def first():
    return jax.tree.map(np.asarray, Variables(*jax.jit(MODEL.init)(jax.random.key(0), TOKENS[:1])))


@cache
def program(name, model, devices=4, memory=None, split="model"):
    """Clients of one to five steps, so that devices have unequal work."""
    engine = Engine(
        lanes=1, devices=devices, devices_per_client=model, memory_limit=memory, split=split
    )
    return make_round(
        REGISTRY[name].factory(LOSS),
        samplers.full(),
        TEXTS,
        local_work(2, 1, shuffle=False),
        engine,
    )


@cache
def played(name, model, split="model"):
    """Logical states before the first round and after every one."""
    made = program(name, model, split=split)
    state = made.init(first())
    seen = [made.logical(state)]
    for _ in range(2):
        state, _ = made.run(state)
        seen.append(made.logical(state))
    return seen


def held(leaf):
    """Bytes on each device; every one has as many."""
    (nbytes,) = {part.data.nbytes for part in leaf.addressable_shards}
    return nbytes


# ---------------------------------------------------------------------------------- the transformer


@pytest.mark.parametrize("model", [2, 4])
def test_a_device_holds_its_part_of_the_model_before_and_after_a_round(model):
    made = program(PLAIN if model == 4 else KEEPER, model)
    begun = made.init(first())
    whole = sum(leaf.nbytes for leaf in jax.tree.leaves(begun.algorithm))
    for state in (begun, made.run(made.init(first()))[0]):
        mine = sum(held(leaf) for leaf in jax.tree.leaves(state.algorithm))
        assert (
            whole / model
            <= mine
            == nbytes(made.plan, "algorithm", state.algorithm)
            < 1.05 * whole / model
        )
        kernels = [
            leaf for leaf in jax.tree.leaves(state.algorithm) if leaf.shape == (WIDTH, 3 * WIDTH)
        ]
        assert len(kernels) >= LAYERS
        assert {part.data.shape for leaf in kernels for part in leaf.addressable_shards} == {
            (WIDTH, 3 * WIDTH // model)
        }


def test_a_device_holds_its_part_of_its_groups_clients_memory():
    made = program(KEEPER, 2)
    memory = made.init(first()).memory
    rows = -(-len(SIZES) // made.plan.replicas)
    whole = sum(leaf.nbytes for leaf in jax.tree.leaves(memory)) / (made.plan.replicas * rows)
    assert made.plan.replicas == 2
    assert (
        whole * rows / 2
        <= sum(held(leaf) for leaf in jax.tree.leaves(memory))
        < 1.05 * whole * rows / 2
    )


@pytest.mark.parametrize(("name", "model"), [(PLAIN, 4), (KEEPER, 2)])
def test_the_numbers_are_those_of_a_model_on_one_device(name, model):
    for have, want in zip(played(name, model), played(name, 1), strict=True):
        close(have, want)
    moved = jax.tree.map(
        lambda a, b: np.abs(a - b).max(initial=0),
        played(name, model)[0].algorithm,
        played(name, model)[-1].algorithm,
    )
    assert max(jax.tree.leaves(moved)) > 1e-2


def test_devices_that_share_a_batch_have_all_of_the_model_and_its_numbers():
    for have, want in zip(played(KEEPER, 2, "batch"), played(KEEPER, 1), strict=True):
        close(have, want)
    made = program(KEEPER, 2, split="batch")
    state = made.init(first())
    for leaf, whole in zip(
        jax.tree.leaves(state.algorithm),
        jax.tree.leaves(program(KEEPER, 1).init(first()).algorithm),
        strict=True,
    ):
        assert held(leaf) == held(whole)


def test_devices_that_share_a_batch_do_a_part_of_its_arithmetic_each():
    def flops(model):
        made = program(PLAIN, model, devices=2, split="batch")
        return made.lower(made.init(first())).compile().cost_analysis()["flops"]

    assert flops(2) < 0.7 * flops(
        1
    )  # two devices, as one group or as two: the step's products are half as long


def test_a_batch_that_devices_do_not_divide_is_everybodys():
    plan = make_plan(Engine(devices=4, devices_per_client=4, split="batch"), 10)
    assert spec_of(plan, "batch.rows", (8,)) == P("model")
    assert spec_of(plan, "batch.rows", (6,)) == spec_of(plan, "local.head.kernel", (64, 64)) == P()


def test_a_checkpoint_goes_on_over_another_number_of_devices(tmp_path):
    _, then, last = played(KEEPER, 2)
    store = open_store(tmp_path)
    store.save(then)
    restored = store.restore(jax.eval_shape(lambda: then)).state
    store.close()
    one = program(KEEPER, 1)
    close(one.logical(one.run(one.place(restored))[0]), last)
    for other in (1, 2):
        made = program(KEEPER, other)
        assert state_hash(made.logical(made.place(restored))) == state_hash(then)


def test_what_is_too_large_for_a_device_fits_into_a_quarter_of_it_on_each_of_four():
    rooms = {model: program(PLAIN, model) for model in (1, 4)}
    takes = {
        model: footprint(made.lower(made.init(first())).compile().memory_analysis())
        for model, made in rooms.items()
    }
    assert takes[4] < 0.4 * takes[1]
    budget = (takes[1] + takes[4]) // 2
    small = program(PLAIN, 1, memory=budget)
    with pytest.raises(
        FedError, match=r"does not fit into a device's memory: got .*engine\.devices_per_client"
    ):
        small.run(small.init(first()))
    spread = program(PLAIN, 4, memory=budget)
    close(spread.logical(spread.run(spread.init(first()))[0]), played(PLAIN, 1)[1])


# ---------------------------------------------------------------------------------------- any model


def halves(path, shape):
    """Whatever can be cut in two is, and be it four numbers."""
    place = next((place for place, length in enumerate(shape) if length and length % 2 == 0), None)
    return P() if place is None else P(*[None] * place, "model")


ALONE, PAIR, PAIRS = (
    {"devices": 1},
    {"devices": 2, "devices_per_client": 2, "layout": halves},
    {"devices": 4, "devices_per_client": 2, "layout": halves},
)


def people(name, work=WORK, **engine):
    return make_round(
        REGISTRY[name].factory(OBJECTIVE),
        script(C, ROUNDS),
        PEOPLE,
        work,
        Engine(**{"lanes": 2, **engine}),
    )


def after(made):
    """The logical state after the rigs' cohorts."""
    state = made.place(made.logical(made.init(START)).replace(sampler=COHORTS))
    return made.logical(made.run(state, ROUNDS)[0])


@cache
def expected():
    return after(people(KEEPER, shards=4, **ALONE))


def test_fixed_shards_give_the_same_bits_on_any_replicas_and_on_the_host():
    states = [
        after(people(KEEPER, shards=4, **more))
        for more in (PAIR, PAIRS, PAIRS | {"client_memory": "host"})
    ]
    close(states[0], expected())
    assert state_hash(states[0]) == state_hash(states[1])
    assert state_hash(states[0].replace(memory=())) == state_hash(states[2].replace(memory=()))


def test_groups_with_unequal_numbers_of_blocks_sweep_together():
    once = local_work(None, 1, shuffle=False)
    close(after(people(PLAIN, once, **PAIRS | {"lanes": 1})), after(people(PLAIN, once, **ALONE)))


def test_clients_that_are_padded_may_share_devices_too():
    close(after(people(KEEPER, kind="padded", **PAIRS)), expected())


def test_evaluation_sees_the_whole_model():
    numbers = []
    for made in (people(KEEPER, **ALONE), people(KEEPER, **PAIRS)):
        state, algorithm = made.place(expected()), REGISTRY[KEEPER].factory(OBJECTIVE)
        numbers.append(client_evaluation(algorithm, OBJECTIVE, PEOPLE, made, 4)(state))
        numbers[-1] |= global_evaluation(
            algorithm, OBJECTIVE, Examples(PEOPLE.x, PEOPLE.y), 8, made.plan
        )(state)
    assert {"test/loss", "clients/accuracy_std"} <= numbers[0].keys()
    assert numbers[1] == pytest.approx(numbers[0], rel=1e-5)


# ----------------------------------------------------------------------------------------- the rule


def test_by_default_the_largest_dimension_that_can_be_split_is():
    assert split_largest(2, (64, 256)) == P(None, "model")
    assert split_largest(2, (256, 64, 3)) == P("model")
    assert split_largest(2, (64, 64)) == P(None, "model")
    assert split_largest(4, (90, 64)) == P(None, "model")
    assert split_largest(4, (90, 65)) == P()
    assert split_largest(2, (63, 65)) == split_largest(2, (32, 64)) == split_largest(2, ()) == P()


def test_the_users_rule_is_followed_by_path():
    asked = {}

    def rule(path, shape):
        asked[path] = shape
        return P("model") if path.endswith("head.kernel") else P()

    engine = Engine(devices=4, devices_per_client=2, layout=rule)
    made = make_round(
        REGISTRY[KEEPER].factory(LOSS), samplers.full(), TEXTS, local_work(2, 1), engine
    )
    state = made.init(first())
    for path, leaf in jax.tree_util.tree_leaves_with_path((state.algorithm, state.memory)):
        assert ("model" in tuple(leaf.sharding.spec)) == tree.name(path).endswith("head.kernel")
    assert asked["memory.head.kernel"] == (WIDTH, WORDS)


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        (lambda path, shape: P("data"), "must name 'model' for at most one dimension of local.b"),
        (lambda path, shape: P("model", "model"), "for the shape"),
        (lambda path, shape: None, "return PartitionSpec"),
        (lambda path, shape: P("model"), "3 over 2 devices; split another dimension"),
    ],
)
def test_a_rule_that_makes_no_sense_is_refused(rule, said):
    with pytest.raises(FedError, match=said) as caught:
        spec_of(
            make_plan(Engine(devices=4, devices_per_client=2, layout=rule), 10), "local.b", (3,)
        )
    assert caught.value.setting == "engine.layout"


@pytest.mark.parametrize(
    ("engine", "said"),
    [
        (
            Engine(devices=4, devices_per_client=3),
            "engine.devices_per_client must divide the devices: got 3 of 4",
        ),
        (Engine(devices=2, devices_per_client=4), "4 of 2"),
        (Engine(devices_per_client=0), "engine.devices_per_client must divide"),
        (Engine(devices=4, devices_per_client=2, split="bach"), "did you mean 'batch'"),
        (
            Engine(devices=4, devices_per_client=2, split="batch", layout=lambda path, shape: P()),
            "leave one of them out",
        ),
        (
            Engine(devices=4, devices_per_client=2, backend="pmap"),
            "needs the backend 'shard_map': got 'pmap'",
        ),
        (
            Engine(devices=1, devices_per_client=1, backend="vmap", shards=0),
            "0 shards on 1 devices",
        ),
        (
            Engine(devices=4, devices_per_client=2, shards=3),
            "3 shards on 2 groups of 2 devices; use 2 or 4 shards",
        ),
        (Engine(devices_per_client=2, backend="vmap"), "engine.devices_per_client"),
    ],
)
def test_an_engine_whose_devices_cannot_share_a_model_is_refused(engine, said):
    with pytest.raises(FedError, match=said):
        make_plan(engine, 10)


def test_a_plan_counts_its_groups():
    plan = make_plan(Engine(devices_per_client=2), 10)
    assert (plan.replicas, plan.shards, plan.backend, len(plan.devices)) == (2, 2, "shard_map", 4)
    assert make_plan(Engine(devices_per_client=2, shards=8), 10).shards_per_device == 4
