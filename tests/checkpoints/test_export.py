"""A tree goes back into the names, dtypes and layout of the source it came from, or nothing is written."""

from __future__ import annotations

import weakref
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from flax import nnx
from safetensors.numpy import load_file, save_file

import treeload
from treeload import (
    BIAS,
    Apply,
    Cast,
    Concat,
    From,
    Pad,
    Policy,
    Rename,
    Reshape,
    RuleError,
    SaveError,
    Slice,
    Split,
    Stack,
    Tie,
    Transpose,
    Unstack,
)
from treeload._checkpoints import undo
from treeload._formats.orbax import leaves as _leaves
from treeload.rules import linen_to_nnx, nnx_to_linen

rng = np.random.default_rng(0)


def normal(*shape: int, dtype: Any = np.float32) -> np.ndarray[Any, Any]:
    return rng.normal(size=shape).astype(dtype)


def leaves(path: Path) -> dict[str, tuple[Any, ...]]:
    """Every leaf of a checkpoint, bit for bit."""
    source = treeload.open(path)
    return {
        str(name): (array.shape, str(array.dtype), np.asarray(array).tobytes())
        for name, array in source.read(source.specs())
    }


def causal(layers: int = 3) -> dict[str, np.ndarray[Any, Any]]:
    """A small causal model as PyTorch lays it out, in the order of a real file."""
    model = {"wte.weight": normal(5, 4, dtype=ml_dtypes.bfloat16)}
    for i in range(layers):
        model[f"h.{i}.attn.c_attn.weight"] = normal(12, 4)
        model[f"h.{i}.mlp.weight"] = normal(8, 4, dtype=np.float16)
        model[f"h.{i}.ln.bias"] = normal(4)
    return {**model, "ln_f.weight": normal(4, dtype=np.float64), "step": np.asarray(7, np.int64)}


CAUSAL = [
    Rename("wte/weight", "embed/embedding"),
    Split("h/{i}/attn/c_attn/weight", [f"layers/{{i}}/{n}/kernel" for n in "qkv"], Transpose(), axis=0),
    Stack("h/{i}/mlp/weight", "mlp/kernel", Transpose(), axis=0),
    Rename("h/{i}/ln/bias", "layers/{i}/ln/bias"),
    Rename("ln_f/weight", "norm/scale"),
]


def causal_tree(layers: int = 3, kind: Any = jnp.zeros) -> dict[str, Any]:
    return {
        "embed": {"embedding": kind((5, 4), jnp.bfloat16)},
        "layers": [
            {**{n: {"kernel": kind((4, 4))} for n in "qkv"}, "ln": {"bias": kind((4,))}} for _ in range(layers)  # noqa: E501
        ],
        "mlp": {"kernel": kind((layers, 4, 8), jnp.float16)},
        "norm": {"scale": np.zeros(4)},
        "step": 0,
    }  # fmt: skip


# The law: loaded and exported again is the same, bit for bit.


def on_host(shape: tuple[int, ...], dtype: Any = np.float32) -> np.ndarray[Any, Any]:
    return np.zeros(shape, dtype)


@pytest.mark.parametrize("kind", [jnp.zeros, on_host])
@pytest.mark.parametrize("how", ["like", "rules"])
def test_a_safetensors_file_comes_back_byte_for_byte(tmp_path: Path, how: str, kind: Any) -> None:
    save_file(causal(), tmp_path / "a.safetensors", metadata={"format": "pt", "näme": "ü"})
    rules = [rule for rule in CAUSAL if how == "like" or not isinstance(rule, Split)]
    dst = causal_tree(kind=kind)
    if how == "rules":
        rules.append(
            Split(
                "h/{i}/attn/c_attn/weight",
                [f"layers/{{i}}/{n}/kernel" for n in "qkv"],
                Transpose(),
                axis=0,
                sizes=(4, 4, 4),
            )
        )
    plan = treeload.plan(dst, tmp_path / "a.safetensors", rules=rules)
    loaded = plan.load()
    given = {"like": plan} if how == "like" else {"rules": rules}
    treeload.export(tmp_path / "b.safetensors", loaded, **given)
    assert leaves(tmp_path / "b.safetensors") == leaves(tmp_path / "a.safetensors")
    if how == "like":
        a, b = treeload.open(tmp_path / "a.safetensors"), treeload.open(tmp_path / "b.safetensors")
        assert dict(b.metadata) == dict(a.metadata)
        assert list(b.specs()) == list(a.specs())
    assert load_file(tmp_path / "b.safetensors").keys() == causal().keys()


