"""The fields of a protobuf message, as bytes of a stranger: numbers and bytes, no more than there are.

https://protobuf.dev/programming-guides/encoding/. Which field means what is said in ``bundle``. Whatever is
wrong is a ValueError here; whoever calls it adds the file and the tensor.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TypeAlias

Fields: TypeAlias = Mapping[int, "list[int | bytes]"]


_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


def varint(raw: bytes, at: int) -> tuple[int, int]:
    """The number that begins at ``at``, of up to 64 bits and seven to a byte, and where it ends."""
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(raw):
            raise ValueError("it ends in the middle of a number")
        byte = raw[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            if value >> 64:
                break
            return value, at
    raise ValueError("a number of more than 64 bits")


def parse(raw: bytes) -> Fields:
    """Field number → what is there under it, in order."""
    fields: dict[int, list[int | bytes]] = {}
    for number, value in _fields(raw):
        fields.setdefault(number, []).append(value)
    return fields


def number(fields: Fields, field: int) -> int:
    """The number in a field, 0 where it is left out; the last one counts, as the format says."""
    value = fields.get(field, [0])[-1]
    if not isinstance(value, int):
        raise ValueError(f"its field {field} is no number")
    return value - (1 << 64) if value >> 63 else value


def messages(fields: Fields, field: int) -> list[bytes]:
    """The messages in a field, still to be parsed."""
    found = fields.get(field, [])
    if not all(isinstance(each, bytes) for each in found):
        raise ValueError(f"its field {field} is no message")
    return [each for each in found if isinstance(each, bytes)]


def _fields(raw: bytes) -> Iterator[tuple[int, int | bytes]]:
    at = 0
    while at < len(raw):
        tag, at = varint(raw, at)
        value: int | bytes
        if tag & 7 == _VARINT:
            value, at = varint(raw, at)
        elif tag & 7 in (_FIXED64, _FIXED32, _BYTES):
            size = {_FIXED64: 8, _FIXED32: 4}.get(tag & 7, 0)
            if not size:
                size, at = varint(raw, at)
            if size > len(raw) - at:
                raise ValueError(f"its field {tag >> 3} ends behind it")
            held = raw[at : at + size]
            value = held if tag & 7 == _BYTES else int.from_bytes(held, "little")
            at += size
        else:
            raise ValueError(f"its field {tag >> 3} is of a kind that is not in use ({tag & 7})")
        yield tag >> 3, value
