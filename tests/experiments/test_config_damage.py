"""Files that are no configurations, and words that are no overrides: each is told in sentences, and
none is obeyed.
"""

import os
import random
from pathlib import Path

import hypothesis.strategies as st
import pytest
import tomli_w
from configurations import GOOD, complaint
from fuzz import SCHEMA, command, judge, words
from hypothesis import HealthCheck, given, settings

from fedjax_sim.core import errors
from fedjax_sim.experiments.build import build
from fedjax_sim.experiments.config import entries_by_kind, load_config
from fedjax_sim.experiments.config.toml import DEPTH, SIZE

SMALL = """rounds = 2
[task]
name = "quadratic"
[algorithm]
name = "fedavg"
[sampler]
kind = "full"
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "c.toml"


def check(path: Path, *overrides: str) -> bool:
    """Whether the file is accepted; nothing is written either way."""
    before = sorted(path.parent.rglob("*"))
    accepted = judge(command("check", str(path), *overrides))
    assert sorted(path.parent.rglob("*")) == before
    return accepted


# ------------------------------------------------------------------------------------ damaged files


def test_a_file_may_end_anywhere(path: Path):
    accepted = []
    for end in (*range(0, len(SMALL) - 2, 5), len(SMALL) - 2, len(SMALL) - 1, len(SMALL)):
        path.write_text(SMALL[:end])
        accepted.append(check(path))
    assert accepted[-3:] == [False, True, True]
    assert not any(accepted[:-3])


def test_bytes_may_be_any(path: Path):
    random_ = random.Random(0)
    text = SMALL.encode()
    for _ in range(40):
        damaged = bytearray(text)
        for _ in range(random_.choice([1, 1, 2, 5, 20])):
            place = random_.randrange(len(damaged))
            damaged[place : place + random_.choice([0, 1, 1, 4])] = random_.randbytes(
                random_.choice([0, 1, 1, 3])
            )
        path.write_bytes(damaged)
        check(path)


TEXTS = {
    "nothing": "",
    "garbage": bytes(range(256)) * 4,
    "nul": "rounds = 2\x00",
    "UTF-16": SMALL.encode("utf-16"),
    "mark in front": b"\xef\xbb\xbf" + SMALL.encode(),
    "old line ends": SMALL.replace("\n", "\r").encode(),
    "number in decimal": f"rounds = {'9' * 5000}",
    "number in hexadecimal": f"rounds = 0x{'f' * 5000}",
    "number of 64 bits": f"{SMALL}seed = {2**63}",
    "lists within lists": f"x = {'[' * 3000}{']' * 3000}",
    "tables within tables": f"x = {'{a=' * 3000}1{'}' * 3000}",
    "tables a little too deep": f"x = {'{a=' * DEPTH}1{'}' * DEPTH}",
    "a long key": f"{'a.' * 3000}b = 1",
    "a long word": f'{"x" * 10**6} = "{"y" * 10**6}"',
    "many keys": "".join(f"k{number} = 1\n" for number in range(20_000)),
    "many tables": "".join(f"[t{number}]\n" for number in range(20_000)),
    "many wrong tables": "[[sampler]]\n" * 5000,
    "more than anybody writes": "#" * (SIZE + 1),
    "date": "rounds = 1979-05-27T07:32:00Z",
    "wrong date": "rounds = 1979-13-27",
    "escapes": 'rounds = "\\u0000\\u001b[31m\\u202e"',
    "keys that are escapes": '"\\u001b[2J\\n" = 1',
    "half of a pair": 'rounds = "\\ud800"',
}


@pytest.mark.parametrize("name", TEXTS)
def test_strange_texts_are_told(name: str, path: Path):
    text = TEXTS[name]
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    assert not check(path)


def test_windows_line_ends_are_fine(path: Path):
    path.write_bytes(SMALL.replace("\n", "\r\n").encode())
    assert check(path)


@pytest.mark.parametrize(
    "kind", ["folder", "absent", "below a file", "long", "loop", "endless", "forbidden"]
)
def test_what_is_no_file_is_told(kind: str, path: Path):
    place = path
    if kind == "folder":
        path.mkdir()
    elif kind == "below a file":
        path.write_text(SMALL)
        place = path / "c.toml"
    elif kind == "long":
        place = path.parent / ("x" * 5000)
    elif kind == "loop":
        path.symlink_to(path)
    elif kind == "endless":
        path.symlink_to("/dev/zero")
    elif kind == "forbidden":
        path.write_text(SMALL)
        path.chmod(0)
        if os.access(path, os.R_OK):
            pytest.skip("this user may read everything")
    assert not judge(command("check", str(place)))


# ---------------------------------------------------------------------------------------- overrides

KEYS = [
    *sorted(SCHEMA["properties"]),
    "algorithm.lr",
    "algorithm.name",
    "sampler.kind",
    "sampler.cohort",
    "task.clients",
    "stop.metric",
]
SAID = [
    "1",
    "0.1",
    "true",
    "none",
    "[]",
    "[1",
    "{",
    "{a=1}",
    "'x'",
    '"',
    "nan",
    "-inf",
    "1979-05-27",
]
SAID += ["0x" + "f" * 5000, "9" * 5000, "[" * 2000]
values = st.one_of(st.sampled_from(SAID), words, st.text(max_size=20))
keys = st.one_of(
    st.sampled_from(KEYS),
    st.lists(words, min_size=1, max_size=4).map(".".join),
    st.just("a." * 3000 + "b"),
)


@settings(
    max_examples=40,
    deadline=None,
    database=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)
@given(
    said=st.lists(st.one_of(st.tuples(keys, values).map("=".join), words), min_size=1, max_size=3)
)
def test_overrides_may_be_any_words(said: list[str], tmp_path_factory: pytest.TempPathFactory):
    path = tmp_path_factory.getbasetemp() / "overridden.toml"
    path.write_text(SMALL)
    judge(command("check", str(path), *said))


@pytest.mark.parametrize(
    "word",
    [
        "task.partition.sizes.\u00b2=1",
        f"task.partition.sizes.{'9' * 5000}=1",
        "task.partition.sizes.-1=1",
        f"{'a.' * 3000}b=1",
        "a..b=1",
        "=",
    ],
)
def test_keys_that_name_no_place(word: str, path: Path):
    path.write_text(
        SMALL.replace(
            'name = "quadratic"', 'name = "digits"\npartition = { kind = "sized", sizes = [9, 9] }'
        )
    )
    assert not check(path, word)


# ----------------------------------------------------------------------- what the fuzzing has found


@pytest.fixture
def good(path: Path) -> Path:
    path.write_text(GOOD)
    return path


@pytest.mark.parametrize("text", ["\x1b[31mred", "two\nlines", "\u202eleft", "a\x00b", "\x7f"])
def test_no_terminal_obeys_what_a_file_says(text: str, good: Path):
    """Neither as a value nor as a key, and a problem stays one line."""
    good.write_text(GOOD.replace('"digits"', tomli_w.dumps({"x": text})[4:-1]))
    (line,) = complaint(good)
    assert line.isprintable()
    good.write_text(GOOD + tomli_w.dumps({text: 1}))
    (line,) = complaint(good)
    assert line.isprintable()
    with pytest.raises(errors.FedError) as caught:
        errors.fail(text, got=text, fix="mend it")
    assert str(caught.value).isprintable()


def test_long_words_are_cut(good: Path):
    for override in (f"{'k' * 9000}=1", f"task.model={'m' * 9000}", f"rounds={'9' * 4000}"):
        (line,) = complaint(good, [override], made=True)
        assert len(line) < 1000


@pytest.mark.parametrize(
    ("override", "key"),
    [
        ("local_work.batch_size=2147483648", "local_work.batch_size"),
        ("local_work.epochs=9223372036854775807", "local_work.epochs"),
        ("sampler.step_budget=1000000000000", "sampler.step_budget"),
        ("algorithm.lr={kind='exponential', start=0.9, steps=4294967296}", "algorithm.lr.steps"),
        ("task.clients=-4294967296", "task.clients"),
        ("model={name='mlp', hidden=[8, 4294967296]}", "model.hidden"),
        ("task.partition={kind='sized', sizes=[8, 4294967296]}", "task.partition.sizes"),
    ],
)
def test_whole_numbers_are_those_of_a_device(override: str, key: str, good: Path):
    lines = complaint(good, [override])
    assert any(
        line.startswith(f"command line: {key}: whole numbers go up to 2147483647: got ")
        for line in lines
    ), lines


def test_seeds_and_bytes_may_be_larger(good: Path):
    run = load_config(good, [f"task.seed={2**62}", f"engine.memory_limit={2**62}"]).run
    assert run.task.seed == run.engine.memory_limit == 2**62


@pytest.mark.parametrize(
    ("override", "key", "said"),
    [
        (
            "sampler={kind='poisson', expected=1e30}",
            "sampler.expected",
            "poisson.expected must not exceed any population",
        ),
        (
            "task={name='synthetic', clients=2147483647}",
            "task.clients",
            "the clients' examples must fit in memory",
        ),
        (
            "task={name='quadratic', dimension=2147483647}",
            "task.dimension",
            "the clients' matrices must fit in memory",
        ),
        (
            "task={name='quadratic', clients=2147483647}",
            "task.clients",
            "the clients' matrices must fit in memory",
        ),
        (
            "local_work={epochs=2147483647, batch_size=1}",
            "local_work.epochs",
            "a client's steps in a round are counted with 32 bits",
        ),
    ],
)
def test_what_is_larger_than_the_machine_is_told_with_its_key(
    override: str, key: str, said: str, good: Path
):
    good.write_text(GOOD.replace("[local_work]\nbatch_size = 8\n", ""))
    lines = complaint(good, [override], made=True)
    assert any(line.startswith(f"command line: {key}: {said}") for line in lines), lines


def test_a_part_that_needs_more_memory_than_there_is_is_told(good: Path):
    def hungry(*, size: int = 3):
        raise MemoryError("Unable to allocate 16.0 GiB")

    known = entries_by_kind() | {
        "task": {"hungry": hungry, "digits": entries_by_kind()["task"]["digits"]}
    }
    config = load_config(good, ["task={name='hungry'}"], known)
    with pytest.raises(
        errors.FedError,
        match=r"task: this is larger than the machine can hold: "
        r"got Unable to allocate 16.0 GiB; lower",
    ):
        build(config)


def test_minus_zero_is_zero(good: Path):
    load_config(good, ["task={name='synthetic', alpha=-0.0, beta=-0.0}"])
    assert judge(command("check", str(good), "task={name='synthetic', alpha=-0.0, beta=-0.0}"))
