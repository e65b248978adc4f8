import json
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax.numpy as jnp
import numpy as np
import optax
import pytest
from configurations import CONFIGS, GOOD

from fedjax_sim import optimizers
from fedjax_sim.core import errors
from fedjax_sim.core.types import Aggregator, Algorithm, Objective
from fedjax_sim.experiments.build import build
from fedjax_sim.experiments.config import (
    ConfigErrors,
    dumps,
    entries_by_kind,
    load_config,
    schema,
    schema_text,
)
from fedjax_sim.experiments.config.fields import arguments, settings_of
from fedjax_sim.experiments.config.messages import dotted


@pytest.fixture
def good(tmp_path: Path) -> Path:
    path = tmp_path / "good.toml"
    path.write_text(GOOD)
    return path


# ----------------------------------------------------------------------------- what files turn into


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.toml")), ids=lambda path: path.stem)
def test_every_shipped_file_is_valid_and_survives_being_written(path: Path, tmp_path: Path):
    config = load_config(path)
    again = tmp_path / path.name
    again.write_text(dumps(config))
    assert load_config(again).run.model_dump() == config.run.model_dump()


def test_only_what_was_written_reaches_the_factory(good: Path):
    seen, plain = {}, optax.sgd(1.0)

    def factory(
        objective: Objective,
        *,
        lr: float = 0.5,
        b: int = 2,
        server: optax.GradientTransformation = plain,
    ) -> Algorithm:
        seen.update(lr=lr, b=b, server=server)
        return entries_by_kind()["algorithm"]["fedavg"].factory(objective, lr=lr)

    known = entries_by_kind() | {"algorithm": {"mine": factory, "other": factory}}
    config = load_config(good, ["algorithm={name='mine', lr=2}"], known)
    assert seen["lr"] == 2.0
    assert seen["b"] == 2
    assert seen["server"] is plain
    assert config.run.algorithm.b == 2
    load_config(
        good,
        ["algorithm={name='mine', server=[{kind='clip', max_norm=1.0}, {kind='adam'}]}"],
        known,
    )
    assert seen["server"] is not plain
    assert "unknown key of 'mine'" in complaint_of(good, ["algorithm={name='mine', x=2}"], known)


def test_a_partition_is_made_with_its_settings_and_called_by_the_task(good: Path):
    seen = {}

    def mine(
        labels: Any, clients: int, *, seed: int = 0, share: float = 0.5, tags: tuple[str, ...] = ()
    ) -> list[np.ndarray]:
        seen.update(clients=clients, seed=seed, share=share, tags=tags)
        errors.require(share < 0.9, "too much", got=share, fix="lower it", setting="share")
        return np.array_split(np.arange(len(labels)), clients)

    known = entries_by_kind()
    known = known | {"partition": {**known["partition"], "mine": mine}}
    said = ["task.seed=7", "task.partition={kind='mine', share=0.25, tags=['a']}"]
    assert build(load_config(good, said, known)).task.data.train.clients == 12
    assert seen == {"clients": 12, "seed": 7, "share": 0.25, "tags": ("a",)}
    with pytest.raises(
        ConfigErrors, match=r"^command line: task.partition.share: too much: got 0.95; lower it$"
    ):
        build(load_config(good, ["task.partition={kind='mine', share=0.95}"], known))
    build(load_config(good, ["task.partition=mine"], known))
    assert seen["share"] == 0.5


def complaint_of(path: Path, overrides: list[str], known: Any) -> str:
    with pytest.raises(ConfigErrors) as caught:
        load_config(path, overrides, known)
    return str(caught.value)


def test_a_setting_that_hides_the_tag_is_refused(good: Path):
    def factory(*, name: str = "x") -> None:
        pass

    with pytest.raises(errors.FedError, match="rename it"):
        load_config(good, [], entries_by_kind() | {"task": {"mine": factory}})


def test_every_registered_setting_can_be_said_or_is_wired():
    """A new kind of annotation would silently be no setting; this lists those that are meant."""
    wired = {"objective", "sampler", "server_optimizer"}
    of_partitions = {"labels", "ids", "values", "clients", "seed"}
    known = entries_by_kind()
    properties = schema()["$defs"]
    for kind in ("algorithm", "task", "sampler", "aggregator", "optimizer", "partition"):
        for name, entry in known[kind].items():
            names = set(settings_of(getattr(entry, "factory", entry)))
            unsaid = names - set(properties[f"{kind}_{name}"]["properties"])
            assert unsaid == names & of_partitions if kind == "partition" else unsaid <= wired, (
                kind,
                name,
            )


