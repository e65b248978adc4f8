"""The contracts of records and nouns: ``help(fs.Learner)`` describes every slot."""

import inspect
import re
import typing
from collections.abc import Callable

import pytest

from fedjax_sim.core import law, types

CONTRACTS = {
    name: cls
    for module in (types, law)
    for name, cls in vars(module).items()
    if inspect.isclass(cls) and cls.__module__ == module.__name__ and cls.__annotations__
}


def described(cls):
    """Names and descriptions in the ``Attributes:`` section of a class docstring."""
    section = re.split(r"\n(?=\S)", inspect.getdoc(cls).partition("Attributes:\n")[2])[0]
    return dict(re.findall(r"^  (\w+): (\S.*)", section, flags=re.MULTILINE))


def test_the_nouns_and_records_are_among_the_contracts():
    nouns = {"Learner", "Aggregator", "Server", "Sampler", "Algorithm", "Objective", "RoundState"}
    records = {"Message", "Upload", "Member", "Roster", "Trip", "Outcome", "Law", "Batch", "Mean"}
    assert nouns | records <= CONTRACTS.keys()


@pytest.mark.parametrize("name", CONTRACTS)
def test_a_class_docstring_describes_every_field_in_order(name):
    assert list(described(CONTRACTS[name])) == list(CONTRACTS[name].__annotations__)


@pytest.mark.parametrize("name", ["Learner", "Aggregator", "Server", "Sampler", "Algorithm"])
def test_the_description_of_a_function_slot_begins_with_its_signature(name):
    texts = described(CONTRACTS[name])
    for slot, hint in typing.get_type_hints(CONTRACTS[name]).items():
        if typing.get_origin(hint) is Callable:
            assert re.match(r"``.* -> .*``", texts[slot]), f"{name}.{slot}"
