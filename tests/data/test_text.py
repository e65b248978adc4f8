import zlib

import numpy as np
import pytest

from fedjax_sim.core.errors import FedError
from fedjax_sim.data.text import (
    CHARACTERS,
    NEWLINE,
    PAD,
    UNKNOWN,
    encode,
    hashed_words,
    next_characters,
    windows,
)


@pytest.mark.parametrize("n", [2, 5, 6, 9, 10])
def test_windows_follow_one_another(n):
    symbols = np.arange(1, n + 1)
    x, y = windows(symbols, 4)
    assert x.shape == (-(-(n - 1) // 4), 4)
    np.testing.assert_array_equal(x[x != PAD], symbols[:-1])
    np.testing.assert_array_equal(y[y != PAD], symbols[1:])
    np.testing.assert_array_equal(x != PAD, y != PAD)


def test_symbols():
    text = np.frombuffer("\n ~é".encode(), np.uint8)
    np.testing.assert_array_equal(encode(text), [NEWLINE, 3, CHARACTERS - 1, UNKNOWN, UNKNOWN])


def test_the_next_character_of_every_place():
    x, y = next_characters([b"abcdef", b"ab", b"a", b""], length=3)
    letters = encode(np.frombuffer(b"abcd", np.uint8)).tolist()
    assert x.tolist() == [letters[:3], [letters[0], PAD, PAD], [PAD] * 3, [PAD] * 3]
    assert y.tolist() == [letters[1:], [letters[1], PAD, PAD], [PAD] * 3, [PAD] * 3]


def test_words_have_numbers_that_depend_on_nothing_else():
    x = hashed_words([b"It's GOOD, good!", b"", b"one two three four"], length=3, vocabulary=50)
    assert x.tolist()[0] == [1 + zlib.crc32(word) % 49 for word in (b"it's", b"good", b"good")]
    assert x.tolist()[1] == [0, 0, 0]
    assert x[2].min() > 0
    many = hashed_words([str(i).encode() for i in range(2000)], length=1, vocabulary=50)
    assert set(many.ravel()) == set(range(1, 50))


@pytest.mark.parametrize("wrong", [{"length": 0}, {"vocabulary": 1}])
def test_no_words_are_refused(wrong):
    with pytest.raises(FedError, match=next(iter(wrong))):
        hashed_words([b"a"], **wrong)
