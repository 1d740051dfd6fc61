"""A zip archive, as a trust boundary: its directory, and where members lie.

Owns the reading of archives whose members are arrays. Nothing is unpacked to disk, and no size is believed:
members may not overlap, be there twice, be encrypted, or expand further than deflate can. What a member is,
its format says; what is in one is read in ``unpack``.

The format (PKWARE, APPNOTE.TXT 6.3): local headers with the members' bytes behind them; then the central
directory, a record a member; then the end record, before which that of zip64 lies where 32 bits are too few.
All numbers are little-endian.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from treeload._errors import SourceError
from treeload._files.at_once import at_once
from treeload._files.open import File, brief, look_at, opened, read_bytes
from treeload._files.place import Handle, Place

MAGIC = b"PK\x03\x04"


_END = struct.Struct("<4s4H2LH")  # signature, disks, counts, size and offset of the directory, comment


_LOCATOR = struct.Struct("<4sLQL")  # signature, disk, offset of the end record of zip64, disks


_END64 = struct.Struct("<4sQ2H2L4Q")


_RECORD = struct.Struct("<4s6H3L5H2L")


_LOCAL = struct.Struct("<4s5H3L2H")


_SIGNED = {"end": b"PK\x05\x06", "locator": b"PK\x06\x07", "end64": b"PK\x06\x06", "record": b"PK\x01\x02"}


_MOST_MEMBERS = 1 << 19


_MOST_BYTES = 64 << 20  # of a directory


_EXPANDS = 1032  # how many bytes deflate can make of one


_NEAR = 4096  # bytes between two headers that are read over rather than read for each alone


_WINDOW = 1 << 20  # bytes of headers that are read at once


_USUAL_START = 96  # bytes that hold the first header and a usual name


_MOST_NAME = 1 << 13  # characters of a first member's name that are looked at


STORED, DEFLATED = 0, 8


@dataclass(frozen=True, slots=True)
class Member:
    """What the directory says of one member.

    Attributes:
        name: its name.
        raw: the same, in the bytes in which it is written.
        method: ``STORED`` or ``DEFLATED``.
        header: where its local header begins.
        packed: its bytes in the file.
        size: its bytes once they are unpacked.
        crc: the CRC-32 of those; None where nobody made one.
        limit: where the next member, or the directory, begins.
    """

    name: str
    raw: bytes
    method: int
    header: int
    packed: int
    size: int
    crc: int | None
    limit: int


@dataclass(frozen=True, slots=True)
class Head:
    """Where the bytes of a member begin in the file, and as many of them as came with its header."""

    data: int
    first: bytes


# --- The directory ----------------------------------------------------------------------------------


def first_member(path: Place) -> str | None:
    """The name of the first member of the archive at ``path``, empty where it has none; None for no archive.

    Looks at the first bytes of the file alone.
    """
    try:
        with opened(look_at(path)) as handle:
            start = read_bytes(handle, _USUAL_START, 0)
            if len(start) > _LOCAL.size and (lacking := _first_name_ends(start) - len(start)) > 0:
                start += read_bytes(handle, lacking, len(start))
    except SourceError:  # whoever opens it will say why
        return None
    if start.startswith(_SIGNED["end"]):
        return ""
    if len(start) < _LOCAL.size or not start.startswith(MAGIC):
        return None
    return start[_LOCAL.size : _first_name_ends(start)].decode("utf-8", "replace")


def _first_name_ends(start: bytes) -> int:
    length: int = _LOCAL.unpack_from(start)[9]
    return _LOCAL.size + min(length, _MOST_NAME)


def read_directory(file: File, handle: Handle) -> dict[str, Member]:
    """The members of an archive by their names, in the order of its directory.

    Raises:
        SourceError: it is no archive, is cut short, or its directory does not agree with itself or the file.
    """
    start, size, count = _find_directory(file, handle)
    if count > _MOST_MEMBERS or size > _MOST_BYTES:
        raise malformed(file, f"its directory of {count:,} members takes {size:,} bytes, more than is read")
    raw = read_bytes(handle, size, start)
    if len(raw) < size:
        raise malformed(file, "it was cut short while it was read")
    found: list[Member] = []
    at = 0
    for _ in range(count):
        member, at = _member(file, raw, at, start)
        found.append(member)
    if at != size:
        raise malformed(file, f"{size - at:,} bytes of its directory belong to no member")
    limits = _limits(file, found, start)
    members: dict[str, Member] = {}
    for member in found:
        if member.name in members:
            raise malformed(file, f"the member {brief(member.name)} is there twice")
        members[member.name] = replace(member, limit=limits[member.header])
    return members


def _find_directory(file: File, handle: Handle) -> tuple[int, int, int]:
    """Where the directory begins, its bytes, and how many members it has."""
    at, tail, begins = _find_end(file, handle)
    _, disk, disk_of_directory, here, count, size, start, _ = _END.unpack_from(tail, at)
    if disk or disk_of_directory or here != count:
        raise malformed(file, "it is one of several disks")
    end = begins + at
    if 0xFFFF in (count,) or 0xFFFFFFFF in (size, start) or _has_locator(tail, at):
        known = (count, size, start)
        end, count, size, start = _find_end64(file, handle, tail, at, end)
        for small, large, unsaid in zip(
            known, (count, size, start), (0xFFFF, *[0xFFFFFFFF] * 2), strict=True
        ):
            if small not in (unsaid, large):
                raise malformed(file, "its two end records disagree")
    if start + size != end:
        raise malformed(
            file, f"its directory would end at byte {start + size:,}, and the record behind it is at {end:,}"
        )
    return start, size, count


def _find_end(file: File, handle: Handle) -> tuple[int, bytes, int]:
    """Where in the last bytes the end record is, those bytes, and where they begin in the file."""
    if file.size < _END.size:
        raise malformed(file, f"it has {file.size} bytes, and an archive has {_END.size} at least")
    # Without a comment, which nearly none has, it is the last thing; zip64's records lie before it.
    for most in (_END.size + _LOCATOR.size + _END64.size, _END.size + _LOCATOR.size + _END64.size + 0xFFFF):
        begins = max(file.size - most, 0)
        tail = read_bytes(handle, file.size - begins, begins)
        at = len(tail)
        while (at := tail.rfind(_SIGNED["end"], 0, at)) >= 0:
            if at + _END.size <= len(tail) and at + _END.size + _END.unpack_from(tail, at)[7] == len(tail):
                return at, tail, begins
    raise malformed(file, "it has no end record: it is cut short, or something follows it")


def _has_locator(tail: bytes, at: int) -> bool:
    return at >= _LOCATOR.size and tail.startswith(_SIGNED["locator"], at - _LOCATOR.size)


def _find_end64(file: File, handle: Handle, tail: bytes, at: int, end: int) -> tuple[int, int, int, int]:
    """Where zip64's end record begins; count, size and start of the directory as it says them."""
    if not _has_locator(tail, at):
        raise malformed(file, "it says that it is zip64, and has no such end record")
    _, disk, where, disks = _LOCATOR.unpack_from(tail, at - _LOCATOR.size)
    if disk or disks > 1 or where + _END64.size > end - _LOCATOR.size:
        raise malformed(file, "its zip64 end record is not where it is said to be")
    raw = read_bytes(handle, _END64.size, where)
    if len(raw) < _END64.size or not raw.startswith(_SIGNED["end64"]):
        raise malformed(file, "its zip64 end record is not where it is said to be")
    _, length, _, _, disk, disk_of_directory, here, count, size, start = _END64.unpack(raw)
    if disk or disk_of_directory or here != count:
        raise malformed(file, "it is one of several disks")
    if where + 12 + length != end - _LOCATOR.size:
        raise malformed(file, "its zip64 end record is not as long as it says")
    return where, count, size, start


