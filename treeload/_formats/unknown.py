"""What a path is that no format takes: said by its first bytes, or by what lies around it.

Owns the words for what people give by mistake: a pointer of Git LFS, a web page, a file of another library, a
directory above the checkpoints, a file inside one. Refuses to own the reading: whatever is said here is the
end of it. Looks at names and first bytes only, opens nothing but regular files, and never unpickles.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

from treeload._errors import SourceError
from treeload._files.beginning import beginning_of
from treeload._files.open import brief
from treeload._files.place import Place

IsCheckpoint = Callable[[Path], bool]


_FIRST = 4096  # bytes that are looked at


_ENTRIES = 400  # entries of directories that are looked at


_DEPTH = 3  # directories that are looked into, one below the other


_SHOWN = 6


def what_is(path: Path, *, opens: IsCheckpoint, is_whole: IsCheckpoint, can_be_opened: IsCheckpoint) -> str:
    """What lies at ``path``, which no format takes, and what to do instead; empty where it cannot be told.

    Args:
        path: a path that exists.
        opens: whether a path is one that some format takes.
        is_whole: whether a directory is one whole checkpoint, and not one that holds some.
        can_be_opened: whether a path really can be opened, as a directory of several files may not.
    """
    around = next((up for up in reversed(list(_above(path))) if _any_of(is_whole, up)), None)
    if around is not None:
        return f"is part of the checkpoint {str(around)!r}: open that"
    if path.is_dir():
        return _directory(path, opens)
    said = content_of(path) or _json(path)
    beside = path.parent
    if not said or not _any_of(opens, beside):
        return said
    if can_be_opened(beside):
        return f"{said}; the directory it lies in is a checkpoint: {str(beside)!r}"
    weights = [str(each) for each in _files_beside(path) if _any_of(opens, each)]
    more = f" and {len(weights) - _SHOWN:,} more" if len(weights) > _SHOWN else ""
    return (
        f"{said}; weights lie beside it, {', '.join(map(repr, weights[:_SHOWN]))}{more}" if weights else said
    )


def _files_beside(path: Path) -> Iterator[Path]:
    for entry in _entries(path.parent):
        if not entry.name.startswith(".") and entry.name != path.name and entry.is_file():
            yield Path(entry.path)


def _above(path: Path) -> Iterator[Path]:
    """The directories above, the nearest first; few, since no checkpoint is deeper."""
    yield from list(Path(os.path.abspath(path)).parents)[:6]


# Files, by their first bytes.


_MAGIC: tuple[tuple[bytes, str], ...] = (
    (b"lmgg", "is a GGML file, of llama.cpp, which treeload does not read: take the model's safetensors"),
    (b"tjgg", "is a GGML file, of llama.cpp, which treeload does not read: take the model's safetensors"),
    (
        b"\x93NUMPY",
        "is one NumPy array (.npy): load it with numpy.load, and give it in a dict under its name",
    ),
    (b"\x1f\x8b\x08", "is compressed with gzip: unpack it first"),
    (b"\x28\xb5\x2f\xfd", "is compressed with zstd: unpack it first"),
    (b"\xfd7zXZ\x00", "is compressed with xz: unpack it first"),
    (b"BZh9", "is compressed with bzip2: unpack it first"),
    (b"7z\xbc\xaf\x27\x1c", "is a 7z archive: unpack it first"),
    (b"%PDF-", "is a PDF document, no checkpoint"),
)
"""First bytes, and what a file is that begins with them; the first that fits is said."""


_PYTORCH = "is a PyTorch file (.pt, .pth, .bin)"


_NPZ = "is a NumPy archive (.npz)"


_PICKLE = (
    "is a Python pickle, which treeload never loads: it can run any code; save its arrays as safetensors"
)


def content_of(path: Place, *, magic: bytes | tuple[bytes, ...] | None = None) -> str:
    """What a file is that is surely no format of treeload's; empty where it may be one.

    Args:
        path: the file.
        magic: what begins the files of the format whose name it bears.
    """
    first = _first_bytes(path)
    if first is None or (magic is not None and first.startswith(magic)):
        return ""
    if not first:
        return "is an empty file"
    if not first.strip(b"\0"):
        return "begins with nothing but zeros: its download or its copy was not finished"
    return _not_downloaded(first) or _of_another_library(first) or _text(first)


def _first_bytes(path: Place) -> bytes | None:
    """None where it is no file that may be opened: whoever opens it will say why."""
    found = beginning_of(path, _FIRST)
    return None if found is None else found.first


def _not_downloaded(first: bytes) -> str:
    """What lies in a file's place because the file itself never came."""
    if first.startswith(b"version https://git-lfs.github.com"):
        return "is a pointer of Git LFS, and the file itself was not downloaded: run 'git lfs pull' there"
    start = first.removeprefix(b"\xef\xbb\xbf").lstrip()[:200].lower()
    if start.startswith((b"<!doctype html", b"<html", b"<head", b"<!--", b"<body")):
        return "is a web page (HTML), not the file: download it again, by its direct address"
    if start.startswith((b"<?xml", b"<error")):
        return "is an XML text, as servers send instead of a file: download it again"
    return ""


def _of_another_library(first: bytes) -> str:
    if _SENTENCEPIECE.match(first):
        return "is a tokenizer of SentencePiece, no weights"
    return next((words for magic, words in _MAGIC if first.startswith(magic)), "") or _archive(first)


_SENTENCEPIECE = re.compile(rb"\n.\n.<[a-z_|/]{1,20}>", re.DOTALL)
"""A message with a message with a text in it: the first piece of the vocabulary, such as ``<unk>``."""


