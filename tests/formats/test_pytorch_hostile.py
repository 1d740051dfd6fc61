"""Files that lie, one test a lie: refused by name of the file, nothing run, little taken."""

from __future__ import annotations

import resource
import struct
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch_files
from archives import Made, archive
from torch_files import Raw, called, encoded, named, pickled, storage, tensor

import treeload
from treeload import SourceError

ONES = np.ones(4, np.float32).tobytes()
HELD = storage("0", "float32", 4)


def zipped(tree: Any, **options: Any) -> bytes:
    return torch_files.zipped(tree, {"0": ONES}, **options)


def legacy(tree: Any, **options: Any) -> bytes:
    return torch_files.legacy(tree, [("0", 4, ONES)], **options)


def chain(levels: int) -> Raw:
    """A tuple of twice the one below it, and so on: small, and of 2**levels leaves."""
    return Raw(b")" + b"2\x86" * levels)


def within_itself() -> Raw:
    return Raw(b"]q\x05h\x05a")


TREES = {
    "a pickle that runs": (called(named("os", "system"), "touch ran"), "it needs 'os.system'"),
    "a tensor that runs": ({"w": called(named("torch._utils", "_rebuild_qtensor"), HELD)}, "quantised"),
    "a tuple of very many": ({"w": chain(60)}, "has more than|nested more than"),
    "a tuple that is wide and shallow": ({"w": chain(25)}, "has more than 2,097,152 values"),
    "a list within itself": ({"w": within_itself()}, "or within itself"),
    "lists too deep": ({"w": Raw(b"]" * 150 + b"a" * 149)}, "nested more than 100 levels"),
    "a key of a tuple": ({(1, 2): 3}, "neither text nor a number"),
    "a key of a tuple of very many": (Raw(b"}" + chain(60).code + b"Ns"), "neither text nor a number"),
    "a key that is no Unicode": (Raw(b"}" + b"V\\ud800\n" + b"Ns"), "is no Unicode text"),
    "a key twice": (Raw(b"}(" + encoded("a") + b"N" + encoded("a") + b"Nu"), "two leaves of the name 'a'"),
    "two keys of one name": ({"1": 1, 1: 2}, "two leaves of the name '1'"),
    "a leaf below a leaf": ({"a": 1, "a.b": 2}, "lies below another leaf"),
    "two ways to one name": ({"a.b": 1, "a": {"b": 2}}, "have one name"),
    "a name too long": ({"a" * 5000: 1}, "a name of 5,000 characters"),
    "a name of too many keys": ({"a." * 200: 1}, "a name of 201 keys"),
    "no storage": ({"w": tensor(Raw(b"N"), (2,))}, "a tensor without a storage"),
    "an id of a text": ({"w": Raw(encoded("0") + b"Q")}, "refers to what is no storage"),
    "an id of a module": (
        {"w": Raw(encoded(("module", 1, 2, 3, 4)) + b"Q")},
        "what is no storage and 'module'",
    ),
    "an id of no type": (
        {"w": Raw(encoded(("storage", 1, "0", "cpu", 4)) + b"Q")},
        "without a type, a key or a size",
    ),
    "a storage of less than nothing": (
        {"w": tensor(storage("0", "float32", -1), (2,))},
        "without a type, a key",
    ),
    "a storage of True": ({"w": tensor(storage("0", "float32", True), (1,))}, "without a type, a key"),
    "a storage of more": ({"w": tensor(storage("0", "float32", 2**59), (2,))}, "pickle says|cut short"),
    "a storage that is not there": ({"w": tensor(storage("9", "float32", 4), (2,))}, "has no storage '9'"),
    "a storage elsewhere": (
        {"w": tensor(storage("../version", "float32", 4), (2,))},
        "has no storage '../version'",
    ),
    "more elements": ({"w": tensor(HELD, (5,))}, "'w'.* reaches out of its storage of 4"),
    "an offset too far": ({"w": tensor(HELD, (2,), offset=3)}, "reaches out of its storage"),
    "a stride too far": ({"w": tensor(HELD, (2, 2), strides=(3, 1))}, "reaches out of its storage"),
    "an offset of an empty one": ({"w": tensor(HELD, (0,), offset=5)}, "reaches out of its storage"),
    "a negative offset": ({"w": tensor(HELD, (2,), offset=-1)}, "are no counts"),
    "a negative stride": ({"w": tensor(HELD, (2,), strides=(-1,))}, "are no counts"),
    "a negative size": ({"w": tensor(HELD, (-2,))}, "are no counts"),
    "sizes of texts": ({"w": tensor(HELD, ("2",), strides=(1,))}, "are no counts"),
    "strides of a text": ({"w": tensor(HELD, (2,), strides="1")}, "are no counts"),
    "other strides": ({"w": tensor(HELD, (2, 2), strides=(1,))}, "2 sizes and 1 strides"),
    "very many dimensions": ({"w": tensor(HELD, (1,) * 65)}, "65 sizes and 65 strides"),
    "a size larger than any": (
        {"w": tensor(HELD, (2**62, 2**62, 0), strides=(0, 0, 0))},
        "is larger than any",
    ),
    "an element shown very often": (
        {"w": tensor(HELD, (2**30,), strides=(0,))},
        "again and again, as 4,294,967,296",
    ),
    "a type of no dtype": ({"w": tensor(HELD, (2,), dtype="device")}, "without a dtype"),
    "a dtype that packs": (
        {"w": tensor(HELD, (2,), dtype="float4_e2m1fn_x2")},
        "a dtype that no array here has",
    ),
    "a lazy tensor": ({"w": tensor(HELD, (2,), metadata={"conj": True})}, "conjugated or negated only"),
    "a parameter of a text": (
        {"w": called(named("torch._utils", "_rebuild_parameter"), "a", True, None)},
        "no tensor",
    ),
}


