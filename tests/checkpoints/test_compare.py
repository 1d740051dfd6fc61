"""What differs between two trees: laws, structure, values, and how it is told."""

from __future__ import annotations

import json
import math
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
from treeload import From, Name, Rename, RuleError, Source, SourceError, Stack, Tie, Transpose
from treeload._checkpoints import view as _view

DTYPES = [np.bool_, np.int8, np.int32, np.int64, np.uint64, np.float16, np.float32, np.float64, np.complex64]
ARRAYS = hnp.arrays(st.sampled_from(DTYPES), hnp.array_shapes(min_dims=0, max_dims=2, min_side=0, max_side=3))


def pairs_of_arrays() -> st.SearchStrategy[tuple[Any, Any]]:
    return ARRAYS.flatmap(lambda array: st.tuples(st.just(array), hnp.arrays(array.dtype, array.shape)))


# Laws.


@given(ARRAYS)
def test_everything_is_equal_to_itself_nan_too(array: Any) -> None:
    found = treeload.diff({"w": array}, {"w": array.copy()})
    assert found.equal
    assert (found["w"].differing, found["w"].largest, found["w"].relative) == (0, 0.0, 0.0)


@given(pairs_of_arrays())
def test_the_other_way_round_it_is_as_far(pair: tuple[Any, Any]) -> None:
    one, two = ({"w": array} for array in pair)
    there, back = treeload.diff(one, two)["w"], treeload.diff(two, one)["w"]
    assert there.differing == back.differing
    np.testing.assert_array_equal([there.largest, there.relative], [back.largest, back.relative])


@given(pairs_of_arrays())
def test_the_count_is_numpys(pair: tuple[Any, Any]) -> None:
    one, two = pair
    found = treeload.diff({"w": one}, {"w": two})
    same = (one == two) | ((one != one) & (two != two))
    assert found["w"].differing == np.count_nonzero(~same)
    assert found.equal == bool(np.all(same))


@given(pairs_of_arrays())
def test_relative_differences_lie_between_0_and_2(pair: tuple[Any, Any]) -> None:
    leaf = treeload.diff({"w": pair[0]}, {"w": pair[1]})["w"]
    assert leaf.relative is not None
    assert math.isnan(leaf.relative) or 0 <= leaf.relative <= 2


# Values.


def test_a_difference_is_counted_and_measured() -> None:
    leaf = treeload.diff({"w": jnp.array([1.0, 2.0, 4.0])}, {"w": jnp.array([1.0, 2.5, 3.0])})["w"]
    assert (leaf.kind, leaf.differing, leaf.largest, leaf.relative) == ("values", 2, 1.0, 0.25)


@pytest.mark.parametrize(
    ("one", "two", "largest"),
    [
        (np.int64(-(2**63)), np.int64(2**63 - 1), 2.0**64),
        (np.uint64(2**64 - 1), np.uint64(0), 2.0**64),
        (np.int64(2**53), np.int64(2**53 + 1), 1.0),
        (np.int8(-128), np.int8(127), 255.0),
        (np.bool_(True), np.bool_(False), 1.0),
        (ml_dtypes.int4(-8), ml_dtypes.int4(7), 15.0),
        (ml_dtypes.bfloat16(1), ml_dtypes.bfloat16(1.0078125), 0.0078125),
        (np.float32(np.inf), np.float32(1), np.inf),
        (np.float32(np.inf), np.float32(-np.inf), np.inf),
        (np.float32(np.nan), np.float32(1), np.nan),
        (np.complex64(3j), np.complex64(4), 5.0),
    ],
)
def test_numbers_of_every_kind_are_compared_exactly(one: Any, two: Any, largest: float) -> None:
    leaf = treeload.diff({"w": one}, {"w": two})["w"]
    assert leaf.differing == 1
    np.testing.assert_array_equal(leaf.largest, largest)


def test_nan_is_nan_zero_is_zero_and_a_denormal_is_not() -> None:
    one = np.array([np.nan, 0.0, np.inf], np.float32)
    two = np.array([-np.nan, -0.0, np.inf], np.float32)
    assert treeload.diff({"w": one}, {"w": two}).equal
    assert treeload.diff({"w": jnp.float32(1e-45)}, {"w": jnp.float32(0)})["w"].differing == 1


def test_large_leaves_are_compared_in_pieces_to_the_last_element() -> None:
    one = np.zeros(400_001, np.float32)
    two = one.copy()
    two[[0, 200_000, 400_000]] = [1, np.nan, 2]
    leaf = treeload.diff({"w": one}, {"w": two})["w"]
    assert leaf.differing == 3
    assert leaf.largest is not None and math.isnan(leaf.largest)


