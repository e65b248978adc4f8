"""Random configurations, drawn from the schema or made of valid ones by changes, and the outcome of
a command on one of them."""

from __future__ import annotations

import contextlib
import copy
import io
import json
import os
import re
import resource
import signal
import tomllib
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import hypothesis.strategies as st
import tomli_w
from commands import CONFIGS
from hypothesis import HealthCheck, Phase, given, seed, settings
from rigs import rotated

from fedjax_sim.cli import main

SCHEMA = json.loads((CONFIGS / "fedjax_sim.schema.json").read_text())
SECONDS, SPARE = 180.0, 8 * 2**30
"""The longest time of a case, also on a busy machine, and the bytes that it may use beyond those
that are used already."""

Tree = dict[str, Any]


def some(choices: Sequence[Any], count: int) -> list[Any]:
    """Some of the choices, others after every commit; all with ``FEDJAX_SIM_FUZZ=all``."""
    if os.environ.get("FEDJAX_SIM_FUZZ") == "all":
        return list(choices)
    names = rotated([str(choice) for choice in choices], count)
    return [choice for choice in choices if str(choice) in names]


# ------------------------------------------------------------------------------------------ outcome


class Late(BaseException):
    """A case took too long. No handler catches this."""


class Outcome(NamedTuple):
    """What a command did."""

    status: int
    out: str
    errors: str


def command(*words: str) -> Outcome:
    """Runs a command here; it is a failure if it raises, or takes too long or too much memory."""
    out, errors = io.StringIO(), io.StringIO()
    with (
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(errors),
        _bounded(),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")
        try:
            status = main(words)
        except SystemExit as end:  # words that the parser refuses
            status = int(str(end.code))
    return Outcome(status, out.getvalue(), errors.getvalue())


def judge(done: Outcome) -> bool:
    """Whether it was accepted.

    What was not must be told line by line, in three parts, on standard error alone.
    """
    assert done.status in (0, 2), done
    if done.status == 0:
        return True
    lines = done.errors.splitlines()
    if lines[0].startswith("usage: "):
        assert re.match(r"fedjax-sim[\w -]*: error: ", lines[-1]), lines
        return False
    if re.fullmatch(r"\d+ problems?; nothing was run.", lines[-1]):
        assert lines.pop().startswith(f"{len(lines)} problem"), done
    for line in lines:
        assert re.fullmatch(r"\S.*: got .+; .+", line), lines
        assert len(line) < 2000, line
    assert done.errors.replace("\n", "").isprintable(), done
    assert done.out == "", done
    return False


@contextlib.contextmanager
def _bounded() -> Iterator[None]:
    def late(number: int, frame: Any) -> None:
        raise Late(f"more than {SECONDS} s")

    before, (soft, hard) = (
        signal.signal(signal.SIGALRM, late),
        resource.getrlimit(resource.RLIMIT_AS),
    )
    used = int(re.search(r"VmSize:\s+(\d+)", Path("/proc/self/status").read_text())[1]) * 1024
    resource.setrlimit(resource.RLIMIT_AS, (used + SPARE, hard))
    signal.setitimer(
        signal.ITIMER_REAL, SECONDS, 1.0
    )  # again and again, for one in a callback of Python's own is lost
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


# ------------------------------------------------------------------------------------------- values

WORDS = [
    "",
    "x",
    "mlp",
    "logistic",
    "none",
    "auto",
    "dirichlet",
    "iid",
    "uniform",
    "adam",
    "test/accuracy",
    "loss",
    "/nowhere",
    "../up",
]
ODD_WORDS = [
    "\u00e9\u4e2d\U0001f600",
    "a\nb",
    "a\x00b",
    "a: got b; c",
    "\u202e\x7f\x1b[31m",
    "{name} %s",
    "[bold]",
    "\ud7ff",
    "x" * 5000,
    "task.clients",
    "nan",
    " ",
    "a" * 70 + "\n",
]
INTEGERS = [1, 2, 3, 4, 5, 8]
ODD_INTEGERS = [
    0,
    -1,
    -(2**31),
    2**31 - 1,
    2**31,
    2**32,
    2**63 - 1,
    2**63,
    2**64,
    10**12,
    10**30,
    10**400,
    500,
]
NUMBERS = [0.01, 0.1, 0.25, 0.5, 0.9, 2.0]
ODD_NUMBERS = [
    0.0,
    1.0,
    -0.0,
    -0.1,
    1.5,
    float("nan"),
    float("inf"),
    float("-inf"),
    1e-320,
    1e-30,
    1e30,
    1e308,
    -1e308,
]

words = st.one_of(st.sampled_from(WORDS), st.sampled_from(ODD_WORDS), st.text(max_size=12))
scalars = st.one_of(
    st.sampled_from(INTEGERS),
    st.sampled_from(ODD_INTEGERS),
    st.sampled_from(NUMBERS),
    st.sampled_from(ODD_NUMBERS),
    st.booleans(),
    words,
    st.dates(),
    st.datetimes(),
    st.times(),
)
anything = st.recursive(
    scalars,
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(words, inner, max_size=4)),
    max_leaves=8,
)


