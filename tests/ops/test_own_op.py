"""Ops that a user writes, through public names alone, are treated as the ready-made ones are."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import treeload
from treeload import Op, Rename, RuleError, SaveError, Slice, TreeloadError, finetune


def spec(*shape: int, dtype: Any = np.float32) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, dtype)


@dataclass(frozen=True)
class Flip(Op):
    """The other way round along an axis: moves elements, with NumPy where they are NumPy's."""

    axis: int

    moves_only = on_host = True

    def infer(self, *specs: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
        (given,) = specs
        if not -len(given.shape) <= self.axis < len(given.shape):
            raise RuleError(f"{self!r} is for more axes than {len(given.shape)}")
        return given

    def apply(self, *arrays: Any) -> Any:
        (array,) = arrays
        return array[(*(slice(None),) * (self.axis % array.ndim), slice(None, None, -1))]

    def inverse(self, spec: jax.ShapeDtypeStruct | None = None) -> Op:
        return self


@dataclass(frozen=True)
class Times(Op):
    """Another scale: changes values, each at its place."""

    factor: float

    def infer(self, *specs: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
        return specs[0]

    def apply(self, *arrays: Any) -> Any:
        return (arrays[0] * self.factor).astype(arrays[0].dtype)

    def inverse(self, spec: jax.ShapeDtypeStruct | None = None) -> Op:
        return Times(1 / self.factor)


@dataclass(frozen=True)
class Interleave(Op):
    """Rows in turn: one of the first, one of the second, and so on."""

    takes_several = moves_only = True

    def infer(self, *specs: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((len(specs) * specs[0].shape[0], *specs[0].shape[1:]), specs[0].dtype)

    def apply(self, *arrays: Any) -> Any:
        return np.stack([np.asarray(each) for each in arrays], 1).reshape(-1, *arrays[0].shape[1:])

    def regions(self, *specs: jax.ShapeDtypeStruct) -> tuple[Any, ...]:
        return tuple((slice(start, None, len(specs)),) for start in range(len(specs)))


@dataclass(frozen=True)
class LeadingRow(Op):
    """A row of its own before the others."""

    adds = True

    def infer(self, *specs: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((specs[0].shape[0] + 1, *specs[0].shape[1:]), specs[0].dtype)

    def apply(self, *arrays: Any) -> Any:
        return np.concatenate([np.full_like(arrays[0][:1], 7), arrays[0]])

    def inverse(self, spec: jax.ShapeDtypeStruct | None = None) -> Op | None:
        return None if spec is None else Slice(1, spec.shape[0] + 1)


@dataclass(frozen=True)
class BelowTheirFirst(Op):
    """The destination's first row, and what is loaded below it."""

    onto_destination = True

    def infer(self, *specs: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((specs[0].shape[0] + 1, *specs[0].shape[1:]), specs[0].dtype)

    def apply(self, *arrays: Any) -> Any:
        raise AssertionError("the load calls apply_onto")

    def apply_onto(self, array: Any, destination: Any) -> Any:
        return np.concatenate([np.asarray(destination)[:1], np.asarray(array)])


def rows(count: int, start: float = 0) -> np.ndarray[Any, Any]:
    return np.arange(start, start + 2 * count, dtype=np.float32).reshape(count, 2)


# --- plan, load, report -----------------------------------------------------------------------------


@pytest.mark.parametrize("op", [Flip(0), Flip(-1), Times(2.0), Interleave(), LeadingRow()])
def test_what_it_infers_is_the_spec_of_what_it_gives(op: Op) -> None:
    for array in (rows(3), jnp.asarray(rows(3))):
        made = op.apply(array)
        assert op.infer(spec(3, 2)) == spec(*made.shape, dtype=made.dtype)


def test_it_plans_and_loads_and_is_printed_in_the_report() -> None:
    rules = Rename("w", "kernel", Flip(0), Times(2.0))
    plan = treeload.plan({"kernel": np.zeros((3, 2), np.float32)}, {"w": rows(3)}, rules=rules)
    assert plan["kernel"].ops == (Flip(0), Times(2.0))
    assert "Flip(axis=0)" in str(plan) and "Times(factor=2.0)" in str(plan)
    np.testing.assert_array_equal(plan.load()["kernel"], 2 * rows(3)[::-1])


def test_what_it_refuses_at_plan_time_is_a_finding() -> None:
    rules = Rename("w", "kernel", Flip(2))
    plan = treeload.plan({"kernel": np.zeros((3, 2), np.float32)}, {"w": rows(3)}, rules=rules)
    assert [(f.kind, f.message) for f in plan.errors] == [("rule", "Flip(axis=2) is for more axes than 2")]


def test_one_that_takes_several_makes_one_leaf_of_several() -> None:
    rules = Rename(["a", "b"], "w", Interleave(), Flip(0))
    dst = treeload.load({"w": np.zeros((4, 2), np.float32)}, {"a": rows(2), "b": rows(2, 8)}, rules=rules)
    np.testing.assert_array_equal(dst["w"][::-1], [[0, 1], [8, 9], [2, 3], [10, 11]])
    tie = treeload.Tie("both", ["a", "b"], Interleave())
    like = {"a": rows(2), "b": rows(2), "both": np.zeros((4, 2), np.float32)}
    tied = treeload.load(like, {"a": rows(2), "b": rows(2, 8)}, rules=tie)
    np.testing.assert_array_equal(tied["both"], dst["w"][::-1])


@pytest.mark.parametrize(
    "make", [lambda op: Rename(["a", "b"], "w", op), lambda op: treeload.Tie("w", ["a"], op)]
)
def test_one_that_does_not_say_so_takes_one_alone(make: Any) -> None:
    with pytest.raises(RuleError, match="makes one array of them"):
        make(Flip(0))


def test_a_part_of_its_result_may_be_the_destinations_own() -> None:
    rules = Rename("w", "w", BelowTheirFirst())
    dst = {"w": np.full((3, 2), 5, np.float16)}
    loaded = treeload.load(dst, {"w": rows(2)}, rules=rules)["w"]
    np.testing.assert_array_equal(loaded, [[5, 5], [0, 1], [2, 3]])
    assert loaded.dtype == np.float16
    abstract = treeload.plan({"w": spec(3, 2)}, {"w": rows(2)}, rules=rules)
    assert [finding.kind for finding in abstract.errors] == ["abstract"]


@pytest.mark.parametrize(
    ("lie", "given"),
    [(lambda array: array[:2], r"float32\[2,2\]"), (lambda array: array.astype(int), r"int64\[3,2\]")],
)
def test_a_result_onto_the_destination_that_is_not_what_it_said_is_found_out(lie: Any, given: str) -> None:
    class Liar(BelowTheirFirst):
        def apply_onto(self, array: Any, destination: Any) -> Any:
            return lie(destination)

    with pytest.raises(TreeloadError, match=rf"was to give float32\[3,2\] and gave {given} for w"):
        treeload.load({"w": rows(3)}, {"w": rows(2)}, rules=Rename("w", "w", Liar()))


# --- the way back -----------------------------------------------------------------------------------


def exported(path: Path, dst: Any, src: Any, rules: Any, change: Any = lambda tree: tree) -> Any:
    plan = treeload.plan(dst, src, rules=rules)
    treeload.export(path, change(plan.load()), like=plan)
    return treeload.open(path)


def same(source: treeload.Source, expected: dict[str, Any]) -> bool:
    found = treeload.load({name: np.zeros_like(array) for name, array in expected.items()}, source)
    return all(np.array_equal(found[name], array) for name, array in expected.items())


def test_it_is_exported_by_its_inverse_with_a_plan_and_without(tmp_path: Path) -> None:
    rules = Rename("w", "kernel", Flip(0), Times(2.0))
    source = exported(
        tmp_path / "a.safetensors", {"kernel": np.zeros((3, 2), np.float32)}, {"w": rows(3)}, rules
    )
    assert same(source, {"w": rows(3)})
    treeload.export(tmp_path / "b.safetensors", {"kernel": 2 * rows(3)[::-1]}, rules=rules)
    assert same(treeload.open(tmp_path / "b.safetensors"), {"w": rows(3)})


def test_one_that_joins_is_exported_by_the_regions_of_its_inputs(tmp_path: Path) -> None:
    src = {"a": rows(2), "b": rows(2, 8)}
    rules = Rename(["a", "b"], "w", Interleave())
    source = exported(tmp_path / "a.safetensors", {"w": np.zeros((4, 2), np.float32)}, src, rules)
    assert same(source, src)


def test_one_that_joins_and_does_not_say_where_cannot_be_exported(tmp_path: Path) -> None:
    class Silent(Interleave):
        def regions(self, *specs: jax.ShapeDtypeStruct) -> None:  # type: ignore[override]
            return None

    with pytest.raises(SaveError, match="of several leaves cannot be undone"):
        exported(
            tmp_path / "a.safetensors", {"w": np.zeros((4, 2), np.float32)}, {"a": rows(2), "b": rows(2)},
            Rename(["a", "b"], "w", Silent()),
        )  # fmt: skip


def test_what_it_added_is_cut_off_only_while_it_is_what_it_added(tmp_path: Path) -> None:
    dst, src, rules = {"w": np.zeros((4, 2), np.float32)}, {"w": rows(3)}, Rename("w", "w", LeadingRow())
    assert same(exported(tmp_path / "a.safetensors", dst, src, rules), {"w": rows(3)})
    with pytest.raises(SaveError, match=r"the rows that LeadingRow\(\) added hold values now"):
        exported(tmp_path / "b.safetensors", dst, src, rules, lambda tree: {"w": tree["w"] + 1})


def test_what_the_destination_gave_has_no_place_in_an_export(tmp_path: Path) -> None:
    class Undoable(BelowTheirFirst):
        def inverse(self, spec: jax.ShapeDtypeStruct | None = None) -> Op | None:
            return None if spec is None else Slice(1, spec.shape[0] + 1)

    with pytest.raises(SaveError, match="hold values now"):
        exported(tmp_path / "a.safetensors", {"w": rows(3)}, {"w": rows(2)}, Rename("w", "w", Undoable()))


# --- elsewhere --------------------------------------------------------------------------------------


def test_it_may_be_an_initializers(tmp_path: Path) -> None:
    treeload.save(tmp_path / "ckpt", {"w": rows(3)})
    for op, expected in ((Flip(0), rows(3)[::-1]), (Times(3.0), 3 * rows(3))):
        init = treeload.initializer(tmp_path / "ckpt", "w", op)
        np.testing.assert_array_equal(init(jax.random.key(0), (3, 2)), expected)
        jitted = jax.jit(lambda key, init=init: init(key, (3, 2)))
        np.testing.assert_array_equal(jitted(jax.random.key(0)), expected)


def test_an_initializer_reads_under_tracing_only_what_may_not_wait(tmp_path: Path) -> None:
    class Counted(Flip):
        def apply(self, *arrays: Any) -> Any:
            calls.append(self)
            return super().apply(*arrays)

    class Unsaid(Counted):
        on_host = False

    treeload.save(tmp_path / "ckpt", {"w": rows(3)})
    for op, count in ((Counted(0), 0), (Unsaid(0), 1)):
        calls: list[Op] = []
        init = treeload.initializer(tmp_path / "ckpt", "w", op)
        jax.eval_shape(lambda key, init=init: init(key, (3, 2)), jax.random.key(0))
        assert len(calls) == count


def test_a_parameters_moments_are_moved_with_it_and_not_recomputed() -> None:
    tx = optax.adam(0.1)
    old = tx.init({"w": jnp.zeros((3, 2))})
    old = (old[0]._replace(mu={"w": jnp.asarray(rows(3))}), *old[1:])
    params = {"w": jnp.zeros((3, 2))}
    moved = finetune.restore_optimizer(tx, params, old, rules=Rename("w", "w", Flip(0)))
    np.testing.assert_array_equal(moved[0].mu["w"], rows(3)[::-1])
    plan = finetune.plan_optimizer(tx, params, old, rules=Rename("w", "w", Times(2.0)))
    assert {finding.kind for finding in plan.errors} == {"rule"}
    assert "Times(factor=2.0) changes the parameter's values" in str(plan)


def test_only_what_is_done_to_each_element_alone_may_be_done_to_a_moment_of_another_shape() -> None:
    class Halved(Times):  # a power of two loses nothing, so this user says that moments may follow
        moves_only = elementwise = True

    def factored(_: Any) -> Any:
        return {"v_row": {"w": jnp.zeros(3)}}

    tx = optax.GradientTransformation(factored, lambda updates, state, params=None: (updates, state))
    params, stored = {"w": jnp.zeros((3, 2))}, {"v_row": {"w": jnp.ones(3)}}
    made = finetune.restore_optimizer(tx, params, stored, rules=Rename("w", "w", Halved(0.5)))
    np.testing.assert_array_equal(made["v_row"]["w"], [0.5, 0.5, 0.5])
    plan = finetune.plan_optimizer(tx, params, stored, rules=Rename("w", "w", Flip(0)))
    assert "Flip(axis=0) is for the parameter, and its v_row has another shape" in str(plan)
