"""The mean of checkpoints: laws of a mean, what has none, and whether the checkpoints are of one model."""

from __future__ import annotations

import pickle
import tracemalloc
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from flax import nnx
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import treeload
from treeload import From, Name, Rename, RuleError, Source, SourceError, Transpose, TreeloadError
from treeload._checkpoints import view as _view

FLOATS = [
    "float16",
    "bfloat16",
    "float32",
    "float64",
    "complex64",
    "complex128",
    "float8_e4m3fn",
    "float8_e5m2",
]


def dtype_of(name: str) -> np.dtype[Any]:
    return np.dtype(getattr(ml_dtypes, name, name))


def bits(array: Any) -> bytes:
    return np.asarray(array).tobytes()


def findings(error: pytest.ExceptionInfo[TreeloadError]) -> list[tuple[str, str]]:
    return [(finding.kind, str(finding.name)) for finding in error.value.findings]  # type: ignore[attr-defined]


class Tied(nnx.Module):
    """An embedding that is the head's too, and a counter."""

    def __init__(self, value: float, steps: int = 0) -> None:
        self.embed = nnx.Param(jnp.full((2, 3), value))
        self.head = self.embed
        self.steps = nnx.BatchStat(jnp.int32(steps))


# Laws.

ARRAYS = hnp.arrays(
    st.sampled_from([np.float16, np.float32, np.float64, np.complex64, np.complex128]),
    hnp.array_shapes(min_dims=0, max_dims=2, min_side=0, max_side=3),
)


@given(ARRAYS, st.integers(1, 5))
def test_the_mean_of_equal_checkpoints_is_the_checkpoint_bit_for_bit(array: Any, count: int) -> None:
    array = np.where(np.isfinite(array), array, array.dtype.type(1))
    mean = treeload.average([{"w": array}] * count)["w"]
    assert mean.dtype == array.dtype
    assert mean.shape == array.shape
    assert bits(mean) == bits(array)


@given(st.lists(st.integers(-1000, 1000), min_size=1, max_size=5), st.randoms())
def test_the_order_of_the_sources_does_not_matter(values: list[int], random: Any) -> None:
    trees = [{"w": np.float32(value)} for value in values]
    mean = treeload.average(trees)["w"]
    random.shuffle(trees)
    assert bits(treeload.average(trees)["w"]) == bits(mean)


@given(st.lists(st.tuples(st.floats(-1e3, 1e3, width=32), st.floats(0.125, 8.0)), min_size=1, max_size=5))
def test_weights_count_by_their_ratio_and_the_mean_is_numpys(pairs: list[tuple[float, float]]) -> None:
    trees, weights = [{"w": np.float32(value)} for value, _ in pairs], [weight for _, weight in pairs]
    mean = treeload.average(trees, weights=weights)["w"]
    assert bits(mean) == bits(treeload.average(trees, weights=[4 * weight for weight in weights])["w"])
    np.testing.assert_allclose(mean, np.average([v for v, _ in pairs], weights=weights), rtol=1e-6, atol=1e-6)


@given(st.lists(st.floats(-1e3, 1e3, width=32), min_size=1, max_size=6), st.floats(0.0, 0.999))
def test_an_exponential_average_is_the_loop_that_defines_it(values: list[float], ema: float) -> None:
    past = values[0]
    for value in values[1:]:
        past = past * ema + value * (1 - ema)
    mean = treeload.average([{"w": np.float64(value)} for value in values], ema=ema)["w"]
    np.testing.assert_allclose(mean, past, rtol=1e-9, atol=1e-9)


def test_the_average_has_the_structure_of_state() -> None:
    tree = {"b": [jnp.ones(2), None, (jnp.zeros(1),)], "a": {"act": jax.nn.relu, "n": 3}, "empty": {}}
    for model in (tree, Tied(1.0)):
        mean = treeload.average([model, model])
        structure: Any = jax.tree.structure(mean)
        assert structure == jax.tree.structure(treeload.state(model))
        assert treeload.diff(mean, model).equal


# Floating point.


@pytest.mark.parametrize("name", FLOATS)
def test_every_floating_point_dtype_is_averaged_and_keeps_its_dtype(name: str) -> None:
    dtype = dtype_of(name)
    mean = treeload.average(
        [{"w": np.asarray([1, 4]).astype(dtype)}, {"w": np.asarray([3, 8]).astype(dtype)}]
    )["w"]
    assert mean.dtype == dtype
    np.testing.assert_array_equal(mean.astype(np.complex128), [2, 6])


