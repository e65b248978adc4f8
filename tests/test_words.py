"""The words of the project: literal English, no retired names, coined words only from the glossary.

docs/architecture.md has the glossary.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import fedjax_sim as fs
from fedjax_sim.core import registry

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "fedjax_sim"
FILES = sorted(PACKAGE.rglob("*.py"))
DOCUMENTS = [
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted((ROOT / "configs").glob("*.toml")),
    *sorted((ROOT / "notebooks").glob("*")),
    *sorted(
        path for path in (ROOT / "examples").rglob("*") if path.suffix in (".md", ".py", ".toml")
    ),
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
]
CHANGELOG = ROOT / "CHANGELOG.md"
"""It has the table of renamed names, so retired names may stand in it."""

# ------------------------------------------------------------------------------- stumbling words

STUMBLING = (
    "nobody",
    "whoever",
    "somebody",
    "anybody",
    "everybody",
    "strangers?",
    "to blame",
    "so many",
    "reckoned",
    "anew",
    "mend(?:s|ed|ing)?",
)
"""Words at which a reader stumbles: they make a sentence figurative, or they hide its subject."""
STUMBLES = re.compile(rf"\b(?:{'|'.join(STUMBLING)})\b", re.IGNORECASE)


def prose(path: Path) -> str:
    """A file's text on one line for each paragraph, without the signs of comments."""
    text = path.read_text(encoding="utf-8")
    return re.sub(r"[ \t]*\n[ \t]*(?:#:?[ \t]+)?(?=\S)", " ", text)


def stumbles(path: Path) -> list[str]:
    """The stumbling words of a file, each with the words around it."""
    text = prose(path)
    return [
        f"{path.relative_to(ROOT)}: ...{text[max(0, found.start() - 40) : found.end() + 30]}..."
        for found in STUMBLES.finditer(text)
    ]


def test_no_stumbling_words_in_the_package():
    assert not [line for path in FILES for line in stumbles(path)]


def test_no_stumbling_words_in_the_documents():
    assert not [line for path in [*DOCUMENTS, CHANGELOG] for line in stumbles(path)]


def test_a_stumbling_word_would_be_noticed(tmp_path, monkeypatch):
    monkeypatch.setattr(f"{__name__}.ROOT", tmp_path)
    path = tmp_path / "words.py"
    path.write_text("# Nobody is\n# to\n# blame.\n\nwhole = 'amended'\n")
    assert len(stumbles(path)) == 2


# ---------------------------------------------------------------------------------- retired names

RETIRED = frozenset(
    """
    descend descent optimizing Served Mimed Controlled Batching batching Draw
    proceed seat undeal borrow give_back Loan Order Supply Parcel Supplier Keeping
    put_away set_aside Blame Leg Passage Errand make_elastic vault open_vault
    rehearse narrower require_room keep_programs insistence
    """.split()  # noqa: SIM905
)
"""Names that may be defined nowhere in the package and mentioned nowhere in the documents."""
RETIRED_IN = {
    "aggregators/stages.py": "uniform total",
    "data": "central",
    "engine": "Federated order initial before hand lend expect forget show looks refuses lost",
    "engine/nonfinite.py": "dismiss account",
    "engine/rollback.py": "spoiled forgotten",
    "engine/rerun.py": "alone cut",
    "runtime": "settled room leads led agreed together interrupts",
    "simulation": "heard mention attempt judge spread",
    "simulation/replay.py": "Visit Left Seen",
    "persistence/manifest.py": "sealed whole raw typed",
    "experiments/config": "prove",
}
"""Ordinary words that were names there, and may be defined elsewhere with another meaning."""