def _member(file: File, raw: bytes, at: int, directory: int) -> tuple[Member, int]:
    """The member whose record begins at ``at``, and where the next one does."""
    if len(raw) - at < _RECORD.size or not raw.startswith(_SIGNED["record"], at):
        raise malformed(file, f"byte {at:,} of its directory begins no record")
    record = _RECORD.unpack_from(raw, at)
    flags, method, crc, packed, size = record[3], record[4], *record[7:10]
    length, extra, comment, disk, header = *record[10:14], record[16]
    end = at + _RECORD.size + length + extra + comment
    if end > len(raw):
        raise malformed(file, "its directory ends in the middle of a record")
    at += _RECORD.size
    raw_name = raw[at : at + length]
    name = _text(file, raw_name, utf8=bool(flags & 0x800))
    if flags & 0x2041:
        raise malformed(file, f"its member {brief(name)} is encrypted")
    if method not in (STORED, DEFLATED):
        raise malformed(
            file, f"its member {brief(name)} is compressed by method {method}; only deflate is read"
        )
    size, packed, header, disk = _large(
        file, name, raw[at + length : at + length + extra], (size, packed, header, disk)
    )
    if disk:
        raise malformed(file, "it is one of several disks")
    if method == STORED and packed != size:
        raise malformed(file, f"its member {brief(name)} is stored in {packed:,} bytes and has {size:,}")
    if size > _EXPANDS * packed + 64:
        raise malformed(
            file, f"its member {brief(name)} would expand {packed:,} bytes to {size:,}, which deflate cannot"
        )
    if header + _LOCAL.size + length + packed > directory:
        raise malformed(file, f"its member {brief(name)} would end behind the last")
    return Member(name, raw_name, method, header, packed, size, crc, directory), end