def test_bfloat16_is_summed_in_a_wider_dtype() -> None:
    # In bfloat16 itself 256 + 1 is 256, so a sum of these would stand still.
    trees = [{"w": jnp.full(3, 256, jnp.bfloat16)}, *[{"w": jnp.full(3, 2, jnp.bfloat16)}] * 127]
    mean = treeload.average(trees)["w"]
    assert mean.dtype == jnp.bfloat16
    np.testing.assert_array_equal(
        mean.astype(np.float32), np.float32((256 + 127 * 2) / 128).astype(jnp.bfloat16)
    )


def test_the_sum_does_not_overflow_where_the_mean_does_not() -> None:
    largest = np.finfo(np.float32).max
    assert treeload.average([{"w": np.float32(largest)}] * 3)["w"] == largest
    assert treeload.average([{"w": np.float16(60000)}] * 8)["w"] == 60000


def test_infinities_of_a_mask_stay() -> None:
    mask = np.array([0.0, -np.inf], np.float32)
    np.testing.assert_array_equal(treeload.average([{"mask": mask}, {"mask": mask}])["mask"], mask)


def test_a_source_of_weight_zero_is_left_out_of_the_mean() -> None:
    broken = {"w": np.array([np.nan, np.inf], np.float32)}
    mean = treeload.average([{"w": np.ones(2, np.float32)}, broken], weights=[1, 0])
    np.testing.assert_array_equal(mean["w"], [1, 1])


def test_large_leaves_are_summed_in_pieces_without_a_seam() -> None:
    one, two = np.arange(200_003, dtype=np.float32), np.ones(200_003, np.float32)
    np.testing.assert_array_equal(treeload.average([{"w": one}, {"w": two}])["w"], (one + 1) / 2)


# What has no mean.


def test_integers_booleans_and_keys_that_agree_are_kept_as_they_are() -> None:
    tree = {
        "n": jnp.int32(2**31 - 1),
        "t": np.array([True, False]),
        "k": jax.random.key(3),
        "step": 7,
        "u": np.uint64(2**63 + 1),
    }
    mean = treeload.average([tree, tree, tree])
    assert mean["n"] == 2**31 - 1 and mean["n"].dtype == np.int32
    assert mean["u"] == 2**63 + 1
    np.testing.assert_array_equal(mean["t"], [True, False])
    assert jnp.array_equal(jax.random.key_data(mean["k"]), jax.random.key_data(tree["k"]))
    assert mean["step"] == 7


def test_integers_booleans_and_keys_that_differ_are_one_error_that_lists_them_all() -> None:
    one = {"n": jnp.int32(1), "t": np.array([True]), "k": jax.random.key(0), "w": jnp.zeros(1)}
    two = {"n": jnp.int32(2), "t": np.array([False]), "k": jax.random.key(1), "w": jnp.ones(1)}
    with pytest.raises(TreeloadError, match="last=True") as error:
        treeload.average([one, two])
    assert sorted(findings(error)) == [("values", "k"), ("values", "n"), ("values", "t")]
    messages = {str(finding.name): finding.message for finding in error.value.findings}  # type: ignore[attr-defined]
    assert messages["n"] == "1 in sources[0], a tree in memory; 2 in sources[1], a tree in memory"


def test_last_takes_what_has_no_mean_from_the_last_source() -> None:
    one, two = ({"n": jnp.int32(n), "k": jax.random.key(n), "w": jnp.full(1, float(n))} for n in (1, 2))
    mean = treeload.average([one, two], last=True)
    assert (mean["n"], mean["w"]) == (2, 1.5)
    assert jnp.array_equal(jax.random.key_data(mean["k"]), jax.random.key_data(two["k"]))


def test_last_by_pattern_takes_the_leaves_that_match_whatever_their_dtype() -> None:
    one, two = ({"a": {"n": n, "rate": float(n)}, "n": 5, "w": np.float32(n)} for n in (1, 2))
    mean = treeload.average([one, two], last="a/**")
    assert (mean["a"]["n"], mean["a"]["rate"], mean["n"], mean["w"]) == (2, 2.0, 5, 1.5)
    with pytest.raises(TreeloadError) as error:
        treeload.average([{**one, "n": 6}, two], last=["a/n"])
    assert findings(error) == [("values", "n")]


def test_a_pattern_for_last_that_matches_nothing_is_an_error() -> None:
    with pytest.raises(RuleError, match="'stepp' matches no leaf"):
        treeload.average([{"step": 1}] * 2, last="stepp")


# Ties.


def test_tied_leaves_are_averaged_once() -> None:
    mean = treeload.average([Tied(1.0), Tied(3.0)])
    assert treeload.names(mean) == ("embed", "steps")
    np.testing.assert_array_equal(mean["embed"], np.full((2, 3), 2.0))


