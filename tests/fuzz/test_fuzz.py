"""Mutated files through every parser: a ``TreeloadError`` or an answer, in bounded time and memory.

Seconds in every run, minutes in the full one. What was found once lies in ``corpus`` and is tried each time:
a file or a directory by its format's name, such as ``deep.safetensors``.
"""

from __future__ import annotations

import os
import random
import resource
import shutil
import sys
import tempfile
import time
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mutate import mutated
from seeds import copied, make, tree

import treeload
from treeload import From, Policy, TreeloadError

SEED = 20261128
CORPUS = Path(__file__).parent / "corpus"
MOST_SECONDS, MOST_BYTES = 5.0, 500 << 20
EASY = Policy(
    missing="keep", unexpected="ignore", shape="keep", dtype="keep", structure="keep", rule="ignore"
)


@pytest.fixture(scope="module")
def seeds(tmp_path_factory: Any) -> list[Path]:
    return make(tmp_path_factory.mktemp("seeds"))


def use(path: Path) -> str:
    """All that one does with what a stranger sent: look at it, plan, load it, check it, print it."""
    if path.name.endswith(".lock"):
        treeload.check_lock(treeload.plan(tree(), tree()), path)
        return "read"
    source = treeload.open(path)
    inventory = treeload.inspect(source)
    said = [str(inventory), repr(source), inventory._repr_html_(), str(inventory.to_dict())[:100]]
    small = {
        name: spec for name, spec in source.specs().items() if np.prod(spec.shape, dtype=object) < 1 << 20
    }
    dst: Any = [np.zeros(spec.shape, np.float32) for spec in small.values()] if source.positional else tree()
    plan = treeload.plan(dst, From(source, by_position=source.positional), policy=EASY)
    said += [str(plan), plan.to_json(), plan.to_html()[:100]]
    for text in said[:2] + said[4:5]:
        assert not [c for c in text if not c.isprintable() and c != "\n"], "acts on a terminal"
    for _ in source.read(small):
        pass
    return "read"


def tried(path: Path) -> str:
    """What came of it; raises for what must not be."""
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            ended, said = use(path), ""
    except TreeloadError as error:
        ended, said = type(error).__name__, str(error)
    assert not [c for c in said if not c.isprintable() and c != "\n"], "acts on a terminal"
    assert len(said) < 20_000
    assert time.process_time() - start < MOST_SECONDS, "takes too long"
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) << 10
    assert grown < MOST_BYTES, f"takes {grown:,} bytes"
    return ended


def fuzz(seeds: list[Path], *, seconds: float, most: int) -> Counter[str]:
    ends: Counter[str] = Counter()
    until = time.monotonic() + seconds
    for number in range(most):
        if time.monotonic() > until:
            break
        rng = random.Random(SEED + number)
        seed = seeds[number % len(seeds)]
        with tempfile.TemporaryDirectory() as folder:
            path = copied(seed, Path(folder))
            for _ in range(rng.choice([1, 1, 2])):
                mutated(path, rng)
            try:
                ends[f"{seed.name}: {tried(path)}"] += 1
            except BaseException:
                keep = Path(tempfile.gettempdir()) / f"treeload-fuzz-{number}-{seed.name}"
                shutil.move(path, keep)
                sys.stdout.write(f"\ninput {number}, a mutated {seed.name}, is kept at {keep}\n")
                raise
    sys.stdout.write(
        f"\n{sum(ends.values()):,} inputs (seed {SEED}), 0 foreign: {dict(sorted(ends.items()))}\n"
    )
    return ends


def test_every_seed_is_read_as_it_is(seeds: list[Path]) -> None:
    assert len(seeds) == 22
    for seed in seeds:
        if seed.suffix != ".lock":  # of another plan
            assert tried(seed) == "read", seed


def test_mutated_files_are_refused_or_read(seeds: list[Path]) -> None:
    ends = fuzz(seeds, seconds=20, most=400)
    assert len({each.partition(":")[0] for each in ends}) == len(seeds)
    assert any("SourceError" in each for each in ends) and any("read" in each for each in ends)


@pytest.mark.slow
def test_many_mutated_files_are_refused_or_read(seeds: list[Path]) -> None:
    ends = fuzz(seeds, seconds=float(os.environ.get("TREELOAD_FUZZ_SECONDS", "240")), most=10**9)
    assert sum(ends.values()) > 2000


@pytest.mark.parametrize("found", sorted(CORPUS.glob("[!.]*")), ids=lambda path: path.name)
def test_what_was_found_once_is_refused(found: Path, tmp_path: Path) -> None:
    assert tried(copied(found, tmp_path)) != "read"
