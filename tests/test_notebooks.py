"""The notebooks run from the first cell to the last, and are in step with the Python files beside them."""

from __future__ import annotations

from pathlib import Path

import jupytext
import nbclient
import nbformat
import pytest

FOLDER = Path(__file__).parent.parent / "notebooks"
PAIRS = sorted(FOLDER.glob("*.py"))
USES = {"restore", "inspect", "finetune", "remote"}  # each use of treeload has a notebook of its own


def test_each_use_has_its_notebook_and_each_notebook_its_python_half() -> None:
    assert {path.stem for path in PAIRS} >= USES
    assert {path.stem for path in PAIRS} == {path.stem for path in FOLDER.glob("*.ipynb")}


@pytest.mark.parametrize("path", PAIRS, ids=lambda path: path.stem)
def test_both_halves_hold_the_same_cells(path: Path) -> None:
    python, notebook = (
        [(cell.cell_type, cell.source) for cell in jupytext.read(half).cells]
        for half in (path, path.with_suffix(".ipynb"))
    )
    assert python == notebook, f"bring them together: jupytext --sync {path.name}"


@pytest.mark.parametrize("path", PAIRS, ids=lambda path: path.stem)
def test_runs_from_the_first_cell_to_the_last(path: Path, tmp_path: Path) -> None:
    notebook = nbformat.read(path.with_suffix(".ipynb"), as_version=4)
    nbclient.NotebookClient(
        notebook, kernel_name="python3", timeout=300, resources={"metadata": {"path": str(tmp_path)}}
    ).execute()
    assert all(cell.execution_count for cell in notebook.cells if cell.cell_type == "code" and cell.source)
