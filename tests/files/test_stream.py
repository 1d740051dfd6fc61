"""An open file as a stream: it reads as the file does, wherever it is asked to begin."""

from __future__ import annotations

import io
import os
import zipfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from treeload._files.open import look_at, opened
from treeload._files.stream import Stream, streamed

_CONTENT = bytes(range(256)) * 5


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("stream") / "bytes"
    path.write_bytes(_CONTENT)
    return path


_STEPS = st.one_of(
    st.tuples(st.just("read"), st.integers(-1, 2000)),
    st.tuples(st.just("set"), st.integers(0, 2000)),
    st.tuples(st.just("end"), st.integers(-1280, 100)),
    st.tuples(st.just("on"), st.integers(0, 100)),
)


@given(steps=st.lists(_STEPS, max_size=12), buffer=st.sampled_from([1, 7, 8192]))
def test_it_reads_as_a_file_in_memory_does(path: Path, steps: list[tuple[str, int]], buffer: int) -> None:
    whence = {"set": os.SEEK_SET, "end": os.SEEK_END, "on": os.SEEK_CUR}
    expected = io.BytesIO(_CONTENT)
    with streamed(look_at(path), buffer=buffer) as stream:
        for step, count in steps:
            if step == "read":
                assert stream.read(count) == expected.read(count)
            else:
                assert stream.seek(count, whence[step]) == expected.seek(count, whence[step])
            assert stream.tell() == expected.tell()


def test_a_part_ends_where_it_ends(path: Path) -> None:
    with opened(look_at(path)) as handle:
        part = Stream(handle, 10, 20)
        assert part.read() == _CONTENT[10:20]
        assert part.read() == b""
        assert part.seek(-3, os.SEEK_END) == 7
        assert part.read(100) == _CONTENT[17:20]


def test_there_is_nothing_before_the_start(path: Path) -> None:
    with opened(look_at(path)) as handle, pytest.raises(ValueError, match="no byte -1"):
        Stream(handle, 10, 20).seek(-1)


def test_zip_archives_are_read_through_it(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("name", "content")
    with streamed(look_at(tmp_path / "a.zip")) as stream, zipfile.ZipFile(stream) as archive:
        assert archive.read("name") == b"content"
