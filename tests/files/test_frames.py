"""Frames of zstd in a file, and bytes that are held: each whole, none longer than its leaf."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from treeload import SourceError
from treeload._files import frames as _frames
from treeload._files.digests import Digest, digest
from treeload._files.frames import Frame, read_frames
from treeload._files.open import look_at
from treeload._naming.name import Name

F32 = np.dtype(np.float32)
DEVICE = jax.sharding.SingleDeviceSharding(jax.devices()[0])


def packed(array: np.ndarray[Any, Any]) -> bytes:
    return zstandard.ZstdCompressor().compress(array.tobytes())


def spec(array: np.ndarray[Any, Any], sharding: Any = None) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(array.shape, array.dtype, sharding=sharding)


def in_a_file(path: Path, parts: dict[str, bytes], between: bytes = b"") -> dict[str, tuple[int, int]]:
    where, content = {}, b""
    for name, part in parts.items():
        where[name] = (len(content), len(part))
        content += part + between
    path.write_bytes(content)
    return where


@settings(deadline=None, max_examples=60)
@given(
    sizes=st.lists(st.integers(0, 3000), min_size=1, max_size=12),
    between=st.sampled_from([b"", b"xx"]),
    run=st.sampled_from([1, 5000, 4 << 20]),
    placing=st.sampled_from(["host", "device"]),
)
def test_every_leaf_comes_as_it_was_packed(
    tmp_path_factory: pytest.TempPathFactory, sizes: list[int], between: bytes, run: int, placing: str
) -> None:
    rng = np.random.default_rng(0)
    leaves = {str(at): rng.random(size).astype(np.float32) for at, size in enumerate(sizes)}
    path = tmp_path_factory.mktemp("frames") / "data"
    where = in_a_file(path, {name: packed(leaf) for name, leaf in leaves.items()}, between)
    file = look_at(path)
    held = {
        Name((name,)): Frame(spec(leaf), False, leaf.tobytes())
        for name, leaf in leaves.items()
        if leaf.size < 9
    }
    found = {
        Name((name,)): Frame(spec(leaf), True, None, file, *where[name])
        for name, leaf in leaves.items()
        if leaf.size >= 9
    }
    wanted = {
        name: spec(leaves[name[0]], DEVICE if placing == "device" else None) for name in (*held, *found)
    }
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(_frames, "_RUN", run)
        read = dict(read_frames({**held, **found}, wanted, "x"))
    assert read.keys() == wanted.keys()
    for name, array in read.items():
        assert isinstance(array, jax.Array if placing == "device" else np.ndarray)
        assert np.asarray(array).tobytes() == leaves[name[0]].tobytes()
        assert array.shape == leaves[name[0]].shape


LEAF = np.arange(500, dtype=np.float32)
GOOD = packed(LEAF)

BAD = {
    "garbage": b"garbage" * 20,
    "nothing": b"",
    "cut": GOOD[:-3],
    "half": GOOD[: len(GOOD) // 2],
    "more behind": GOOD + b"x",
    "two frames": GOOD + GOOD,
    "a longer leaf": packed(np.zeros(501, np.float32)),
    "a much longer leaf": packed(np.zeros(1 << 26, np.uint8)),
    "a shorter leaf": packed(np.zeros(499, np.float32)),
    "an absurd window": b"\x28\xb5\x2f\xfd\x00\xf8" + GOOD[5:],
}


@pytest.mark.parametrize("name", list(BAD))
@pytest.mark.parametrize("held", [False, True])
def test_what_is_no_frame_of_the_leaf_is_damage(tmp_path: Path, name: str, held: bool) -> None:
    (tmp_path / "data").write_bytes(b"before" + BAD[name])
    file = look_at(tmp_path / "data")
    frame = (
        Frame(spec(LEAF), True, BAD[name]) if held else Frame(spec(LEAF), True, None, file, 6, len(BAD[name]))
    )
    with pytest.raises(SourceError, match="x: 'w' is damaged: "):
        list(read_frames({Name(("w",)): frame}, {Name(("w",)): spec(LEAF)}, "x"))


def test_held_bytes_are_as_many_as_the_leaf_has() -> None:
    with pytest.raises(SourceError, match="it has 8 bytes, not 2,000"):
        list(read_frames({Name(("w",)): Frame(spec(LEAF), False, b"x" * 8)}, {Name(("w",)): spec(LEAF)}, "x"))


def test_a_boolean_is_zero_or_one() -> None:
    flags = np.zeros(3, np.bool_)
    with pytest.raises(SourceError, match="neither 0 nor 1"):
        list(
            read_frames(
                {Name(("w",)): Frame(spec(flags), False, b"\0\1\2")}, {Name(("w",)): spec(flags)}, "x"
            )
        )


def test_digests_are_looked_at(tmp_path: Path) -> None:
    (tmp_path / "data").write_bytes(GOOD)
    frames = {Name(("w",)): Frame(spec(LEAF), True, None, look_at(tmp_path / "data"), 0, len(GOOD))}
    wanted = {Name(("w",)): spec(LEAF)}
    ((_, array),) = read_frames(frames, wanted, "x", {Name(("w",)): Digest(digest(LEAF))})
    assert array.tobytes() == LEAF.tobytes()
    with pytest.raises(SourceError, match="damaged: its bytes are not those of its digest"):
        list(read_frames(frames, wanted, "x", {Name(("w",)): Digest(digest(LEAF + 1))}))


def test_a_file_that_is_cut_or_written_meanwhile(tmp_path: Path) -> None:
    path = tmp_path / "data"
    path.write_bytes(GOOD)
    file = look_at(path)
    frames = {Name(("w",)): Frame(spec(LEAF), True, None, file, 0, len(GOOD))}
    os.truncate(path, len(GOOD) - 1)
    with pytest.raises(SourceError, match="changed") as caught:
        list(read_frames(frames, {Name(("w",)): spec(LEAF)}, "x"))
    assert caught.value.changed


def test_no_memory_for_a_leaf_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def none(count: int) -> Any:
        raise MemoryError

    monkeypatch.setattr(_frames, "aligned", none)
    with pytest.raises(SourceError, match=r"'w' \(float32\[500\], 2,000 bytes\): not enough memory"):
        list(read_frames({Name(("w",)): Frame(spec(LEAF), True, GOOD)}, {Name(("w",)): spec(LEAF)}, "x"))