def test_an_orbax_checkpoint_comes_back_with_its_metadata(tmp_path: Path) -> None:
    src = {"params": {"Dense_0": {"kernel": normal(3, 2), "bias": normal(2)}}, "step": np.int32(3)}
    treeload.save(tmp_path / "a", src, metadata={"run": [1, 2]})
    dst = {"net": {"kernel": jnp.zeros((2, 3)), "bias": jnp.zeros(2)}, "step": jnp.int32(0)}
    rules = [
        Rename("params/Dense_0/kernel", "net/kernel", Transpose()),
        Rename("params/{*p}/bias", "net/bias"),
    ]
    plan = treeload.plan(dst, tmp_path / "a", rules=rules)
    treeload.export(tmp_path / "b", plan.load(), like=plan)
    assert leaves(tmp_path / "b") == leaves(tmp_path / "a")
    a, b = (treeload.open(tmp_path / each).metadata for each in "ab")
    assert b["run"] == a["run"] == [1, 2]


def test_what_an_orbax_checkpoint_records_beside_its_arrays_comes_back(tmp_path: Path) -> None:
    shared = nnx.Param(jnp.ones(3))

    class Tied(nnx.Module):
        def __init__(self) -> None:
            self.embed, self.head = shared, shared
            self.linear = nnx.Linear(2, 2, use_bias=False, rngs=nnx.Rngs(0))

    treeload.save(tmp_path / "a", Tied())
    plan = treeload.plan(Tied(), tmp_path / "a")
    treeload.export(tmp_path / "b", plan.load(), like=plan)
    a, b = treeload.open(tmp_path / "a"), treeload.open(tmp_path / "b")
    assert a.ties()
    assert (b.ties(), b.absent()) == (a.ties(), a.absent())


def test_another_dtype_in_the_destination_becomes_the_sources_again(tmp_path: Path) -> None:
    save_file({f"l.{i}.w": normal(2, 3, dtype=np.float16) for i in range(4)}, tmp_path / "a.safetensors")
    plan = treeload.plan(
        {"w": jnp.zeros((4, 3, 2))}, tmp_path / "a.safetensors", rules=Stack("l/{i}/w", "w", Transpose())
    )
    treeload.export(tmp_path / "b.safetensors", plan.load(), like=plan)
    assert leaves(tmp_path / "b.safetensors") == leaves(tmp_path / "a.safetensors")


@pytest.mark.parametrize(
    ("src", "dst", "rules"),
    [
        ({"q": normal(2), "k": normal(3)}, {"qk": (5,)}, [Concat(["q", "k"], "qk")]),
        ({"w": normal(3, 4)}, {f"l{i}": (4,) for i in range(3)}, [Unstack("w", "l{i}")]),
        ({"w": normal(6)}, {"w": (2, 3)}, [Rename("w", "w", Reshape(2, -1))]),
        ({"w": normal(3, 2)}, {"w": (5, 2)}, [Rename("w", "w", Pad(5))]),
        ({"w": normal(3, 2)}, {"w": (5, 2)}, [Rename("w", "w", Pad(5, fill=2))]),
        ({"w": normal(2, dtype=np.float16)}, {"w": (2,)}, [Rename("w", "w", Cast("float32"))]),
        ({"w": normal(2)}, {"w": (2,)}, [Rename("w", "w", Apply(lambda x: x * 2, lambda x: x / 2))]),
        ({"w": normal(2, 3, 4)}, {"w": (4, 2, 3)}, [Rename("w", "w", Transpose(-1, 0, 1))]),
        ({"a": normal(2), "b": normal(2)}, {"a": (2,), "b": (2,)}, [Rename("a", "b"), Rename("b", "a")]),
    ],
)  # fmt: skip
def test_every_op_and_rule_that_loses_nothing_goes_back_by_the_plan(
    tmp_path: Path, src: Any, dst: Any, rules: Any
) -> None:
    save_file(src, tmp_path / "a.safetensors")
    tree = {name: jnp.zeros(shape) for name, shape in dst.items()}
    plan = treeload.plan(tree, tmp_path / "a.safetensors", rules=rules)
    treeload.export(tmp_path / "b.safetensors", plan.load(), like=plan)
    assert leaves(tmp_path / "b.safetensors") == leaves(tmp_path / "a.safetensors")


