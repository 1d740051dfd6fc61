"""The digests of leaves of which each process has a part: each gives those of its blocks, and all are told.

Owns what the processes tell each other of them. What a block is, and how it is checked, is in
``_files.digests``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

import jax
import numpy as np

from treeload._files.digests import Digest, block_within, digests_within, of_blocks
from treeload._files.meeting import told_by_all
from treeload._leaves.spec import is_key


def digests_of_parts(arrays: Mapping[str, jax.Array]) -> dict[str, Digest]:
    """The digests of leaves that are spread over processes, which all call this, with the same names.

    Typed keys have none: their data lies otherwise than they do.
    """
    blocks = {
        name: block_within(array.sharding.shard_shape(array.shape), array.dtype.itemsize)
        for name, array in arrays.items()
        if not is_key(array.dtype)
    }
    if not blocks:
        return {}
    here = {name: _of_this_process(arrays[name], block) for name, block in blocks.items()}
    everywhere: dict[str, dict[int, str]] = {name: {} for name in blocks}
    for said in told_by_all(json.dumps(here).encode()):
        for name, found in json.loads(said).items():
            everywhere[name].update({int(number): digest for number, digest in found.items()})
    known = {name: of_blocks(blocks[name], everywhere[name], arrays[name].shape) for name in blocks}
    return {name: digest for name, digest in known.items() if digest is not None}


def _of_this_process(array: jax.Array, block: tuple[int, ...]) -> dict[int, str]:
    found: dict[int, str] = {}
    for shard in array.addressable_shards:
        if shard.replica_id == 0:
            ranges = (part.indices(size)[:2] for part, size in zip(shard.index, array.shape, strict=True))
            found |= digests_within(np.asarray(shard.data), tuple(ranges), array.shape, block)
    return found
