"""What the values of leaves are like: least, largest, mean, zeros, NaN; read one by one, and none is kept."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from treeload._checkpoints.view import batches
from treeload._leaves.spec import is_key
from treeload._loading.gather import whole
from treeload._naming.name import Name
from treeload._sources.source import Source


@dataclass(frozen=True)
class Stats:
    """What the values of one leaf, or of several, are like.

    Attributes:
        count: how many elements there are.
        least, largest: of those that are numbers; None where there are none.
        total: their sum, in 64 bits.
        zeros: how many are zero.
        nans, infinite: how many are NaN, and how many infinite; neither is in the sum.
    """

    count: int = 0
    least: float | None = None
    largest: float | None = None
    total: float = 0.0
    zeros: int = 0
    nans: int = 0
    infinite: int = 0

    @property
    def mean(self) -> float | None:
        """The mean of the finite elements; None where there are none."""
        finite = self.count - self.nans - self.infinite
        return self.total / finite if finite else None

    def __add__(self, other: Stats) -> Stats:
        ends = [one for one in (self, other) if one.least is not None and one.largest is not None]
        return Stats(
            self.count + other.count,
            min((one.least for one in ends if one.least is not None), default=None),
            max((one.largest for one in ends if one.largest is not None), default=None),
            self.total + other.total, self.zeros + other.zeros,
            self.nans + other.nans, self.infinite + other.infinite,
        )  # fmt: skip

    def __str__(self) -> str:
        if self.least is None or self.largest is None:
            said = []
        else:
            said = [f"{self.least:.4g} … {self.largest:.4g}"]
        if self.mean is not None:
            said.append(f"mean {self.mean:.4g}")
        for number, what in ((self.zeros, "zero"), (self.nans, "NaN"), (self.infinite, "infinite")):
            if number:
                said.append(f"all {what}" if number == self.count else f"{number:,} {what}")
        return ", ".join(said)

    def to_dict(self) -> dict[str, Any]:
        """The same as JSON-like data; what JSON has no number for is a text."""
        numbers = {"min": self.least, "max": self.largest, "mean": self.mean}
        said = {key: str(n) if n is not None and not np.isfinite(n) else n for key, n in numbers.items()}
        return {"count": self.count, **said, "zeros": self.zeros, "nan": self.nans, "infinite": self.infinite}


def stats_of(source: Source, names: Iterable[Name]) -> dict[Name, Stats]:
    """What the leaves of these names are like; PRNG keys, which are no numbers, are left out.

    Raises:
        SourceError: the source cannot be read, or is damaged.
    """
    specs = source.specs()
    wanted = {name: specs[name] for name in names if not is_key(specs[name].dtype)}
    found: dict[Name, Stats] = {}
    for batch in batches(wanted, sources=1):
        for name, array in whole(source, batch):
            found[name] = stats(np.asarray(array))
    return {name: found[name] for name in wanted}


def stats(array: np.ndarray[Any, Any]) -> Stats:
    """What the values of an array are like; of complex numbers their magnitudes."""
    flat = array.reshape(-1)
    parts = (flat[at : at + _AT_ONCE] for at in range(0, flat.size, _AT_ONCE))
    return sum(map(_part, parts), Stats())


_AT_ONCE = 1 << 20  # elements that become 64 bits wide at a time


def _part(array: np.ndarray[Any, Any]) -> Stats:
    wide = np.abs(array) if array.dtype.kind == "c" else array
    values = wide.astype(np.float64)
    nan, infinite = np.isnan(values), np.isinf(values)
    numbers = values[~nan]
    return Stats(
        array.size,
        float(numbers.min()) if numbers.size else None,
        float(numbers.max()) if numbers.size else None,
        float(values[~(nan | infinite)].sum()),
        int((values == 0).sum()), int(nan.sum()), int(infinite.sum()),
    )  # fmt: skip
