"""The page on the command line is what the commands say of themselves."""

from __future__ import annotations

import os
from pathlib import Path

from treeload.cli.manual import manual

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "commands.md"


def test_the_page_is_made_from_the_commands() -> None:
    if os.environ.get("TREELOAD_UPDATE_GOLDEN"):
        PAGE.write_text(manual(), encoding="utf-8")
    assert PAGE.read_text(encoding="utf-8") == manual()


def test_every_option_says_what_it_is() -> None:
    assert "None" not in manual()
