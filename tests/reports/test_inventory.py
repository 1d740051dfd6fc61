"""What a source holds, as text: golden texts as in ``test_text``, and what a file may not do to them."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import numpy as np
import pytest
from rich.console import Console

import treeload
from treeload import Inventory, Name, Source

Check = Callable[[str, str], None]


class Stated(Source):
    """A source that is what its arguments say."""

    def __init__(
        self, shapes: Mapping[str, tuple[int, ...]], *, label: str = "'a' (test)", **facts: Any
    ) -> None:
        self.label = label
        self.metadata = facts.get("metadata", {})
        self._specs = {Name(name): jax.ShapeDtypeStruct(shape, np.float32) for name, shape in shapes.items()}
        self._ties = {Name(alias): Name(name) for alias, name in facts.get("ties", {}).items()}
        self._absent = {Name(name): None for name in facts.get("absent", ())}

    def specs(self) -> Mapping[Name, Any]:
        return self._specs

    def read(self, requests: Mapping[Name, Any]) -> Iterator[tuple[Name, Any]]:
        raise AssertionError("an inventory reads no array")

    def ties(self) -> Mapping[Name, Name]:
        return self._ties

    def absent(self) -> Mapping[Name, None]:
        return self._absent


def vit() -> Inventory:
    shapes = {f"layers/{i}/{name}": (384, 384) for i in range(12) for name in ("q/kernel", "k/kernel")}
    shapes |= {"embed/embedding": (30522, 384), "head/kernel": (30522, 384)}
    facts = {
        "ties": {"head/kernel": "embed/embedding"},
        "absent": [f"layers/{i}/{name}/bias" for i in range(12) for name in "qk"],
        "metadata": {"version": 3, "trained_on": "ImageNet", "config": {"layers": list(range(100))}},
    }
    source = Stated(shapes, label="'ckpts/vit' (Orbax, step 300)", **facts)
    source.version = {"": 3}  # which is not what its metadata calls so
    return treeload.inspect(source)


def long() -> Inventory:
    """More leaves than a page holds, none like another."""
    words = [f"{a}{b}" for a in "abcdefghij" for b in "abcdefghij"]
    return treeload.inspect(Stated(dict.fromkeys(words, (2,)), metadata=dict.fromkeys(words, 0)))


def empty() -> Inventory:
    return treeload.inspect({})


@pytest.mark.parametrize("made", [vit, long, empty])
def test_an_inventory_reads_as_it_is_meant_to(made: Callable[[], Inventory], check: Check) -> None:
    check(f"inventory_{made.__name__}", str(made()))


def test_tied_leaves_count_once() -> None:
    inventory = vit()
    assert inventory.nbytes == 4 * (24 * 384 * 384 + 30522 * 384)
    assert str(inventory).startswith("25 leaves, ")


def test_metadata_of_any_size_and_depth_is_a_few_lines(acted_upon: Callable[[str], list[str]]) -> None:
    deep: dict[str, Any] = {}
    for _ in range(5000):
        deep = {"d": deep}
    metadata = {"deep": deep, "wide": list(range(10**6)), "long": "x" * 10**7, "\x1b[31m\n": "\x1b]0;\x07"}
    text = str(treeload.inspect(Stated({"w": (1,)}, metadata=metadata)))
    assert len(text.splitlines()) == 10 and max(map(len, text.splitlines())) <= 80
    assert not acted_upon(text)


def test_its_repr_is_short_whatever_it_holds() -> None:
    assert repr(long()) == "<Inventory: 100 leaves, 200 elements, 800 B in 'a' (test)>"


def test_colours_are_for_terminals_alone() -> None:
    plain, coloured = io.StringIO(), io.StringIO()
    Console(file=plain, width=80).print(vit())
    Console(file=coloured, width=80, force_terminal=True, color_system="standard", no_color=False).print(
        vit()
    )
    assert plain.getvalue() == str(vit()) + "\n"
    assert "\x1b[" in coloured.getvalue()


def test_a_mixture_of_experts_is_a_few_lines() -> None:
    names = [
        f"layers/{i}/experts/{e}/{k}" for i in range(64) for e in range(208) for k in ("up", "down", "gate")
    ]
    text = str(treeload.inspect(Stated(dict.fromkeys(names, (8, 2)))))
    assert "layers/{0..63}/experts/{0..207}/gate ×13,312  float32[8,2]  852.0 kB" in text
    assert len(text.splitlines()) == 6
