"""The one judge of layouts: which change is meant, how sure, and what else may be."""

from __future__ import annotations

from collections.abc import Mapping

import jax
import numpy as np
import pytest

import treeload
from treeload._inference.layouts import File, judge
from treeload._inference.suggest import suggest
from treeload._inference.suggestions import Suggestions
from treeload._naming.name import Name
from treeload._ops.convert import Apply
from treeload._ops.layout import Reshape, Transpose
from treeload._rules.rename import Rename

Shapes = Mapping[str, tuple[int, ...]]


def _specs(shapes: Shapes) -> dict[tuple[str, ...], jax.ShapeDtypeStruct]:
    return {
        tuple(Name.parse(name)): jax.ShapeDtypeStruct(shape, np.float32) for name, shape in shapes.items()
    }


def _suggest(destination: Shapes, source: Shapes) -> Suggestions:
    return suggest(_specs(destination), _specs(source))


def _judge(source: str, here: tuple[int, ...], destination: str, there: tuple[int, ...]):  # type: ignore[no-untyped-def]
    specs = [jax.ShapeDtypeStruct(shape, np.float32) for shape in (here, there)]
    return judge(tuple(source.split("/")), specs[0], tuple(destination.split("/")), specs[1])


@pytest.mark.parametrize(
    ("source", "here", "destination", "there", "change"),
    [
        ("fc/weight", (3, 4), "fc/kernel", (4, 3), "Transpose()"),
        ("conv/weight", (5, 2, 3, 3), "conv/kernel", (3, 3, 2, 5), "Transpose(2, 3, 1, 0)"),
        ("conv/kernel", (3, 3, 2, 5), "conv/weight", (5, 2, 3, 3), "Transpose(3, 2, 0, 1)"),
        ("conv/weight", (8, 2, 3, 3), "conv/kernel", (3, 3, 2, 8), "Transpose(2, 3, 1, 0)"),  # four groups
        ("conv/weight", (8, 1, 3, 3), "conv/kernel", (3, 3, 1, 8), "Transpose(2, 3, 1, 0)"),  # depthwise
        ("tok/weight", (8, 8), "tok/embedding", (8, 8), ""),
        ("norm/weight", (8,), "norm/scale", (8,), ""),
    ],
)
def test_what_names_and_shapes_leave_no_choice_in_is_certain(
    source: str, here: tuple[int, ...], destination: str, there: tuple[int, ...], change: str
) -> None:
    reading = _judge(source, here, destination, there)
    assert str(reading.change) == change and reading.certain


@pytest.mark.parametrize("name", ["up", "deconv", "conv_transpose", "upconv1", "decoder/up_2"])
@pytest.mark.parametrize("there", [(3, 3, 6, 4), (3, 3, 4, 6)])
def test_a_transposed_convolution_is_never_certain_and_says_that_space_runs_the_other_way(
    name: str, there: tuple[int, ...]
) -> None:
    reading = _judge(f"{name}/weight", (6, 4, 3, 3), f"{name}/kernel", there)
    assert not reading.certain and "space axes" in reading.why and reading.others


def test_a_transposed_convolution_turns_by_value_as_pytorch_does() -> None:
    """PyTorch keeps [in, out, height, width], and its kernel lies the other way round in space."""
    kernel = np.random.default_rng(0).random((6, 4, 3, 3), np.float32)
    found = _suggest({"up/kernel": (3, 3, 6, 4)}, {"up/weight": (6, 4, 3, 3)})
    assert found.certain == () and "space axes must be reversed" in found.reasons[0]
    loaded = treeload.load(
        {"up": {"kernel": np.zeros((3, 3, 6, 4), np.float32)}}, {"up": {"weight": kernel}}, rules=found
    )
    np.testing.assert_array_equal(loaded["up"]["kernel"], kernel.transpose(2, 3, 0, 1)[::-1, ::-1])


@pytest.mark.parametrize(
    ("here", "there"), [((6, 6, 4), (4, 6, 6)), ((8, 8, 3, 3), (3, 3, 8, 8)), ((3, 3, 3, 3), (3, 3, 3, 3))]
)
def test_a_convolution_that_another_order_fits_is_not_certain_alone(
    here: tuple[int, ...], there: tuple[int, ...]
) -> None:
    reading = _judge("conv/weight", here, "conv/kernel", there)
    assert not reading.certain and reading.others and "would fit as well" in reading.why
    assert reading.change is not None and reading.change.turn == "transposed"


def test_a_convolution_of_equal_sizes_goes_as_the_others_but_not_beside_transposed_ones() -> None:
    here = {"stem/weight": (8, 3, 3, 3), "conv/weight": (8, 8, 3, 3)}
    there = {"stem/kernel": (3, 3, 3, 8), "conv/kernel": (3, 3, 8, 8)}
    (rule,) = _suggest(there, here).certain
    assert isinstance(rule, Rename)
    assert rule.patterns[0].matches("conv/weight") and rule.ops == (Transpose(2, 3, 1, 0),)
    here, there = {**here, "up/weight": (8, 4, 2, 2)}, {**there, "up/kernel": (2, 2, 8, 4)}
    assert not any(rule.patterns[0].matches("conv/weight") for rule in _suggest(there, here).certain)


def test_a_depthwise_kernel_with_its_multiplier_last_is_likely() -> None:
    reading = _judge("dw/weight", (8, 1, 3, 3), "dw/kernel", (3, 3, 8, 1))
    assert str(reading.change) == "Transpose(2, 3, 0, 1)" and not reading.certain
    assert "depthwise" in reading.why and isinstance(reading.others[0].ops[-1], Apply)