@st.composite
def deep(draw: st.DrawFn) -> Any:
    """Something far down in tables and lists."""
    value: Any = draw(scalars)
    for _ in range(draw(st.sampled_from([3, 30, 90, 250]))):
        value = draw(st.sampled_from([[value], {"name": value}, {"kind": value}, {"x": value}]))
    return value


# ---------------------------------------------------------------------------------- from the schema


def of_schema(node: Tree, odd: bool) -> st.SearchStrategy[Any]:
    """What a node of the schema allows; ``odd`` with numbers that the schema allows and nobody
    would write.
    """
    if "$ref" in node:
        return of_schema(SCHEMA["$defs"][node["$ref"].rpartition("/")[2]], odd)
    if "const" in node:
        return st.just(node["const"])
    if "enum" in node:
        return st.sampled_from(node["enum"])
    for either in ("anyOf", "oneOf"):
        if either in node:
            return st.one_of([of_schema(each, odd) for each in node[either]])
    return {
        "object": _object,
        "array": lambda node, odd: st.lists(
            of_schema(node["items"], odd), min_size=node.get("minItems", 0), max_size=3
        ),
        "integer": lambda node, odd: st.sampled_from(
            [n for n in INTEGERS + odd * ODD_INTEGERS if n >= node.get("minimum", n)]
        ),
        "number": lambda node, odd: st.sampled_from(NUMBERS + odd * ODD_NUMBERS),
        "boolean": lambda node, odd: st.booleans(),
        "string": lambda node, odd: words if odd else st.sampled_from(["mlp", "logistic"]),
        "null": lambda node, odd: st.just("none"),
    }[node["type"]](node, odd)


@st.composite
def _object(draw: st.DrawFn, node: Tree, odd: bool) -> Tree:
    required = node.get("required", [])
    rest = [name for name in node["properties"] if name not in required]
    chosen = draw(st.lists(st.sampled_from(rest), unique=True, max_size=4)) if rest else []
    return {name: draw(of_schema(node["properties"][name], odd)) for name in [*required, *chosen]}


READY = ("digits", "synthetic", "quadratic")
"""Tasks that need no data."""


@st.composite
def drawn(draw: st.DrawFn, odd: bool = False) -> Tree:
    """A whole file, most often of a task whose data are there."""
    made = draw(of_schema(SCHEMA, odd))
    if made["task"]["name"] not in READY and draw(st.integers(0, 9)):
        made["task"] = draw(of_schema({"$ref": f"task_{draw(st.sampled_from(READY))}"}, odd))
    if draw(st.booleans()):
        made.pop("model", None)
    if made.get("stop", "none") != "none" and not odd:
        made["stop"] = {
            "metric": draw(st.sampled_from(["loss", "seconds"])),
            "at_most": draw(st.sampled_from(NUMBERS)),
        }
    return made


# ---------------------------------------------------------------------------------------- mutations

