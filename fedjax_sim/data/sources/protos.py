"""``tf.train.Example`` messages, read from their bytes without TensorFlow.

The message is ``{1: {1: {1: name, 2: {1: bytes | 2: floats | 3: integers}}, ...}}``, and each kind of list ``{1: values}``.

Reference: the wire format of protocol buffers, protobuf.dev/programming-guides/encoding.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any

import numpy as np

VARINT, WIDE, LENGTH, NARROW = 0, 1, 2, 5
"""Wire types: how a value's bytes are delimited."""


class Damaged(Exception):
    """These bytes are no such message."""


def example(data: bytes) -> dict[str, Any]:
    """The features of a ``tf.train.Example`` by name: a list of bytes, or an array float32 or int64.

    Raises:
      Damaged: where the bytes are something else.
    """
    found: dict[str, Any] = {}
    for features in _messages(data, 1):
        for entry in _messages(features, 1):
            pair = dict(_fields(entry))
            if isinstance(pair.get(1), bytes):
                found[_text(pair[1])] = _feature(pair.get(2, b""))
    if not found:
        raise Damaged("it has no feature")
    return found


def _feature(data: Any) -> Any:
    for kind, values in _fields(data) if isinstance(data, bytes) else ():
        if kind in _LISTS and isinstance(values, bytes):
            return _LISTS[kind](values)
    return []


def _strings(data: bytes) -> list[bytes]:
    return [bytes(value) for value in _messages(data, 1)]


def _floats(data: bytes) -> np.ndarray:
    """Packed into one field, as writers do, or one by one."""
    parts = [
        value if isinstance(value, bytes) else struct.pack("<I", value)
        for _, value in _fields(data)
    ]
    joined = b"".join(parts)
    if len(joined) % 4:
        raise Damaged("floats of odd length")
    return np.frombuffer(joined, "<f4")


def _integers(data: bytes) -> np.ndarray:
    values: list[int] = []
    for _, value in _fields(data):
        values += _varints(value) if isinstance(value, bytes) else [value]
    return np.array(values, np.uint64).astype(
        np.int64
    )  # negative ones are written as two's complement


_LISTS = {1: _strings, 2: _floats, 3: _integers}


def _messages(data: bytes, wanted: int) -> Iterator[bytes]:
    """The fields of that number that have a length."""
    return (
        value for number, value in _fields(data) if number == wanted and isinstance(value, bytes)
    )


def _fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Field numbers and values, in order."""
    at = 0
    while at < len(data):
        tag, at = _varint(data, at)
        number, wire = tag >> 3, tag & 7
        if wire == VARINT:
            value, at = _varint(data, at)
            yield number, value
            continue
        if wire == LENGTH:
            size, at = _varint(data, at)
        elif wire in (WIDE, NARROW):
            size = 8 if wire == WIDE else 4
        else:
            raise Damaged(f"wire type {wire}")
        if at + size > len(data):
            raise Damaged("it ends too early")
        piece, at = data[at : at + size], at + size
        yield number, piece if wire == LENGTH else int.from_bytes(piece, "little")


def _varints(data: bytes) -> list[int]:
    values, at = [], 0
    while at < len(data):
        value, at = _varint(data, at)
        values.append(value)
    return values


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """Seven bits a byte, the lowest first. Returns the number and where it ends."""
    value, shift = 0, 0
    while at < len(data) and shift < 64 + 6:
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value & (2**64 - 1), at
        shift += 7
    raise Damaged("it ends too early" if at == len(data) else "a number is too long")


def _text(data: Any) -> str:
    try:
        return bytes(data).decode()
    except UnicodeDecodeError:
        raise Damaged("a name is no text") from None