def test_wrappers_apply_to_every_sampler(good: Path):
    for kind in entries_by_kind()["sampler"]:
        plain = build(load_config(good, [f"sampler={{kind='{kind}'}}"])).sampler
        wrapped = build(
            load_config(
                good, [f"sampler={{kind='{kind}', dropout=0.5}}", "sampler.stragglers.share=0.5"]
            )
        ).sampler
        assert wrapped.sample is not plain.sample
        assert wrapped.cohort(12) == plain.cohort(12)


# ------------------------------------------------------------------------------------------- schema


def test_the_schema_tells_variants_apart_and_refuses_other_keys():
    whole = json.loads(
        schema_text(), parse_constant=lambda text: pytest.fail(f"{text} is not JSON")
    )
    for name in entries_by_kind()["algorithm"]:
        variant = whole["$defs"][f"algorithm_{name}"]
        assert variant["properties"]["name"]["const"] == name
        assert variant["additionalProperties"] is False
        assert variant["description"]
    assert whole["additionalProperties"] is False
    assert set(whole["required"]) == {"task", "algorithm", "sampler"}


def test_dotted_keys_follow_the_chosen_variants(good: Path):
    config = load_config(good)
    keys = set(dotted(type(config.run), config.document.tables))
    assert {
        "algorithm.lr",
        "algorithm.aggregator.0.max_norm",
        "task.clients",
        "engine.lanes",
    } <= keys
    assert "algorithm.mu" not in keys


def test_descriptions_come_from_docstrings():
    def factory(a: int, b: Literal["x"], c: float):
        """Sums.

        Args:
          a: the first,
            told at length.
          b, c: the rest.

        Returns:
          d: not an argument.
        """

    assert arguments(factory) == {
        "a": "the first, told at length.",
        "b": "the rest.",
        "c": "the rest.",
    }


# --------------------------------------------------------------------------------------- optimizers


@pytest.mark.parametrize("name", optimizers.REGISTRY)
def test_every_optimizer_descends_or_passes_on(name: str):
    made = optimizers.chain(optimizers.REGISTRY[name](), optimizers.sgd(0.1))
    params = {"w": jnp.float32(1.0)}
    updates, _ = made.update({"w": jnp.float32(0.5)}, made.init(params), params)
    assert float(updates["w"]) != 0.0


class Refused(NamedTuple):
    name: str
    settings: dict[str, Any]


@pytest.mark.parametrize(
    "case",
    [
        Refused("sgd", {"lr": 0.0}),
        Refused("sgd", {"momentum": 1.0}),
        Refused("sgd", {"nesterov": True}),
        Refused("adam", {"b1": -0.1}),
        Refused("adam", {"eps": 0.0}),
        Refused("clip", {"max_norm": 0.0}),
        Refused("weight_decay", {"rate": -1.0}),
        Refused("momentum", {"decay": 1.5}),
    ],
    ids=str,
)
def test_optimizers_refuse_settings_out_of_range(case: Refused):
    with pytest.raises(errors.FedError, match=next(iter(case.settings))):
        optimizers.REGISTRY[case.name](**case.settings)


def test_schedules_are_functions_of_the_step():
    assert float(optimizers.cosine(1.0, 10, 0.1)(10)) == pytest.approx(0.1)
    assert float(optimizers.linear(1.0, 10)(5)) == pytest.approx(0.5)
    assert float(optimizers.exponential(1.0, 10, 0.5)(20)) == pytest.approx(0.25)
    assert float(optimizers.warmup(1.0, 5, 20)(5)) == pytest.approx(1.0)
    with pytest.raises(errors.FedError, match="warm-up"):
        optimizers.warmup(1.0, 5, 5)


def test_an_aggregator_is_a_setting_by_its_annotation():
    hint = settings_of(entries_by_kind()["algorithm"]["fedavg"].factory)["aggregator"].hint
    assert Aggregator in hint.__args__
