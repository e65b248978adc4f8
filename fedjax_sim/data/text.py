"""Text as symbols: characters for models of the next one, words for models of a whole text. Nothing is learned from the data."""

from __future__ import annotations

import re
import zlib
from collections.abc import Sequence

import numpy as np

from fedjax_sim.core.errors import positive, require

PAD, UNKNOWN, NEWLINE, FIRST = 0, 1, 2, 3
CHARACTERS = FIRST + 95
"""Symbols of characters: padding, anything not listed, a newline, and the 95 printable ASCII characters from the space on."""

_WORD = re.compile(rb"[a-z0-9']+")


def encode(text: np.ndarray) -> np.ndarray:
    """Bytes (uint8) to symbols of characters (int32)."""
    table = np.full(256, UNKNOWN, np.int32)
    table[32:127] = np.arange(FIRST, CHARACTERS)
    table[ord("\n")] = NEWLINE
    return table[text]


def windows(symbols: np.ndarray, length: int) -> tuple[np.ndarray, np.ndarray]:
    """``(x, y)``, int32 ``[ceil((n - 1) / length), length]``: ``y`` is ``x`` one symbol on, both padded at the end."""
    count = -(-(len(symbols) - 1) // length)
    padded = np.full(count * length + 1, PAD, np.int32)
    padded[: len(symbols)] = symbols
    x, y = padded[:-1].copy(), padded[1:]
    x[len(symbols) - 1 :] = PAD  # the last symbol is only ever a target
    return x.reshape(count, length), y.reshape(count, length)


def next_characters(texts: Sequence[bytes], length: int = 80) -> tuple[np.ndarray, np.ndarray]:
    """``(x, y)``, int32 ``[n, length]``: the first characters of each text, and the one after each of them; both padded."""
    positive("length", length)
    symbols = np.full((len(texts), length + 1), PAD, np.int32)
    for row, text in zip(symbols, texts, strict=True):
        found = encode(np.frombuffer(text[: length + 1], np.uint8))
        row[: len(found)] = found
    x, y = symbols[:, :-1], symbols[:, 1:]
    return np.where(y == PAD, PAD, x), y.copy()


def hashed_words(texts: Sequence[bytes], length: int = 200, vocabulary: int = 10_000) -> np.ndarray:
    """int32 ``[n, length]``: the first words of each text, lower-case, as numbers in ``1 .. vocabulary - 1``; 0 is padding.

    A word's number is its CRC-32 modulo ``vocabulary - 1``: the same in every data set, and two words may share one.

    Args:
      texts: UTF-8; a word is a run of ASCII letters, digits and apostrophes.
      length: words kept of each text.
      vocabulary: numbers in all, padding included.
    """
    positive("length", length)
    require(
        vocabulary > 1,
        "a vocabulary has more than its padding",
        got=vocabulary,
        fix="give vocabulary a value such as 10000",
        setting="vocabulary",
    )
    out, known = np.zeros((len(texts), length), np.int32), {}
    for row, text in zip(out, texts, strict=True):
        words = _WORD.findall(text.lower())[:length]
        row[: len(words)] = [
            known.get(word) or known.setdefault(word, 1 + zlib.crc32(word) % (vocabulary - 1))
            for word in words
        ]
    return out
