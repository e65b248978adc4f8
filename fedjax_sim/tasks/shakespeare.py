"""Shakespeare's plays by speaking role: the next character, at every place of a window."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fedjax_sim.core.errors import positive, require
from fedjax_sim.data.federation import federation, pool, split
from fedjax_sim.data.population import Population, population
from fedjax_sim.data.prepared.reader import is_prepared, open_prepared
from fedjax_sim.data.text import CHARACTERS, PAD, encode, windows
from fedjax_sim.data.tfds.reader import open_tfds, read_columns
from fedjax_sim.tasks.base import Task, classifier, classify
from fedjax_sim.tasks.load import need


def shakespeare(
    *,
    source: str = "data/shakespeare",
    window: int = 80,
    min_windows: int = 2,
    clients: int | None = None,
    test_fraction: float = 0.1,
    seed: int = 0,
    model: str = "char_lstm",
) -> Task:
    """One client per role; ``x`` and ``y`` int32 ``[n, window]``, ``y`` one character ahead; padding counts for nothing.

    Args:
      source: a folder made by `fedjax-sim data prepare shakespeare_roles.npz`, or a prepared TFDS folder whose split ``train`` has one
        record per role, with ``client_id`` and ``text`` (bytes).
      window: characters in an example; windows follow one another without overlap, the last one padded.
      min_windows: roles that say less are left out.
      clients: keep only the first so many of the other roles.
      test_fraction: share of each role's windows for its test; pooled, these are the global test set.
      seed: of that split.
      model: a name of the model zoo: ``"char_lstm"`` or ``"transformer"``.

    Raises:
      FedError: at once, with the command to run, where the data are absent.

    Reference: McMahan et al., arXiv 1602.05629, section 3 (clients are roles); windows of 80 as in Reddi et al., arXiv 2003.00295.
    """
    train, test = split(roles(*_texts(source), window, min_windows, clients), test_fraction, seed)
    return classify(
        "shakespeare",
        federation(train, test, pool(test)),
        classifier(model, CHARACTERS),
        ignore=PAD,
    )


def roles(
    names: Sequence[str],
    texts: list[np.ndarray],
    window: int,
    min_windows: int = 1,
    clients: int | None = None,
) -> Population:
    """A population from roles' names and texts (uint8), each text cut into windows."""
    for name, value in (("window", window), ("min_windows", min_windows), ("clients", clients)):
        positive(name, value)
    kept = [
        (name, windows(encode(text), window))
        for name, text in zip(names, texts, strict=True)
        if len(text) - 1 > (min_windows - 1) * window
    ]
    what = f"no role says {min_windows} windows of {window} characters"
    require(
        len(kept) > 0,
        what,
        got=f"{len(names)} roles",
        fix="lower min_windows or window",
        setting="min_windows",
    )
    kept = kept[:clients]
    x, y = (np.concatenate([pair[i] for _, pair in kept]) for i in (0, 1))
    return population(
        x, y, np.cumsum([0, *(len(pair[0]) for _, pair in kept)]), tuple(name for name, _ in kept)
    )


def _texts(source: str) -> tuple[Sequence[str], list[np.ndarray]]:
    """The roles' names, and what they say as bytes."""
    if is_prepared(source):
        data = open_prepared(source).train
        text = (
            data.names is not None
            and getattr(data.x, "dtype", None) == np.uint8
            and data.x.ndim == 1
        )
        do = "prepare shakespeare_roles.npz, or choose the task prepared"
        require(
            text,
            "the data must be the texts of roles, with their names",
            got=f"other data in {source}",
            fix=do,
            setting="source",
        )
        return data.names or (), np.split(data.x, data.offsets[1:-1])
    need(source, "shakespeare_roles.npz")
    names, texts = read_columns(open_tfds(source), "train", "client_id", "text")
    return [name.decode() for name in names], texts
