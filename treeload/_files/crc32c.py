"""CRC-32C, as TensorFlow writes it beside each tensor and zarr behind each shard, by NumPy at some GB/s.

A CRC is the remainder of a polynomial: the message's bits are its coefficients, and a message may be
exchanged for any other of the same remainder. In two ways a message is made shorter so. A long one by XOR
alone: the divisor has the multiple x^5685 + x^1362 + x^426 + 1, and so, squared six times, the same of
words of 64 bits: each word is XORed into those 4323, 5259 and 5685 words behind it, and is gone. A short
one is folded in half: its first half is XORed into the second as what it is so many words of zeros later,
by two look-ups a word in tables of what 16 bits become.

RFC 3720, appendix B.4, has the polynomial; TensorFlow's ``lib/hash/crc32c.h`` how a checksum is masked.
"""

from __future__ import annotations

from functools import cache
from typing import Any, TypeAlias

import numpy as np

Words: TypeAlias = "np.ndarray[tuple[int], np.dtype[np.uint32]]"


_POLYNOMIAL = np.uint32(0x82F63B78)  # its bits reversed, as the lowest bit of a byte comes first


_FURTHER = (4323, 5259, 5685)  # 5685 - 1362, 5685 - 426, 5685 - 0


_STEP, _SPAN = _FURTHER[0], _FURTHER[-1]  # words that are folded at once, and that are left of all


_AT_ONCE = 16 * _STEP  # words: with those behind them they stay in a core's own cache


_LONG = 1 << 17  # bytes from which on the first way is shorter


def masked_crc32c(data: Any) -> int:
    """The checksum of a buffer of bytes as TensorFlow stores it, so that it is not taken for data.

    Examples:
        >>> hex(masked_crc32c(b""))
        '0xa282ead8'
    """
    crc = crc32c(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def crc32c(data: Any) -> int:
    """The CRC-32C of a buffer of bytes.

    Examples:
        >>> hex(crc32c(b"123456789"))
        '0xe3069283'
    """
    raw = np.frombuffer(data, np.uint8)
    if len(raw) < 4:
        return _of_few(raw.tobytes())
    parts = [raw] if len(raw) < _LONG else _shortened(raw)
    # Zeros in front of a message change nothing, once the bytes are turned over that a CRC begins with.
    size = sum(map(len, parts))
    levels = (-(-size // 4) - 1).bit_length()
    register: Words = np.zeros(1 << levels, np.uint32)
    message = register.view(np.uint8)[4 * len(register) - size :]
    np.concatenate(parts, out=message)
    if len(parts) == 1:
        message[:4] ^= 0xFF
    for level in reversed(range(levels)):
        half = 1 << level
        register = _moved(register[:half], level) ^ register[half:]
    return int(_moved(register, 0)[0]) ^ 0xFFFFFFFF


def _shortened(raw: np.ndarray[Any, np.dtype[np.uint8]]) -> list[np.ndarray[Any, np.dtype[np.uint8]]]:
    """Parts of a shorter message that leaves the same register, its first bytes turned over."""
    words = raw[: len(raw) // 8 * 8].view("<u8")
    window = np.empty(_SPAN + _AT_ONCE, np.uint64)
    window[:_SPAN] = words[:_SPAN]
    window[0] ^= np.uint64(0xFFFFFFFF)
    for start in range(_SPAN, len(words), _AT_ONCE):
        coming = words[start : start + _AT_ONCE]
        window[_SPAN : _SPAN + len(coming)] = coming
        for at in range(0, len(coming), _STEP):
            gone = window[at : min(at + _STEP, len(coming))]
            for further in _FURTHER:
                window[at + further : at + further + len(gone)] ^= gone
        window[:_SPAN] = window[len(coming) : len(coming) + _SPAN].copy()
    return [window[:_SPAN].view(np.uint8), raw[8 * len(words) :]]


def _of_few(data: bytes) -> int:
    table, crc = _of_bytes(), 0xFFFFFFFF
    for byte in data:
        crc = int(table[(crc ^ byte) & 0xFF]) ^ crc >> 8
    return crc ^ 0xFFFFFFFF


def _moved(register: Words, level: int) -> Words:
    """Each word as it is ``2**level`` words of zeros later."""
    lower, upper = _tables(level)
    halves = register.view("<u2")
    moved: Words = lower[halves[0::2]] ^ upper[halves[1::2]]
    return moved


@cache
def _tables(level: int) -> tuple[Words, Words]:
    images = _images(level)
    return _combined(images[:16]), _combined(images[16:])


@cache
def _images(level: int) -> Words:
    """What each bit of a word becomes ``2**level`` words of zeros later."""
    if level:  # twice as far is the same step once more
        return _moved(_images(level - 1), level - 1)
    bits: Words = np.left_shift(np.uint32(1), np.arange(32, dtype=np.uint32))
    for _ in range(4):
        bits = _of_bytes()[bits & 0xFF] ^ bits >> 8
    return bits


def _combined(images: Words) -> Words:
    """The XOR of the images of each number's bits, by number."""
    table: Words = np.zeros(1, np.uint32)
    for image in images:
        table = np.concatenate([table, table ^ image])
    return table


@cache
def _of_bytes() -> Words:
    """What each byte becomes one byte of zeros later."""
    table: Words = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        table = np.where(table & 1, table >> 1 ^ _POLYNOMIAL, table >> 1)
    return table
