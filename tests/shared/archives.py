"""Zip archives made by hand, so that any number in one can lie."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

RECORD = "<4s6H3L5H2L"
LOCAL = "<4s5H3L2H"
END = "<4s4H2LH"


@dataclass
class Made:
    """One member, and what is written of it in the place of what is true.

    Attributes:
        name: its name.
        content: its bytes, unpacked.
        deflate: whether it is compressed.
        said: field → another value, in the directory: ``flags``, ``method``, ``crc``, ``packed``, ``size``,
            ``header``, ``disk``.
        local: the same in its own header; and ``name``.
        extra: the extra field of its own header.
    """

    name: str
    content: bytes
    deflate: bool = False
    said: Mapping[str, int] = field(default_factory=dict)
    local: Mapping[str, Any] = field(default_factory=dict)
    extra: bytes = b""


def deflated(content: bytes) -> bytes:
    squeezer = zlib.compressobj(9, zlib.DEFLATED, -15)
    return squeezer.compress(content) + squeezer.flush()


def archive(members: list[Made], *, end: Mapping[str, int] | None = None, comment: bytes = b"") -> bytes:
    """The archive; ``end``: ``count``, ``here``, ``size``, ``start``, ``disk`` as its end record has them."""
    body, directory = b"", b""
    for each in members:
        packed = deflated(each.content) if each.deflate else each.content
        true = {
            "flags": 0x800,
            "method": 8 if each.deflate else 0,
            "crc": zlib.crc32(each.content),
            "disk": 0,
        }
        true |= {"packed": len(packed), "size": len(each.content), "header": len(body)}
        own, told = {**true, **each.local}, {**true, **each.said}
        name = str(own.get("name", each.name)).encode()
        sizes = (own["crc"], own["packed"], own["size"], len(name), len(each.extra))
        body += struct.pack(LOCAL, b"PK\x03\x04", 20, own["flags"], own["method"], 0, 0, *sizes)
        body += name + each.extra + packed
        name = each.name.encode()
        told_sizes = (told["crc"], told["packed"], told["size"], len(name))
        how = (20, 20, told["flags"], told["method"], 0, 0)
        where = (0, 0, told["disk"], 0, 0, told["header"])
        directory += struct.pack(RECORD, b"PK\x01\x02", *how, *told_sizes, *where) + name
    what = {
        "disk": 0,
        "here": len(members),
        "count": len(members),
        "size": len(directory),
        "start": len(body),
    }
    what |= end or {}
    last = (what["disk"], 0, what["here"], what["count"], what["size"], what["start"], len(comment))
    return body + directory + struct.pack(END, b"PK\x05\x06", *last) + comment


def write(path: Path, members: Mapping[str, bytes], *, deflate: bool = False) -> Path:
    path.write_bytes(archive([Made(name, content, deflate) for name, content in members.items()]))
    return path
