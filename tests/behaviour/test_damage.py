"""Damage to checkpoints of ``save``: flipped bits, truncated and deleted files, whatever they hit.

A load then gives what was saved, bit for bit, or raises an error of treeload's. Bits are flipped in every
file of a checkpoint alike, those of metadata too: JSON, and the manifest and the nodes of the store.

``python tests/behaviour/test_damage.py [seed]`` prints the counts of a large run.
"""

from __future__ import annotations

import random
import shutil
import sys
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

import treeload
from treeload import TreeloadError

P = jax.sharding.PartitionSpec
SHARDS = [P("x"), P(None, "y"), P("x", "y"), P(("x", "y")), P()]


def _over(spec: P, rows: int) -> jax.sharding.NamedSharding:
    grid = np.asarray(jax.devices()).reshape(rows, 8 // rows)
    return jax.sharding.NamedSharding(jax.sharding.Mesh(grid, ("x", "y")), spec)


def _random(seed: int, *shape: int) -> np.ndarray[Any, Any]:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@dataclass(frozen=True)
class Case:
    """A tree as it was saved, how that was, and the destinations that it is loaded into."""

    tree: Any
    destinations: tuple[Any, ...]
    compression: bool = False


def _small() -> Case:
    shared = _random(0, 4, 6)
    tree = {
        "w": shared, "b": np.zeros(6, np.float32), "step": 7, "rate": 0.5, "key": jax.random.key(3),
        "none": np.zeros((0, 3), np.int32), "off": None, "half": _random(1, 9).astype(np.float16),
        "small": np.arange(12).astype(jax.numpy.float8_e3m4), "flags": np.array([True, False, True]),
    }  # fmt: skip
    blank = {key: np.zeros_like(value) for key, value in tree.items() if isinstance(value, np.ndarray)}
    return Case(tree, ({**tree, **blank, "step": 0, "rate": 0.0, "key": jax.random.key(0)},))


def _many() -> Case:
    tree = {f"layers_{i}": {"kernel": _random(i, 3, 4), "bias": _random(i, 4)} for i in range(60)}
    return Case(tree, (jax.tree.map(np.zeros_like, tree),), compression=True)


def _sharded(spec: P) -> Callable[[], Case]:
    """Large enough for blocks; read by others than it was saved by, and by one device, and on the host."""

    def make() -> Case:
        tree = {"w": jax.device_put(_random(5, 64, 48), _over(spec, 4)), "b": _random(6, 64)}

        def destination(sharding: Any) -> Any:
            return {
                "w": jax.ShapeDtypeStruct((64, 48), np.float32, sharding=sharding),
                "b": np.zeros(64, "f4"),
            }

        others = [_over(each, rows) for each in SHARDS for rows in (2, 4)]
        places = [*others, jax.sharding.SingleDeviceSharding(jax.devices()[3])]
        return Case(tree, tuple(map(destination, places)))

    return make


CASES: Mapping[str, Callable[[], Case]] = {
    "small": _small,
    "many leaves": _many,
    "rows": _sharded(P("x")),
    "columns": _sharded(P(None, "y")),
    "a grid": _sharded(P("x", "y")),
}


def _bits(tree: Any) -> list[Any]:
    leaves = jax.tree.leaves(tree)
    return [
        leaf if isinstance(leaf, (int, float)) else (str(leaf.dtype), leaf.shape, _bytes(leaf))
        for leaf in leaves
    ]


def _bytes(leaf: Any) -> bytes:
    is_key = jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)
    return np.asarray(jax.random.key_data(leaf) if is_key else leaf).tobytes()


METADATA = {"note": "as it was", "losses": [0.25, 0.125]}


def outcome(case: Case, destination: Any, path: Path, expected: list[Any]) -> str:
    """What a load of a damaged checkpoint came to."""
    try:
        loaded = treeload.load(destination, path)
        metadata = dict(treeload.open(path).metadata)
    except TreeloadError:
        return "found"
    except Exception as error:  # noqa: BLE001  # what is looked for
        return f"foreign {type(error).__name__}"
    return "as saved" if _bits(loaded) == expected and metadata == METADATA else "silently wrong"


