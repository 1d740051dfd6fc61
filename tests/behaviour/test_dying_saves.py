"""Whatever happens to a save over a checkpoint, and whenever: the old one or the new one, whole."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import dying_saves
import pytest
from dying_saves import found_in, leaves

from treeload._errors import SourceError
from treeload._formats.orbax.write import write

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="each death is a fork")

FEW_OR_MANY = [5, pytest.param(200, marks=pytest.mark.slow)]


def counts_of(what: str, directory: Path, count: int) -> Counter[str]:
    command = [sys.executable, dying_saves.__file__, what, str(directory), str(count), "20"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1800, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""  # nor do threads of Orbax say anything
    counts = Counter(json.loads(done.stdout))
    print(f"{what} ×{count}: {dict(counts)}")
    assert counts["old"] + counts["new"] == count
    # After a full disk a late write of TensorStore's may come once the place is cleared: the next save's.
    at_once = ("litter at once",) if what == "interrupt" else ()
    bad = (
        *at_once,
        "broken",
        "not the next",
        "litter after the next save",
        "files of the user's touched",
    )
    assert {what: counts[what] for what in bad if counts[what]} == {}
    return counts


@pytest.mark.parametrize("count", FEW_OR_MANY)
def test_killed_saves_leave_the_old_or_the_new(tmp_path: Path, count: int) -> None:
    counts = counts_of("kill", tmp_path / "place", count)
    assert counts["died"] > 0 and counts["old"] > 0


@pytest.mark.parametrize("count", FEW_OR_MANY)
def test_interrupted_saves_leave_the_old_or_the_new_and_no_litter(tmp_path: Path, count: int) -> None:
    assert counts_of("interrupt", tmp_path / "place", count)["died"] > 0


@pytest.mark.parametrize("count", [5, pytest.param(100, marks=pytest.mark.slow)])
def test_saves_that_may_write_only_so_much_leave_the_old_or_the_new(tmp_path: Path, count: int) -> None:
    assert counts_of("full", tmp_path / "place", count)["full"] > 0


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 4 MB; only root can have one."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(disk)]
    try:
        mounted = subprocess.run(mount, capture_output=True, check=False).returncode == 0
    except OSError:
        mounted = False
    if not mounted:
        pytest.skip("no disk can be mounted here")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


@pytest.mark.slow
def test_saves_on_a_full_disk_leave_the_old_or_the_new(small_disk: Path) -> None:
    counts = counts_of("full", small_disk / "place", 100)
    assert counts["full"] > 20 and counts["had room"] > 0


@pytest.mark.parametrize("count", [10, pytest.param(500, marks=pytest.mark.slow)])
def test_a_reader_sees_the_old_or_the_new_while_it_is_overwritten(tmp_path: Path, count: int) -> None:
    path = tmp_path / "x"
    write(path, leaves(0))
    seen: Counter[str] = Counter()
    wrong: list[str] = []
    done = threading.Event()

    def read() -> None:
        while not done.is_set():
            for attempt in range(20):
                try:
                    seen["read"] += found_in(path) >= 0
                    break
                except SourceError as error:
                    seen["changed while it was read" if "changed" in str(error) else "another error"] += 1
                    if attempt == 19:
                        wrong.append(str(error))
                except (AssertionError, ValueError) as error:
                    wrong.append(f"a mixture: {error}")

    reader = threading.Thread(target=read)
    reader.start()
    try:
        for number in range(1, count + 1):
            write(path, leaves(number), overwrite=True)
    finally:
        done.set()
        reader.join()
    print(f"{count} overwrites: {dict(seen)}")
    assert wrong == []
    assert seen["read"] > 0
    assert os.listdir(tmp_path) == ["x"]
