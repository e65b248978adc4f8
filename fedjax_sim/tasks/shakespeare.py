"""Shakespeare's plays by speaking role: prediction of the next character in a window of text."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fedjax_sim.core.annotations import Seed
from fedjax_sim.core.errors import positive, require
from fedjax_sim.data.federation import federation, pool, split
from fedjax_sim.data.population import Population, population
from fedjax_sim.data.prepared.reader import is_prepared, open_prepared
from fedjax_sim.data.text import CHARACTERS, PAD, encode, windows
from fedjax_sim.data.tfds.reader import open_tfds, read_columns
from fedjax_sim.tasks.base import Task, classifier, classify
from fedjax_sim.tasks.load import require_tfds


def shakespeare(
    *,
    source: str = "data/shakespeare",
    window: int = 80,
    min_windows: int = 2,
    clients: int | None = None,
    test_fraction: float = 0.1,
    seed: Seed = 0,
    model: str = "char_lstm",
) -> Task:
    """One client per role; ``x`` and ``y`` int32 ``[n, window]``, ``y`` one character ahead;
    padding is excluded from loss and accuracy.

    Args:
      source: folder that `fedjax-sim data prepare shakespeare_roles.npz` wrote, or a prepared TFDS
        folder whose split ``train`` has one record per role, with ``client_id`` and ``text``
        (bytes).
      window: number of characters in an example; windows do not overlap, and the last window of a
        role is padded.
      min_windows: roles with fewer windows are left out.
      clients: number of roles to keep, the first ones of those with enough windows; by default all.
      test_fraction: share of each role's windows for its own test set; all of these together are
        the global test set.
      seed: seed of the split.
      model: name of a model: ``"char_lstm"`` or ``"transformer"``.

    Raises:
      FedError: if the data are absent; the message has the command that prepares them.

    Example:
      >>> import tempfile
      >>> import fedjax_sim as fs
      >>> import numpy as np
      >>> text = np.frombuffer(b"To be, or not to be, that is the question. " * 100, np.uint8)
      >>> roles = fs.population(text, (), np.array([0, 2000, 4300]), ("Hamlet", "Ophelia"))
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     data = fs.data.federation(roles)
      ...     path = fs.data.save(data, f"{folder}/roles", name="roles")
      ...     task = fs.tasks.shakespeare(source=str(path))
      >>> task.data.train.x.shape, task.data.train.sizes.tolist()
      ((49, 80), [23, 26])

    Reference: McMahan et al., arXiv 1602.05629, section 3 (clients are roles); windows of 80 as in
    Reddi et al., arXiv 2003.00295.
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
    """Returns a population with one client per role.

    Args:
      names: names of the roles.
      texts: the text of each role, uint8 ``[characters]``.
      window: number of characters in an example.
      min_windows: roles with fewer windows are left out.
      clients: number of roles to keep; ``None`` keeps all.

    Raises:
      FedError: if no role has enough windows.
    """
    for name, value in (("window", window), ("min_windows", min_windows), ("clients", clients)):
        positive(name, value)
    kept = [
        (name, windows(encode(text), window))
        for name, text in zip(names, texts, strict=True)
        if len(text) - 1 > (min_windows - 1) * window
    ]
    require(
        len(kept) > 0,
        f"no role has {min_windows} windows of {window} characters",
        got=f"{len(names)} roles",
        fix="lower min_windows or window",
        setting="min_windows",
    )
    kept = kept[:clients]
    x = np.concatenate([inputs for _, (inputs, _) in kept])
    y = np.concatenate([targets for _, (_, targets) in kept])
    offsets = np.cumsum([0, *(len(inputs) for _, (inputs, _) in kept)])
    return population(x, y, offsets, tuple(name for name, _ in kept))


def _texts(source: str) -> tuple[Sequence[str], list[np.ndarray]]:
    """Returns the names of the roles and the text of each, uint8 ``[characters]``."""
    if is_prepared(source):
        data = open_prepared(source).train
        is_text = (
            data.names is not None
            and getattr(data.x, "dtype", None) == np.uint8
            and data.x.ndim == 1
        )
        require(
            is_text,
            "the data must be the texts of roles, with their names",
            got=f"other data in {source}",
            fix="prepare shakespeare_roles.npz, or choose the task prepared",
            setting="source",
        )
        return data.names or (), np.split(data.x, data.offsets[1:-1])
    require_tfds(source, "shakespeare_roles.npz")
    names, texts = read_columns(open_tfds(source), "train", "client_id", "text")
    return [name.decode() for name in names], texts
