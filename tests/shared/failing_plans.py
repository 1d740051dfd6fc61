"""Plans that go wrong in many ways, and all that each says: a program, to be run under several hash seeds.

PYTHONHASHSEED=1 python tests/shared/failing_plans.py    # prints {name: [texts]} as JSON
"""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

import treeload
from treeload import From, Policy, Rename

sys.path.insert(0, str(Path(__file__).parent))
from pytrees import nest  # beside this file, which is run by itself too

DATA = Path(__file__).parent.parent / "data"
MODELS = ("clip", "gpt2", "resnet", "t5")


def spec(*shape: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, np.float32)


def side(described: Mapping[str, Any], separator: str) -> dict[str, Any]:
    """A tree of specs: described by its shapes, alone or beside the dtype."""
    shapes = {name: one["shape"] if isinstance(one, dict) else one[0] for name, one in described.items()}
    return nest({tuple(name.split(separator)): spec(*shape) for name, shape in shapes.items()})


def random_names(seed: int, shapes: int) -> dict[str, Any]:
    """Sixty names of few words, which share some with one another and none in whole."""
    random_ = random.Random(seed)
    words = [
        "block",
        "blokc",
        "attention",
        "attn",
        "query",
        "q",
        "norm",
        "layer_norm",
        "mlp",
        "out",
        "0",
        "1",
    ]
    names = {(*random_.choices(words, k=4), f"w{seed}") for _ in range(60)}
    return nest({name: spec(4, 2 + at % shapes) for at, name in enumerate(sorted(names))})


def plans() -> Iterator[tuple[str, treeload.Plan]]:
    """Every plan with its name."""
    for model in MODELS:
        described = json.loads((DATA / "transformers" / f"{model}.json").read_text())
        src, dst = side(described["source"], "."), side(described["destination"], "/")
        yield model, treeload.plan(dst, src)
        yield (
            f"{model}, forgiven",
            treeload.plan(dst, src, policy=Policy(missing="keep", unexpected="ignore")),
        )
    layouts = {
        path.stem: side(json.loads(path.read_text())["tensors"], ".")
        for path in sorted((DATA / "layouts").glob("b*.json"))
    }
    for one, dst in layouts.items():
        for other, src in layouts.items():
            if one != other:
                yield f"{other} into {one}", treeload.plan(dst, src)
    for shapes in (1, 7):
        dst, src = random_names(1, shapes), random_names(2, shapes)
        yield f"random names of {shapes} shapes", treeload.plan(dst, src)
        yield (
            f"a prefix, {shapes} shapes",
            treeload.plan(dst, {"ema": dst, "params": dst, "opt": {"mu": dst}}),
        )
        parts = [From(src, into="block"), From(dst, into="mlp", rules=Rename("{x}/{*r}", "{x}/y/{*r}"))]
        yield (
            f"several sources, {shapes} shapes",
            treeload.plan(dst, parts, rules=Rename("no/{*r}", "so/{*r}")),
        )


def said(plan: treeload.Plan) -> list[str]:
    """Everything that a plan says."""
    return [
        str(plan),
        str(plan.suggest()),
        *plan.diagnosis,
        plan.to_json(),
        plan._repr_html_(),
        plan.to_html(),
    ]


if __name__ == "__main__":
    print(json.dumps({name: said(plan) for name, plan in plans()}))