def test_a_chain_of_rules_through_a_from_goes_back(tmp_path: Path) -> None:
    save_file({f"m.h.{i}.qkv": normal(6, 2) for i in range(3)}, tmp_path / "a.safetensors")
    src = From(tmp_path / "a.safetensors", subtree="m", rules=Stack("h/{i}/qkv", "qkv", axis=1))
    dst = {"net": {name: jnp.zeros((2, 3, 2)) for name in "qkv"}}
    plan = treeload.plan(dst, src, rules=Split("qkv", [f"net/{n}" for n in "qkv"], axis=0))
    treeload.export(tmp_path / "b.safetensors", plan.load(), like=plan)
    assert leaves(tmp_path / "b.safetensors") == leaves(tmp_path / "a.safetensors")


# What the tree has and the source has not, and the other way round.


def test_a_kept_head_keeps_its_own_name(tmp_path: Path) -> None:
    save_file({"encoder.weight": normal(2)}, tmp_path / "a.safetensors")
    dst = {"enc": {"w": jnp.zeros(2)}, "head": {"kernel": jnp.ones(3)}}
    plan = treeload.plan(
        dst,
        tmp_path / "a.safetensors",
        rules=Rename("encoder/weight", "enc/w"),
        policy=Policy(missing={"head/**": "keep"}),
    )
    treeload.export(tmp_path / "b.safetensors", plan.load(), like=plan)
    assert set(leaves(tmp_path / "b.safetensors")) == {"encoder/weight", "head/kernel"}


def test_a_bias_that_was_absent_stays_absent_while_it_is_zero(tmp_path: Path) -> None:
    save_file({"d.kernel": normal(2, 2)}, tmp_path / "a.safetensors")
    dst = {"d": {"kernel": jnp.zeros((2, 2)), "bias": jnp.ones(2)}}
    plan = treeload.plan(dst, tmp_path / "a.safetensors", policy=Policy(absent_is_zero=BIAS))
    loaded = plan.load()
    treeload.export(tmp_path / "b.safetensors", loaded, like=plan)
    assert leaves(tmp_path / "b.safetensors") == leaves(tmp_path / "a.safetensors")
    loaded["d"]["bias"] = jnp.array([0.0, 0.5])
    with pytest.raises(SaveError, match=r"d/bias is absent in the source"):
        treeload.export(tmp_path / "c.safetensors", loaded, like=plan)
    assert not (tmp_path / "c.safetensors").exists()


def test_a_zero_bias_that_the_destination_lacks_is_written_again(tmp_path: Path) -> None:
    save_file({"d.kernel": normal(2, 2), "d.bias": np.zeros(2, np.float32)}, tmp_path / "a.safetensors")
    plan = treeload.plan(
        {"d": {"kernel": jnp.zeros((2, 2)), "bias": None}},
        tmp_path / "a.safetensors",
        policy=Policy(absent_is_zero=BIAS),
    )
    treeload.export(tmp_path / "b.safetensors", plan.load(), like=plan)
    assert leaves(tmp_path / "b.safetensors") == leaves(tmp_path / "a.safetensors")


def test_a_leaf_that_the_source_stores_under_two_names_is_written_under_both(tmp_path: Path) -> None:
    w = normal(3)
    save_file({"embed.w": w, "head.w": w.copy()}, tmp_path / "a.safetensors")
    one = jnp.zeros(3)
    plan = treeload.plan({"embed": {"w": one}, "head": {"w": one}}, tmp_path / "a.safetensors")
    treeload.export(tmp_path / "b.safetensors", plan.load(), like=plan)
    assert leaves(tmp_path / "b.safetensors") == leaves(tmp_path / "a.safetensors")


