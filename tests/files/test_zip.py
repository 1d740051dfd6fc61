"""Archives: what zipfile writes is read, and each way in which one may lie is refused."""

from __future__ import annotations

import io
import struct
import zipfile
from pathlib import Path

import pytest
from archives import Made, archive, deflated

from treeload import SourceError
from treeload._files.open import look_at, opened, read_bytes
from treeload._files.place import Handle
from treeload._files.unpack import read_member, start_of, unpacked
from treeload._files.zip import Member, first_member, read_directory, read_heads

TEXT = b"the bytes of a member " * 50


def directory(path: Path, content: bytes) -> dict[str, Member]:
    path.write_bytes(content)
    file = look_at(path)
    with opened(file) as handle:
        return read_directory(file, handle)


def read_all(path: Path, content: bytes) -> dict[str, bytes]:
    members = directory(path, content)
    file = look_at(path)
    with opened(file) as handle:
        return {name: read_member(file, handle, each, 1 << 20) for name, each in members.items()}


def zipped(*, method: int = zipfile.ZIP_STORED, comment: bytes = b"", zip64: bool = False) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as made:
        for name in ("a", "folder/b", "ü"):
            with made.open(name, "w", force_zip64=zip64) as member:
                member.write(TEXT + name.encode())
        made.comment = comment
    return stream.getvalue()


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
@pytest.mark.parametrize("comment", [b"", b"a comment", b"PK\x05\x06" * 20])
@pytest.mark.parametrize("zip64", [False, True])
def test_what_zipfile_writes_is_read(tmp_path: Path, method: int, comment: bytes, zip64: bool) -> None:
    content = zipped(method=method, comment=comment, zip64=zip64)
    expected = {name: TEXT + name.encode() for name in ("a", "folder/b", "ü")}
    assert read_all(tmp_path / "x.zip", content) == expected


def as_zip64(content: bytes) -> bytes:
    """The archive with its end record's numbers in that of zip64."""
    end = len(content) - 22
    _, _, _, here, count, size, start, _ = struct.unpack("<4s4H2LH", content[end:])
    large = struct.pack("<4sQ2H2L4Q", b"PK\x06\x06", 44, 45, 45, 0, 0, here, count, size, start)
    locator = struct.pack("<4sLQL", b"PK\x06\x07", 0, end, 1)
    none = 0xFFFF
    return content[:end] + large + locator + struct.pack(
        "<4s4H2LH", b"PK\x05\x06", 0, 0, none, none, 2**32 - 1, 2**32 - 1, 0
    )  # fmt: skip


def test_an_end_record_of_zip64_is_read(tmp_path: Path) -> None:
    assert list(directory(tmp_path / "x.zip", as_zip64(zipped()))) == ["a", "folder/b", "ü"]


def large(*fields: int) -> bytes:
    """An extra field of zip64."""
    return struct.pack(f"<2H{len(fields)}Q", 1, 8 * len(fields), *fields)


def test_sizes_of_zip64_are_read_from_the_extra_field(tmp_path: Path) -> None:
    content = bytearray(archive([Made("a", TEXT)]))
    at = content.index(b"PK\x01\x02")
    struct.pack_into("<2L", content, at + 20, 2**32 - 1, 2**32 - 1)
    extra = large(len(TEXT), len(TEXT))
    struct.pack_into("<H", content, at + 30, len(extra))
    content[at + 47 : at + 47] = extra
    struct.pack_into("<L", content, len(content) - 10, 47 + len(extra))
    assert directory(tmp_path / "x.zip", bytes(content))["a"].size == len(TEXT)


