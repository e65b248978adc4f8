"""Options of sources: read from words, and converted to the types of a reader's parameters."""

import pytest

from fedjax_sim.core.errors import FedError
from fedjax_sim.data.sources.options import convert_options, read_pairs


def test_words_are_read_as_values():
    words = ["a=1", "b=0.5", "c=true", "d=[1, 2]", "e=text", "f=1,2", "g=2020-01-01", "h=x=y", "i="]
    wanted = {
        "a": 1,
        "b": 0.5,
        "c": True,
        "d": [1, 2],
        "e": "text",
        "f": "1,2",
        "g": "2020-01-01",
        "h": "x=y",
        "i": "",
    }
    assert read_pairs(words) == wanted
    for bad in ("alpha", "=3"):
        with pytest.raises(FedError, match="an option is key=value"):
            read_pairs([bad])


def test_values_fit_the_hints():
    def function(
        path,
        *,
        a: int = 1,
        b: float = 1.0,
        c: str = "",
        d: tuple[int, ...] = (),
        e: bool | None = None,
        f: float | None = None,
    ):
        """Nothing."""

    good = {"a": 3, "b": 2, "c": 7, "d": "1,2", "e": True, "f": 1}
    assert convert_options(function, good, "it") == {
        "a": 3,
        "b": 2.0,
        "c": "7",
        "d": (1, 2),
        "e": True,
        "f": 1.0,
    }
    assert convert_options(function, {"d": 5}, "it") == {"d": (5,)}
    for name, bad in {"a": True, "b": "x", "c": [1], "d": "1.5", "e": 1, "f": False}.items():
        with pytest.raises(FedError, match=f"{name} of it must be"):
            convert_options(function, {name: bad}, "it")