def test_a_tied_leaf_is_left_out_while_it_is_tied(tmp_path: Path) -> None:
    rules = [Rename("wte", "embed"), Tie("head", "embed", Transpose())]
    tree = {"embed": normal(3, 2)}
    tree["head"] = tree["embed"].T.copy()
    treeload.export(tmp_path / "a.safetensors", tree, rules=rules)
    assert set(leaves(tmp_path / "a.safetensors")) == {"wte"}
    tree["head"][0, 0] += 1
    with pytest.raises(SaveError, match="head is no longer tied to embed"):
        treeload.export(tmp_path / "b.safetensors", tree, rules=rules)
    assert not (tmp_path / "b.safetensors").exists()


def test_a_piece_that_is_missing_is_named(tmp_path: Path) -> None:
    save_file({"qkv": normal(6)}, tmp_path / "a.safetensors")
    policy = Policy(unexpected={"v": "ignore"})
    dst = {"q": jnp.zeros(2), "k": jnp.zeros(2)}
    plan = treeload.plan(dst, tmp_path / "a.safetensors", rules=Split("qkv", ["q", "k", "v"]), policy=policy)
    with pytest.raises(SaveError, match=r"qkv: only 4 of 6 elements come back, from (q, k|k, q)"):
        treeload.export(tmp_path / "b.safetensors", plan.load(), like=plan)


# What cannot be undone is said by name, before anything is written.


@pytest.mark.parametrize("suffix", ["", ".safetensors"])
@pytest.mark.parametrize(
    ("rule", "shape", "said"),
    [
        (Rename("w", "x", Slice(2)), (2,), r"x: Slice\(2\) loses something"),
        (Rename("w", "x", Apply(jnp.exp)), (4,), r"x: Apply\(exp\) loses something"),
        (Rename("w", "x", Cast("float16")), (4,), r"x: Cast\('float16'\) loses something"),
    ],
)
def test_an_op_that_loses_something_is_named_and_nothing_is_written(
    tmp_path: Path, rule: Rename, shape: Any, said: str, suffix: str
) -> None:
    plan = treeload.plan({"x": jnp.zeros(shape)}, {"w": normal(4)}, rules=rule)
    for given in ({"like": plan}, {"rules": rule}):
        with pytest.raises(SaveError, match=said if "like" in given else "cannot be turned round"):
            treeload.export(tmp_path / f"deep/out{suffix}", plan.load(), **given)
    assert list(tmp_path.iterdir()) == []


def test_padded_rows_that_were_trained_are_not_cut_off(tmp_path: Path) -> None:
    plan = treeload.plan({"w": jnp.zeros((4, 2))}, {"w": normal(3, 2)}, rules=Rename("w", "w", Pad(4)))
    trained = {"w": plan.load()["w"].at[3].set(1.0)}
    with pytest.raises(SaveError, match=r"w: the rows that Pad\(4\) added hold values now"):
        treeload.export(tmp_path / "a.safetensors", trained, like=plan)


def test_every_problem_is_said_at_once(tmp_path: Path) -> None:
    rules = [Rename("a", "x", Slice(2)), Rename("b", "y", Slice(2))]
    plan = treeload.plan(
        {"x": jnp.zeros(2), "y": jnp.zeros(2)}, {"a": normal(3), "b": normal(3)}, rules=rules
    )
    with pytest.raises(SaveError, match=r"(?s)x: .*y: "):
        treeload.export(tmp_path / "a.safetensors", plan.load(), like=plan)


def test_rules_that_do_not_lead_back_are_refused(tmp_path: Path) -> None:
    # The new leaf would be renamed when the file is loaded, and so would not come back as itself.
    tree = {"new": normal(2), "old": normal(2)}
    with pytest.raises(SaveError, match="do not lead back: loading by them would not give old"):
        treeload.export(tmp_path / "a.safetensors", tree, rules=Rename("old", "new"))
    assert list(tmp_path.iterdir()) == []


def test_a_rule_that_matches_nothing_of_the_tree_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SaveError, match="matched nothing"):
        treeload.export(tmp_path / "a.safetensors", {"w": normal(2)}, rules=Rename("old", "new"))


def test_a_tree_that_is_not_the_plans_is_refused(tmp_path: Path) -> None:
    plan = treeload.plan({"w": jnp.zeros(2)}, {"w": normal(2)})
    for tree, said in (
        ({}, "it lacks w"),
        ({"w": jnp.zeros(2), "x": jnp.zeros(2)}, "it also has x"),
        ({"w": jnp.zeros(3)}, r"w is \[3\] and was \[2\]"),
        ({"w": jax.ShapeDtypeStruct((2,), jnp.float32)}, "abstract: w"),
        ({"w": jnp.zeros(2, complex)}, "w is complex64 and cannot become the source's float32"),
    ):
        with pytest.raises(SaveError, match=said):
            treeload.export(tmp_path / "a.safetensors", tree, like=plan)
    assert list(tmp_path.iterdir()) == []


