"""What is in a member of an archive: all of it or its start, unpacked no further than it says.

Owns the unpacking and the check of a member's CRC-32. Where it lies, and that its sizes can be, is told in
``zip``.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator

import numpy as np

from treeload._errors import SourceError
from treeload._files.crc import crc32, damaged_member
from treeload._files.open import File, brief, read_bytes
from treeload._files.pieces import Bytes, aligned
from treeload._files.place import Handle
from treeload._files.zip import DEFLATED, STORED, Head, Member, malformed, read_heads

_CHUNK = 1 << 20


def read_member(file: File, handle: Handle, member: Member, most: int) -> bytes:
    """All of a small member.

    Raises:
        SourceError: it has more than ``most`` bytes, or is damaged.
    """
    if member.size > most:
        what = f"its member {brief(member.name)} has {member.size:,} bytes"
        raise malformed(file, f"{what}, more than the {most:,} that are read")
    return unpacked(file, handle, member).tobytes()


def unpacked(file: File, handle: Handle, member: Member, *, skip: int = 0, check: bool = True) -> Bytes:
    """The bytes of a member from ``skip`` on, in a buffer that JAX takes over.

    Args:
        file: the archive.
        handle: what ``opened`` gave for it.
        member: of its directory.
        skip: how many of its first bytes are left out.
        check: hold all of them against its CRC-32.

    Raises:
        SourceError: they are not those of the CRC-32, or are not as many as the directory says.
    """
    ((_, head),) = read_heads(file, handle, [member])
    buffer = aligned(member.size - skip)
    at, crc = 0, 0
    for chunk in _chunks(file, handle, member, head):
        crc = crc32(chunk, crc) if check else 0
        if at + len(chunk) > member.size:
            raise _wrong_size(file, member)
        cut = max(skip - at, 0)
        if cut < len(chunk):
            start = at + cut - skip
            buffer[start : start + len(chunk) - cut] = np.frombuffer(chunk, np.uint8)[cut:]
        at += len(chunk)
    if at != member.size:
        raise _wrong_size(file, member)
    if check and member.crc is not None and crc != member.crc:
        raise damaged_member(f"{file}: its member {brief(member.name)}")
    return buffer


def start_of(file: File, handle: Handle, member: Member, head: Head, count: int) -> bytes:
    """The first bytes of a member, ``count`` where it has as many; held against nothing."""
    count = min(count, member.size)
    if member.method == STORED:
        return head.first[:count] if len(head.first) >= count else read_bytes(handle, count, head.data)
    found = b""
    for chunk in _chunks(file, handle, member, head, each=max(count, 512)):
        found += chunk
        if len(found) >= count:
            break
    return found[:count]


def _chunks(file: File, handle: Handle, member: Member, head: Head, each: int = _CHUNK) -> Iterator[bytes]:
    """The bytes of a member, none more than ``each`` long."""
    inflater = zlib.decompressobj(-zlib.MAX_WBITS) if member.method == DEFLATED else None
    for offset in range(0, member.packed, each):
        raw = read_bytes(handle, min(each, member.packed - offset), head.data + offset)
        if not raw:
            raise SourceError(f"{file} ends before its member {brief(member.name)} does")
        if inflater is None:
            yield raw
            continue
        try:
            while raw and not inflater.eof:
                yield inflater.decompress(raw, each)
                raw = inflater.unconsumed_tail
        except zlib.error as error:
            raise SourceError(f"{file}: its member {brief(member.name)} is damaged: {error}") from error
        if raw or inflater.unused_data:
            raise _wrong_size(file, member)
    while inflater is not None and not inflater.eof:
        if not (rest := inflater.decompress(b"", each)):
            raise _wrong_size(file, member)
        yield rest


def _wrong_size(file: File, member: Member) -> SourceError:
    return SourceError(
        f"{file}: its member {brief(member.name)} is damaged: it does not have {member.size:,} bytes"
    )