def test_tied_arrays_of_a_pytree_are_averaged_once() -> None:
    one, three = jnp.full(2, 1.0), jnp.full(2, 3.0)
    mean = treeload.average([{"embed": one, "head": one}, {"embed": three, "head": three}])
    assert treeload.names(mean) == ("embed",)
    np.testing.assert_array_equal(mean["embed"], [2, 2])


def test_ties_come_through_saved_checkpoints_and_the_average_loads_back(tmp_path: Path) -> None:
    for step, value in enumerate((1.0, 3.0)):
        treeload.save(tmp_path / str(step), Tied(value))
    model = treeload.load(Tied(0.0), treeload.average([tmp_path / "0", tmp_path / "1"]))
    assert model.head is model.embed
    np.testing.assert_array_equal(model.embed[...], np.full((2, 3), 2.0))


def test_a_tied_leaf_may_be_under_another_of_its_names_in_another_source() -> None:
    mean = treeload.average([Tied(1.0), {"head": jnp.full((2, 3), 3.0), "steps": jnp.int32(0)}])
    assert treeload.names(mean) == ("embed", "steps")
    np.testing.assert_array_equal(mean["embed"], np.full((2, 3), 2.0))


def test_leaves_that_one_source_keeps_apart_are_averaged_apart() -> None:
    apart = {"embed": jnp.full((2, 3), 3.0), "head": jnp.full((2, 3), 5.0), "steps": jnp.int32(0)}
    mean = treeload.average([Tied(1.0), apart])
    assert (mean["embed"][0, 0], mean["head"][0, 0]) == (2.0, 3.0)


# Of one model.


def test_unequal_leaves_are_one_error_that_lists_all_differences() -> None:
    one = {"a": jnp.zeros(2), "b": jnp.zeros(2), "c": jnp.zeros(2, jnp.int32), "d": jnp.zeros(1)}
    two = {"a": jnp.zeros(3), "b": jnp.zeros(2, jnp.bfloat16), "c": jnp.ones(2, jnp.int32), "e": jnp.zeros(1)}
    with pytest.raises(TreeloadError) as error:
        treeload.average([one, two, one])
    assert findings(error) == [
        ("shape", "a"),
        ("dtype", "b"),
        ("missing", "d"),
        ("missing", "e"),
        ("missing", "e"),
    ]
    assert str(error.value).splitlines() == [
        "these checkpoints have no average: 5 differences",
        "",
        "  shape     a",
        "            float32[2] in sources[0], a tree in memory; float32[3] in",
        "            sources[1], a tree in memory",
        "  dtype     b",
        "            float32[2] in sources[0], a tree in memory; bfloat16[2] in",
        "            sources[1], a tree in memory",
        "  missing   d",
        "            not in sources[1], a tree in memory, but in sources[0], a tree in",
        "            memory",
        "  missing   e",
        "            not in sources[0], a tree in memory, but in sources[1], a tree in",
        "            memory",
        "  missing   e",
        "            not in sources[2], a tree in memory, but in sources[1], a tree in",
        "            memory",
    ]


def test_layers_that_all_lack_the_same_are_one_line() -> None:
    one = {"layers": [{"w": np.zeros(1), "b": np.zeros(1)} for _ in range(12)]}
    two = {"layers": [{"w": np.zeros(1)} for _ in range(12)]}
    with pytest.raises(TreeloadError, match=r"layers/\{0\.\.11\}/b ×12") as error:
        treeload.average([one, two])
    assert len(findings(error)) == 12


def test_differences_of_structure_are_found_before_a_value_is_read() -> None:
    abstract = jax.eval_shape(lambda: {"w": jnp.zeros(3), "b": jnp.zeros(1)})
    with pytest.raises(TreeloadError) as error:
        treeload.average([abstract, jax.eval_shape(lambda: {"w": jnp.zeros(3)})])
    assert findings(error) == [("missing", "b")]


def test_absent_slots_are_no_leaves() -> None:
    assert treeload.average([{"w": np.ones(1), "b": None}, {"w": np.ones(1)}]).keys() == {"w"}
    with pytest.raises(TreeloadError) as error:
        treeload.average([{"w": np.ones(1), "b": None}, {"w": np.ones(1), "b": np.ones(1)}])
    assert findings(error) == [("missing", "b")]


def test_the_error_survives_a_process_boundary() -> None:
    with pytest.raises(TreeloadError) as error:
        treeload.average([{"a": np.ones(1)}, {"b": np.ones(1)}])
    assert str(pickle.loads(pickle.dumps(error.value))) == str(error.value)


