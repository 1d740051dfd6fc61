"""Every comparison, in the order of the table."""

from __future__ import annotations

from tests.benchmarks import from_files, from_names, in_memory, starting, with_digests, with_orbax
from tests.benchmarks.measuring import Row

ROWS: tuple[Row, ...] = (
    *in_memory.ROWS,
    *with_orbax.ROWS,
    *from_files.ROWS,
    *with_digests.ROWS,
    *from_names.ROWS,
    *starting.ROWS,
)
