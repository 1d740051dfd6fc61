"""``verify`` reads all and says leaf by leaf what it found; ``digest`` is tested with the sidecar."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from orbax.checkpoint import v1 as ocp

import treeload
from treeload import SourceError, Verification


def _random(seed: int, *shape: int) -> np.ndarray[Any, Any]:
    return np.random.default_rng(seed).normal(size=shape)


TREE: dict[str, Any] = {"a": _random(0, 40, 5), "b": {"c": _random(1, 300), "n": 3}, "none": np.zeros((0, 2))}


def _damage(path: Path, value: np.ndarray[Any, Any]) -> None:
    place = value.tobytes()[8:24]
    for file in path.rglob("*"):
        if file.is_file() and place in (content := bytearray(file.read_bytes())):
            content[content.index(place)] ^= 1
            file.write_bytes(content)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    treeload.save(tmp_path / "x", TREE)
    return tmp_path / "x"


def test_what_save_wrote_is_verified_to_the_last_leaf(saved: Path) -> None:
    found = treeload.verify(saved)
    assert isinstance(found, Verification) and found.ok and found
    assert sorted(map(str, found.checked)) == ["a", "b/c", "b/n", "none"]
    assert (found.damaged, found.unverified, found.reasons) == ((), (), {})
    assert str(found) == f"4 leaves verified in '{saved}' (Orbax)"
    assert repr(found) == f"<Verification: 4 leaves verified in '{saved}' (Orbax)>"


def test_each_damaged_leaf_is_found_and_the_others_are_verified(saved: Path) -> None:
    _damage(saved, TREE["a"])
    _damage(saved, TREE["b"]["c"])
    found = treeload.verify(str(saved))
    assert not found.ok and not found
    assert found.damaged == (("a",), ("b", "c"))
    assert sorted(map(str, found.checked)) == ["b/n", "none"]
    assert "its bytes are not those of its digest" in found.reasons[found.damaged[0]]
    said = str(found)
    assert said.startswith("2 leaves verified, 2 damaged in ")
    assert "\n\ndamaged\n  a, b/c\n" in said and "'b/c' is damaged" in said
    assert "holds no digests" not in said


def test_what_carries_no_digests_is_not_said_to_be_sound(tmp_path: Path) -> None:
    ocp.save(tmp_path / "x", {"w": np.ones(3)})
    found = treeload.verify(tmp_path / "x")
    assert not found.ok and found.unverified == (("w",),) and not found.checked
    assert str(found).splitlines() == [
        f"0 leaves verified, 1 without a digest in '{tmp_path}/x' (Orbax)",
        *("", "cannot be verified", "  w", ""),
        "it holds no digests of these: treeload.digest(path) makes them, once you trust it",
    ]


def test_a_leaf_that_is_tied_is_verified_once_under_its_own_name(tmp_path: Path) -> None:
    from flax import nnx

    class Tied(nnx.Module):
        def __init__(self) -> None:
            self.one = nnx.Param(np.ones(3, np.float32))
            self.other = self.one

    treeload.save(tmp_path / "x", Tied())
    assert treeload.verify(tmp_path / "x").checked == (("one",),)
    assert treeload.inspect(tmp_path / "x").unverifiable == ()


def test_a_hundred_reasons_are_a_few_lines(tmp_path: Path) -> None:
    tree = {f"layer_{number}": _random(number, 300) for number in range(100)}
    treeload.save(tmp_path / "x", tree)
    for value in tree.values():
        _damage(tmp_path / "x", value)
    found = treeload.verify(tmp_path / "x")
    assert len(found.damaged) == len(found.reasons) == 100
    assert len(str(found).splitlines()) < 60


@pytest.mark.parametrize("verb", [treeload.verify, treeload.digest])
def test_what_is_no_path_is_a_type_error(verb: Any) -> None:
    with pytest.raises(
        TypeError, match=rf"{verb.__name__}\(path\) takes the path of a checkpoint, not a dict"
    ):
        verb({"w": 1})


@pytest.mark.parametrize("verb", [treeload.verify, treeload.digest])
def test_a_path_where_nothing_is_is_a_source_error(verb: Any, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="does not exist"):
        verb(tmp_path / "x")


def test_digests_of_a_checkpoint_that_cannot_be_read_are_not_made(tmp_path: Path) -> None:
    ocp.save(tmp_path / "x", {"w": np.ones(3)})
    for file in tmp_path.rglob("d/*"):
        file.unlink()
    with pytest.raises(SourceError):
        treeload.digest(tmp_path / "x")
    assert [each.name for each in tmp_path.iterdir()] == ["x"]
