"""The README's comparison: what each JAX loader does with one disagreement, and that the README says so.

The columns for libraries outside JAX cite their sources in the README and are not tested here. The page
"What each loader says" has these rows and more (``test_comparison.py``).
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from peers import DISAGREEMENTS, ERROR, LOADERS, SILENT, Disagreement, observe, table

README = Path(__file__).parent.parent.parent / "README.md"
HERE = ["treeload", "Orbax", "Orbax, partial", "`nnx.update`", "`from_state_dict`"]
REFUSALS = "ValueError: .*(do not match|is not compatible with the stored shape|Expected a subgraph)"


@pytest.mark.parametrize("loader", HERE)
@pytest.mark.parametrize("row", DISAGREEMENTS, ids=lambda row: row.text)
def test_a_loader_does_what_the_readme_says(row: Disagreement, loader: str, tmp_path: Path) -> None:
    seen = observe(lambda: LOADERS[loader](row.destination, row.source, tmp_path), row.is_right)
    assert seen.word == table(README)[row.text][loader], seen.said
    if seen.word == ERROR:
        assert re.match(
            "LoadError: .* problems? in" if loader == "treeload" else REFUSALS, seen.said, re.DOTALL
        )
    else:
        assert seen.word == SILENT


def test_the_readme_has_no_other_rows_and_columns() -> None:
    shown = table(README)
    assert set(shown) == {row.text for row in DISAGREEMENTS}
    assert all(list(cells) == [*HERE, "`load_state_dict`", "`loadmodel!`"] for cells in shown.values())
