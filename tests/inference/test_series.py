"""Layers that are counted otherwise: names that agree by accident are no evidence, and fill no gap."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
import pytest

import treeload
from treeload._inference.diagnosis import diagnose
from treeload._inference.suggest import suggest
from treeload._naming.name import Name

Shapes = Mapping[str, tuple[int, ...]]

LAYERS: dict[str, Shapes] = {
    "few": {"w": (4, 4)},
    "some": {"kernel": (4, 8), "bias": (8,)},
    "many": {"q/kernel": (4, 4), "q/bias": (4,), "up/kernel": (4, 16), "up/bias": (16,), "norm/scale": (4,)},
}


def _specs(shapes: Shapes) -> dict[tuple[str, ...], jax.ShapeDtypeStruct]:
    return {
        tuple(Name.parse(name)): jax.ShapeDtypeStruct(shape, np.float32) for name, shape in shapes.items()
    }


def _series(stem: str, numbers: Any, leaves: Shapes) -> dict[str, tuple[int, ...]]:
    return {f"{stem}{number}/{name}": shape for number in numbers for name, shape in leaves.items()}


def _tree(shapes: Shapes, value: Any) -> dict[str, Any]:
    """A nested dict of arrays, each full of what ``value`` gives for its name."""
    tree: dict[str, Any] = {}
    for name, shape in shapes.items():
        *above, last = name.split("/")
        node = tree
        for key in above:
            node = node.setdefault(key, {})
        node[last] = np.full(shape, value(name), np.float32)
    return tree


def _number(stem: str, name: str) -> int:
    return int(name.removeprefix(stem).split("/")[0])


def _loaded(stem: str, destination: Shapes, source: Shapes) -> list[tuple[int, float]]:
    """For each leaf, its number and that of what loads under the rules that are suggested."""
    there, here = _tree(destination, lambda name: -1), _tree(source, lambda name: _number(stem, name))
    plan = treeload.plan(there, here)
    rules = plan.suggest()
    assert rules.certain == ()
    loaded = treeload.plan(there, here, rules=rules).load()
    return sorted(
        (_number(stem, name), float(leaf.flat[0]))
        for name in destination
        for leaf in [_at(loaded, name)]
    )  # fmt: skip


def _at(tree: Any, name: str) -> Any:
    for key in name.split("/"):
        tree = tree[key]
    return tree


@pytest.mark.parametrize(
    ("stem", "first"),
    [*itertools.product(("h_", "blocks/", "layer", "fc"), ((1, 0), (0, 1))), ("blocks/", (3, 1))],
)
@pytest.mark.parametrize("kind", LAYERS)
def test_layers_that_are_counted_from_another_number_are_all_shifted(
    stem: str, first: tuple[int, int], kind: str
) -> None:
    ours, theirs = first
    destination = _series(stem, range(theirs, theirs + 4), LAYERS[kind])
    source = _series(stem, range(ours, ours + 4), LAYERS[kind])
    found = _loaded(stem, destination, source)
    assert [value - number for number, value in found] == [ours - theirs] * len(destination)
    noun = stem.rstrip("_/")
    (said, *others) = diagnose(_specs(destination), _specs(source))
    assert said == (
        f"the source counts {noun} from {ours} to {ours + 3}, the destination from {theirs} to {theirs + 3}"
    )
    assert others == []


@pytest.mark.parametrize("kernel", [(4, 4), (4, 8)])
def test_a_sequential_of_layers_and_activations_is_one_series_for_kernels_and_biases(
    kernel: tuple[int, int],
) -> None:
    destination = _series("net/", (0, 1, 2), {"kernel": kernel, "bias": kernel[1:]})
    source = _series("net/", (0, 2, 4), {"weight": kernel[::-1], "bias": kernel[1:]})
    assert _loaded("net/", destination, source) == [(n, 2.0 * n) for n in (0, 1, 2) for _ in "wb"]
    said = diagnose(_specs(destination), _specs(source))
    assert "the source numbers net 0, 2, 4, the destination from 0 to 2" in said
    assert ("3 of 6 match if transposed" in said) == (kernel == (4, 8))  # a square shows nothing


@pytest.mark.parametrize("kind", LAYERS)
@pytest.mark.parametrize(
    ("ours", "theirs", "said"),
    [
        ((1, 2, 3, 4), (0, 1, 2), "counts h from 1 to 4, the destination from 0 to 2"),
        ((0, 1, 2, 4), (0, 1, 2, 3), "numbers h 0, 1, 2, 4, the destination from 0 to 3"),
        ((0, 2, 5), (0, 1, 2), "numbers h 0, 2, 5, the destination from 0 to 2"),
        (
            (*range(0, 14, 2), 13), range(8),
            "numbers h 0, 2, 4, 6, 8, 10, … to 13, the destination from 0 to 7",
        ),
    ],
)  # fmt: skip
def test_a_gap_at_one_end_is_not_filled_with_what_is_over_at_the_other(
    ours: Any, theirs: Any, said: str, kind: str
) -> None:
    destination = _series("h/", theirs, LAYERS[kind])
    found = suggest(_specs(destination), _specs(_series("h/", ours, LAYERS[kind])))
    assert not found and not found.ambiguous
    assert found.left == (f"no rule for h: the source {said}",)
    assert diagnose(_specs(destination), _specs(_series("h/", ours, LAYERS[kind]))) == (f"the source {said}",)


def test_numbers_that_are_part_of_a_name_fill_no_gap_either() -> None:
    """``fc3`` to ``fc6`` may be four names, and not the third to the sixth of a series."""
    destination = _series("fc", range(1, 5), LAYERS["some"])
    found = suggest(_specs(destination), _specs(_series("fc", range(3, 7), LAYERS["some"])))
    assert not found and found.left == (
        "no rule for fc: the source counts fc from 3 to 6, the destination from 1 to 4",
    )


def test_other_names_in_such_a_series_are_no_reason_to_go_by_its_numbers() -> None:
    destination = _series("h_", range(3), {"kernel": (4, 8), "bias": (8,)})
    source = _series("h_", range(1, 5), {"weight": (8, 4), "bias": (8,)})
    assert not suggest(_specs(destination), _specs(source))
    assert diagnose(_specs(destination), _specs(source)) == (
        "the source counts h from 1 to 4, the destination from 0 to 2",
    )


def test_kernels_that_may_not_go_together_are_not_counted_as_transposed() -> None:
    destination = _series("net/", (0, 1, 2), {"kernel": (4, 8), "bias": (8,)})
    source = _series("net/", (0, 2, 5), {"weight": (8, 4), "bias": (8,)})
    assert diagnose(_specs(destination), _specs(source)) == (
        "the source numbers net 0, 2, 5, the destination from 0 to 2",
    )


def test_what_was_as_good_as_others_is_not_the_only_one_once_they_are_put_aside() -> None:
    """A convolution, its norm, an activation: numbers 0, 1, 3, 4 and so on become 0 to 5, or they do not."""
    kinds: list[Shapes] = [
        {"kernel": (3, 3, 8, 8), "bias": (8,)},
        {"scale": (8,), "bias": (8,), "mean": (8,), "var": (8,)},
    ]
    torch = {"kernel": "weight", "scale": "weight", "mean": "running_mean", "var": "running_var"}
    destination = {f"net/{n}/{key}": shape for n in range(6) for key, shape in kinds[n % 2].items()}
    source = {
        f"net/{n}/{torch.get(key, key)}": shape[::-1] if key == "kernel" else shape
        for n, kind in ((0, 0), (1, 1), (3, 0), (4, 1), (6, 0), (7, 1)) for key, shape in kinds[kind].items()
    }  # fmt: skip
    found = suggest(_specs(destination), _specs(source))
    assert not found and found.left == (
        "no rule for net: the source numbers net 0, 1, 3, 4, 6, 7, the destination from 0 to 5",
    )


def test_rules_stand_in_the_order_of_the_numbers() -> None:
    numbers = (1, 10, 11, 12, *range(2, 10))  # as jax sorts them
    destination = _series("h_", range(12), LAYERS["many"])
    found = suggest(_specs(destination), _specs(_series("h_", numbers, LAYERS["many"])))
    assert [str(rule.destination_text()) for rule in found] == [f"h_{at}/{{*rest}}" for at in range(12)]


def test_in_such_a_series_nothing_is_certain() -> None:
    words = [("query", (4, 5)), ("key", (6, 7)), ("value", (8, 9))]
    destination = {f"net/{at}/{word}/kernel": shape for at, (word, shape) in enumerate(words)}
    source = {
        f"net/{at}/{word}/weight": shape[::-1] for at, (word, shape) in zip((0, 2, 5), words, strict=True)
    }  # fmt: skip
    found = suggest(_specs(destination), _specs(source))
    assert len(found) == 3 and found.certain == ()


def test_shapes_that_are_all_others_tell_which_number_is_which() -> None:
    sizes = [((4, 5), 0), ((5, 6), 2), ((6, 7), 5)]
    destination: dict[str, tuple[int, ...]] = {
        f"net/{at}/kernel": shape for at, (shape, _) in enumerate(sizes)
    }
    destination |= {f"net/{at}/bias": shape[1:] for at, (shape, _) in enumerate(sizes)}
    source: dict[str, tuple[int, ...]] = {f"net/{at}/weight": shape[::-1] for shape, at in sizes}
    source |= {f"net/{at}/bias": shape[1:] for shape, at in sizes}
    found = [(number, value) for number, value in _loaded("net/", destination, source)]
    assert found == [(n, float(at)) for n, (_, at) in enumerate(sizes) for _ in "wb"]


def test_shapes_that_tell_another_order_than_that_of_the_numbers_tell_nothing() -> None:
    destination = {"net/0/w": (4, 5), "net/1/w": (6, 7), "net/2/w": (8, 9)}
    source = {"net/1/w": (6, 7), "net/2/w": (4, 5), "net/5/w": (8, 9)}
    found = suggest(_specs(destination), _specs(source))
    assert not found and "the source numbers net 1, 2, 5" in found.left[0]


def test_more_layers_that_begin_elsewhere_are_said_once() -> None:
    destination = _series("h_", range(6), LAYERS["many"])
    source = _series("h_", range(1, 5), LAYERS["many"])
    assert diagnose(_specs(destination), _specs(source)) == (
        "the source counts h from 1 to 4, the destination from 0 to 5",
    )


def test_layers_in_each_of_several_stages_are_shifted_in_each() -> None:
    stages = [f"s/{stage}/b/{{}}/w" for stage in range(2)]
    destination = {name.format(at): (4, 4) for name in stages for at in range(3)}
    source = {name.format(at + 1): (4, 4) for name in stages for at in range(3)}
    here = _tree(source, lambda name: int(name.split("/")[1]) * 10 + int(name.split("/")[3]))
    there = _tree(destination, lambda name: -1)
    loaded = treeload.load(there, here, rules=treeload.plan(there, here).suggest())
    assert [float(_at(loaded, name)[0, 0]) for name in destination] == [1, 2, 3, 11, 12, 13]


def test_one_reason_of_many_rules_is_printed_once() -> None:
    found = suggest(
        _specs(_series("h_", range(4), LAYERS["many"])), _specs(_series("h_", range(1, 5), LAYERS["many"]))
    )
    lines = str(found).splitlines()
    assert len(found) == 4 and sum(line.lstrip().startswith("#") for line in lines) == 1
    assert "the same name but for numbers; " in lines[1] and "indices 1..4 become 0..3, in order" in lines[1]


def test_of_many_series_a_few_are_named() -> None:
    stages = [_series(f"s/{stage}x/b", range(3), {"w": (4, 4)}) for stage in "abcde"]
    begun = [_series(f"s/{stage}x/b", range(1, 4), {"w": (4, 4)}) for stage in "abcde"]
    joined = [dict(pair for one in side for pair in one.items()) for side in (stages, begun)]
    *said, last = diagnose(*map(_specs, joined))
    assert len(said) == 3 and last == "2 more are counted otherwise"


def test_a_list_at_the_root_is_counted_too() -> None:
    destination, source = ({f"{at + first}/w": (4, 4) for at in range(3)} for first in (0, 1))
    assert diagnose(_specs(destination), _specs(source)) == (
        "the source counts its layers from 1 to 3, the destination from 0 to 2",
    )


def test_no_number_below_a_stem_of_another_name_is_in_a_series() -> None:
    """``a1`` and ``b1`` are two series; what is counted otherwise in one says nothing of the other."""
    up = {"up/kernel": (4, 8)}
    destination = _series("a", range(3), up) | _series("b", range(3), up)
    source = _series("a", range(1, 4), up) | _series("b", range(3), up)
    found = suggest(_specs(destination), _specs(source))
    assert {str(rule.destination_text()).split("/")[0] for rule in found} == {"a0", "a1", "a2"}
