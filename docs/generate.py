"""Everything in the repository that is made from the code: ``make generated`` writes it, and a test
checks that it is current.

``python docs/generate.py`` writes all files; ``generated()`` returns their texts.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import fedjax_sim
from fedjax_sim.core import registry
from fedjax_sim.core.registry import Entry
from fedjax_sim.experiments.config import entries_by_kind, schema_text
from fedjax_sim.experiments.config.fields import summary
from fedjax_sim.experiments.config.reference import reference_text

ROOT = Path(__file__).parents[1]

STUB = '''"""Names of the package, for editors and type checkers. Written by `make generated`."""

{imports}

__version__: str

__all__ = [
{names}
]
'''


def generated() -> dict[Path, str]:
    """Path to text of every generated file."""
    own = {name: _own(entries) for name, entries in entries_by_kind().items()}
    readme = ROOT / "README.md"
    return {
        ROOT / "configs" / "fedjax_sim.schema.json": schema_text(own),
        ROOT / "docs" / "configuration.md": reference_text(own),
        ROOT / "fedjax_sim" / "__init__.pyi": stub(own["algorithm"]),
        readme: with_tables(readme.read_text(encoding="utf-8"), own),
    }


def _own(entries: Mapping[str, Entry]) -> dict[str, Entry]:
    """The entries of this package, without those of plug-ins that happen to be installed."""
    return {name: entry for name, entry in entries.items() if entry.plugin is None}


# ----------------------------------------------------------------------------------------- the stub


def stub(algorithms: Mapping[str, Entry]) -> str:
    """``__init__.pyi``: every public name, and every algorithm under its own name."""
    lines = [f"from fedjax_sim import {name} as {name}" for name in _packages()]
    for name, home in fedjax_sim.MODULES.items():
        room, _, module = home.rpartition(".")
        if room:
            lines.append(f"from fedjax_sim.{room} import {module} as {name}")
    for home, names in fedjax_sim.HOMES.items():
        lines += [f"from fedjax_sim.{home} import {name} as {name}" for name in names.split()]
    for name in algorithms:
        lines.append(f"from fedjax_sim.algorithms.{name} import {name} as {name}")
    names = "\n".join(f'    "{name}",' for name in fedjax_sim.__all__)
    return STUB.format(imports="\n".join(sorted(lines)), names=names)


def _packages() -> list[str]:
    return [name for name, home in fedjax_sim.MODULES.items() if name == home]


# ----------------------------------------------------------------------------- tables of the README


def with_tables(text: str, entries: Mapping[str, Mapping[str, Entry]]) -> str:
    """The README with the tables between its markers written again."""
    tables = {"algorithms": algorithm_table(entries["algorithm"])}
    for kind in registry.kinds().values():
        tables.setdefault(kind.plural, summary_table(kind, entries[kind.name]))
    for name, table in tables.items():
        between = re.compile(rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)", flags=re.DOTALL)
        text = between.sub(lambda found, table=table: f"{found[1]}\n{table}\n{found[2]}", text)
    return text


def algorithm_table(entries: Mapping[str, Entry]) -> str:
    """One line per algorithm: name, law, reference."""
    rows = [(f"`{name}`", entry.law.says, reference(entry)) for name, entry in entries.items()]
    return markdown(("name", "law that its tests check", "reference"), rows)


def summary_table(kind: registry.Kind, entries: Mapping[str, Entry]) -> str:
    """One line per entry: name, first sentences of its docstring or card."""
    rows = [(f"`{name}`", _summary(kind, entry)) for name, entry in entries.items()]
    return markdown((kind.name, "what it is"), rows)


def reference(entry: Entry) -> str:
    """The last part of an algorithm's card, on one line."""
    return " ".join(entry.card.partition("Reference:")[2].split()).rstrip(".")


def markdown(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    """A table in Markdown."""
    lines = [head, ("---",) * len(head), *rows]
    return "".join(f"| {' | '.join(map(_cell, cells))} |\n" for cells in lines)


def _summary(kind: registry.Kind, entry: Entry) -> str:
    text = summary(entry.factory) if kind.is_factory else entry.card.partition("\n")[0]
    return text.replace("``", "`")


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    for path, text in generated().items():
        path.write_text(text, encoding="utf-8")
        print(path.relative_to(ROOT))