def _text(file: File, raw: bytes, *, utf8: bool) -> str:
    try:
        name = raw.decode("utf-8" if utf8 else "cp437")
    except UnicodeDecodeError as error:
        raise malformed(file, f"the name of a member is no text: {error}") from error
    if "\0" in name or not name:
        raise malformed(file, f"{brief(name)} is no name of a member")
    return name


def _large(file: File, name: str, extra: bytes, said: tuple[int, int, int, int]) -> tuple[int, int, int, int]:
    """Size, packed size, place and disk; from the extra field of zip64 where 32 bits are too few."""
    unsaid = (0xFFFFFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0xFFFF)
    if not any(value == none for value, none in zip(said, unsaid, strict=True)):
        return said
    at = 0
    while at + 4 <= len(extra):
        kind, length = struct.unpack_from("<2H", extra, at)
        if kind == 1:
            field, found = extra[at + 4 : at + 4 + length], list(said)
            for number, form in enumerate("QQQL"):
                if said[number] == unsaid[number] and len(field) >= struct.calcsize("<" + form):
                    (found[number],) = struct.unpack_from("<" + form, field)
                    field = field[struct.calcsize("<" + form) :]
            if found[0] < 2**63 and found[1] < 2**63 and found[2] < 2**63:
                return found[0], found[1], found[2], found[3]
        at += 4 + length
    raise malformed(file, f"its member {brief(name)} says no size")


def _limits(file: File, members: Iterable[Member], directory: int) -> dict[int, int]:
    """Where each member's header is → where the next member begins; none reaches into another."""
    in_order = sorted(members, key=lambda member: member.header)
    limits: dict[int, int] = {}
    for member, behind in zip(in_order, [*in_order[1:], None], strict=False):  # of none there is none
        limit = directory if behind is None else behind.header
        if member.header + _LOCAL.size + len(member.raw) + member.packed > limit:
            other = "" if behind is None else f" and {brief(behind.name)}"
            raise malformed(file, f"its members {brief(member.name)}{other} overlap")
        limits[member.header] = limit
    return limits


# --- Where members lie ------------------------------------------------------------------------------


def read_heads(
    file: File, handle: Handle, members: Iterable[Member], *, first: int = 0
) -> Iterator[tuple[Member, Head]]:
    """Where the bytes of each member begin, in the order of the file; of headers that lie close in one read.

    Args:
        file: the archive.
        handle: what ``opened`` gave for it.
        members: of its directory.
        first: bytes that are read behind each header's name; some of them will be the member's.

    Raises:
        SourceError: a header that does not agree with the directory.
    """
    groups: list[list[Member]] = []
    for member in sorted(members, key=lambda each: each.header):
        last = groups[-1] if groups else None
        if (
            last is None
            or member.header - _reach(last[-1], first) > _NEAR
            or _reach(member, first) - last[0].header > _WINDOW
        ):
            groups.append([])
        groups[-1].append(member)
    for found in at_once(lambda group: _heads(file, handle, group, first), groups, is_far=handle.is_far):
        yield from found


def _reach(member: Member, first: int) -> int:
    return min(member.header + _LOCAL.size + len(member.raw) + first, member.limit)


def _heads(file: File, handle: Handle, members: list[Member], first: int) -> list[tuple[Member, Head]]:
    begins = members[0].header
    raw = read_bytes(handle, _reach(members[-1], first) - begins, begins)
    found = []
    for member in members:
        at = member.header - begins
        data = _check_header(file, member, raw[at : at + _LOCAL.size + len(member.raw)])
        stop = min(_reach(member, first), data + member.packed)
        found.append((member, Head(data, raw[data - begins : max(stop, data) - begins])))
    return found


def _check_header(file: File, member: Member, raw: bytes) -> int:
    """Where the member's bytes begin, if its own header says what the directory says."""
    if len(raw) < _LOCAL.size + len(member.raw) or not raw.startswith(MAGIC):
        raise malformed(file, f"its member {brief(member.name)} is not where the directory says")
    flags, method, _, _, crc, packed, size, length, extra = _LOCAL.unpack_from(raw)[2:]
    later = bool(flags & 8)  # sizes and sum follow the data
    agrees = (
        method == member.method
        and not flags & 0x2041
        and length == len(member.raw)
        and raw[_LOCAL.size :] == member.raw
        and (later or crc == (member.crc or 0))
        and (later or size in (0xFFFFFFFF, member.size))
        and (later or packed in (0xFFFFFFFF, member.packed))
    )
    if not agrees:
        what = f"the header of its member {brief(member.name)}"
        raise malformed(file, f"{what} is not what the directory says")
    data: int = member.header + _LOCAL.size + length + extra
    if data + member.packed > member.limit:
        raise malformed(file, f"its member {brief(member.name)} reaches into what follows it")
    return data


def malformed(file: File, why: str) -> SourceError:
    return SourceError(f"{file} is no valid zip archive: {why}")