def defined(tree: ast.Module) -> Iterator[str]:
    """Names of a module's functions, classes and constants, and of methods and fields."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Module | ast.ClassDef):
            continue
        for inner in node.body:
            if isinstance(inner, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                yield inner.name
            elif isinstance(inner, ast.Assign):
                yield from (name.id for name in inner.targets if isinstance(name, ast.Name))
            elif isinstance(inner, ast.AnnAssign) and isinstance(inner.target, ast.Name):
                yield inner.target.id


def retired_names_of(path: Path) -> set[str]:
    """The names that a file may not define."""
    place = path.relative_to(PACKAGE).as_posix()
    here = [names for folder, names in RETIRED_IN.items() if place.startswith(folder)]
    return set(RETIRED).union(*(names.split() for names in here))


def mentioned(text: str) -> set[str]:
    """Retired names in code spans and code blocks of a text."""
    blocks = re.findall(r"^```.*?^```$", text, flags=re.DOTALL | re.MULTILINE)
    spans = re.findall(r"`[^`\n]+`", text)
    code = re.sub(r"[\w/]+/[\w/]+\.\w+", "", " ".join([*blocks, *spans]))  # without paths of files
    words = set(re.findall(r"\w+", code))
    return words & RETIRED


def test_no_retired_name_is_defined():
    found = {
        str(path.relative_to(ROOT)): names
        for path in FILES
        if (names := retired_names_of(path) & set(defined(ast.parse(path.read_text("utf-8")))))
    }
    assert not found


def test_no_retired_name_is_mentioned_in_the_documents():
    found = {str(path.relative_to(ROOT)): mentioned(path.read_text("utf-8")) for path in DOCUMENTS}
    assert not {name: words for name, words in found.items() if words}


def test_no_retired_name_is_public():
    assert not RETIRED & set(fs.__all__)
    assert not {"uniform", "total"} & set(fs.aggregators.REGISTRY)
    assert not RETIRED & {name for kind in registry.kinds() for name in registry.entries(kind)}


def test_a_retired_name_would_be_noticed():
    code = "class Box:\n    Loan: int\n    def seat(self): ...\nvault = 1\n"
    assert RETIRED & set(defined(ast.parse(code))) == {"Loan", "seat", "vault"}
    assert mentioned("the order of `Loan.rows`, and\n```\nseat()\n```\n") == {"Loan", "seat"}


# --------------------------------------------------------------------------------------- glossary

ARCHITECTURE = ROOT / "docs" / "architecture.md"
COINED = (
    "absent",
    "anchor",
    "card",
    "client id",
    "client memory",
    "codec",
    "cohort",
    "control variate",
    "delay",
    "entry",
    "finalize",
    "floor",
    "frozen",
    "guard",
    "kind",
    "lane",
    "law",
    "layout theorem",
    "lift",
    "local state",
    "local step",
    "local work",
    "loader",
    "logical state",
    "max_norm",
    "member",
    "message",
    "participation",
    "plan",
    "population",
    "pseudo-gradient",
    "replica",
    "room",
    "roster",
    "round",
    "row",
    "row store",
    "shard",
    "signature",
    "slot",
    "snapshot",
    "stage",
    "trip",
    "upload",
    "weight",
)
"""Words with a meaning of their own in this project."""


def glossary() -> dict[str, str]:
    """Word to sentence."""
    text = ARCHITECTURE.read_text(encoding="utf-8")
    table = text.partition("<!-- glossary -->")[2].partition("<!-- /glossary -->")[0]
    rows = re.findall(r"^\| (.+?) \| (.+) \|$", table, flags=re.MULTILINE)
    return dict(rows[2:])


def test_every_coined_word_has_an_entry():
    assert set(COINED) <= glossary().keys()


def test_every_entry_is_one_literal_sentence():
    for word, sentence in glossary().items():
        assert re.match(r"[A-Z].*\.$", sentence), word
        assert ". " not in sentence, word
        assert word.lower() in sentence.lower(), word


def test_entries_are_in_alphabetical_order():
    words = list(glossary())
    assert words == sorted(words, key=str.lower)


def test_every_entry_is_used_in_the_package():
    text = " ".join(prose(path) for path in FILES).lower()
    unused = [word for word in glossary() if not re.search(rf"\b{re.escape(word)}", text)]
    assert not unused