def test_a_plan_and_rules_are_one_too_many(tmp_path: Path) -> None:
    plan = treeload.plan({"w": jnp.zeros(2)}, {"w": normal(2)})
    with pytest.raises(RuleError, match="not both"):
        treeload.export(tmp_path / "a", {"w": normal(2)}, like=plan, rules=Rename("a", "b"))
    with pytest.raises(TypeError, match="dict"):
        treeload.export(tmp_path / "a", {"w": normal(2)}, like={})  # type: ignore[arg-type]


@pytest.mark.parametrize("suffix", ["", ".safetensors"])
def test_what_exists_is_never_replaced(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    path.write_text("mine")
    with pytest.raises(SaveError, match="exists"):
        treeload.export(path, {"w": normal(2)})
    assert path.read_text() == "mine"
    assert list(tmp_path.iterdir()) == [path]


def test_an_empty_tree_and_one_name_twice_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SaveError, match="nothing to write"):
        treeload.export(tmp_path / "a", {})
    with pytest.raises(SaveError, match=r"'a\.b'"):
        treeload.export(tmp_path / "a.safetensors", {"a.b": normal(1), "a": {"b": normal(1)}})
    two = [From({"w": normal(1)}, into="a"), From({"w": normal(1)}, into="b")]
    plan = treeload.plan({"a": {"w": jnp.zeros(1)}, "b": {"w": jnp.zeros(1)}}, two)
    with pytest.raises(SaveError, match="two leaves would have one name in the file: w"):
        treeload.export(tmp_path / "a.safetensors", plan.load(), like=plan)
    assert list(tmp_path.iterdir()) == []


# Cost.


def test_stacked_layers_go_back_as_views_and_not_as_copies(tmp_path: Path, monkeypatch: Any) -> None:
    from treeload._formats.safetensors import write as _safetensors_write

    plan = treeload.plan(
        {"w": jnp.zeros((4, 2))}, {"l": [{"w": normal(2)} for _ in range(4)]}, rules=Stack("l/{i}/w", "w")
    )
    tree = plan.load()
    seen = []
    monkeypatch.setattr(_safetensors_write, "write", lambda path, leaving, metadata: seen.extend(leaving))
    treeload.export(tmp_path / "a.safetensors", tree, like=plan)
    whole = np.asarray(tree["w"])
    assert len(seen) == 4
    assert all(np.shares_memory(array(), whole) for _, _, array in seen)


def test_a_cast_goes_back_layer_by_layer(tmp_path: Path, monkeypatch: Any) -> None:
    src = {"l": [{"w": normal(2, dtype=np.float16)} for _ in range(4)]}
    plan = treeload.plan({"w": jnp.zeros((4, 2))}, src, rules=Stack("l/{i}/w", "w"))
    cast_sizes = []
    cast = undo.cast

    def noted(array: Any, dtype: Any) -> Any:
        cast_sizes.append(array.size)
        return cast(array, dtype)

    monkeypatch.setattr(undo, "cast", noted)
    treeload.export(tmp_path / "a.safetensors", plan.load(), like=plan)
    assert cast_sizes == [2, 2, 2, 2]


# Flax's own rules.


def test_linens_collections_come_back_by_the_plan_but_not_by_the_rules(tmp_path: Path) -> None:
    src = {"params": {"bn": {"scale": normal(2)}}, "batch_stats": {"bn": {"mean": normal(2)}}}
    dst = {"bn": {"scale": jnp.zeros(2), "mean": jnp.zeros(2)}}
    plan = treeload.plan(dst, src, rules=linen_to_nnx())
    treeload.export(tmp_path / "a", plan.load(), like=plan)
    assert set(leaves(tmp_path / "a")) == {"params/bn/scale", "batch_stats/bn/mean"}
    with pytest.raises(SaveError, match="linen_to_nnx"):
        treeload.export(tmp_path / "b", plan.load(), rules=linen_to_nnx())
    treeload.export(tmp_path / "c", src, rules=nnx_to_linen())
    assert set(leaves(tmp_path / "c")) == {"bn/scale", "bn/mean"}


