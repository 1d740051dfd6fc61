"""All that cannot be saved is said at once, before a byte is written."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

import treeload
from treeload import SaveError
from treeload._formats.orbax.storable import problems_of_names, problems_of_values, refuse
from treeload._formats.orbax.write import Beside, How, write
from treeload._naming.name import Name


def test_everything_that_is_wrong_is_said_at_once(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    leaves = {
        Name(("a.b", "c")): np.ones(1),
        Name(("a", "b.c")): np.ones(1),
        Name(("text",)): "text",
        Name(("large",)): 2**70,
        Name(("wide",)): np.ones(2, np.longdouble),
        Name(("abstract",)): jax.ShapeDtypeStruct((2,), np.float32),
        Name(("deep",)): np.ones(1),
        Name(("deep", "er")): np.ones(1),
        Name(("\ud800",)): np.ones(1),
        Name(("nan",)): np.asarray([1, np.nan, np.inf, -np.inf]),
    }
    beside = Beside(aliases={Name(("alias",)): Name(("nowhere",))}, absent={Name(("nan",)): None})
    with pytest.raises(SaveError) as caught:
        write(
            tmp_path / "x",
            leaves,
            beside=beside,
            metadata={"f": object(), "treeload": 1},
            how=How(check_finite=True),
        )
    said = str(caught.value)
    assert said.startswith("13 things cannot be saved:\n  ")
    assert said.count("\n") == len(caught.value.problems) == 13
    for words in (
        "would store both as 'a.b.c'", "'text' is no array and no number, but str", "not fit into 64 bits",
        "'wide': Orbax cannot store", "'abstract' is abstract", "'deep' is a leaf and a subtree", "no valid",
        "'nan' holds 1 NaN and 2 Inf among its 4 numbers", "'alias' cannot be an alias of 'nowhere'",
        "'nan' is both a leaf and absent", "metadata 'f' cannot be written", "the key 'treeload'",
        "is no Orbax checkpoint: it is never replaced",
    ):  # fmt: skip
        assert sum(words in problem for problem in caught.value.problems) == 1, words
    assert os.listdir(tmp_path / "x") == []
    assert os.listdir(tmp_path) == ["x"]


def test_many_are_counted_and_all_are_in_the_error() -> None:
    with pytest.raises(SaveError, match=r"1,000 things cannot be saved:[\s\S]*\n  and 980 more") as caught:
        refuse([f"number {number}" for number in range(1000)])
    assert len(caught.value.problems) == 1000
    again = pickle.loads(pickle.dumps(caught.value))
    assert (str(again), again.problems) == (str(caught.value), caught.value.problems)


def test_one_is_said_without_ceremony_and_none_not_at_all() -> None:
    with pytest.raises(SaveError, match="^this one$"):
        refuse(["this one"])
    refuse([])


def _spread(values: Any) -> jax.Array:
    mesh = jax.sharding.Mesh(np.asarray(jax.devices()[:4]), ("x",))
    return jax.device_put(values, jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("x")))


BAD = np.asarray([0, np.nan, np.inf, 1, 2, 3, 4, -np.inf], np.float32)


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (BAD, "1 NaN and 2 Inf among its 8 numbers"),
        (BAD[:2], "1 NaN among its 2 numbers"),
        (jnp.asarray(BAD), "1 NaN and 2 Inf"),
        (_spread(BAD), "1 NaN and 2 Inf"),
        (BAD.astype(ml_dtypes.bfloat16), "1 NaN and 2 Inf"),
        (BAD.astype(ml_dtypes.float8_e5m2), "1 NaN and 2 Inf"),
        (BAD.astype(np.complex64), "1 NaN and 2 Inf"),
        (float("inf"), "1 Inf among its 1 numbers"),
        (np.full(3_000_000, np.nan, np.float16), "3,000,000 NaN among its 3,000,000 numbers"),
    ],
)
def test_what_is_not_finite_is_counted_on_request(value: Any, said: str) -> None:
    (problem,) = problems_of_values({Name(("a", "b")): value}, check_finite=True)
    assert problem.startswith("'a/b' holds ") and said in problem
    assert list(problems_of_values({Name(("a",)): value}, check_finite=False)) == []


@pytest.mark.parametrize(
    "value",
    [np.ones(3), 3, True, 1.5, jnp.ones(2), jax.random.key(0), np.zeros(2, ml_dtypes.int4), np.zeros(0)],
)
def test_what_is_finite_or_has_no_infinity_passes(value: Any) -> None:
    assert list(problems_of_values({Name(("a",)): value}, check_finite=True)) == []


def test_an_absence_that_is_a_flag_is_no_leaf_above_another() -> None:
    leaves = {Name(("a", "b")): np.ones(1)}
    assert list(problems_of_names(leaves, {}, {Name(("a",)): False})) == []
    assert len(list(problems_of_names(leaves, {}, {Name(("a",)): None}))) == 1


def test_save_refuses_nan_where_that_is_asked_for(tmp_path: Path) -> None:
    tree = {"w": jnp.asarray(BAD), "n": 3}
    with pytest.raises(SaveError, match="'w' holds 1 NaN and 2 Inf"):
        treeload.save(tmp_path / "x", tree, check_finite=True)
    assert os.listdir(tmp_path) == []
    treeload.save(tmp_path / "x", tree)
    treeload.save(tmp_path / "x", {"w": jnp.ones(2)}, check_finite=True, overwrite=True)
