"""Golden texts: ``check(name, text)`` compares with ``tests/golden``.

After a change that is meant, write them anew, and read the difference:

    TREELOAD_UPDATE_GOLDEN=1 pytest tests/reports
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest

GOLDEN = Path(__file__).parent.parent / "golden"
ACTED_UPON = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e]")  # by a terminal


@pytest.fixture
def check() -> Callable[[str, str], None]:
    """Fails unless a text is that of its golden file, and fit for a terminal of 80 columns."""

    def compare(name: str, text: str) -> None:
        path = GOLDEN / f"{name}.txt"
        if os.environ.get("TREELOAD_UPDATE_GOLDEN"):
            path.write_text(text + "\n", "utf-8")
        assert text + "\n" == path.read_text("utf-8")
        assert not ACTED_UPON.search(text)
        assert max(map(len, text.splitlines())) <= 80
        assert not any(line != line.rstrip() for line in text.splitlines())

    return compare


@pytest.fixture
def acted_upon() -> Callable[[str], list[str]]:
    """The characters of a text that a terminal would not print but obey."""
    return ACTED_UPON.findall