def test_arrays_that_are_made_are_not_held_together(tmp_path: Path, monkeypatch: Any) -> None:
    held, most = 0, 0

    def let_go(size: int) -> None:
        nonlocal held
        held -= size

    def transposed(self: Transpose, array: Any) -> Any:
        nonlocal held, most
        copy = np.array(array.T)
        held += copy.nbytes
        most = max(most, held)
        weakref.finalize(copy, let_go, copy.nbytes)
        return copy

    layers = {f"l{at}": normal(512, 512) for at in range(40)}  # of 1 MiB
    rules = [Rename("l{i}", "m{i}", Transpose())]
    plan = treeload.plan({f"m{at}": jnp.zeros((512, 512)) for at in range(40)}, layers, rules=rules)
    tree = plan.load()
    monkeypatch.setattr(_leaves, "_MADE", 4 << 20)
    monkeypatch.setattr(Transpose, "apply", transposed)
    treeload.export(tmp_path / "x", tree, like=plan)
    assert 0 < most <= 6 << 20
    assert {name: data for name, (_, _, data) in leaves(tmp_path / "x").items()} == {
        name: array.tobytes() for name, array in layers.items()
    }


@pytest.mark.parametrize("other", [ml_dtypes.float8_e4m3fn, ml_dtypes.int4])
def test_what_orbaxs_own_handlers_write_is_made_for_them(tmp_path: Path, other: Any) -> None:
    source = {"a": normal(3, 4), "b": np.ones((2, 3), other), "c": normal(5)}
    rules = [Rename("a", "x", Transpose()), Rename("b", "y", Transpose()), Rename("c", "z")]
    dst = {"x": jnp.zeros((4, 3)), "y": jnp.zeros((3, 2), other), "z": jnp.zeros(5)}
    plan = treeload.plan(dst, source, rules=rules)
    treeload.export(tmp_path / "x", plan.load(), like=plan)
    assert {name: data for name, (_, _, data) in leaves(tmp_path / "x").items()} == {
        name: array.tobytes() for name, array in source.items()
    }


# PRNG keys, which a safetensors file cannot hold.


class Dropped(nnx.Module):
    def __init__(self, rngs: nnx.Rngs) -> None:
        self.fc = nnx.Linear(2, 2, rngs=rngs)
        self.norm = nnx.BatchNorm(2, rngs=rngs)
        self.drop = nnx.Dropout(0.1, rngs=rngs)


def test_for_the_keys_of_a_module_it_is_said_how_to_leave_them_out(tmp_path: Path) -> None:
    model, path = Dropped(nnx.Rngs(0)), tmp_path / "e.safetensors"
    with pytest.raises(SaveError, match=r"no dtype for PRNG keys, such as 'drop/rngs/key' \(key<") as caught:
        treeload.export(path, model)
    code = str(caught.value).partition("leave them out, ")[2]
    eval(code, {"treeload": treeload, "nnx": nnx, "model": model})
    assert set(treeload.inspect(path).names) == {
        "fc/bias", "fc/kernel", "norm/bias", "norm/mean", "norm/scale", "norm/var",
    }  # fmt: skip


@pytest.mark.parametrize(
    "tree", [{"w": jnp.ones(2), "key": jax.random.key(0)}, nnx.Dict(key=jax.random.key(0))]
)
def test_for_other_keys_their_data_is_spoken_of(tmp_path: Path, tree: Any) -> None:
    with pytest.raises(SaveError, match=r"'key' .*in their place$") as caught:
        treeload.export(tmp_path / "e.safetensors", tree)
    assert "nnx.state" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_by_a_plan_the_keys_are_to_be_left_out_of_it(tmp_path: Path) -> None:
    tree = {"w": jnp.ones(2), "key": jax.random.key(0)}
    plan = treeload.plan(tree, {"w": np.ones(2, np.float32)}, policy=treeload.Policy(missing={"key": "keep"}))
    with pytest.raises(SaveError, match="plan, and export, a tree without them"):
        treeload.export(tmp_path / "e.safetensors", tree, like=plan)