def test_keys_are_compared_by_their_bits() -> None:
    one, two = jax.random.split(jax.random.key(0), 3), jax.random.split(jax.random.key(0), 3)
    assert treeload.diff({"k": one}, {"k": two}).equal
    leaf = treeload.diff({"k": one}, {"k": one.at[1].set(jax.random.key(5))})["k"]
    assert (leaf.kind, leaf.differing, leaf.largest) == ("values", 1, None)


def test_infinitely_far_is_as_far_as_all_of_it() -> None:
    one: Any = [np.inf, 1.0]
    two: Any = [1.0, 1.5]
    leaf = treeload.diff({"w": np.float32(one)}, {"w": np.float32(two)})["w"]
    assert (leaf.largest, leaf.relative) == (np.inf, 1.0)


# Structure.


def test_structure_shapes_and_dtypes_are_told_apart() -> None:
    one = {"a": jnp.ones(2), "b": jnp.ones(2), "c": jnp.ones(2), "n": jnp.ones(2), "none": None}
    two = {"b": jnp.ones(3), "c": jnp.ones(2, jnp.bfloat16), "d": jnp.ones(2), "n": jnp.ones(2)}
    found = treeload.diff(one, two)
    assert not found.equal
    kinds = {"a": "only in a", "b": "shape", "c": "dtype", "n": "equal", "d": "only in b"}
    assert {str(leaf.name): leaf.kind for leaf in found} == kinds
    assert [str(leaf.name) for leaf in found] == ["a", "b", "c", "n", "d"]
    assert [leaf.name for leaf in found.only_in_a] == [("a",)]
    assert [leaf.name for leaf in found.only_in_b] == [("d",)]
    assert [leaf.name for leaf in found.shapes] == [("b",)]
    assert [leaf.name for leaf in found.dtypes] == [("c",)]
    assert found.values == ()


def test_leaves_of_two_dtypes_are_compared_by_value_too() -> None:
    wide: Any = [1, 3.001]
    leaf = treeload.diff({"w": np.float32(wide)}, {"w": jnp.array([1, 3], jnp.bfloat16)})["w"]
    assert (leaf.kind, leaf.differing) == ("dtype", 1)
    assert leaf.largest == pytest.approx(0.001, rel=1e-3)
    assert treeload.diff({"w": np.float16(1)}, {"w": ml_dtypes.bfloat16(1)})["w"].differing == 0


def test_a_key_and_its_raw_bits_are_a_difference_of_shape() -> None:
    key = jax.random.key(0)
    assert treeload.diff({"k": key}, {"k": jax.random.key_data(key)})["k"].kind == "shape"
    assert treeload.diff({"k": key}, {"k": jnp.uint32(0)})["k"].kind == "dtype"


def test_a_tie_is_no_difference_where_the_other_side_has_one_of_its_names(tmp_path: Path) -> None:
    shared = jnp.ones(2)
    tied = {"embed": shared, "head": shared}
    for other in ({"embed": shared}, {"head": jnp.ones(2)}, {"embed": jnp.ones(2), "head": jnp.ones(2)}):
        assert treeload.diff(tied, other).equal
        assert treeload.diff(other, tied).equal
    treeload.save(tmp_path / "tied", tied)
    assert treeload.diff(tmp_path / "tied", tied).equal
    assert len(treeload.diff(tmp_path / "tied", tied)) == 1


def test_both_names_of_a_tie_are_compared_where_the_other_side_keeps_them_apart() -> None:
    shared = jnp.ones(2)
    found = treeload.diff({"embed": shared, "head": shared}, {"embed": jnp.ones(2), "head": jnp.zeros(2)})
    assert {str(leaf.name): leaf.kind for leaf in found} == {"embed": "equal", "head": "values"}


def test_a_leaf_that_only_one_side_has_under_two_names_is_one_difference() -> None:
    shared = jnp.ones(2)
    found = treeload.diff({"x": shared, "y": shared}, {})
    assert [str(leaf.name) for leaf in found.only_in_a] == ["x"]


def test_types_of_containers_are_no_difference() -> None:
    model = nnx.Linear(2, 3, rngs=nnx.Rngs(0))
    assert treeload.diff(model, treeload.state(model)).equal
    assert treeload.diff({"l": [jnp.ones(1)]}, {"l": {"0": jnp.ones(1)}}).equal


# Sources and rules.


