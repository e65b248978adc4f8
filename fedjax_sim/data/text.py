"""Text as integers: characters for next-character models, hashed words for models of whole texts.

No vocabulary is learned from the data.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Sequence

import numpy as np

from fedjax_sim.core.errors import positive, require

PAD = 0
"""Symbol of padding."""
UNKNOWN = 1
"""Symbol of every byte that is not listed."""
NEWLINE = 2
"""Symbol of a newline."""
FIRST = 3
"""Symbol of a space; the other printable ASCII characters follow in their order."""
CHARACTERS = FIRST + 95
"""Number of symbols of characters: the three above and the 95 printable ASCII characters."""

_WORD = re.compile(rb"[a-z0-9']+")


def encode(text: np.ndarray) -> np.ndarray:
    """Maps bytes to symbols of characters.

    Args:
      text: uint8[n].

    Returns:
      int32[n].
    """
    table = np.full(256, UNKNOWN, np.int32)
    table[32:127] = np.arange(FIRST, CHARACTERS)
    table[ord("\n")] = NEWLINE
    return table[text]


def windows(symbols: np.ndarray, length: int) -> tuple[np.ndarray, np.ndarray]:
    """Cuts a text into windows for next-character models.

    Args:
      symbols: int32[n].
      length: symbols in a window.

    Returns:
      ``(x, y)``, int32 ``[ceil((n - 1) / length), length]``: ``y`` is ``x`` shifted by one symbol.
      The last window is padded.
    """
    count = -(-(len(symbols) - 1) // length)
    padded = np.full(count * length + 1, PAD, np.int32)
    padded[: len(symbols)] = symbols
    x = padded[:-1].copy()
    y = padded[1:]
    x[len(symbols) - 1 :] = PAD  # the last symbol is a target and never an input
    return x.reshape(count, length), y.reshape(count, length)


def next_characters(texts: Sequence[bytes], length: int = 80) -> tuple[np.ndarray, np.ndarray]:
    """Returns the first characters of each text, and the character after each of them.

    Args:
      texts: n byte strings.
      length: characters of each text.

    Returns:
      ``(x, y)``, int32 ``[n, length]``, padded where a text is shorter.
    """
    positive("length", length)
    symbols = np.full((len(texts), length + 1), PAD, np.int32)
    for row, text in zip(symbols, texts, strict=True):
        encoded = encode(np.frombuffer(text[: length + 1], np.uint8))
        row[: len(encoded)] = encoded
    y = symbols[:, 1:]
    return np.where(y == PAD, PAD, symbols[:, :-1]), y.copy()


def hashed_words(texts: Sequence[bytes], length: int = 200, vocabulary: int = 10_000) -> np.ndarray:
    """Returns the first words of each text as numbers in ``1 .. vocabulary - 1``; 0 is padding.

    A lower-case word's number is its CRC-32 modulo ``vocabulary - 1``, plus 1: the same in every
    data set. Two words may share a number.

    Args:
      texts: n UTF-8 strings; a word is a run of ASCII letters, digits and apostrophes.
      length: words kept of each text.
      vocabulary: number of numbers, padding included.

    Returns:
      int32 ``[n, length]``.
    """
    positive("length", length)
    require(
        vocabulary > 1,
        "a vocabulary has more than its padding",
        got=vocabulary,
        fix="give vocabulary a value such as 10000",
        setting="vocabulary",
    )
    out = np.zeros((len(texts), length), np.int32)
    known: dict[bytes, int] = {}
    for row, text in zip(out, texts, strict=True):
        words = _WORD.findall(text.lower())[:length]
        row[: len(words)] = [
            known.get(word) or known.setdefault(word, 1 + zlib.crc32(word) % (vocabulary - 1))
            for word in words
        ]
    return out
