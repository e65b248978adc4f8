"""Tables in the documents that are made of the registries. ``python docs/tables.py`` renews them; a test sees that they are fresh."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from fedjax_sim.algorithms import REGISTRY, Entry
from fedjax_sim.data import PARTITIONS
from fedjax_sim.experiments.config.fields import summary
from fedjax_sim.tasks import REGISTRY as TASKS

README = Path(__file__).parents[1] / "README.md"


def algorithms() -> str:
    """One line per registered algorithm: name, law, reference."""
    return table(
        ("name", "law that its tests hold it to", "reference"),
        [(f"`{name}`", entry.law.says, reference(entry)) for name, entry in REGISTRY.items()],
    )


def summaries(heading: str, registry: Mapping[str, Callable[..., Any]]) -> str:
    """One line per factory: name, first sentences of its docstring."""
    return table(
        (heading, "what it is"),
        [(f"`{name}`", summary(made).replace("``", "`")) for name, made in registry.items()],
    )


def table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    """In Markdown."""
    lines = [head, ("---",) * len(head), *rows]
    return "".join(
        f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |\n" for cells in lines
    )


def reference(entry: Entry) -> str:
    """The last part of the card, on one line."""
    return " ".join(entry.card.partition("Reference:")[2].split()).rstrip(".")


def renewed(text: str) -> str:
    """A document with what stands between its markers made anew."""
    tables = {
        "algorithms": algorithms(),
        "tasks": summaries("task", TASKS),
        "partitions": summaries("partition", PARTITIONS),
    }
    for name, made in tables.items():
        between = re.compile(rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)", flags=re.DOTALL)
        text = between.sub(lambda found, made=made: f"{found[1]}\n{made}\n{found[2]}", text)
    return text


if __name__ == "__main__":
    README.write_text(renewed(README.read_text(encoding="utf-8")), encoding="utf-8")