def test_rules_map_the_names_and_layouts_of_a_to_those_of_b(tmp_path: Path) -> None:
    torch_like = {f"layers.{i}.weight": np.arange(6.0).reshape(2, 3) + i for i in range(2)}
    scanned = {"layers": {"kernel": np.stack([np.arange(6.0).reshape(2, 3).T + i for i in range(2)])}}
    rules = Stack("layers/{i}/weight", "layers/kernel", Transpose(), axis=0)
    assert treeload.diff(From(torch_like, separator="."), scanned, rules=rules).equal
    treeload.save(tmp_path / "scanned", {"model": scanned})
    assert treeload.diff(
        From(torch_like, separator="."), From(tmp_path / "scanned", subtree="model"), rules=[rules]
    ).equal


def test_a_rule_that_does_nothing_is_an_error() -> None:
    tree = {"w": jnp.ones(2)}
    with pytest.raises(RuleError, match="matched nothing"):
        treeload.diff(tree, tree, rules=Rename("weight", "w"))
    with pytest.raises(RuleError, match="two leaves would be called 'w'"):
        treeload.diff({"v": jnp.ones(2), **tree}, tree, rules=Rename("v", "w"))
    with pytest.raises(RuleError, match="Tie"):
        treeload.diff(tree, tree, rules=Tie("v", "w"))


def test_boxes_of_a_plain_orbax_save_are_transparent_on_either_side(tmp_path: Path) -> None:
    from orbax.checkpoint import v1 as ocp

    model = nnx.Linear(2, 3, rngs=nnx.Rngs(0))
    ocp.save(tmp_path / "plain", nnx.state(model))
    assert treeload.diff(model, tmp_path / "plain").equal
    assert treeload.diff(tmp_path / "plain", model).equal


def test_an_abstract_side_is_an_error() -> None:
    with pytest.raises(SourceError, match="abstract"):
        treeload.diff({"w": jnp.ones(2)}, {"w": jax.ShapeDtypeStruct((2,), jnp.float32)})


class Generated(Source):
    """Leaves of 1 MiB that exist while somebody holds them, given in either order."""

    label = "generated"

    def __init__(self, order: int) -> None:
        self.order = order

    def specs(self) -> dict[Name, Any]:
        return {Name(("w", str(n))): jax.ShapeDtypeStruct((1 << 18,), np.float32) for n in range(24)}

    def read(self, requests: Mapping[Name, Any]) -> Iterator[tuple[Name, Any]]:
        for name in list(requests)[:: self.order]:
            yield name, np.full(1 << 18, int(name[1]), np.float32)


def test_the_order_in_which_a_source_gives_its_leaves_does_not_matter() -> None:
    assert treeload.diff(Generated(1), Generated(-1)).equal


def test_the_peak_of_memory_is_a_leaf_of_each(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_view, "_BYTES_AT_ONCE", 1 << 20)
    tracemalloc.start()
    try:
        assert treeload.diff(Generated(1), Generated(1)).equal
        peak = tracemalloc.get_traced_memory()[1] / 2**20
    finally:
        tracemalloc.stop()
    assert peak < 6


# How it is told.


def test_the_report_is_grouped_and_readable() -> None:
    def tree(shift: float) -> Any:
        layers = [{"kernel": jnp.ones((3, 4)) + shift * (i > 2), "bias": jnp.zeros(4)} for i in range(12)]
        return {"layers": layers, "step": 3}

    one = {**tree(0.0), "head": {"kernel": jnp.ones((4, 2))}, "scale": jnp.ones(1), "pos": jnp.ones((1, 5))}
    two = {
        **tree(0.5),
        "new": [jnp.ones(1), jnp.ones(1)],
        "scale": jnp.ones(1, jnp.float16),
        "pos": jnp.ones((1, 7)),
    }
    text = str(treeload.diff(one, two))
    assert text.splitlines() == [
        "14 of 30 leaves differ: 1 only in a, 2 only in b, 1 in shape, 1 in dtype, 9 in",
        "  values",
        "  a  a tree in memory",
        "  b  a tree in memory",
        "",
        "only in a",
        "  head/kernel  float32[4,2]",
        "",
        "only in b",
        "  new/{0,1} ×2  float32[1]",
        "",
        "other shapes",
        "  pos  float32[1,5] -> float32[1,7]",
        "",
        "other dtypes",
        "  scale  float32[1] -> float16[1]",
        "",
        "other values",
        "  layers/{3..11}/kernel ×9  float32[3,4]  108 of 108, max |Δ| 0.5, relative 0.33",
    ]


