"""Whether what was read of a leaf is what was written: by its digest, or by its file's checksum.

Owns when that is looked at: each segment as soon as it was read, while it is in the cache, and the rest once
the leaf is there. What a digest is, is in ``digests``; what a checksum is, in ``crc``.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from treeload._errors import SourceError
from treeload._files.crc import Checksum, combined, crc32, damaged_member
from treeload._files.digests import damaged, digest, is_intact, ranges
from treeload._files.open import File, check_unchanged
from treeload._files.pieces import Leaf, Segment, on_host
from treeload._files.place import Handle
from treeload._naming.name import print_name


def look_at_segments(handle: Handle, file: File, run: Sequence[Segment]) -> None:
    for segment in run:
        for start, stop, expected in segment.digests:
            if digest(segment.buffer[start:stop]) != expected:
                check_unchanged(file, handle)  # a file that is written meanwhile is not damaged
                raise damaged(f"{file}: {print_name(segment.leaf.name)!r}")
        if segment.leaf.checksum is not None:
            is_first = segment.offset == segment.leaf.pieces[0].offset
            before = segment.leaf.checksum.before if is_first else 0
            segment.leaf.sums[segment.offset] = crc32(segment.buffer.data, before)
        if segment.leaf.request.dtype == np.bool_ and segment.buffer.max() > 1:
            name = print_name(segment.leaf.name)
            raise SourceError(f"{name} in {file} holds a boolean that is neither 0 nor 1")


def check_leaves(leaves: Sequence[Leaf], file: File, handle: Handle) -> None:
    """Nothing, if those leaves are intact of which no segment could tell.

    Their blocks do not lie in the file as they lie in the leaf, or there is but one checksum of them all.
    """
    for leaf in leaves:
        known, shape = leaf.known, leaf.request.shape
        if leaf.checksum is not None and _sum(leaf, leaf.checksum) != leaf.checksum.value:
            check_unchanged(file, handle)
            raise damaged_member(f"{file}: {print_name(leaf.name)!r}")
        if known is None:
            continue
        for piece in leaf.pieces:
            if ranges(piece.box, shape, known) is None and not is_intact(
                on_host(piece, leaf.request.dtype), piece.box, shape, known
            ):
                check_unchanged(file, handle)
                raise damaged(f"{file}: {print_name(leaf.name)!r}")


def _sum(leaf: Leaf, checksum: Checksum) -> int:
    """The CRC-32 of all that was read of a leaf, from those of its segments."""
    starts = [*sorted(leaf.sums), leaf.pieces[0].offset + len(leaf.pieces[0].buffer)]
    total = leaf.sums.get(starts[0], checksum.before)
    for start, stop in pairwise(starts[1:]):
        total = combined(total, leaf.sums[start], stop - start)
    return total
