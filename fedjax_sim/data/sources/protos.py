"""Decoder of ``tf.train.Example`` messages that does not need TensorFlow.

The message is ``{1: {1: {1: name, 2: {1: bytes | 2: floats | 3: integers}}, ...}}``; each kind of
list is ``{1: values}``.

Reference: the wire format of protocol buffers, protobuf.dev/programming-guides/encoding.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any

import numpy as np

VARINT = 0
"""Wire type of a number of variable length."""
WIDE = 1
"""Wire type of a value of 8 bytes."""
LENGTH = 2
"""Wire type of bytes with their length in front."""
NARROW = 5
"""Wire type of a value of 4 bytes."""


class DecodeError(Exception):
    """The bytes are not a ``tf.train.Example`` message."""


def example(data: bytes) -> dict[str, Any]:
    """Decodes a ``tf.train.Example``.

    Args:
      data: the serialized message.

    Returns:
      The features by name; each is a list of bytes, or an array float32 or int64 ``[values]``.

    Raises:
      DecodeError: if the bytes are not such a message.
    """
    features: dict[str, Any] = {}
    for message in _messages(data, 1):
        for entry in _messages(message, 1):
            pair = dict(_fields(entry))
            if isinstance(pair.get(1), bytes):
                features[_text(pair[1])] = _feature(pair.get(2, b""))
    if not features:
        raise DecodeError("it has no feature")
    return features


def _feature(data: Any) -> Any:
    for kind, values in _fields(data) if isinstance(data, bytes) else ():
        if kind in _LISTS and isinstance(values, bytes):
            return _LISTS[kind](values)
    return []


def _strings(data: bytes) -> list[bytes]:
    return [bytes(value) for value in _messages(data, 1)]


def _floats(data: bytes) -> np.ndarray:
    """Decodes floats that are packed into one field, or in one field each."""
    parts = [
        value if isinstance(value, bytes) else struct.pack("<I", value)
        for _, value in _fields(data)
    ]
    joined = b"".join(parts)
    if len(joined) % 4:
        raise DecodeError("its floats have a length that is not a multiple of 4 bytes")
    return np.frombuffer(joined, "<f4")


def _integers(data: bytes) -> np.ndarray:
    values: list[int] = []
    for _, value in _fields(data):
        values += _varints(value) if isinstance(value, bytes) else [value]
    # Negative numbers are encoded in two's complement.
    return np.array(values, np.uint64).astype(np.int64)


_LISTS = {1: _strings, 2: _floats, 3: _integers}


def _messages(data: bytes, wanted: int) -> Iterator[bytes]:
    """Yields the bytes of every field that has the number ``wanted`` and a length."""
    return (
        value for number, value in _fields(data) if number == wanted and isinstance(value, bytes)
    )


def _fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Yields the numbers and values of all fields, in order."""
    at = 0
    while at < len(data):
        tag, at = _varint(data, at)
        number = tag >> 3
        wire = tag & 7
        if wire == VARINT:
            value, at = _varint(data, at)
            yield number, value
            continue
        if wire == LENGTH:
            size, at = _varint(data, at)
        elif wire in (WIDE, NARROW):
            size = 8 if wire == WIDE else 4
        else:
            raise DecodeError(f"it has the unknown wire type {wire}")
        if at + size > len(data):
            raise DecodeError("it ends too early")
        piece = data[at : at + size]
        at += size
        yield number, piece if wire == LENGTH else int.from_bytes(piece, "little")


def _varints(data: bytes) -> list[int]:
    values = []
    at = 0
    while at < len(data):
        value, at = _varint(data, at)
        values.append(value)
    return values


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """Decodes a number of seven bits per byte, lowest bits first.

    Args:
      data: the message.
      at: index of the number's first byte.

    Returns:
      The number, and the index after its last byte.
    """
    value = 0
    shift = 0
    while at < len(data) and shift < 64 + 6:
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value & (2**64 - 1), at
        shift += 7
    raise DecodeError("it ends too early" if at == len(data) else "a number is too long")


def _text(data: Any) -> str:
    try:
        return bytes(data).decode()
    except UnicodeDecodeError:
        raise DecodeError("a name is not text") from None