def _flip(draw: random.Random, path: Path) -> str:
    file = draw.choice(sorted(each for each in path.rglob("*") if each.is_file() and each.stat().st_size))
    content = bytearray(file.read_bytes())
    bit = draw.randrange(8 * len(content))
    content[bit // 8] ^= 1 << bit % 8
    file.write_bytes(content)
    return f"bit {bit} of {file.relative_to(path)}"


def _cut(draw: random.Random, path: Path) -> str:
    file = draw.choice(sorted(each for each in path.rglob("*") if each.is_file()))
    if draw.random() < 0.5:
        file.unlink()
        return f"{file.relative_to(path)} deleted"
    size = draw.randrange(max(1, file.stat().st_size))
    with file.open("r+b") as stream:
        stream.truncate(size)
    return f"{file.relative_to(path)} cut to {size}"


def run(folder: Path, *, seed: int, flips: int, cuts: int, wrong: list[str]) -> Counter[str]:
    """How often a load came to what, over so many flips and so many truncations and deletions."""
    counts: Counter[str] = Counter()
    draw = random.Random(seed)
    for at, (called, make) in enumerate(CASES.items()):
        case, good = make(), folder / called.replace(" ", "_")
        treeload.save(good, case.tree, metadata=METADATA, compression=case.compression)
        expected = _bits({key: value for key, value in case.tree.items() if value is not None})
        whole = [outcome(case, dst, good, expected) for dst in case.destinations]
        assert whole == ["as saved"] * len(whole), called
        for damage, total in ((_flip, flips), (_cut, cuts)):
            for number in range(total // len(CASES) + (at < total % len(CASES))):
                bad = folder / "bad"
                shutil.copytree(good, bad)
                what = damage(draw, bad)
                destination = case.destinations[number % len(case.destinations)]
                came_to = outcome(case, destination, bad, expected)
                counts[f"{damage.__name__[1:]}: {came_to}"] += 1
                if came_to not in ("found", "as saved"):
                    wrong.append(f"{called}: {what}: {came_to}")
                shutil.rmtree(bad)
    return counts


@pytest.fixture(autouse=True)
def _blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of 1 kB, so that leaves of 12 kB have some."""
    monkeypatch.setattr("treeload._files.digests.BLOCK_BYTES", 1024)
    monkeypatch.setattr("treeload._files.digests._LEAST_PART", 64)


def test_no_damage_is_silent(tmp_path: Path) -> None:
    wrong: list[str] = []
    counts = run(tmp_path, seed=1, flips=60, cuts=20, wrong=wrong)
    assert not wrong
    assert counts.total() == 80 and counts["flip: found"] > 10


@pytest.mark.slow
def test_no_damage_of_a_thousand_is_silent(tmp_path: Path) -> None:
    wrong: list[str] = []
    counts = run(tmp_path, seed=2, flips=1000, cuts=100, wrong=wrong)
    print(dict(counts))
    assert not wrong
    assert counts.total() == 1100


@pytest.mark.parametrize("spec", SHARDS, ids=str)
@pytest.mark.parametrize("saved_by", SHARDS, ids=str)
def test_a_flipped_bit_of_a_leaf_is_found_on_eight_devices(tmp_path: Path, saved_by: P, spec: P) -> None:
    """As it is saved and as it is read: 36 loads of which 24 were silently wrong once, and more."""
    values = _random(0, 64, 48)
    treeload.save(tmp_path / "x", {"w": jax.device_put(values, _over(saved_by, 4))})
    place = values.tobytes()[4000:4016]
    for file in (tmp_path / "x").rglob("*"):
        if file.is_file() and place in (content := bytearray(file.read_bytes())):
            content[content.index(place)] ^= 1
            file.write_bytes(content)
    dst = {"w": jax.ShapeDtypeStruct(values.shape, values.dtype, sharding=_over(spec, 2))}
    with pytest.raises(treeload.SourceError, match="'w' is damaged"):
        treeload.load(dst, tmp_path / "x")
    past = treeload.load(dst, tmp_path / "x", check_digests=False)["w"]
    assert (np.asarray(past) != values).sum() == 1


if __name__ == "__main__":
    import tempfile

    with tempfile.TemporaryDirectory() as where, pytest.MonkeyPatch.context() as patch:
        patch.setattr("treeload._files.digests.BLOCK_BYTES", 1024)
        patch.setattr("treeload._files.digests._LEAST_PART", 64)
        silent: list[str] = []
        seed = int(sys.argv[1]) if len(sys.argv) > 1 else 0
        print(dict(run(Path(where), seed=seed, flips=1000, cuts=100, wrong=silent)))
        print(*silent, sep="\n")
