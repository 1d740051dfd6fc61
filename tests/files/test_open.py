"""Only regular files are opened, only where they may lie, and only as long as they stay the same."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from treeload._errors import SourceError
from treeload._files.open import (
    brief,
    check_unchanged,
    look_at,
    look_beside,
    look_within,
    opened,
    read_bytes,
    resolved_within,
    some,
)
from treeload._files.place import identity_of


def file_of(path: Path, content: bytes = b"0123456789") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("most", [1, 3, 1000])
def test_any_range_of_a_file_is_read_even_if_the_system_gives_little_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    content = bytes(range(20))
    pread = os.pread
    monkeypatch.setattr(os, "pread", lambda fd, count, offset: pread(fd, min(count, most), offset))
    with opened(look_at(file_of(tmp_path / "f", content))) as descriptor:
        for offset in (0, 1, 7, 19, 20, 30):
            for count in (0, 1, 5, 20, 100):
                assert read_bytes(descriptor, count, offset) == content[offset : offset + count]


@given(st.text(max_size=300))
def test_a_hostile_text_is_quoted_printable_and_short(text: str) -> None:
    quoted = brief(text)
    assert quoted.isascii() and quoted.isprintable()
    assert len(quoted) <= 10 * 121 + 2
    if len(text) <= 120:
        assert quoted == ascii(text)


@given(st.lists(st.text(max_size=3), max_size=30), st.integers(1, 25))
def test_of_many_names_some_are_shown_and_the_others_counted(names: list[str], limit: int) -> None:
    said = some(names, limit)
    assert said.endswith(f" and {len(names) - limit:,} more") or len(names) <= limit
    assert said.startswith(", ".join(map(ascii, names[:limit])))


def test_a_file_is_what_it_was_when_it_was_looked_at(tmp_path: Path) -> None:
    path = file_of(tmp_path / "f")
    found = look_at(path)
    assert (found.path, found.real, found.size) == (path, os.path.realpath(path), 10)
    assert found.identity == identity_of(path.stat())
    assert str(found) == repr(str(path))


def test_through_a_link_the_user_sees_the_path_that_was_given(tmp_path: Path) -> None:
    real, link = file_of(tmp_path / "real"), tmp_path / "link"
    link.symlink_to(real)
    found = look_at(link)
    assert found.path == link and found.real == os.path.realpath(real)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda path: None, "cannot open"),
        (lambda path: path.mkdir(), "is a directory, not a file"),
        (lambda path: os.mkfifo(path), "is a pipe, not a file"),
        (lambda path: path.symlink_to(path), "is a link to itself, not a file"),
        (lambda path: path.symlink_to("/dev/null"), "is a device or the like, not a file"),
        (lambda path: path.symlink_to("nowhere"), "cannot open"),
    ],
)
def test_what_is_no_regular_file_is_refused(tmp_path: Path, make: object, says: str) -> None:
    make(tmp_path / "f")  # type: ignore[operator]
    with pytest.raises(SourceError, match=says):
        look_at(tmp_path / "f")


def test_a_path_that_no_file_can_have_is_refused() -> None:
    with pytest.raises(SourceError, match="cannot open"):
        look_at(Path("a\0b"))


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "/f", "../f", "a\\b", "f\0"])
def test_a_name_with_a_path_in_it_is_no_file_beside(tmp_path: Path, name: str) -> None:
    file_of(tmp_path / "f")
    with pytest.raises(SourceError, match="is not the name of a file beside the index"):
        look_beside(tmp_path, name)


def test_a_name_without_a_path_is_a_file_beside(tmp_path: Path) -> None:
    file_of(tmp_path / "..f")
    assert look_beside(tmp_path, "..f").size == 10


def test_a_link_stays_within_its_root_or_is_refused(tmp_path: Path) -> None:
    inside, outside = file_of(tmp_path / "root/deep/f"), file_of(tmp_path / "root-2/f")
    for name, target in (("in", inside), ("out", outside)):
        (tmp_path / "root" / name).symlink_to(target)
    assert look_within(tmp_path / "root", tmp_path / "root/in").real == os.path.realpath(inside)
    with pytest.raises(SourceError, match="is a link out of its directory: it leads out to"):
        look_within(tmp_path / "root", tmp_path / "root/out")  # though the two names begin alike


def test_a_root_that_is_a_link_is_as_good_as_what_it_leads_to(tmp_path: Path) -> None:
    file_of(tmp_path / "real/f")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    assert look_within(tmp_path / "link", tmp_path / "link/f").size == 10


def test_a_link_to_the_blobs_of_its_own_cache_alone_is_followed(tmp_path: Path) -> None:
    root = tmp_path / "model/snapshots/abc"
    root.mkdir(parents=True)
    for place in ("model/blobs/1", "model/blobs/below/2", "other/blobs/3"):
        file_of(tmp_path / place)
        (root / Path(place).name).symlink_to(tmp_path / place)
    assert resolved_within(root, root / "1") == os.path.realpath(tmp_path / "model/blobs/1")
    for name in ("2", "3"):
        with pytest.raises(SourceError, match="leads out to"):
            resolved_within(root, root / name)


@pytest.mark.parametrize("change", ["size", "time", "another", "written over"])
def test_a_file_that_has_changed_is_not_opened(tmp_path: Path, change: str) -> None:
    """Also one of the same size and the same time of change, which whoever writes it may set."""
    path = file_of(tmp_path / "f")
    found, then = look_at(path), path.stat().st_mtime_ns
    if change == "size":
        path.write_bytes(b"0")
    elif change == "another":
        os.replace(file_of(tmp_path / "other"), path)
    elif change == "written over":
        path.write_bytes(b"9876543210")
    now = then + 1000 if change == "time" else then
    os.utime(path, ns=(now, now))
    says = r"has changed since it was opened \(then 10 bytes, now"
    with pytest.raises(SourceError, match=says) as raised, opened(found):
        raise AssertionError("it was opened")
    assert raised.value.changed


def test_a_file_that_changes_while_it_is_open_is_found_out_when_asked(tmp_path: Path) -> None:
    path = file_of(tmp_path / "f")
    with opened(look_at(path)) as descriptor:
        found = look_at(path)
        check_unchanged(found, descriptor)
        path.write_bytes(b"longer than it was before")
        with pytest.raises(SourceError, match="open it again"):
            check_unchanged(found, descriptor)


def test_the_descriptor_is_closed_when_the_reader_fails(tmp_path: Path) -> None:
    found = look_at(file_of(tmp_path / "f"))
    with pytest.raises(RuntimeError, match="reader"), opened(found) as handle:
        raise RuntimeError("reader")
    with pytest.raises(OSError):
        read_bytes(handle, 1, 0)
