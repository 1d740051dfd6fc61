"""What quantised bytes stand for, as the ``gguf`` library says it; the one place that imports it."""

from __future__ import annotations

from functools import cache
from typing import Any

import gguf
import numpy as np

_AT_ONCE = 1 << 22  # bytes: what the library makes of them on the way takes several times their floats


@cache
def sizes_of(code: int) -> tuple[str, int, int]:
    """What a type is called, how many numbers a block of it stands for, and in how many bytes.

    Raises:
        ValueError: nobody knows such a type, or what it stands for.
    """
    try:
        kind = gguf.GGMLQuantizationType(code)
        block, size = gguf.GGML_QUANT_SIZES[kind]
        gguf.dequantize(np.zeros((1, size), np.uint8), kind)
    except (ValueError, KeyError):
        raise ValueError(f"its type {code:,} is not known") from None
    except NotImplementedError:
        raise ValueError(f"its type {kind.name} cannot be turned into floats") from None
    return kind.name, block, size


def dequantised(raw: np.ndarray[Any, np.dtype[np.uint8]], code: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    """The floats, one after the other, that whole blocks of a type stand for."""
    kind = gguf.GGMLQuantizationType(code)
    block, size = gguf.GGML_QUANT_SIZES[kind]
    blocks = raw.reshape(-1, size)
    floats = np.empty((len(blocks), block), np.float32)
    step = max(_AT_ONCE // size, 1)
    with np.errstate(all="ignore"):  # scales of a stranger: what overflows is what is there
        for start in range(0, len(blocks), step):
            floats[start : start + step] = gguf.dequantize(blocks[start : start + step], kind)
    return floats.reshape(-1)