BASES = [
    tomllib.loads((CONFIGS / f"{name}.toml").read_text())
    for name in ("digits_fedadam", "digits_scaffold", "synthetic_fedprox")
]
BASES += [
    {"task": {"name": "quadratic"}, "algorithm": {"name": "fedavg"}, "sampler": {"kind": "full"}},
    {
        "task": {
            "name": "digits",
            "clients": 12,
            "partition": {"kind": "sized", "sizes": [20] * 12},
        },
        "model": {"name": "mlp", "hidden": [8, 8]},
        "algorithm": {
            "name": "fedavg",
            "aggregator": [{"kind": "clip", "max_norm": 1.0}, {"kind": "mean"}],
        },
        "sampler": {
            "kind": "poisson",
            "expected": 3.0,
            "dropout": 0.1,
            "stragglers": {"share": 0.5, "least": 0.2},
        },
        "engine": {"devices": 2, "shards": 4},
        "stop": {"metric": "loss", "at_most": 0.1},
    },
]


def places(tree: Any, way: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The way to everything in a tree."""
    items = (
        tree.items()
        if isinstance(tree, dict)
        else enumerate(tree)
        if isinstance(tree, list)
        else ()
    )
    return [place for key, value in items for place in ((*way, key), *places(value, (*way, key)))]


def at(tree: Any, way: tuple[Any, ...]) -> Any:
    for key in way:
        tree = tree[key]
    return tree


@st.composite
def mutated(draw: st.DrawFn, bases: Sequence[Tree] = BASES) -> Tree:
    """A valid file with one to three things done to it."""
    made = copy.deepcopy(draw(st.sampled_from(bases)))
    for _ in range(draw(st.integers(1, 3))):
        way = draw(st.sampled_from(places(made)))
        around, key = at(made, way[:-1]), way[-1]
        draw(st.sampled_from([_replace, _replace, _replace, _remove, _rename, _add, _wrap, _swap]))(
            draw, made, around, key
        )
        if not made:
            break
    return made


def _replace(draw: Any, made: Tree, around: Any, key: Any) -> None:
    around[key] = draw(st.one_of(anything, scalars, deep()))


def _remove(draw: Any, made: Tree, around: Any, key: Any) -> None:
    del around[key]


def _rename(draw: Any, made: Tree, around: Any, key: Any) -> None:
    if isinstance(around, dict):
        name = draw(st.one_of(words, st.just(f"{key}s"), st.just(str(key)[:-1])))
        around[name] = around.pop(key)


def _add(draw: Any, made: Tree, around: Any, key: Any) -> None:
    if isinstance(around, dict):
        around[draw(st.one_of(words, st.sampled_from(sorted(SCHEMA["properties"]))))] = draw(
            anything
        )
    else:
        around.append(draw(anything))


def _wrap(draw: Any, made: Tree, around: Any, key: Any) -> None:
    held = around[key]
    around[key] = draw(st.sampled_from([[held], [held, held], {"name": held}, {str(key): held}]))


def _swap(draw: Any, made: Tree, around: Any, key: Any) -> None:
    other = draw(st.sampled_from(places(made)))
    there = at(made, other[:-1])
    mine, theirs = copy.deepcopy(around[key]), copy.deepcopy(there[other[-1]])
    around[key] = theirs
    if other[-1] in there if isinstance(there, dict) else other[-1] < len(there):
        there[other[-1]] = mine


PHASES = [Phase.generate, Phase.shrink]


def each(
    strategy: st.SearchStrategy[Tree],
    count: int,
    start: int,
    do: Callable[[Tree], None],
    phases: Sequence[Phase] = PHASES,
) -> None:
    """Calls ``do`` on so many examples, the same ones whenever the strategy is; the first that
    fails is made smaller and shown.
    """
    common = settings(
        max_examples=count,
        deadline=None,
        database=None,
        phases=phases,
        suppress_health_check=list(HealthCheck),
    )
    seed(start)(common(given(strategy)(do)))()


def written(made: Tree, path: Path) -> str:
    """The path of a file with it."""
    path.write_text(tomli_w.dumps(made), encoding="utf-8")
    return str(path)
