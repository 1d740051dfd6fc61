"""The container of PyTorch 1.6 and later: a zip archive with a pickle, and a member for each storage.

``<root>/data.pkl`` is the pickle, ``<root>/data/<key>`` are the storages, ``<root>/byteorder`` says how their
numbers lie; ``<root>`` is any name. An archive that holds code (TorchScript) is refused.
https://github.com/pytorch/pytorch/blob/main/docs/source/notes/serialization.rst
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from treeload._errors import SourceError
from treeload._files.open import File, brief, opened, some
from treeload._files.place import Handle
from treeload._files.unpack import read_member
from treeload._files.zip import DEFLATED, Member, read_directory, read_heads
from treeload._formats.pytorch.container import Content, StoragePlace, storage_of
from treeload._formats.pytorch.described import Storage
from treeload._formats.pytorch.unpickle import unpickled

_PICKLE = "data.pkl"


_MOST_PICKLE = 128 << 20


_MOST_UNPACKED = 8 << 20
"""Bytes of a pickle that is compressed, which PyTorch never does: some kilobytes of it may hold very much."""


def read_zipped(file: File) -> Content:
    """What the archive holds; its pickle is read, and no storage.

    Raises:
        SourceError: it is no such archive, or is malformed.
        ValueError: its pickle is.
    """
    with opened(file) as handle:
        members = _with_sums(read_directory(file, handle))
        root = _root(file, members)
        pickle = members[root + _PICKLE]
        most = _MOST_UNPACKED if pickle.method == DEFLATED else _MOST_PICKLE
        raw = read_member(file, handle, pickle, most)
        order = b"little"
        if (member := members.get(f"{root}byteorder")) is not None:
            order = read_member(file, handle, member, 64).strip()
    if order not in (b"little", b"big"):
        raise ValueError(f"its byteorder is {brief(order.decode('latin-1'))}")
    held: dict[str, Member] = {}

    def storage(said: Any) -> Storage:
        found = storage_of(said, views=False)
        member = members.get(f"{root}data/{found.key}")
        if member is None:
            raise ValueError(f"it has no storage {brief(found.key)}, which its pickle refers to")
        if member.size != found.size:
            raise ValueError(
                f"its storage {brief(found.key)} has {member.size:,} bytes, and its pickle says "
                f"{found.size:,}"
            )
        held[found.key] = member
        return found

    stream = io.BytesIO(raw)
    tree = unpickled(stream, storage)
    if stream.tell() != len(raw):
        raise ValueError(f"{len(raw) - stream.tell():,} bytes follow the end of its pickle")
    return Content(
        file,
        tree,
        order == b"big",
        held,
        pickle.crc is not None,
        lambda handle, keys: _places(file, handle, held, keys),
    )


def _with_sums(members: dict[str, Member]) -> dict[str, Member]:
    """The members; without their CRC-32 where none has one, as ``set_crc32_options(False)`` leaves them."""
    if any(member.crc for member in members.values()):
        return members
    return {name: replace(member, crc=None) for name, member in members.items()}


def _root(file: File, members: Mapping[str, Member]) -> str:
    """What all names begin with, a slash at the end."""
    roots = [
        name.removesuffix(_PICKLE) for name in members if name == _PICKLE or name.endswith(f"/{_PICKLE}")
    ]
    if not roots:
        raise SourceError(
            f"{file} is a zip archive that torch.save did not write: it holds {some([*members], 5)}"
        )
    if len(roots) != 1:
        raise SourceError(f"{file} is no valid PyTorch file: it has {len(roots)} members called {_PICKLE}")
    (root,) = roots
    if f"{root}constants.pkl" in members or any(name.startswith(f"{root}code/") for name in members):
        raise SourceError(
            f"{file} is a TorchScript archive, which holds a program: save the weights alone, "
            "torch.save(torch.jit.load(path).state_dict(), other)"
        )
    return root


def _places(
    file: File, handle: Handle, held: Mapping[str, Member], keys: Iterable[str]
) -> Iterator[tuple[str, StoragePlace]]:
    """Where the storages lie: told by their own headers, which are read only now."""
    by_member = {held[key]: key for key in keys}
    for member, head in read_heads(file, handle, by_member):
        yield by_member[member], StoragePlace(head.data, member)
