"""The seven layouts with every module renamed at random, layers dropped, kernels made square: no certain rule
is ever wrong, by value."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import treeload
from treeload._inference.suggest import suggest
from treeload._trees.walk import walk

# pytest's importlib mode puts no test directory on the path.
_spec = importlib.util.spec_from_file_location("layouts", Path(__file__).with_name("layouts.py"))
assert _spec is not None and _spec.loader is not None
layouts = sys.modules.get("layouts") or importlib.util.module_from_spec(_spec)
if "layouts" not in sys.modules:
    sys.modules["layouts"] = layouts
    _spec.loader.exec_module(layouts)

_LENIENT = treeload.Policy(
    missing={"**": "keep"}, unexpected={"**": "ignore"}, shape={"**": "keep"}, rule={"**": "ignore"}
)
_SEEDS = 6  # every second with square kernels; two of three with a quarter of the modules gone
_LETTERS = np.array(list("abcdefghijklmnopqrstuvwxyz"))


def _specs(tree: Any) -> dict[tuple[str, ...], Any]:
    return {tuple(name): leaf for name, leaf in walk(tree).leaves()}


def _renamed(names: list[str], rng: np.random.Generator, share: float) -> dict[str, str]:
    """Every key but the last and but numbers under another word, the same word for the same key."""
    words: dict[str, str] = {}

    def word(key: str) -> str:
        if key not in words:
            new = "".join(rng.choice(_LETTERS, 6))
            words[key] = new if rng.random() < share and not key.isdigit() else key
        return words[key]

    found = {name: "/".join([*map(word, name.split("/")[:-1]), name.split("/")[-1]]) for name in names}
    return found if len(set(found.values())) == len(found) else {name: name for name in names}


def _square(model: str) -> dict[int, int]:
    """The sizes of a model, all of a layer's widths made one."""
    small = dict(layouts._SIZES[model])
    wide = [size for size in small.values() if size > 20 and size % 12 == 0]
    return {size: (wide[0] if wide and new in wide else new) for size, new in small.items()}


def _faulty(model: str, seed: int, monkeypatch: pytest.MonkeyPatch) -> tuple[dict[str, Any], ...]:
    """Destination, source and the truth by new names, some of it gone."""
    rng = np.random.default_rng(seed)
    if seed % 2:
        monkeypatch.setitem(layouts._SIZES, model, _square(model))
        layouts._made.cache_clear()
    layout = layouts.layout(model)
    source = {name.replace(".", "/"): array for name, array in layout.source.items()}
    modules = sorted({name.rpartition("/")[0] for name in source})
    gone = set(rng.choice(modules, len(modules) // 4, replace=False)) if seed % 3 else set()
    kept = [name for name in source if name.rpartition("/")[0] not in gone]
    share = (0.3, 0.7, 1.0)[seed % 3]
    here, there = _renamed(kept, rng, share), _renamed(list(layout.expected), rng, share)
    layouts._made.cache_clear()
    return (
        layouts.nest({there[name]: np.zeros_like(value) for name, value in layout.expected.items()}),
        layouts.nest({here[name]: source[name] for name in kept}),
        {there[name]: value for name, value in layout.expected.items()},
    )


@pytest.mark.parametrize("model", layouts.MODELS)
def test_no_certain_rule_is_ever_wrong(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    certain = leaves = 0
    for seed in range(_SEEDS):
        destination, source, expected = _faulty(model, seed, monkeypatch)
        found = suggest(_specs(destination), _specs(source))
        plan = treeload.plan(destination, source, rules=found.certain, policy=_LENIENT)
        loaded = {str(treeload.Name(name)): array for name, array in _specs(plan.load()).items()}
        names = [str(entry.name) for entry in plan.entries if entry.action != "keep"]
        wrong = [name for name in names if not np.array_equal(loaded[name], expected[name])]
        assert not wrong, (seed, wrong[:5], [str(rule) for rule in found.certain])
        certain += len(names)
        leaves += len(expected)
    print(f"{model}: {certain} of {leaves} leaves by certain rules, none wrong")
    assert certain