def test_no_line_is_wider_than_80_columns_and_a_thousand_differences_are_a_page() -> None:
    names = [f"block_{chr(97 + i % 26)}{'x' * (i % 40)}_{i * i}q" for i in range(1000)]
    one = {name: {"some_quite_long_name": np.ones(1 + i)} for i, name in enumerate(names)}
    found = treeload.diff(one, {})
    lines = str(found).splitlines()
    assert len(lines) < 60
    assert max(map(len, lines)) <= 80
    assert "976 more" in lines[-1]
    assert len(found.to_dict()["leaves"]) == 1000


def test_equal_trees_are_one_line_and_their_names() -> None:
    found = treeload.diff({"w": jnp.ones(1)}, {"w": jnp.ones(1)})
    assert str(found) == "1 leaf, no difference\n  a  a tree in memory\n  b  a tree in memory"


def test_the_dict_is_json_and_holds_every_leaf() -> None:
    found = treeload.diff({"w": jnp.array([jnp.nan, 1.0]), "n": 1}, {"w": jnp.array([0.0, 1.0]), "m": 1})
    data = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert data["equal"] is False
    assert data["leaves"][1] == {
        "name": "w",
        "kind": "values",
        "a": {"shape": [2], "dtype": "float32"},
        "b": {"shape": [2], "dtype": "float32"},
        "differing": 1,
        "largest": "nan",
        "relative": "nan",
    }


def test_a_leaf_is_found_by_any_form_of_its_name() -> None:
    found = treeload.diff({"a": {"b/c": 1}}, {"a": {"b/c": 2}})
    assert found[r"a/b\/c"] is found["a", "b/c"] is found[Name(("a", "b/c"))]
    with pytest.raises(KeyError, match="neither"):
        found["a"]


# Under other names.


def test_a_tree_under_another_prefix_is_told_with_its_rule() -> None:
    a, b = {"stem": {"w": jnp.ones(2)}}, {"stem2": {"w": jnp.ones(2)}}
    found = treeload.diff(a, b)
    said = "in how they begin, and in nothing else:\nrules=[Rename('stem/{*rest}', 'stem2/{*rest}')]"
    assert str(found).endswith(said)
    assert found.renamed is not None and treeload.diff(a, b, rules=[found.renamed]).equal


def test_a_tree_under_other_names_is_told_by_its_shapes() -> None:
    a = {"q": jnp.ones((2, 3)), "k": jnp.ones(4), "c": jnp.ones(5), "x": jnp.ones(9)}
    b = {"query": jnp.ones((2, 3)), "key": jnp.ones(4), "c": jnp.ones(5)}
    found = treeload.diff(a, b)
    assert found.renamed is None
    assert "few leaves are under one name, and 2 of 2 leaves have a shape" in str(found).replace("\n", " ")
    without = treeload.diff({k: a[k] for k in "qk"}, {k: b[k] for k in ("query", "key")})
    assert "nothing is under one name" in str(without)


@pytest.mark.parametrize(
    ("a", "b", "rules"),
    [
        ({"a": jnp.ones(2)}, {"b": jnp.ones(3)}, ()),  # no shape that both have
        ({"a": jnp.ones(2), "c": jnp.ones(2), "d": jnp.ones(2)}, {"c": jnp.ones(2), "d": jnp.ones(2)}, ()),
        ({c: jnp.ones(2) for c in "abc"}, {c: jnp.ones(2) for c in "abd"}, ()),  # most is under one name
        ({"a": jnp.ones(2)}, {"b": jnp.ones(2)}, [Rename("a", "c")]),  # another rule would not see ``a``
        ({"a": jnp.ones(2)}, {"a": jnp.zeros(2)}, ()),
    ],
)
def test_where_names_are_not_all_that_differs_no_rule_is_spoken_of(a: Any, b: Any, rules: Any) -> None:
    assert "rules=" not in str(treeload.diff(a, b, rules=rules))


def test_a_rule_that_was_written_from_b_to_a_is_turned_round() -> None:
    a, b = {"stem": {"w": jnp.ones(2)}}, {"stem2": {"w": jnp.ones(2)}}
    turned = r"turned round it matches 1: Rename\('stem/\{\*r\}', 'stem2/\{\*r\}'\)$"
    with pytest.raises(RuleError, match=turned):
        treeload.diff(a, b, rules=[Rename("stem2/{*r}", "stem/{*r}")])
    with pytest.raises(RuleError, match="`stem/w` matches 1 leaf of the source"):
        treeload.diff(a, b, rules=[Rename("stam/w", "stem2/w")])
