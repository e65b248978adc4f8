"""The registry: what can be registered, under which names, and what reads it."""

from __future__ import annotations

import gc
import inspect
import types
import weakref
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

import fedjax_sim as fs
from fedjax_sim.core import registry
from fedjax_sim.core.calls import calls_with, recorded
from fedjax_sim.core.errors import FedError
from fedjax_sim.experiments.config import entries_by_kind, load_config, schema
from fedjax_sim.experiments.config.reference import reference_text
from fedjax_sim.testing.checks import law_of

pytestmark = pytest.mark.usefixtures("restored_registry")

CONFIG = """
rounds = 2
[task]
name = "quadratic"
clients = 4
[algorithm]
name = "fedavg"
lr = 0.1
aggregator = { kind = "halved", factor = 0.25 }
[sampler]
kind = "full"
"""


def halved(factor: float = 0.5) -> fs.Aggregator:
    """Scales the mean.

    Args:
      factor: of the mean.
    """
    return fs.chain(fs.stage(), fs.aggregators.mean())


def test_a_function_is_registered_under_its_name_or_another():
    factory = fs.register("aggregator", halved)
    fs.register("aggregator", "other", halved)
    entries = entries_by_kind()["aggregator"]
    assert entries["halved"].factory is factory
    assert inspect.unwrap(entries["other"].factory) is inspect.unwrap(factory) is halved
    assert entries["halved"].plugin is None


def test_register_is_a_decorator_too():
    @fs.register("sampler", "everyone", speed="slow")
    def full_again() -> fs.Sampler:
        """All clients."""
        return fs.samplers.full()

    entry = entries_by_kind()["sampler"]["everyone"]
    assert entry.factory is full_again
    assert entry.metadata["speed"] == "slow"
    assert entry().cohort(7) == 7


def test_a_module_brings_its_factory_law_and_card():
    module: Any = types.ModuleType("somewhere.mine", "The card.")
    module.mine = lambda objective: fs.fedavg(objective)
    module.LAW = fs.Law("it is FedAvg")
    fs.register("algorithm", module)
    entry = entries_by_kind()["algorithm"]["mine"]
    assert (entry.card, entry.law) == ("The card.", module.LAW)
    with pytest.raises(FedError, match="a module is registered by the model of its own name: got"):
        fs.register("model", types.ModuleType("somewhere.empty"))


def test_a_cell_of_a_notebook_may_run_twice():
    def first() -> fs.Sampler:
        return fs.samplers.full()

    again = types.FunctionType(first.__code__, globals(), "first")
    again.__qualname__ = first.__qualname__
    fs.register("sampler", "mine", first)
    fs.register("sampler", "mine", again)
    assert inspect.unwrap(entries_by_kind()["sampler"]["mine"].factory) is again


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("samplr", halved), "unknown kind: got 'samplr'; did you mean 'sampler'"),
        (("sampler", "full", halved), "this sampler is already registered: got 'full'; choose"),
        (("sampler", "two words", halved), "the name of a sampler is an identifier: got 'two w"),
    ],
)
def test_what_cannot_be_registered(arguments: tuple[Any, ...], message: str):
    with pytest.raises(FedError, match=message):
        fs.register(*arguments)


def test_whatever_is_registered_reaches_files_schema_and_reference(tmp_path: Path):
    fs.register("aggregator", halved)
    path = tmp_path / "config.toml"
    path.write_text(CONFIG)
    (table,) = load_config(path).run.algorithm.aggregator
    assert (table.kind, table.factor) == ("halved", 0.25)
    assert "aggregator_halved" in schema()["$defs"]
    assert "### aggregator `halved`" in reference_text()


def test_a_new_kind_is_one_declaration(tmp_path: Path):
    class Flavour:
        """What the new kind makes."""

    def vanilla(strength: float = 1.0) -> Flavour:
        """A flavour."""
        return Flavour()

    def flavoured(flavour: Flavour | None = None) -> fs.Aggregator:
        """An aggregator with a flavour."""
        return fs.aggregators.mean()

    vanilla.__annotations__["return"] = Flavour
    flavoured.__annotations__["flavour"] = Flavour | None
    registry.declare(registry.Kind("flavour", "flavours", "a test's", stands_for=(Flavour,)))
    fs.register("flavour", vanilla)
    fs.register("aggregator", flavoured)
    path = tmp_path / "config.toml"
    table = '{ kind = "flavoured", flavour = { kind = "vanilla", strength = 2.0 } }'
    path.write_text(CONFIG.replace('{ kind = "halved", factor = 0.25 }', table))
    (chosen,) = load_config(path).run.algorithm.aggregator
    assert chosen.flavour.strength == 2.0
    assert "## Flavours" in reference_text()


def test_every_kind_says_what_it_is_and_every_entry_has_a_line():
    from fedjax_sim.cli.inspect import line_of

    for name, entries in entries_by_kind().items():
        assert registry.kind(name).meaning
        for entry in entries.values():
            assert line_of(entry), (name, entry.name)


def test_every_algorithm_of_the_package_has_a_law():
    own = [each for each in entries_by_kind()["algorithm"].values() if each.plugin is None]
    assert all(isinstance(entry.law, fs.Law) for entry in own)


def test_an_algorithm_that_is_registered_again_replaces_its_public_name():
    def again(objective: fs.Objective, *, lr: float = 0.1) -> fs.Algorithm:
        return fs.fedavg(objective, lr=lr)

    first = fs.register("algorithm", "again", again)
    assert fs.again is first  # type: ignore[attr-defined]
    second = fs.register("algorithm", "again", again)
    assert fs.again is second is not first  # type: ignore[attr-defined]


def test_calls_that_return_the_same_functions_differ_by_their_arrays():
    class Thing(NamedTuple):
        function: Any
        data: Any

    make = recorded("task", "thing", lambda seed: Thing(halved, np.arange(3) + seed))
    things = [make(1), make(2)]
    calls = [call for call in calls_with(halved) if call.kind == "task"]
    assert [call.arguments for call in calls] == [{"seed": 2}, {"seed": 1}]
    assert calls[1].holds(things[0].data)
    assert not calls[1].holds(things[1].data)


def test_a_module_s_law_is_found_by_its_own_factory():
    from fedjax_sim.algorithms import scaffold

    assert law_of(scaffold.scaffold) is law_of(fs.scaffold) is scaffold.LAW


def test_a_call_is_forgotten_with_what_it_made():
    def made() -> weakref.ref[Any]:
        sampler = fs.samplers.dropout(fs.samplers.uniform(2), 0.5)
        return weakref.ref(sampler.cohort)

    cohort = made()
    gc.collect()
    assert cohort() is None