# Sources.


def test_sources_may_be_of_any_kind_and_layout(tmp_path: Path) -> None:
    kernel = jnp.arange(6.0).reshape(2, 3)
    treeload.save(tmp_path / "whole", {"model": {"kernel": kernel}, "step": 3})
    torch_like = From({"weight": kernel.T + 2}, rules=Rename("weight", "kernel", Transpose()))
    mean = treeload.average([{"kernel": kernel + 1}, From(tmp_path / "whole", subtree="model"), torch_like])
    np.testing.assert_array_equal(mean["kernel"], kernel + 1)


def test_a_subtree_that_is_not_there_is_an_error() -> None:
    with pytest.raises(RuleError, match="nothing below 'modle'"):
        treeload.average([From({"model": {"w": np.ones(1)}}, subtree="modle")] * 2)


def test_boxes_of_a_plain_orbax_save_are_transparent(tmp_path: Path) -> None:
    from orbax.checkpoint import v1 as ocp

    model = nnx.Linear(2, 3, rngs=nnx.Rngs(0))
    ocp.save(tmp_path / "plain", nnx.state(model))
    for sources in ([model, tmp_path / "plain"], [tmp_path / "plain", model]):
        assert treeload.diff(treeload.average(sources), model).equal


def test_an_abstract_source_is_an_error() -> None:
    with pytest.raises(SourceError, match="abstract"):
        treeload.average([{"w": jnp.ones(2)}, {"w": jax.ShapeDtypeStruct((2,), jnp.float32)}])


def test_sources_are_not_changed_and_not_shared() -> None:
    tree = {"w": np.ones(3, np.float32), "n": np.array([1, 2])}
    mean = treeload.average([tree])
    mean["w"] += 1
    mean["n"] += 1
    np.testing.assert_array_equal(tree["w"], [1, 1, 1])
    np.testing.assert_array_equal(tree["n"], [1, 2])


@pytest.mark.parametrize(
    ("how", "problem"),
    [
        ({"weights": [1.0]}, "2 sources and 1 weights"),
        ({"weights": [1.0, float("nan")]}, "finite"),
        ({"weights": [1.0, -1.0]}, "sum to 0"),
        ({"weights": ["a", "b"]}, "weights are numbers"),
        ({"weights": [1, 1], "ema": 0.9}, "not both"),
        ({"ema": 1.0}, "less than 1"),
        ({"ema": -0.1}, "at least 0"),
        ({"last": 3}, "last is True"),
    ],
)
def test_weights_that_cannot_mean_anything_are_refused(how: dict[str, Any], problem: str) -> None:
    with pytest.raises(RuleError, match=problem):
        treeload.average([{"w": np.ones(1)}] * 2, **how)


@pytest.mark.parametrize("sources", [[], "ckpts/a", Path("ckpts"), {"w": np.ones(1)}, From({}), 3])
def test_no_source_or_one_that_is_no_list_is_refused(sources: Any) -> None:
    with pytest.raises(RuleError, match="nothing to average|several sources"):
        treeload.average(sources)


# Memory.


class Generated(Source):
    """Leaves of 1 MiB that exist while somebody holds them."""

    label = "generated"
    SHAPE, COUNT = (1 << 18,), 24

    def specs(self) -> dict[Name, Any]:
        return {Name(("w", str(n))): jax.ShapeDtypeStruct(self.SHAPE, np.float32) for n in range(self.COUNT)}

    def read(self, requests: Mapping[Name, Any]) -> Iterator[tuple[Name, Any]]:
        for name in requests:
            yield name, np.ones(self.SHAPE, np.float32)


def test_the_peak_of_memory_is_the_result_and_a_leaf_of_each_source(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_view, "_BYTES_AT_ONCE", 1 << 20)
    tracemalloc.start()
    try:
        mean = treeload.average([Generated()] * 6)
        peak = tracemalloc.get_traced_memory()[1] / 2**20
    finally:
        tracemalloc.stop()
    assert len(mean["w"]) == 24
    assert peak < 24 + 6 + 4  # and what is being summed


def test_the_error_bears_a_public_name_and_crosses_processes() -> None:
    with pytest.raises(treeload.TreeloadError, match="have no average") as caught:
        treeload.average([{"a": np.ones(2)}, {"a": np.ones(3)}])
    kind = type(caught.value)
    assert f"{kind.__module__}.{kind.__qualname__}" == "treeload.TreeloadError"
    raised: Any = caught.value
    again = pickle.loads(pickle.dumps(raised))
    assert (str(again), again.findings) == (str(raised), raised.findings)