@pytest.mark.parametrize("name", ["tok", "lookup", "char_table"])
def test_an_embedding_is_not_transposed(name: str) -> None:
    found = _suggest({f"{name}/embedding": (8, 8)}, {f"{name}/weight": (8, 8)})
    assert list(found) == [Rename(f"{name}/weight", f"{name}/embedding")]


def test_rows_after_a_flattened_image_are_likely_and_the_rule_that_turns_them_is_printed() -> None:
    there = {"conv/kernel": (3, 3, 3, 8), "fc/kernel": (160, 10)}
    found = _suggest(there, {"conv/weight": (8, 3, 3, 3), "fc/weight": (10, 160)})
    assert not any(rule.patterns[0].matches("fc/weight") for rule in found.certain)
    at = list(found).index(Rename("fc/weight", "fc/kernel", Transpose()))
    assert "rows may be in CHW order after a flattened image" in found.reasons[at]
    (other,) = found.instead[at]
    assert repr(other) in str(found)
    # By value: an image of 8 channels, 4 high and 5 wide.
    weight = np.random.default_rng(0).random((10, 160), np.float32)
    loaded = treeload.load({"fc": {"kernel": np.zeros((160, 10))}}, {"fc": {"weight": weight}}, rules=other)
    np.testing.assert_array_equal(
        loaded["fc"]["kernel"], weight.reshape(10, 8, 4, 5).transpose(2, 3, 1, 0).reshape(160, 10)
    )


def test_columns_before_an_image_and_the_way_back_are_told_too() -> None:
    found = _suggest(
        {"up/kernel": (3, 3, 8, 3), "fc/kernel": (10, 160)},
        {"up/weight": (8, 3, 3, 3), "fc/weight": (160, 10)},
    )
    assert found.certain == () and "columns may be in CHW order" in str(found)
    back = _suggest(
        {"conv/weight": (8, 3, 3, 3), "fc/weight": (10, 160)},
        {"conv/kernel": (3, 3, 3, 8), "fc/kernel": (160, 10)},
    )
    assert "rows may be in HWC order" in str(back)
    (other,) = back.instead[
        [str(rule) for rule in back].index(str(Rename("fc/kernel", "fc/weight", Transpose())))
    ]
    kernel = np.random.default_rng(0).random((160, 10), np.float32)
    loaded = treeload.load({"fc": {"weight": np.zeros((10, 160))}}, {"fc": {"kernel": kernel}}, rules=other)
    np.testing.assert_array_equal(
        loaded["fc"]["weight"], kernel.reshape(4, 5, 8, 10).transpose(3, 2, 0, 1).reshape(10, 160)
    )


@pytest.mark.parametrize("name", ["fc", "layers/{}/attention/query", "encoder/layers/{}/mlp/up"])
def test_a_pooled_feature_and_a_layer_of_a_stack_follow_no_image(name: str) -> None:
    size, names = (8, [name]) if name == "fc" else (32, [name.format(at) for at in range(2)])
    there = {"conv/kernel": (3, 3, 3, 8), **{f"{each}/kernel": (size, 10) for each in names}}
    here = {"conv/weight": (8, 3, 3, 3), **{f"{each}/weight": (10, size) for each in names}}
    assert len(_suggest(there, here).certain) == len(_suggest(there, here))


def test_what_has_the_size_of_the_last_convolution_was_pooled() -> None:
    there = {"a/kernel": (3, 3, 3, 8), "b/kernel": (3, 3, 8, 16), "fc/kernel": (16, 10)}
    found = _suggest(there, {"a/weight": (8, 3, 3, 3), "b/weight": (16, 8, 3, 3), "fc/weight": (10, 16)})
    assert any(rule.patterns[0].matches("fc/weight") for rule in found.certain)


def test_several_kernels_in_one_leaf_exchange_their_last_axes() -> None:
    reading = _judge("experts/weight", (8, 4, 6), "experts/kernel", (8, 6, 4))
    assert str(reading.change) == "Transpose(0, 2, 1)" and not reading.certain


def test_an_order_that_no_library_keeps_is_a_guess() -> None:
    reading = _judge("odd/weight", (2, 3, 4, 5), "odd/kernel", (3, 2, 5, 4))
    assert str(reading.change) == "Transpose(1, 0, 3, 2)" and not reading.certain and "guess" in reading.why
    assert _judge("odd/weight", (2, 3), "odd/kernel", (4, 5)).change is None


def test_heads_are_split_by_the_same_judge() -> None:
    reading = _judge("q/weight", (8, 6), "q/kernel", (6, 2, 4))
    assert reading.change is not None
    assert reading.change.ops == (Transpose(), Reshape(6, 2, 4, source=(6, 8)))


def test_the_file_decides_what_one_leaf_does_not_show() -> None:
    spec = jax.ShapeDtypeStruct((4, 4), np.float32)
    names = (("q", "weight"), ("q", "kernel"))
    alone = judge(names[0], spec, names[1], spec)
    assert not alone.certain and len(alone.others) == 1
    file = File()
    file.seen["weight", "kernel", "linear"]["as it is"] = 3
    reading = judge(names[0], spec, names[1], spec, file)
    assert reading.certain and reading.change is not None and reading.change.ops == ()


def test_the_message_of_a_shape_asks_the_same_judge() -> None:
    plan = treeload.plan(
        {"conv": {"kernel": jax.ShapeDtypeStruct((3, 3, 2, 5), np.float32)}},
        {"conv": {"weight": np.zeros((5, 2, 3, 3), np.float32)}},
        rules=Rename("conv/weight", "conv/kernel"),
    )
    (finding,) = plan.findings
    assert "Transpose(2, 3, 1, 0) in a Rename" in finding.remedy and "Transpose()" not in finding.remedy