def _archive(first: bytes) -> str:
    """Zip files by the name of their first member; tar files; pickles."""
    if first.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        name = first[30 : 30 + int.from_bytes(first[26:28], "little")]
        if name.endswith((b"/data.pkl", b"/version", b"/byteorder", b".format_version")):
            return _PYTORCH
        if name.endswith(b".npy"):
            return _NPZ
        return "is a zip archive: unpack it first"
    if first[257:262] == b"ustar":
        return "is a tar archive: unpack it first"
    # Not where a zero follows, as in the length that a safetensors file begins with.
    if first[:1] == b"\x80" and first[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05") and first[2:3] > b"\0":
        # PyTorch's old files begin with the pickle of this number, 0x1950a86a20f9469cfc6c.
        return _PYTORCH if first[2:14] == b"\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19" else _PICKLE
    return ""


def _text(first: bytes) -> str:
    """Text that no format of weights begins with; what may be cut in a character is looked at before it."""
    if first.lstrip()[:1] in (b"{", b"["):
        return ""  # JSON leads some formats; see ``_json``
    try:
        text = first.decode("utf-8")
    except UnicodeDecodeError as error:
        if error.start < len(first) - 3:
            return ""
        text = first[: error.start].decode("utf-8")
    if len(text) < 8 or not all(character.isprintable() or character in "\t\r\n\f" for character in text):
        return ""
    return f"is a text file, which begins {brief(text.strip(), 40)}"


def _json(path: Path) -> str:
    first = _first_bytes(path)
    return "is a JSON text, no checkpoint" if first and first.lstrip()[:1] in (b"{", b"[") else ""


# Directories, by what is in them.


def _directory(path: Path, opens: IsCheckpoint) -> str:
    if not any(path.iterdir()):
        return "is an empty directory"
    found = list(_checkpoints_below(path, opens))
    if found:
        names = [repr(str(each.relative_to(path))) for each in found]
        if len(names) == 1:
            return f"is no checkpoint itself; it holds one, {names[0]}: open {str(found[0])!r}"
        more = f" and {len(names) - _SHOWN:,} more" if len(names) > _SHOWN else ""
        listed = ", ".join(names[:_SHOWN]) if more else f"{', '.join(names[:-1])} and {names[-1]}"
        return f"is no checkpoint itself; it holds the checkpoints {listed}{more}: open one of them"
    if (path / "saved_model.pb").is_file():
        return "is a SavedModel of TensorFlow without its variables: it has no 'variables/variables.index'"
    index = next((entry.name for entry in _entries(path) if entry.name.endswith(".index")), None)
    if index is not None:
        name = brief(index.removesuffix(".index"))
        return (
            f"holds {brief(index)}, which is called as the index of a TensorFlow checkpoint: it does not end "
            f"as one, and no {name}.data-* lies beside it"
        )
    if (found_in := not_downloaded_in(path)) is not None:
        return f"holds no checkpoint; {found_in[0]!r} in it {found_in[1]}"
    about = [entry.name for entry in _entries(path) if entry.name in _BESIDE_WEIGHTS]
    if about:
        return (
            f"holds {', '.join(map(repr, about))} of a model, and no weights: they are another file, such as "
            "'model.safetensors', or several with their index; download these too"
        )
    found_in = _first_in(path, _of_another_library)
    return "" if found_in is None else f"holds no checkpoint; {found_in[0]!r} in it {found_in[1]}"


_BESIDE_WEIGHTS = frozenset(
    (
        "config.json", "generation_config.json", "preprocessor_config.json", "tokenizer.json",
        "tokenizer.model", "tokenizer_config.json", "special_tokens_map.json", "vocab.json", "vocab.txt",
        "merges.txt", "spiece.model", "adapter_config.json",
    )
)  # fmt: skip
"""What lies beside the weights of a model in a repository of Hugging Face's."""


def only_file(path: Path, opens: IsCheckpoint) -> Path | None:
    """The file that is the only checkpoint in a directory; None where it is no file, or not the only one."""
    entries = _entries(path)
    if len(entries) == _ENTRIES:  # there may be more
        return None
    children = (Path(entry.path) for entry in entries if not entry.name.startswith("."))
    found = list(islice((child for child in children if _any_of(opens, child)), 2))
    return found[0] if len(found) == 1 and found[0].is_file() else None


def _checkpoints_below(path: Path, opens: IsCheckpoint) -> Iterator[Path]:
    """The checkpoints in a directory, the nearest of each branch."""
    left = [_ENTRIES]

    def look(directory: Path, depth: int) -> Iterator[Path]:
        for entry in _entries(directory):
            left[0] -= 1
            child = Path(entry.path)
            if left[0] < 0:
                return
            if entry.name.startswith("."):
                continue
            if _any_of(opens, child):
                yield child
            elif depth < _DEPTH and entry.is_dir(follow_symlinks=False):
                yield from look(child, depth + 1)

    yield from look(path, 1)


def not_downloaded_in(path: Path) -> tuple[str, str] | None:
    """The first file in a directory that never came, and what lies in its place."""
    return _first_in(path, _not_downloaded)


def _first_in(path: Path, tell: Callable[[bytes], str]) -> tuple[str, str] | None:
    """The first file in a directory of whose first bytes there is something to tell, and that."""
    for entry in _entries(path):
        if not entry.name.startswith(".") and entry.is_file():
            said = tell(_first_bytes(Path(entry.path)) or b"")
            if said:
                return entry.name, said
    return None


def _entries(path: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(path) as entries:
            return sorted(entries, key=lambda entry: entry.name)[:_ENTRIES]
    except OSError:
        return []


def _any_of(opens: IsCheckpoint, path: Path) -> bool:
    try:
        return opens(path)
    except (OSError, SourceError):  # a neighbour that cannot be looked at
        return False
