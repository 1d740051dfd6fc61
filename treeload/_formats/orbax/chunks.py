"""How an array is cut into chunks, as its header says it: checked before TensorStore sees it.

TensorStore makes room for a whole chunk, however small the array is, and aborts the process where there is
none. What a chunk holds it never expands past the size that the header gives it, whichever the codec.

https://zarr-specs.readthedocs.io, v2 "Metadata" (``chunks``), v3 "Array metadata" (``chunk_grid``) and
"Sharding codec" (``chunk_shape`` of the chunks within one).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from treeload._files.open import brief


def check_chunks(header: Mapping[str, Any], zarr3: bool, bytes_there: int | None) -> None:
    """Nothing, if the chunks are parts of the array, and no more of them than can be there.

    Args:
        header: the header, of which the shape has been checked.
        zarr3: whether it is of version 3.
        bytes_there: what all files together hold, where each chunk takes some of it; else None.

    Raises:
        ValueError: they are not.
        KeyError, TypeError: the header lacks them, or has something else in their place.
    """
    shape = header["shape"]
    chunk = header["chunk_grid"]["configuration"]["chunk_shape"] if zarr3 else header["chunks"]
    _check_within(chunk, [max(size, 1) for size in shape], "the array")
    if zarr3:
        _check_codecs(header["codecs"], chunk)
    count = math.prod(-(-size // part) for size, part in zip(shape, chunk, strict=True))
    if bytes_there is not None and count > bytes_there:
        raise ValueError(f"it has {count:,} chunks, and all files together hold {bytes_there:,} bytes")


def _check_codecs(codecs: Sequence[Mapping[str, Any]], chunk: Sequence[int]) -> None:
    for codec in codecs:
        if codec["name"] == "sharding_indexed":
            inner = codec["configuration"]["chunk_shape"]
            _check_within(inner, chunk, "the chunk that they lie in")
            _check_codecs(codec["configuration"]["codecs"], inner)


def _check_within(chunk: Any, whole: Sequence[int], what: str) -> None:
    if not isinstance(chunk, list) or not all(type(size) is int and size > 0 for size in chunk):
        raise ValueError(f"its header gives chunks of {brief(str(chunk))}")
    if len(chunk) != len(whole) or any(part > size for part, size in zip(chunk, whole, strict=True)):
        raise ValueError(f"its header gives chunks of {brief(str(chunk))}, larger than {what}")
