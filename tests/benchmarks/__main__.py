"""Every comparison and the growth curves, in one run: ``python -m tests.benchmarks``.

    python -m tests.benchmarks [--turns 5] [--share 1.0] [--only WORDS] [--write [PAGE]]

Prints a Markdown table; ``--write`` puts it into docs/speed.md, between its two marks, and the curves beside
it as SVG. ``--share`` measures less of everything, to see that it runs. The status is 1 where a ratio is
above its most.
"""

from __future__ import annotations

import argparse
import platform
import sys
from importlib.metadata import version
from pathlib import Path

from tests.benchmarks.growth import by_bytes, by_leaves, draw
from tests.benchmarks.rows import ROWS
from tests.benchmarks.table import PAGE, table, write


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__.splitlines()[0])
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--share", type=float, default=1.0, help="of the full sizes")
    parser.add_argument("--only", default="", help="rows whose work has these words")
    parser.add_argument("--write", type=Path, nargs="?", const=PAGE, help="into this page; docs/speed.md")
    options = parser.parse_args()
    rows = [row for row in ROWS if options.only in row.work]
    libraries = ("jax", "flax", "orbax-checkpoint", "tensorstore", "safetensors", "equinox")
    versions = ", ".join(f"{name} {version(name)}" for name in libraries)
    about = f"Python {platform.python_version()}, {versions}; the best of {options.turns} turns.\n"
    lines, good = [about], True
    print(about, flush=True)
    for said, holding in table(rows, options.turns, options.share):
        print(said, flush=True)
        lines.append(said)
        good = good and holding
    if options.write:
        draw(by_leaves(options.share), by_bytes(options.share), options.write.with_suffix(".svg"))
        write(lines, options.write)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
