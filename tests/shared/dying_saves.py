"""Saves over a checkpoint that are killed, interrupted, or run out of disk at seeded moments: what is left?

As a program, ``python dying_saves.py kill|interrupt|full <directory> <count> <seed>`` prints counts as JSON.
It forks, so that each death costs a save and no import: nothing here may start a thread before.
"""

from __future__ import annotations

import json
import os
import random
import resource
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import orbax.checkpoint  # noqa: F401  # once, before the forks

from treeload._errors import SaveError
from treeload._files.replace import beside
from treeload._formats.orbax.source import OrbaxSource
from treeload._formats.orbax.write import write
from treeload._naming.name import Name

OLD, NEW, NEXT = 1.0, 2.0, 3.0


def leaves(value: float) -> dict[Name, np.ndarray]:
    """Some small leaves and a larger one, each full of one number."""
    sizes = [*[500] * 12, 100_000]
    return {Name(("layers", str(at))): np.full(size, value, np.float32) for at, size in enumerate(sizes)}


def found_in(path: Path) -> float:
    """The one number that a checkpoint is full of; it is an error where there are two, or a leaf lacks."""
    source = OrbaxSource(path)
    read = dict(source.read(source.specs()))
    assert read.keys() == leaves(OLD).keys(), "a leaf lacks"
    (value,) = {float(number) for array in read.values() for number in np.unique(array)}
    return value


class Place:
    """A directory with a checkpoint, and files of the user's wherever a save might take them for its own."""

    def __init__(self, directory: Path) -> None:
        self.directory, self.path = directory, directory / "x"
        self.mine = [directory / "notes", beside(self.path) / "thesis", beside(self.path) / "new" / "thesis"]
        for file in self.mine:
            file.parent.mkdir(exist_ok=True)
            file.write_text("mine")

    def litter(self) -> list[str]:
        own = {self.path, *self.mine, *(parent for file in self.mine for parent in file.parents)}
        there = [*self.directory.iterdir(), *beside(self.path).rglob("*")]
        return sorted(str(entry) for entry in there if entry not in own)

    def check(self, counts: Counter[str], *, clean: bool) -> None:
        """What the path holds, and that a next save leaves nothing else; ``clean``: as it is now, too."""
        counts["litter at once"] += bool(clean and self.litter())
        value = found_in(self.path)
        assert value in (OLD, NEW)
        counts["old" if value == OLD else "new"] += 1
        write(self.path, leaves(NEXT), overwrite=True)
        counts["not the next"] += found_in(self.path) != NEXT
        counts["litter after the next save"] += bool(self.litter())
        counts["files of the user's touched"] += any(file.read_text() != "mine" for file in self.mine)


def in_a_fork(act: Callable[[], None], moment: float | None = None, death: int = 0) -> int:
    """The status of a child that does this; ``moment`` seconds after it begins, ``death`` is sent to it."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.write(writing, b"!")
            act()
        except KeyboardInterrupt:
            os._exit(2)
        except BaseException as error:  # noqa: BLE001  # the child ends here, whatever happened
            print(type(error).__name__, error, file=sys.stderr)
            os._exit(1)
        os._exit(0)
    os.read(reading, 1)
    if moment is not None:
        time.sleep(moment)
        os.kill(child, death)
    os.close(reading)
    os.close(writing)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def deaths(place: Place, count: int, seed: int, death: int) -> Counter[str]:
    """``count`` saves, each of which is sent a signal somewhere on its way."""
    moments = random.Random(seed)
    total: Counter[str] = Counter()
    in_a_fork(lambda: write(place.path, leaves(OLD)))
    began = time.monotonic()
    in_a_fork(lambda: write(place.path, leaves(OLD), overwrite=True))
    duration = time.monotonic() - began
    for _ in range(count):
        assert in_a_fork(lambda: write(place.path, leaves(OLD), overwrite=True)) == 0
        status = in_a_fork(
            lambda: write(place.path, leaves(NEW), overwrite=True), moments.uniform(0, 1.1 * duration), death
        )
        assert status in (0, 2, -death), status
        total["died" if status else "ended before"] += 1
        reading, writing = os.pipe()

        def look(writing: int = writing) -> None:
            counts: Counter[str] = Counter()
            place.check(counts, clean=death == signal.SIGINT)
            os.write(writing, json.dumps(counts).encode())

        broken = in_a_fork(look) != 0
        os.close(writing)
        total["broken"] += broken
        total.update({} if broken else json.loads(os.read(reading, 1 << 16)))
        os.close(reading)
    return total


def full_disks(place: Place, count: int, seed: int) -> Counter[str]:
    """``count`` saves for which the disk is too small somewhere; a ballast fills one that is small itself."""
    rooms = random.Random(seed)
    total: Counter[str] = Counter()
    ballast = place.directory.parent / "ballast"
    is_small = os.statvfs(place.directory).f_blocks * os.statvfs(place.directory).f_frsize < 64 << 20
    for _ in range(count):
        write(place.path, leaves(OLD), overwrite=True)
        if is_small:
            free = os.statvfs(place.directory).f_bavail * os.statvfs(place.directory).f_frsize
            ballast.write_bytes(bytes(max(0, free - rooms.randrange(900_000))))
        else:
            resource.setrlimit(resource.RLIMIT_FSIZE, (rooms.randrange(450_000), resource.RLIM_INFINITY))
        try:
            write(place.path, leaves(NEW), overwrite=True)
            total["had room"] += 1
        except SaveError:
            total["full"] += 1
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        ballast.unlink(missing_ok=True)
        place.check(total, clean=True)
    return total


if __name__ == "__main__":
    what, directory, count, seed = sys.argv[1:]
    Path(directory).mkdir()
    place = Place(Path(directory))
    if what == "full":
        counts = full_disks(place, int(count), int(seed))
    else:
        death = signal.SIGKILL if what == "kill" else signal.SIGINT
        counts = deaths(place, int(count), int(seed), death)
    print(json.dumps(counts))
