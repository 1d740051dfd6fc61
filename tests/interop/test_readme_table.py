"""The README's comparison: what each JAX loader does with one disagreement, and that the README says so.

The columns for libraries outside JAX cite their sources in the README and are not tested here.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import pytest
from flax import nnx, serialization
from orbax.checkpoint import v1 as ocp

import treeload

README = Path(__file__).parent.parent.parent / "README.md"
KERNEL, BIAS = jnp.full((2, 3), 1.5), jnp.ones(3)
DENSE = {"dense": {"kernel": jnp.zeros((2, 3)), "bias": jnp.zeros(3)}}
NO_BIAS = {"dense": {"kernel": jnp.zeros((2, 3))}}
INTEGERS = {"dense": {"kernel": jnp.zeros((2, 3), jnp.int32), "bias": jnp.zeros(3)}}


@dataclasses.dataclass(frozen=True)
class Row:
    """One disagreement between ``destination`` and ``source``, and which loaders say nothing about it."""

    text: str
    destination: Any
    source: Any
    silent: frozenset[str]


ROWS = [
    Row(
        "a name is misspelt",
        DENSE,
        {"dense": {"krenel": KERNEL, "bias": BIAS}},
        frozenset({"Orbax, partial", "`nnx.update`"}),
    ),
    Row(
        "a leaf is missing",
        DENSE,
        {"dense": {"kernel": KERNEL}},
        frozenset({"Orbax, partial", "`nnx.update`"}),
    ),
    Row(
        "a leaf is left over",
        DENSE,
        {"dense": {"kernel": KERNEL, "bias": BIAS, "more": BIAS}},
        frozenset({"Orbax, partial", "`nnx.update`", "`from_state_dict`"}),
    ),
    Row(
        "a shape differs",
        DENSE,
        {"dense": {"kernel": jnp.ones((5, 5)), "bias": BIAS}},
        frozenset({"`nnx.update`", "`from_state_dict`"}),
    ),
    Row(
        "fractions for an integer leaf",
        INTEGERS,
        {"dense": {"kernel": KERNEL, "bias": BIAS}},
        frozenset({"Orbax", "Orbax, partial", "`nnx.update`", "`from_state_dict`"}),
    ),
    Row(
        "a bias that is not zero, for a layer without one",
        NO_BIAS,
        {"dense": {"kernel": KERNEL, "bias": BIAS}},
        frozenset({"Orbax, partial", "`from_state_dict`"}),
    ),
]


def with_treeload(destination: Any, source: Any, folder: Path) -> None:
    treeload.load(destination, source)


def with_orbax(destination: Any, source: Any, folder: Path, partial: bool = False) -> None:
    loading = ocp.options.PyTreeOptions.Loading(partial_load=partial)
    ocp.save(folder / "checkpoint", source)
    with ocp.Context(pytree_options=ocp.options.PyTreeOptions(loading=loading)):
        ocp.load(folder / "checkpoint", destination)


def with_orbax_partial(destination: Any, source: Any, folder: Path) -> None:
    with_orbax(destination, source, folder, partial=True)


def with_nnx_update(destination: Any, source: Any, folder: Path) -> None:
    class Model(nnx.Module):
        def __init__(self) -> None:
            self.dense = nnx.Linear(2, 3, use_bias="bias" in destination["dense"], rngs=nnx.Rngs(0))

    model = Model()
    model.dense.kernel.set_value(destination["dense"]["kernel"])
    nnx.update(model, source)


def with_from_state_dict(destination: Any, source: Any, folder: Path) -> None:
    serialization.from_state_dict(destination, source)


LOADERS: dict[str, Callable[[Any, Any, Path], None]] = {
    "treeload": with_treeload,
    "Orbax": with_orbax,
    "Orbax, partial": with_orbax_partial,
    "`nnx.update`": with_nnx_update,
    "`from_state_dict`": with_from_state_dict,
}


def table() -> list[list[str]]:
    lines = README.read_text("utf-8").splitlines()
    head = next(i for i, line in enumerate(lines) if line.startswith("| what is wrong"))
    rows = [[cell.strip() for cell in line.strip("| ").split(" | ")] for line in lines[head:]]
    return rows[: next((i for i, row in enumerate(rows) if row == [""]), None)]


REFUSALS = "do not match|is not compatible with the stored shape|Expected a subgraph"


@pytest.mark.parametrize("loader", LOADERS)
@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.text)
def test_a_loader_does_what_the_readme_says(row: Row, loader: str, tmp_path: Path) -> None:
    if loader in row.silent:
        LOADERS[loader](row.destination, row.source, tmp_path)
    else:
        expected, said = (treeload.LoadError, "problems?") if loader == "treeload" else (ValueError, REFUSALS)
        with pytest.raises(expected, match=said):
            LOADERS[loader](row.destination, row.source, tmp_path)
    head, _, *cells = table()
    (shown,) = (cell[head.index(loader)] for cell in cells if cell[0] == row.text)
    assert shown == ("**silent**" if loader in row.silent else "error")


def test_the_readme_has_no_other_rows() -> None:
    assert {row[0] for row in table()[2:]} == {row.text for row in ROWS}
