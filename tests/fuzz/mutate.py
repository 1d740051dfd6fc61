"""A structured mutator: inputs that are nearly right, for every parser of files that there is.

What is random comes from a seed alone. A mutation knows the format a little: lengths that lie, members of
JSON that are another thing, values that are large, deep, twice or lacking; and bits and bytes as such.
"""

from __future__ import annotations

import io
import json
import random
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import bundles

from treeload._formats.tensorflow.table import entries

NUMBERS = (-1, 0, 1, 2, 127, 255, 65535, 2**31 - 1, 2**32, 2**40, 2**63 - 1, 2**63, 2**64, 10**30, 1.5, 1e999)
TEXTS = (
    "",
    "a",
    "\x1b[31m",
    "\u202e",
    "../../x",
    "/etc/passwd",
    "a" * 5000,
    "a." * 300,
    "\0",
    "{",
    "float32",
    "NaN",
)
OTHERS: tuple[Any, ...] = (None, True, False, [], {}, [[]], [[[[[[]]]]]], {"a": {"b": {}}}, {"": None})


def value(rng: random.Random) -> Any:
    return rng.choice([rng.choice(NUMBERS), rng.choice(TEXTS), rng.choice(OTHERS)])


def places(tree: Any, above: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place in a JSON value."""
    found = [above] if above else []
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, child in items:
        found += places(child, (*above, key))
    return found


def of_json(text: str, rng: random.Random) -> str:
    """JSON in which a member or two is another thing, is gone, is elsewhere, or is there twice."""
    tree = json.loads(text)
    for _ in range(rng.choice([1, 1, 1, 2, 4])):
        known = places(tree)
        if not known:
            return json.dumps(value(rng))
        *above, last = rng.choice(known)
        holder = tree
        for key in above:
            holder = holder[key]
        how = rng.randrange(6)
        if how == 0:
            del holder[last]
        elif how == 1 and isinstance(holder, dict):
            holder[rng.choice(TEXTS)] = holder.pop(last)
        elif how == 2 and isinstance(holder[last], (int, float)) and not isinstance(holder[last], bool):
            holder[last] = rng.choice(
                [holder[last] + rng.choice([-1, 1, 8]), -holder[last], rng.choice(NUMBERS)]
            )
        elif how == 3:
            other = tree
            for key in rng.choice(known):
                other = other[key] if isinstance(other, (dict, list)) and _has(other, key) else other
            holder[last] = json.loads(json.dumps(other))
        elif how == 4:
            holder[last] = [holder[last]] * rng.choice([2, 3, 200])
        else:
            holder[last] = value(rng)
    made = json.dumps(tree, ensure_ascii=rng.random() < 0.5)
    if rng.random() < 0.1 and '": ' in made:  # a member twice
        start = made.index('"', rng.randrange(len(made) // 2 + 1)) if '"' in made else 0
        made = made[:start] + made[start:].replace("{", '{"a": 1, "a": 2, ', 1)
    return made.replace("Infinity", rng.choice(["1e999", "Infinity", "NaN"]))


def _has(holder: Any, key: Any) -> bool:
    return key in holder if isinstance(holder, dict) else isinstance(key, int) and key < len(holder)


def of_bytes(raw: bytes, rng: random.Random) -> bytes:
    """Bytes flipped, set, cut out, put in, doubled; a number in them that lies."""
    made = bytearray(raw)
    for _ in range(rng.choice([1, 1, 2, 8])):
        at = rng.randrange(len(made)) if made else 0
        # What a parser looks at lies mostly at the beginning and at the end.
        at = rng.choice([at, min(rng.randrange(64), at), max(len(made) - 1 - rng.randrange(64), 0)])
        how = rng.randrange(7)
        if how == 0 and made:
            made[at] ^= 1 << rng.randrange(8)
        elif how == 1 and made:
            made[at] = rng.choice([0, 1, 0x7F, 0x80, 0xFF, 0xDF, 0xC9, 0xC6, rng.randrange(256)])
        elif how == 2:
            del made[at : at + rng.choice([1, 4, 100, len(made)])]
        elif how == 3:
            made[at:at] = rng.randbytes(rng.choice([1, 8, 300]))
        elif how == 4:
            length = rng.choice([4, 64])
            made[at:at] = made[at : at + length] * rng.choice([1, 50])
        else:
            form = rng.choice(["<Q", ">Q", "<I", ">I", "<H", ">H"])
            number = int(rng.choice([n for n in NUMBERS if isinstance(n, int) and n >= 0]))
            packed = struct.pack(form, number % (1 << 8 * struct.calcsize(form)))
            made[at : at + len(packed)] = packed
    return bytes(made[: 4 << 20])


def of_safetensors(raw: bytes, rng: random.Random) -> bytes:
    """A header that is another, with its length right mostly; or bytes."""
    if len(raw) < 8 or rng.random() < 0.3:
        return of_bytes(raw, rng)
    length = int.from_bytes(raw[:8], "little")
    try:
        text = of_json(raw[8 : 8 + length].decode(), rng).encode("utf-8", "surrogatepass")
    except (ValueError, RecursionError):
        return of_bytes(raw, rng)
    said = len(text) if rng.random() < 0.9 else rng.choice([0, len(text) + 1, 2**40, 2**63])
    return struct.pack("<Q", said) + text + raw[8 + length :]


def of_text(raw: bytes, rng: random.Random) -> bytes:
    """A file of JSON: a member of it, or bytes."""
    if rng.random() < 0.3:
        return of_bytes(raw, rng)
    try:
        return of_json(raw.decode(), rng).encode("utf-8", "surrogatepass")
    except (ValueError, RecursionError):
        return of_bytes(raw, rng)


def of_lines(raw: bytes, rng: random.Random) -> bytes:
    """A lock: one of its lines is another, or comes twice, or elsewhere."""
    lines = raw.splitlines(keepends=True)
    if len(lines) < 2 or rng.random() < 0.3:
        return of_bytes(raw, rng)
    at = rng.randrange(len(lines))
    how = rng.randrange(3)
    if how == 0:
        lines[at] = of_text(lines[at].strip(), rng) + b"\n"
    elif how == 1:
        lines.insert(rng.randrange(len(lines)), lines[at])
    else:
        del lines[at]
    return b"".join(lines)


def of_table(raw: bytes, rng: random.Random) -> bytes:
    """The index of a bundle: a key or a value is another, under checksums that are right; or bytes."""
    if rng.random() < 0.3:
        return of_bytes(raw, rng)
    try:
        pairs = list(entries(raw))
    except ValueError:
        return of_bytes(raw, rng)
    at = rng.randrange(len(pairs))
    key, said = pairs[at]
    pairs[at] = (key, of_bytes(said, rng)) if rng.random() < 0.8 else (of_bytes(key, rng), said)
    return bundles.table(pairs[:1] + sorted(pairs[1:]) if at else pairs)


def of_archive(raw: bytes, rng: random.Random) -> bytes:
    """A zip archive one of whose members is another, its sizes and its sum right; or bytes."""
    if rng.random() < 0.3:
        return of_bytes(raw, rng)
    try:
        with zipfile.ZipFile(io.BytesIO(raw)) as old:
            members = {info.filename: old.read(info) for info in old.infolist()}
            method = old.infolist()[0].compress_type
    except (
        zipfile.BadZipFile,
        zlib.error,
        ValueError,
        NotImplementedError,
        RuntimeError,
        EOFError,
        IndexError,
    ):
        return of_bytes(raw, rng)
    # What is parsed most: of PyTorch's archives the pickle, of NumPy's any.
    which = rng.choice([name for name in members if name.endswith("data.pkl")] or list(members))
    members[which] = of_bytes(members[which], rng)
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as new:
        for name, content in members.items():
            new.writestr(name, content)
    return stream.getvalue()


Mutation = Callable[[bytes, random.Random], bytes]

BY_NAME: tuple[tuple[str, Mutation], ...] = (
    (".safetensors", of_safetensors), (".json", of_text), ("_METADATA", of_text), (".zarray", of_text),
    ("process_0", of_text), ("_sharding", of_text), (".lock", of_lines),
    (".index", of_table),
    (".npz", of_archive), (".pt", of_archive),
)  # fmt: skip


def mutated(root: Path, rng: random.Random) -> Path:
    """One file of a checkpoint, or of a directory of one, is another; which it is."""
    files = sorted(file for file in root.rglob("*") if file.is_file()) if root.is_dir() else [root]
    file = rng.choice(files)
    change = next((how for end, how in BY_NAME if file.name.endswith(end)), of_bytes)
    how = rng.random()
    if how < 0.04 and root.is_dir():
        file.unlink()
    elif how < 0.06:
        file.write_bytes(b"")
    else:
        file.write_bytes(change(file.read_bytes(), rng))
    return file
