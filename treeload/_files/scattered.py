"""Leaves that do not lie in a file as they are wanted: compressed, strided, or in another order of bytes.

Owns how one is gathered into a buffer that JAX takes over. Those that lie there as plain bytes are those of
``read``; where each lies is told by its format.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from types import MappingProxyType
from typing import Any

import numpy as np

from treeload._errors import SourceError, TreeloadError
from treeload._files.digests import Digest, check_whole
from treeload._files.open import File, opened, read_bytes
from treeload._files.pieces import Bytes, aligned
from treeload._files.place import Handle
from treeload._files.regions import placed, slices_of
from treeload._files.unpack import unpacked
from treeload._files.zip import Member
from treeload._leaves.spec import Spec, nbytes, print_spec
from treeload._naming.name import Name, print_name

_CHUNK = 16 << 20


@dataclass(frozen=True, slots=True)
class Scattered:
    """Where a leaf lies.

    Attributes:
        file: what it lies in.
        member: the member of an archive whose bytes, once unpacked, hold it; None where the file does.
        offset: where its first element lies in those, in bytes.
        spec: its shape and dtype.
        strides: how many elements lie between neighbours along each axis.
        swapped: its numbers are big-endian.
        check: the member is held against its CRC-32.
    """

    file: File
    member: Member | None
    offset: int
    spec: Spec
    strides: tuple[int, ...]
    swapped: bool = False
    check: bool = True

    @property
    def begins(self) -> int:
        """Where in the file what holds it begins: leaves are read in this order."""
        return self.offset if self.member is None else self.member.header


def row_major(shape: Sequence[int]) -> tuple[int, ...]:
    """The strides, in elements, of an array of this shape that lies in C order.

    Examples:
        >>> row_major((2, 3, 4))
        (12, 4, 1)
    """
    return tuple(math.prod(shape[axis + 1 :]) for axis in range(len(shape)))


def is_row_major(shape: Sequence[int], strides: Sequence[int]) -> bool:
    """Whether an array with these strides lies in C order; those of axes of one element say nothing."""
    return not math.prod(shape) or all(
        size == 1 or stride == plain
        for size, stride, plain in zip(shape, strides, row_major(shape), strict=True)
    )


def spread(shape: Sequence[int], strides: Sequence[int]) -> int:
    """How many elements lie from an array's first to its last, both of them with it.

    Examples:
        >>> spread((2, 3), (10, 1))
        13
    """
    if not math.prod(shape):
        return 0
    return 1 + sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True))


def read_scattered(
    leaves: Mapping[Name, Scattered],
    requests: Mapping[Name, Spec],
    label: str,
    digests: Mapping[Name, Digest] = MappingProxyType({}),
) -> Iterator[tuple[Name, Any]]:
    """The leaves asked for, whole and one after the other, as ``Source.read`` says.

    Held at any time: one leaf, and what it is gathered from, where it does not lie there in one piece.

    Args:
        leaves: where those lie that are asked for.
        requests: as ``Source.read`` has them; they are known to be these leaves' own.
        label: what holds the leaves, for messages.
        digests: what the bytes of leaves must give, where that is known.

    Raises:
        SourceError: what is read is damaged, or there is not enough memory.
    """
    in_order = sorted(leaves, key=lambda name: (leaves[name].file.real, leaves[name].begins))
    for _, several in groupby(in_order, key=lambda name: leaves[name].file.real):
        names = list(several)
        file = leaves[names[0]].file
        uses = Counter(member.name for name in names if (member := leaves[name].member) is not None)
        with opened(file) as handle:
            shared: dict[str, Bytes] = {}
            for name in names:
                leaf, what = leaves[name], f"{label}: {print_name(name)!r}"
                try:
                    array = _gathered(leaf, handle, uses, shared)
                except TreeloadError as error:
                    raise SourceError(f"{what}: {error}") from error
                except MemoryError as error:
                    raise SourceError(
                        f"{what} ({print_spec(leaf.spec)}, {nbytes(leaf.spec):,} bytes): not enough memory"
                    ) from error
                check_whole(array, digests.get(name), what)
                if leaf.spec.dtype == np.bool_ and array.size and array.view(np.uint8).max() > 1:
                    raise SourceError(f"{what} holds a boolean that is neither 0 nor 1")
                value = placed(requests[name], lambda box: array[slices_of(box)])  # noqa: B023  # called at once
                array = None
                yield name, value


def _gathered(leaf: Scattered, handle: Handle, uses: Mapping[str, int], shared: dict[str, Bytes]) -> Any:
    """The leaf as an array of its own, in C order."""
    shape, dtype = leaf.spec.shape, leaf.spec.dtype
    count = spread(shape, leaf.strides) * dtype.itemsize
    member, own = leaf.member, True
    if member is None:
        raw = _range(leaf.file, handle, leaf.offset, count)
    elif uses[member.name] == 1:
        shared.clear()
        raw = unpacked(leaf.file, handle, member, skip=leaf.offset, check=leaf.check)[:count]
    else:
        if member.name not in shared:
            shared.clear()  # they come member by member
            shared[member.name] = unpacked(leaf.file, handle, member, check=leaf.check)
        raw, own = shared[member.name][leaf.offset : leaf.offset + count], False
    flat = raw.view(dtype)
    if own and is_row_major(shape, leaf.strides):
        array = flat.reshape(shape)
    else:
        array = aligned(nbytes(leaf.spec)).view(dtype).reshape(shape)
        if array.size:
            array[...] = np.lib.stride_tricks.as_strided(
                flat, shape, [stride * dtype.itemsize for stride in leaf.strides], writeable=False
            )
    if leaf.swapped:
        half = dtype.itemsize // 2 if dtype.kind == "c" else dtype.itemsize
        array.reshape(-1).view(f"u{half}").byteswap(inplace=True)
    return array


def _range(file: File, handle: Handle, offset: int, count: int) -> Bytes:
    buffer = aligned(count)
    for at in range(0, count, _CHUNK):
        part = read_bytes(handle, min(_CHUNK, count - at), offset + at)
        if len(part) < min(_CHUNK, count - at):
            raise SourceError(f"{file} was cut short while it was read")
        buffer[at : at + len(part)] = np.frombuffer(part, np.uint8)
    return buffer