def test_the_name_of_the_first_member_is_told_by_the_first_bytes(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(zipped()[:100])
    assert first_member(path) == "a"
    path.write_bytes(archive([Made("a" * 4000 + ".npy", TEXT)]))
    assert first_member(path) == "a" * 4000 + ".npy"
    path.write_bytes(archive([]))
    assert first_member(path) == ""
    path.write_bytes(b"PK")
    assert first_member(path) is None


def test_headers_that_lie_close_are_read_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    members = [Made(f"m{number}", bytes(300)) for number in range(50)] + [
        Made("far", bytes(100_000)),
        Made("z", b"1"),
    ]
    (tmp_path / "x.zip").write_bytes(archive(members))
    file = look_at(tmp_path / "x.zip")
    with opened(file) as handle:
        found = read_directory(file, handle)
        calls: list[int] = []

        def counting(handle: Handle, count: int, offset: int) -> bytes:
            calls.append(count)
            return read_bytes(handle, count, offset)

        monkeypatch.setattr("treeload._files.zip.read_bytes", counting)
        heads = dict(read_heads(file, handle, found.values(), first=10))
    assert len(calls) == 2 and sum(calls) < 20_000
    assert [heads[found[each.name]].first for each in members] == [each.content[:10] for each in members]


@pytest.mark.parametrize("deflate", [False, True])
def test_a_part_of_a_member(tmp_path: Path, deflate: bool) -> None:
    (tmp_path / "x.zip").write_bytes(archive([Made("a", TEXT, deflate, extra=b"\0" * 7)]))
    file = look_at(tmp_path / "x.zip")
    with opened(file) as handle:
        member = read_directory(file, handle)["a"]
        ((_, head),) = read_heads(file, handle, [member])
        assert start_of(file, handle, member, head, 30) == TEXT[:30]
        assert start_of(file, handle, member, head, 1 << 20) == TEXT
        rest = unpacked(file, handle, member, skip=30)
        assert rest.tobytes() == TEXT[30:] and rest.__array_interface__["data"][0] % 64 == 0


MALFORMED = {
    "two of one name": (archive([Made("a", b"1"), Made("a", b"2")]), "'a' is there twice"),
    "encrypted": (archive([Made("a", b"1", said={"flags": 1})]), "'a' is encrypted"),
    "strongly encrypted": (archive([Made("a", b"1", said={"flags": 0x2000})]), "'a' is encrypted"),
    "another method": (archive([Made("a", b"1", said={"method": 14})]), "compressed by method 14"),
    "stored in fewer bytes": (archive([Made("a", b"12", said={"packed": 1})]), "stored in 1 bytes and has 2"),
    "expands too far": (
        archive([Made("a", b"1", True, said={"size": 10**9})]),
        "would expand 3 bytes to 1,000,000,000",
    ),
    "behind the last": (
        archive([Made("a", b"1", said={"packed": 99, "size": 99})]),
        "would end behind the last",
    ),
    "a place past the end": (archive([Made("a", b"1", said={"header": 10**6})]), "would end behind the last"),
    "overlapping": (
        archive([Made("a", b"1" * 50), Made("b", b"2", said={"header": 10})]),
        "members 'a' and 'b' overlap",
    ),
    "in one place": (archive([Made("a", b"1"), Made("b", b"1", said={"header": 0})]), "overlap"),
    "on another disk": (archive([Made("a", b"1", said={"disk": 1})]), "several disks"),
    "of several disks": (archive([Made("a", b"1")], end={"disk": 2}), "several disks"),
    "members elsewhere": (archive([Made("a", b"1")], end={"here": 0}), "several disks"),
    "more members than there are": (
        archive([Made("a", b"1")], end={"count": 2, "here": 2}),
        "begins no record",
    ),
    "fewer members": (
        archive([Made("a", b"1"), Made("b", b"1")], end={"count": 1, "here": 1}),
        "belong to no member",
    ),
    "a directory elsewhere": (
        archive([Made("a", b"1")], end={"start": 5}),
        "its directory would end at byte",
    ),
    "a directory too large": (
        archive([Made("a", b"1")], end={"size": 2**31}),
        "its directory would end at byte",
    ),
    "no size": (archive([Made("a", b"1", said={"size": 2**32 - 1})]), "says no size"),
    "a zero in a name": (archive([Made("a\0b", b"1")]), "is no name of a member"),
    "no name": (archive([Made("", b"1")]), "is no name of a member"),
    "no zip64 record": (archive([Made("a", b"1")], end={"size": 2**32 - 1}), "no such end record"),
    "something behind it": (archive([Made("a", b"1")]) + b"x", "no end record"),
    "cut short": (archive([Made("a", b"1" * 100)])[:-30], "no end record"),
    "nothing": (b"PK", "an archive has 22 at least"),
}


@pytest.mark.parametrize(("content", "why"), MALFORMED.values(), ids=MALFORMED)
def test_a_malformed_directory_is_refused(tmp_path: Path, content: bytes, why: str) -> None:
    with pytest.raises(SourceError, match=why):
        directory(tmp_path / "x.zip", content)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ((24, "<Q", 7), "several disks"),
        ((16, "<L", 9), "several disks"),
        ((48, "<Q", 10**12), "would end at byte"),
        ((4, "<Q", 45), "not as long as it says"),
        ((0, "<L", 0), "not where it is said to be"),
        ((56 + 8, "<Q", 10**12), "not where it is said to be"),
        ((56 + 20 + 8, "<L", 0x00040004), "its two end records disagree"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_a_malformed_end_record_of_zip64_is_refused(
    tmp_path: Path, change: tuple[int, str, int], why: str
) -> None:
    content = bytearray(as_zip64(zipped()))
    at, form, value = change
    struct.pack_into(form, content, content.index(b"PK\x06\x06") + at, value)
    with pytest.raises(SourceError, match=why):
        directory(tmp_path / "x.zip", bytes(content))


def test_a_directory_of_very_many_is_not_read(tmp_path: Path) -> None:
    content = bytearray(as_zip64(zipped()))
    at = content.index(b"PK\x06\x06")
    struct.pack_into("<2Q", content, at + 24, 2**40, 2**40)
    with pytest.raises(SourceError, match="more than is read"):
        directory(tmp_path / "x.zip", bytes(content))


HEADERS = {
    "another name": Made("a", TEXT, local={"name": "b"}),
    "a longer name": Made("a", TEXT, local={"name": "aa"}),
    "another method": Made("a", TEXT, local={"method": 8}),
    "encrypted": Made("a", TEXT, local={"flags": 1}),
    "another sum": Made("a", TEXT, local={"crc": 1}),
    "another size": Made("a", TEXT, local={"size": 1}),
    "another packed size": Made("a", TEXT, local={"packed": 1}),
}


@pytest.mark.parametrize("made", HEADERS.values(), ids=HEADERS)
def test_a_header_that_disagrees_with_the_directory_is_refused(tmp_path: Path, made: Made) -> None:
    with pytest.raises(SourceError, match="the header of its member 'a' is not what the directory says"):
        read_all(tmp_path / "x.zip", archive([made]))


def test_a_member_that_is_not_where_it_is_said_to_be(tmp_path: Path) -> None:
    content = archive([Made("a", TEXT)]).replace(b"PK\x03\x04", b"PK\x03\x05")
    with pytest.raises(SourceError, match="'a' is not where the directory says"):
        read_all(tmp_path / "x.zip", content)


def test_an_extra_field_that_moves_a_member_into_the_next_is_refused(tmp_path: Path) -> None:
    content = bytearray(archive([Made("a", TEXT), Made("b", TEXT)]))
    struct.pack_into("<H", content, 28, 40)
    with pytest.raises(SourceError, match="'a' reaches into what follows it"):
        read_all(tmp_path / "x.zip", bytes(content))


@pytest.mark.parametrize("deflate", [False, True])
@pytest.mark.parametrize("bit", [0, 5, 7])
def test_a_flipped_bit_is_found(tmp_path: Path, deflate: bool, bit: int) -> None:
    packed = deflated(TEXT) if deflate else TEXT
    content = bytearray(archive([Made("a", TEXT, deflate)]))
    content[31 + len(packed) // 2] ^= 1 << bit
    with pytest.raises(SourceError, match="'a' is damaged"):
        read_all(tmp_path / "x.zip", bytes(content))


@pytest.mark.parametrize("size", [len(TEXT) - 1, len(TEXT) + 1])
def test_what_unpacks_to_another_size_is_refused(tmp_path: Path, size: int) -> None:
    made = Made("a", TEXT, True, said={"size": size}, local={"size": size})
    with pytest.raises(SourceError, match=f"it does not have {size:,} bytes"):
        read_all(tmp_path / "x.zip", archive([made]))


def test_bytes_behind_what_was_compressed_are_refused(tmp_path: Path) -> None:
    content = archive([Made("a", deflated(TEXT) + b"more")])
    method = {"method": 8, "size": len(TEXT)}
    made = Made("a", deflated(TEXT) + b"more", said=method, local=method)
    assert len(archive([made])) == len(content)
    with pytest.raises(SourceError, match="does not have"):
        read_all(tmp_path / "x.zip", archive([made]))


def test_a_member_that_is_too_large_to_be_one_is_refused(tmp_path: Path) -> None:
    directory(tmp_path / "x.zip", archive([Made("a", TEXT)]))
    file = look_at(tmp_path / "x.zip")
    with opened(file) as handle, pytest.raises(SourceError, match="more than the 10 that are read"):
        read_member(file, handle, read_directory(file, handle)["a"], 10)
