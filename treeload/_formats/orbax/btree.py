"""The index of an OCDBT store, read once: where the bytes of each key lie, or what they are.

Owns the walk over the nodes, which TensorStore decodes (it checks the crc32c of each). Refuses to own what
the values mean (``direct``), and whether a file that is named may be opened (``source``).

On disk (https://google.github.io/tensorstore/kvstore/ocdbt): ``manifest.ocdbt`` names the root of a B+tree of
the newest version; a leaf node has for each key its bytes, where they are few, or a file, an offset and a
length.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias
from urllib.parse import unquote

import tensorstore as ts

_MOST_HEIGHT = 16  # a node holds a hundred entries and more


@dataclass(frozen=True, slots=True)
class Extent:
    """Bytes of a file: its path below the store's directory, from where on, and how many."""

    path: str
    offset: int
    length: int


Value: TypeAlias = "bytes | Extent"


def read_btree(tree: Path, most: int) -> dict[bytes, Value]:
    """Every key of the store at ``tree``, and its value; none where there are more than ``most``.

    Then most arrays are in many chunks, and few of the keys would be of use.

    Raises:
        ValueError, KeyError, TypeError: it is no such store, or a damaged one.
    """
    base = ts.KvStore.open({"driver": "file", "path": f"{tree}/"}).result()
    versions = ts.ocdbt.dump(base).result()["versions"]
    newest = versions[-1]
    root = newest["root"]
    if (
        "location" not in root or int(root["statistics"]["num_keys"]) > most
    ):  # the former: a store without any
        return {}
    return dict(_entries(base, root["location"], b"", int(newest["root_height"]), set()))


def _entries(
    base: Any, location: str, prefix: bytes, height: int, seen: set[str]
) -> Iterator[tuple[bytes, Value]]:
    """The keys below one node, which stands so high."""
    if location in seen or not 0 <= height <= _MOST_HEIGHT:
        raise ValueError("its index goes round in circles")
    seen.add(location)
    node = ts.ocdbt.dump(base, node=location).result()
    if int(node["height"]) != height:
        raise ValueError("its index is no tree")
    for entry in node["entries"]:
        key = prefix + entry["key"]
        if height:
            yield from _entries(base, entry["location"], prefix + _common(entry), height - 1, seen)
            continue
        inline = entry.get("inline_value")
        yield key, inline if inline is not None else _extent(entry["indirect_value"])


def _common(entry: Mapping[str, Any]) -> bytes:
    found: bytes = entry["subtree_common_prefix"]
    return found


def _extent(location: str) -> Extent:
    """``value:<base>:<path>:<offset>:<length>``, as TensorStore prints it, special signs escaped."""
    kind, base, path, offset, length = location.split(":")
    found = Extent(unquote(base) + unquote(path), int(offset), int(length))
    if kind != "value" or found.offset < 0 or found.length < 0:
        raise ValueError(f"its index says {location[:200]!r} of a value")
    return found