@pytest.mark.parametrize("container", [zipped, legacy])
@pytest.mark.parametrize(("tree", "why"), TREES.values(), ids=TREES)
def test_a_pickle_that_lies_is_refused(
    tmp_path: Path, tree: Any, why: str, container: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "x.pt"
    if container is legacy:  # what is listed must be what is referred to
        tree = [tree, tensor(storage("0", "float32", 4, part=None), (4,))]
        why = why.replace("'w'", "'0/w'").replace("name 'a'", "name '0/a'").replace("name '1'", "name '0/1'")
        why = why.replace("201 keys", "202 keys").replace("5,000 char", "5,002 char")
    path.write_bytes(container(tree))
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    with pytest.raises(SourceError, match=why) as caught:
        treeload.open(path)
    assert str(path) in str(caught.value)
    assert time.process_time() - start < 5
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 500 << 10
    assert not (tmp_path / "ran").exists()


def test_a_whole_pickle_of_empty_dicts_takes_its_budget_and_no_more(tmp_path: Path) -> None:
    path = tmp_path / "x.pt"
    path.write_bytes(zipped(Raw(b"(" + b"}" * (8 << 20) + b"t")))
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    with pytest.raises(SourceError, match="too large for a description"):
        treeload.open(path)
    assert time.process_time() - start < 5
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 500 << 10


def test_a_small_archive_that_unpacks_to_a_large_pickle_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.pt"
    path.write_bytes(zipped(Raw(b"N" + b"0N" * (5 << 20)), deflate=True))
    assert path.stat().st_size < 100_000
    with pytest.raises(SourceError, match="more than the 8,388,608 that are read"):
        treeload.open(path)


GOOD = {"w": tensor(HELD, (4,))}
ARCHIVES = {
    "no pickle": (
        archive([Made("archive/version", b"3\n")]),
        "is a zip archive that torch.save did not write: it holds 'archive/version'",
    ),
    "two pickles": (zipped(GOOD, others=[Made("other/data.pkl", pickled({}))]), "2 members called data.pkl"),
    "code": (zipped(GOOD, others=[Made("archive/code/x.py", b"")]), "is a TorchScript archive"),
    "constants": (zipped(GOOD, others=[Made("archive/constants.pkl", b"")]), "is a TorchScript archive"),
    "no storage": (torch_files.zipped(GOOD, {}), "has no storage '0'"),
    "a shorter storage": (
        torch_files.zipped(GOOD, {"0": ONES[:-1]}),
        "'0' has 15 bytes, and its pickle says 16",
    ),
    "a longer storage": (
        torch_files.zipped(GOOD, {"0": ONES + b"x"}),
        "'0' has 17 bytes, and its pickle says 16",
    ),
    "another order": (zipped(GOOD, order=b"middle"), "its byteorder is 'middle'"),
    "an endless order": (zipped(GOOD, order=b"little" * 100), "more than the 64 that are read"),
    "bytes behind the pickle": (zipped(Raw(b"}.}")), "follow the end of its pickle"),
    "a damaged pickle": (zipped(GOOD).replace(b"FloatStorage", b"IntsStorage_"), "is damaged"),
    "cut short": (zipped(GOOD)[:-40], "cut short"),
}


@pytest.mark.parametrize(("content", "why"), ARCHIVES.values(), ids=ARCHIVES)
def test_an_archive_that_lies_is_refused(tmp_path: Path, content: bytes, why: str) -> None:
    path = tmp_path / "x.pt"
    path.write_bytes(content)
    with pytest.raises(SourceError, match=why) as caught:
        treeload.open(path)
    assert str(path) in str(caught.value)


OLD = {"w": tensor(storage("0", "float32", 4, part=None), (4,))}
LEGACY = {
    "another number": (legacy(OLD).replace(b"\xa8P", b"\xa9P"), "is a Python pickle"),
    "another protocol": (legacy(OLD, protocol=1002), "its protocol is not 1001"),
    "a protocol of very many": (legacy(OLD, protocol=chain(60)), "its protocol is not 1001"),
    "another machine": (legacy(OLD, system={"little_endian": False}), "not little-endian"),
    "no machine": (legacy(OLD, system=[]), "not little-endian"),
    "no keys": (legacy(OLD, keys={}), "its list of storages is none"),
    "keys of numbers": (legacy(OLD, keys=[0]), "its list of storages is none"),
    "a key twice": (legacy(OLD, keys=["0", "0"]), "'0' is there twice"),
    "a key of nothing": (legacy(OLD, keys=["0", "1"]), "does not say what its storage '1' is"),
    "a key too few": (legacy(OLD, keys=[]), "has no storage '0'"),
    "a storage among the keys": (legacy(OLD, keys=[HELD]), "a storage where there is none"),
    "cut short": (legacy(OLD)[:-1], "it is cut short"),
    "more behind it": (legacy(OLD) + b"x", "it has more behind them"),
    "two types": (
        torch_files.legacy({**OLD, "v": tensor(storage("0", "int32", 4, part=None), (4,))}, [("0", 4, ONES)]),
        "two types or sizes",
    ),
    "a part too far": (
        torch_files.legacy(
            {"w": tensor(storage("0", "float32", 4, part=("1", 2, 3)), (1,))}, [("0", 4, ONES)]
        ),
        "that reaches out of it",
    ),
    "a part of nothing": (
        torch_files.legacy(
            {"w": tensor(storage("0", "float32", 4, part=("1", -2, 3)), (1,))}, [("0", 4, ONES)]
        ),
        "that is none",
    ),
    "pickles that end": (legacy(OLD)[:60], "has no end|in the middle"),
}


@pytest.mark.parametrize(("content", "why"), LEGACY.values(), ids=LEGACY)
def test_an_older_file_that_lies_is_refused(tmp_path: Path, content: bytes, why: str) -> None:
    path = tmp_path / "x.pt"
    path.write_bytes(content)
    with pytest.raises(SourceError, match=why) as caught:
        treeload.open(path)
    assert str(path) in str(caught.value)


def test_a_storage_that_counts_otherwise_is_refused_when_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "x.pt"
    path.write_bytes(torch_files.legacy(OLD, [("0", 5, ONES)]))
    source = treeload.open(path)
    with pytest.raises(SourceError, match="its storage '0' has 5 elements, and its pickle says 4"):
        list(source.read(dict(source.specs())))


@pytest.mark.parametrize("strides", [(1,), (2,)])
def test_a_flag_is_0_or_1(tmp_path: Path, strides: tuple[int]) -> None:
    path = tmp_path / "x.pt"
    tree = {"w": tensor(storage("0", "bool", 3), (2,), strides=strides)}
    path.write_bytes(torch_files.zipped(tree, {"0": b"\x02\x01\x01"}))
    source = treeload.open(path)
    with pytest.raises(SourceError, match="'?w'? .*a boolean that is neither 0 nor 1"):
        list(source.read(dict(source.specs())))


def test_an_index_does_not_lead_to_what_is_no_such_file(tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    save_file({"w": np.ones(2)}, tmp_path / "w.bin")
    (tmp_path / "pytorch_model.bin.index.json").write_text('{"weight_map": {"w": "w.bin"}}')
    with pytest.raises(
        SourceError, match="w.bin' cannot be read as a PyTorch file: it does not begin as one"
    ):
        treeload.open(tmp_path)


def test_the_magic_is_what_torch_writes() -> None:
    assert pickled(0x1950A86A20F9469CFC6C) == b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
    assert struct.calcsize("<q") == 8 and encoded(5) == b"K\x05"
