"""Every way to go on that is printed does what it says: pasted, it loads what is right, or forgives by name.

A table of mistakes, each a small destination and a source, with what is right. What is printed for each is
evaluated as it stands, with treeload's public names and ``jax`` in scope. What is wrong today is in
``KNOWN``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import treeload
from treeload import BIAS, Concat, LoadError, Op, Plan, Policy, Rename, Rule
from treeload._naming.pattern import compile_pattern
from treeload._reports.going_on import GoingOn
from treeload._reports.problems import problems
from treeload._reports.ways import ways
from treeload._sources.memory import MemorySource

KNOWN: dict[tuple[str, str], str] = {
    (
        "transposed_kernels_of_layers",
        "empty",
    ): "each leaf came to its place, and its shape is forgiven by name",
    ("joined_names", "suggest"): "suggest() does not split joined names: it feeds kernels and leaves biases",
    (
        "joined_by_slashes",
        "suggest",
    ): "suggest() does not split joined names: it feeds kernels and leaves biases",
}
"""(the mistake, the law) → what is wrong."""

FORGIVING = ("to keep", "to leave it out", "for zeros", "if it must be zero", "to take", "to cast anyway")
SCOPE = {name: getattr(treeload, name) for name in treeload.__all__} | {"jax": jax}


@dataclass(frozen=True)
class Mistake:
    """A load that goes wrong.

    Attributes:
        dst, src, how: what ``plan`` is given.
        right: printed name → the right value; what is not named has none in the source.
        cure: what leads to these values: ``"suggest"``, ``"ops"`` of the findings, ``"forgive"`` where
            nothing but forgiveness does, ``"words"`` where only words can say it.
        by_name: what names that agree by accident load, where no rule is given.
    """

    dst: Any
    src: Any
    right: Mapping[str, Any] = field(default_factory=dict)
    cure: str = "suggest"
    how: Mapping[str, Any] = field(default_factory=dict)
    by_name: Mapping[str, Any] = field(default_factory=dict)

    def plan(self, *, rules: Any = (), policy: Policy | None = None) -> Plan:
        how = dict(self.how)
        how["rules"] = [*how.pop("rules", ()), *rules]
        if policy is not None:
            how["policy"] = policy
        return treeload.plan(self.dst, self.src, **how)


TABLE: dict[str, Callable[[], Mistake]] = {}


def mistake(make: Callable[[], Mistake]) -> Callable[[], Mistake]:
    TABLE[make.__name__] = make
    return make


def r(*shape: int, dtype: Any = np.float32, start: int = 1) -> Any:
    """An array none of whose values is another's, nor zero."""
    size = int(np.prod(shape))
    return (np.arange(start, start + size) + 100 * len(shape)).reshape(shape).astype(dtype)


def own(*shape: int, dtype: Any = np.float32) -> Any:
    """What a destination holds before: nothing that a source here has."""
    return np.full(shape, -1).astype(dtype)


def layers(count: int, start: int = 1, **leaves: tuple[int, ...]) -> dict[str, Any]:
    return {
        str(at): {
            name: r(*shape, start=start + 1000 * at + 10 * k)
            for k, (name, shape) in enumerate(leaves.items())
        }
        for at in range(count)
    }


def blank(tree: Any) -> Any:
    return jax.tree.map(lambda one: own(*one.shape, dtype=one.dtype), tree)


def flat(tree: Any) -> dict[str, Any]:
    """Printed name → array."""
    source = MemorySource(tree)
    return {str(name): one for name, one in source.read(source.specs())}


MLP = {"enc": {"kernel": r(4, 6), "bias": r(6)}, "head": {"kernel": r(6, 3), "bias": r(3)}}
DEEP = {"layers": layers(3, kernel=(4, 4, 1), bias=(4,)), "norm": {"scale": r(4, start=9)}}


# Names.


@mistake
def wrong_prefix():
    return Mistake(blank({"model": MLP}), {"params": MLP}, flat({"model": MLP}))


@mistake
def prefix_in_the_source():
    return Mistake(blank(MLP), {"params": MLP}, flat(MLP))


@mistake
def two_prefixes_in_the_source():
    return Mistake(blank(MLP), {"params": {"model": MLP}}, flat(MLP))


@mistake
def prefix_in_the_destination():
    return Mistake(blank({"module": MLP}), MLP, flat({"module": MLP}))


@mistake
def layers_renamed():
    src = {"blocks": DEEP["layers"], "norm": DEEP["norm"]}
    return Mistake(blank(DEEP), src, flat(DEEP))


@mistake
def layers_in_keys():
    src = {**{f"layer_{at}": one for at, one in DEEP["layers"].items()}, "norm": DEEP["norm"]}
    return Mistake(blank(DEEP), src, flat(DEEP))


@mistake
def layers_counted_from_one():
    src = {"layers": {str(int(at) + 1): one for at, one in DEEP["layers"].items()}, "norm": DEEP["norm"]}
    by_name = flat({"layers": {at: src["layers"][at] for at in ("1", "2")}})
    return Mistake(blank(DEEP), src, flat(DEEP), "suggest", by_name=by_name)


@mistake
def twelve_layers_into_sixteen():
    dst = {"layers": layers(16, w=(3,))}
    src = {"layers": layers(12, w=(3,))}
    return Mistake(blank(dst), src, flat(src), "forgive")


@mistake
def sixteen_layers_into_twelve():
    dst, src = {"layers": layers(12, w=(3,))}, {"layers": layers(16, w=(3,))}
    return Mistake(blank(dst), src, flat(dst), "forgive")


@mistake
def two_layers_missing_in_the_middle():
    src = layers(12, w=(3,))
    dst = blank({"layers": src})
    left = {at: one for at, one in src.items() if at not in ("3", "4")}
    return Mistake(dst, {"layers": left}, flat({"layers": left}), "forgive")


@mistake
def two_layers_too_many_in_the_middle():
    src = layers(12, w=(3,))
    dst = {at: one for at, one in src.items() if at not in ("3", "4")}
    return Mistake(blank({"layers": dst}), {"layers": src}, flat({"layers": dst}), "forgive")


@mistake
def joined_names():
    src = {"enc.kernel": MLP["enc"]["kernel"], "enc.bias": MLP["enc"]["bias"],
           "head.kernel": MLP["head"]["kernel"], "head.bias": MLP["head"]["bias"]}  # fmt: skip
    return Mistake(blank(MLP), src, flat(MLP))


@mistake
def joined_by_slashes():
    src = {"enc/kernel": MLP["enc"]["kernel"], "enc/bias": MLP["enc"]["bias"],
           "head/kernel": MLP["head"]["kernel"], "head/bias": MLP["head"]["bias"]}  # fmt: skip
    return Mistake(blank(MLP), src, flat(MLP))


@mistake
def integers_for_texts():
    src = {"layers": {int(at): one for at, one in DEEP["layers"].items()}, "norm": DEEP["norm"]}
    return Mistake(blank(DEEP), src, flat(DEEP), "none")


@mistake
def one_word_is_another():
    return Mistake({"fc": {"kernel": own(4, 6)}}, {"fc": {"weight": r(6, 4)}}, {"fc/kernel": r(6, 4).T})


@mistake
def a_number_in_a_list():
    return Mistake([], [r(2)], {}, "forgive")


@mistake
def letters_of_another_case():
    src = {"Enc": MLP["enc"], "Head": MLP["head"]}
    return Mistake(blank(MLP), src, flat(MLP))


# Parts of a source.


@mistake
def train_state_into_params():
    params = jax.tree.map(jnp.asarray, MLP)
    state = {"step": 7, "params": params, "opt_state": optax.adam(1e-3).init(params)}
    moments = jax.tree.map(lambda one: jnp.full(one.shape, 0.5, one.dtype), params)
    state["opt_state"] = (state["opt_state"][0]._replace(mu=moments, nu=moments), *state["opt_state"][1:])
    return Mistake(blank(MLP), state, flat(MLP))


@mistake
def params_and_ema():
    averages = jax.tree.map(lambda one: one / 2, MLP)
    return Mistake(blank(MLP), {"params": MLP, "ema_params": averages}, {}, "words")


@mistake
def student_and_teacher():
    other = jax.tree.map(lambda one: one / 2, MLP)
    return Mistake(blank(MLP), {"student": MLP, "teacher": other}, {}, "words")


@mistake
def params_into_train_state():
    dst = {"params": blank(MLP), "step": np.array(-1, np.int32)}
    return Mistake(dst, MLP, flat({"params": MLP}), "suggest")


@mistake
def wrong_subtree():
    src = {"encoder": MLP, "decoder": {"other": r(2, 7)}}
    how = {"src": treeload.From(src, subtree="decoder")}
    return Mistake(blank(MLP), how["src"], {}, "words")


@mistake
def model_and_batch_stats():
    dst = {"bn": {"scale": own(4), "mean": own(4)}}
    src = {"params": {"bn": {"scale": r(4)}}, "batch_stats": {"bn": {"mean": r(4, start=50)}}}
    return Mistake(dst, src, {"bn/scale": r(4), "bn/mean": r(4, start=50)})


# Absences.


@mistake
def a_missing_bias():
    src = {"enc": MLP["enc"], "head": {"kernel": MLP["head"]["kernel"]}}
    return Mistake(blank(MLP), src, flat(src), "forgive")


@mistake
def a_bias_too_many():
    dst = {"enc": MLP["enc"], "head": {"kernel": MLP["head"]["kernel"]}}
    return Mistake(blank(dst), MLP, flat(dst), "forgive")


@mistake
def an_absent_bias_in_the_source():
    src = {"enc": MLP["enc"], "head": {"kernel": MLP["head"]["kernel"], "bias": None}}
    return Mistake(blank(MLP), src, flat(src), "forgive")


@mistake
def an_absent_bias_in_the_destination():
    dst = {"w": own(3), "bias": False}
    return Mistake(dst, {"w": r(3), "bias": r(3, start=9)}, {"w": r(3)}, "forgive")


@mistake
def a_zero_bias_against_none():
    dst = {"w": own(3), "bias": None}
    return Mistake(dst, {"w": r(3), "bias": np.zeros(3, np.float32)}, {"w": r(3)}, "forgive")


@mistake
def a_bias_that_must_be_zero_and_is_not():
    dst = {"w": own(3), "bias": None}
    how = {"policy": Policy(absent_is_zero=BIAS)}
    return Mistake(dst, {"w": r(3), "bias": r(3)}, {"w": r(3)}, "words", how)


@mistake
def a_causal_mask_too_many():
    mask = np.tril(np.ones((1, 1, 4, 4), bool))
    dst = {"h": {str(at): {"attn": {"w": own(4)}} for at in range(2)}}
    src = {"h": {str(at): {"attn": {"w": r(4, start=at), "bias": mask}} for at in range(2)}}
    right = {f"h/{at}/attn/w": r(4, start=at) for at in range(2)}
    return Mistake(dst, src, right, "forgive")


@mistake
def a_causal_mask_of_floats():
    dst, src = {"w": own(4)}, {"w": r(4), "bias": np.tril(np.ones((1, 1, 4, 4), np.float32))}
    return Mistake(dst, src, {"w": r(4)}, "forgive")


@mistake
def a_tied_head_missing():
    table = own(5, 3)
    return Mistake(
        {"embed": table, "head": table}, {"embed": r(5, 3)}, {"embed": r(5, 3), "head": r(5, 3)}, "none"
    )


@mistake
def an_untied_head_missing():
    dst = {"embed": {"embedding": own(5, 3)}, "lm_head": {"kernel": own(3, 5)}}
    return Mistake(dst, {"embed": {"embedding": r(5, 3)}}, {"embed/embedding": r(5, 3)}, "forgive")


@mistake
def ties_that_differ():
    table = own(5, 3)
    src = {"embed": r(5, 3), "head": r(5, 3, start=70)}
    return Mistake({"embed": table, "head": table}, src, dict.fromkeys(src, r(5, 3)), "forgive")


@mistake
def a_head_kept_and_one_left_out():
    src = {"enc": MLP["enc"], "classifier": {"kernel": r(6, 9), "bias": r(9)}}
    return Mistake(blank(MLP), src, flat({"enc": MLP["enc"]}), "forgive")


@mistake
def a_scale_missing_beside_one_that_loads():
    dst = {"head": {"bias": own(3), "kernel": own(6, 3), "scale": own(3)}}
    return Mistake(dst, {"head": {"scale": r(3)}}, {"head/scale": r(3)}, "forgive")


@mistake
def one_expert_missing():
    src = {"moe": layers(8, up=(3, 2), down=(2, 3))}
    dst = blank(src)
    src = {"moe": {at: one for at, one in src["moe"].items() if at not in ("2", "5")}}
    return Mistake(dst, src, flat(src), "forgive")


@mistake
def many_leaves_missing_beside_others():
    dst = {"enc": {name: own(3, at + 1) for at, name in enumerate("abcdefg")} | {"kept": own(3)}}
    return Mistake(dst, {"enc": {"kept": r(3)}}, {"enc/kept": r(3)}, "forgive")


@mistake
def many_biases_missing_beside_one():
    dst = {name: {"bias": own(at + 1), "w": own(2)} for at, name in enumerate("abcdef")} | {
        "z": {"bias": own(3)}
    }
    src = {name: {"w": r(2, start=at)} for at, name in enumerate("abcdef")} | {"z": {"bias": r(3)}}
    return Mistake(dst, src, flat(src), "forgive")


# Shapes.


@mistake
def a_transposed_kernel():
    return Mistake(
        {"fc": {"kernel": own(4, 6)}}, {"fc": {"kernel": r(6, 4)}}, {"fc/kernel": r(6, 4).T}, "ops"
    )


@mistake
def transposed_kernels_of_layers():
    src = {"layers": layers(3, kernel=(5, 2))}
    dst = {"layers": {at: {"kernel": own(2, 5)} for at in src["layers"]}}
    return Mistake(dst, src, {name: one.T for name, one in flat(src).items()}, "ops")


@mistake
def a_convolution():
    dst, src = {"conv": {"kernel": own(3, 3, 2, 5)}}, {"conv": {"weight": r(5, 2, 3, 3)}}
    return Mistake(dst, src, {"conv/kernel": r(5, 2, 3, 3).transpose(2, 3, 1, 0)})


@mistake
def a_convolution_under_a_rule():
    dst, src = {"conv": {"kernel": own(3, 3, 2, 5)}}, {"conv": {"weight": r(5, 2, 3, 3)}}
    how = {"rules": [Rename("conv/weight", "conv/kernel")]}
    return Mistake(dst, src, {"conv/kernel": r(5, 2, 3, 3).transpose(2, 3, 1, 0)}, "ops", how)


@mistake
def a_convolution_in_one_axis():
    dst, src = {"conv": {"kernel": own(3, 2, 5)}}, {"conv": {"kernel": r(5, 2, 3)}}
    return Mistake(dst, src, {"conv/kernel": r(5, 2, 3).transpose(2, 1, 0)}, "ops")


@mistake
def axes_of_one():
    return Mistake({"scale": own(4)}, {"scale": r(1, 4)}, {"scale": r(1, 4)[0]}, "ops")


@mistake
def heads_joined():
    dst, src = {"q": {"kernel": own(6, 2, 4)}}, {"q": {"kernel": r(6, 8)}}
    return Mistake(dst, src, {"q/kernel": r(6, 8).reshape(6, 2, 4)}, "ops")


@mistake
def a_vocabulary_that_grew():
    dst, src = {"tok": {"embedding": own(7, 3)}}, {"tok": {"embedding": r(5, 3)}}
    return Mistake(dst, src, {"tok/embedding": np.concatenate([r(5, 3), own(2, 3)])}, "ops")


@mistake
def a_vocabulary_that_grew_abstract():
    dst = {"tok": {"embedding": jax.ShapeDtypeStruct((7, 3), np.float32)}}
    right = np.concatenate([r(5, 3), np.zeros((2, 3), np.float32)])
    return Mistake(dst, {"tok": {"embedding": r(5, 3)}}, {"tok/embedding": right}, "ops")


@mistake
def a_vocabulary_that_shrank():
    dst, src = {"tok": {"embedding": own(5, 3)}}, {"tok": {"embedding": r(7, 3)}}
    return Mistake(dst, src, {"tok/embedding": r(7, 3)[:5]}, "ops")


@mistake
def positions_that_grew():
    dst, src = {"pos_embed": own(1, 9, 3)}, {"pos_embed": r(1, 4, 3)}
    return Mistake(dst, src, {}, "forgive")


@mistake
def another_width():
    dst, src = {"tok": {"embedding": own(5, 4)}}, {"tok": {"embedding": r(5, 3)}}
    return Mistake(dst, src, {}, "forgive")


@mistake
def another_head():
    src = {"enc": MLP["enc"], "head": {"kernel": r(6, 50), "bias": r(50)}}
    return Mistake(blank(MLP), src, flat({"enc": MLP["enc"]}), "forgive")


@mistake
def scanned_from_layers():
    src = {"layers": layers(3, kernel=(4, 5), bias=(5,))}
    right = {name: np.stack([one[name] for one in src["layers"].values()]) for name in ("kernel", "bias")}
    return Mistake(blank({"layers": right}), src, {f"layers/{name}": one for name, one in right.items()})


@mistake
def layers_from_scanned():
    dst = {"layers": layers(3, kernel=(4, 5), bias=(5,))}
    src = {name: np.stack([one[name] for one in dst["layers"].values()]) for name in ("kernel", "bias")}
    return Mistake(blank(dst), {"layers": src}, flat(dst))


@mistake
def linen_layers_into_a_scan():
    src = {f"layers_{at}": one for at, one in layers(2, kernel=(4, 5), bias=(5,)).items()}
    right = {name: np.stack([one[name] for one in src.values()]) for name in ("kernel", "bias")}
    return Mistake(blank({"layers": right}), src, {f"layers/{name}": one for name, one in right.items()})


@mistake
def fused_queries():
    parts = {name: r(4, 4, start=100 * at) for at, name in enumerate("qkv")}
    right = np.concatenate(list(parts.values()), 1)
    src = {"attn": {name: {"kernel": one} for name, one in parts.items()}}
    return Mistake({"attn": {"qkv": {"kernel": own(4, 12)}}}, src, {"attn/qkv/kernel": right})


# Dtypes, keys, statics.


@mistake
def floats_into_integers():
    return Mistake(
        {"w": own(3), "n": own(3, dtype=np.int32)}, {"w": r(3), "n": r(3)}, {"w": r(3), "n": r(3)}, "forgive"
    )


@mistake
def an_overflow():
    src = {"w": r(3), "x": np.array([1e6, 1], np.float32)}
    return Mistake({"w": own(3), "x": own(2, dtype=np.float16)}, src, {"w": r(3)}, "forgive")


@mistake
def narrower_under_safe_casts():
    how = {"policy": Policy(casting="safe")}
    return Mistake({"w": own(3, dtype=np.float16)}, {"w": r(3)}, {"w": r(3)}, "forgive", how)


@mistake
def complex_into_real():
    return Mistake({"w": own(3)}, {"w": r(3).astype(np.complex64)}, {"w": r(3)}, "forgive")


@mistake
def a_raw_key_into_a_typed_one():
    key = jax.random.key(3)
    return Mistake({"k": jax.random.key(0)}, {"k": np.asarray(jax.random.key_data(key))}, {"k": key}, "ops")


@mistake
def a_typed_key_into_a_raw_one():
    data = np.asarray(jax.random.key_data(jax.random.key(3)))
    return Mistake({"k": own(2, dtype=np.uint32)}, {"k": jax.random.key(3)}, {"k": data}, "ops")


@mistake
def raw_keys_in_a_row():
    keys = jax.random.split(jax.random.key(3), 4)
    dst = {"k": jax.random.split(jax.random.key(0), 4)}
    return Mistake(dst, {"k": np.asarray(jax.random.key_data(keys))}, {"k": keys}, "ops")


@mistake
def keys_of_two_kinds():
    return Mistake(
        {"w": own(2), "k": jax.random.key(0)},
        {"w": r(2), "k": jax.random.key(0, impl="rbg")},
        {"w": r(2)},
        "forgive",
    )


@mistake
def an_array_where_a_static_is():
    return Mistake({"w": own(3), "act": "relu"}, {"w": r(3), "act": r(3)}, {"w": r(3)}, "forgive")


@mistake
def a_static_where_an_array_is():
    return Mistake({"w": own(3), "b": own(3)}, {"w": r(3), "b": "relu"}, {"w": r(3)}, "forgive")


@mistake
def a_leaf_where_a_subtree_is():
    dst = {"w": own(3), "norm": {"scale": own(3), "bias": own(3)}}
    return Mistake(dst, {"w": r(3), "norm": r(3)}, {"w": r(3)}, "forgive")


@mistake
def a_subtree_where_a_leaf_is():
    dst, src = {"w": own(3), "norm": own(3)}, {"w": r(3), "norm": {"scale": r(3), "bias": r(3)}}
    return Mistake(dst, src, {"w": r(3)}, "forgive")


@mistake
def true_for_an_array():
    return Mistake({"w": own(3), "b": own(3)}, {"w": r(3), "b": True}, {"w": r(3)}, "forgive")


@mistake
def a_float_for_an_integer():
    return Mistake({"w": own(3), "step": 1}, {"w": r(3), "step": 2.5}, {"w": r(3)}, "forgive")


@mistake
def complex_for_a_float():
    return Mistake({"w": own(3), "lr": 1.5}, {"w": r(3), "lr": 2j}, {"w": r(3)}, "forgive")


# Boxes, Modules, optimizers.


@mistake
def boxes_around_everything():
    return Mistake(blank(MLP), jax.tree.map(lambda one: {"value": one}, MLP), flat(MLP), "none")


@mistake
def boxes_under_another_name():
    src = jax.tree.map(lambda one: {"value": one}, {"encoder": MLP["enc"], "head": MLP["head"]})
    return Mistake(blank(MLP), src, flat(MLP))


@mistake
def a_module_from_torch():
    linear = nnx.Linear(4, 6, rngs=nnx.Rngs(0))
    src = {"weight": r(6, 4), "bias": r(6)}
    return Mistake(linear, src, {"kernel": r(6, 4).T, "bias": r(6)})


@mistake
def sgd_from_adam():
    params = {"w": jnp.ones(3)}
    adam, sgd = optax.adam(1e-3).init(params), optax.sgd(1e-3, momentum=0.9).init(params)
    return Mistake({"w": own(3), "opt": sgd}, {"w": r(3), "opt": adam}, {"w": r(3)}, "forgive")


# Rules.


@mistake
def a_rule_the_wrong_way_round():
    src = {"blocks": DEEP["layers"], "norm": DEEP["norm"]}
    how = {"rules": [Rename("layers/{*rest}", "blocks/{*rest}")]}
    return Mistake(blank(DEEP), src, flat(DEEP), "words", how)


@mistake
def a_rule_that_matches_nothing():
    how = {"rules": [Rename("encoder/{*rest}", "enc/{*rest}")]}
    return Mistake(blank(MLP), MLP, flat(MLP), "words", how)


@mistake
def a_typo_in_a_pattern():
    src = {"encoder": MLP["enc"], "head": MLP["head"]}
    how = {"rules": [Rename("encodr/{*rest}", "enc/{*rest}")]}
    return Mistake(blank(MLP), src, flat(MLP), "words", how)


@mistake
def a_rule_without_its_rest():
    how = {"rules": [Rename("encoder", "enc")]}
    src = {"encoder": MLP["enc"], "head": MLP["head"]}
    return Mistake(blank(MLP), src, flat(MLP), "words", how)


@mistake
def two_for_one():
    how = {"rules": [Rename("v", "w")]}
    return Mistake(
        {"w": own(3), "x": own(2)}, {"w": r(3), "v": r(3, start=60), "x": r(2)}, {"x": r(2)}, "forgive", how
    )


@mistake
def parts_that_do_not_fit():
    how = {"rules": [Concat(["q", "k"], "qk", axis=0)]}
    src = {"q": r(2, 3), "k": r(2, 4), "w": r(3)}
    return Mistake({"qk": own(4, 3), "w": own(3)}, src, {"w": r(3)}, "forgive", how)


@mistake
def a_policy_that_matches_nothing():
    how = {"policy": Policy(missing={"head.*": "keep"})}
    return Mistake(blank(MLP), {"enc": MLP["enc"]}, flat({"enc": MLP["enc"]}), "forgive", how)


@mistake
def a_scope_that_matches_nothing():
    return Mistake(blank(MLP), MLP, flat(MLP), "words", {"scope": "encoder/**"})


# The laws.


def known(law: str) -> list[Any]:
    return [
        pytest.param(name, marks=pytest.mark.xfail(reason=KNOWN[name, law], strict=True))
        if (name, law) in KNOWN else name
        for name in TABLE
    ]  # fmt: skip


def printed_codes(plan: Plan) -> Iterator[tuple[str, str, str]]:
    """The words and the code of every way that a plan's findings or its report print, but for its repairs."""
    for finding in plan.findings:
        for way in finding.remedies:
            if way.code:
                yield way.before, way.code, way.after
    going_on = GoingOn(plan, plan.errors)
    for found, forgiving in ((going_on.rules, True), (going_on.left, going_on.may_forgive)):
        for same in problems(going_on.after, found).values():
            for printed in ways(same, forgiving=forgiving):
                if printed.code.whole and "..." not in printed.code.whole:
                    yield printed.before, printed.code.whole, printed.after


def repaired(row: Mistake, plan: Plan) -> tuple[Any, list[Rule]] | None:
    """The source and the rules that the report prints to go on with; None where it leaves a choice."""
    src: Any = row.src
    rules: list[Rule] = []
    for step in GoingOn(plan, plan.errors).steps():
        text = "\n".join(step.code.broken)
        if text.startswith("From(") and len(step.code.broken) > 1:
            return None
        if text.startswith("From("):
            src = eval(text, {**SCOPE, "src": src})
        elif text.startswith("rules = "):
            pasted_rules = dict(SCOPE)
            exec(text, pasted_rules)
            rules = pasted_rules["rules"]
        elif text == "rules=plan.suggest()":
            rules = list(plan.suggest())
    return src, rules


def pasted(code: str) -> Any:
    return eval(code, dict(SCOPE))


def equal(one: Any, other: Any) -> bool:
    if jax.dtypes.issubdtype(getattr(one, "dtype", np.float32), jax.dtypes.prng_key):
        one, other = jax.random.key_data(one), jax.random.key_data(other)
    return np.shape(one) == np.shape(other) and bool((np.asarray(one) == np.asarray(other)).all())


def policy_patterns(policy: Policy) -> Iterator[str]:
    for name in ("missing", "unexpected", "shape", "dtype", "casting", "structure", "tie", "collision"):
        setting = getattr(policy, name)
        if isinstance(setting, Mapping):
            yield from setting
    absent: Any = policy.absent_is_zero
    yield from absent


def tried(plan: Plan) -> Plan:
    """The plan with all findings that a load makes."""
    try:
        plan.load()
    except LoadError as error:
        return error.plan
    return plan


def forgiving(plan: Plan) -> list[Policy]:
    found = [pasted(code) for _, code, _ in printed_codes(plan)]
    return [each for each in found if isinstance(each, Policy)]


def joined(policies: list[Policy], base: Policy) -> Policy:
    """All that keep and ignore as one, the first word on a name first; what the user had behind them."""
    settings: dict[str, Any] = {}
    for each in (*policies, base):
        for name in (
            "missing",
            "unexpected",
            "shape",
            "dtype",
            "casting",
            "structure",
            "tie",
            "collision",
            "rule",
        ):
            value = getattr(each, name)
            if isinstance(value, Mapping):
                settings[name] = {**value, **settings.get(name, {})}
            elif value != "error" and each is base and name not in settings:
                settings[name] = value
    return Policy(**settings, absent_is_zero=base.absent_is_zero)


@pytest.mark.parametrize("name", known("words"))
def test_what_forgives_is_named_as_that(name: str) -> None:
    plan = tried(TABLE[name]().plan())
    for before, code, _ in printed_codes(plan):
        made = pasted(code)
        assert isinstance(made, (Policy, Rule, Op, list, tuple)), code
        if isinstance(made, Policy):
            assert any(words in before for words in FORGIVING) or before.endswith((", or", "to go on:")), (
                before
            )


@pytest.mark.parametrize("name", known("patterns"))
def test_no_pattern_matches_a_leaf_that_nothing_is_wrong_with(name: str) -> None:
    row = TABLE[name]()
    plan = tried(row.plan())
    wrong = [finding.name for finding in plan.findings]
    sound = [*(entry.name for entry in plan.entries), *(leaf.at for leaf in plan.unused)]
    sound = [each for each in sound if not any(each[: len(one)] == one for one in wrong)]
    for policy in forgiving(plan):
        for pattern in policy_patterns(policy):
            assert not [each for each in sound if compile_pattern(pattern).matches(str(each))], pattern


@pytest.mark.parametrize("name", known("empty"))
def test_what_is_printed_never_makes_a_load_that_loads_nothing(name: str) -> None:
    row = TABLE[name]()
    plan = tried(row.plan())
    policies = forgiving(plan)
    if len(plan.entries) < 2 or not policies:
        return
    under = row.plan(policy=joined(policies, row.how.get("policy", Policy()))).verify()
    assert not under.ok or any(entry.action == "load" for entry in under.entries)


@pytest.mark.parametrize("name", known("forgive"))
def test_a_forgiveness_changes_nothing_but_what_it_names(name: str) -> None:
    row = TABLE[name]()
    under = tried(row.plan())
    named: list[tuple[str, ...]] = []
    policies: list[Policy] = []
    for _ in range(3):  # what a rule that is ignored leaves missing is said then
        named += (tuple(finding.name) for finding in under.findings)
        policies += forgiving(under)
        under = tried(row.plan(policy=joined(policies, row.how.get("policy", Policy()))))
    if not under.ok:
        assert row.cure != "forgive", f"no policy is enough:\n{under}"
        return
    before = flat(row.dst) if not any(map(_abstract, jax.tree.leaves(row.dst))) else None
    if before is None:
        return
    after = flat(under.load())
    for leaf, value in after.items():
        if any(tuple(leaf.split("/"))[: len(each)] == each for each in named):
            continue
        assert equal(value, {**before, **row.right, **row.by_name}[leaf]), leaf


def _abstract(one: Any) -> bool:
    return isinstance(one, jax.ShapeDtypeStruct)


@pytest.mark.parametrize("name", known("zeros"))
def test_a_policy_of_zeros_makes_zeros_of_what_it_names_alone(name: str) -> None:
    row = TABLE[name]()
    plan = tried(row.plan())
    for policy in [each for each in forgiving(plan) if each.absent_is_zero]:
        under = row.plan(policy=policy)
        wrong = {finding.name for finding in plan.findings}
        assert {entry.name for entry in under.entries if entry.action == "zero"} <= wrong
        assert {entry.name: entry.action for entry in plan.entries if entry.name not in wrong} == {
            entry.name: entry.action for entry in under.entries if entry.name not in wrong
        }
        assert len(under.findings) < len(plan.findings)


@pytest.mark.parametrize("name", known("ops"))
def test_ops_that_are_printed_lead_to_the_right_values(name: str) -> None:
    row = TABLE[name]()
    plan = tried(row.plan())
    rules: list[Rule] = []
    for finding in plan.findings:
        for way in finding.remedies:
            made = pasted(way.code) if way.code else None
            if isinstance(made, Rule):
                rules.append(made)
            elif isinstance(made, (Op, tuple)) and finding.source is not None:
                ops = made if isinstance(made, tuple) else (made,)
                rules.append(Rename(str(finding.source.name), str(finding.name), *ops))
    if not rules:
        assert row.cure != "ops"
        return
    mended = Mistake(
        row.dst, row.src, row.right, row.cure, {k: v for k, v in row.how.items() if k != "rules"}
    )
    again = mended.plan(rules=rules).verify()
    assert again.ok, again
    after = flat(again.load())
    assert [leaf for leaf, value in row.right.items() if not equal(after[leaf], value)] == []


@pytest.mark.parametrize("name", known("suggest"))
def test_rules_that_are_suggested_lead_to_the_right_values(name: str) -> None:
    row = TABLE[name]()
    plan = tried(row.plan())
    rules = plan.suggest()
    if row.cure == "none":
        assert plan.verify().ok and not rules, plan
    if row.cure not in ("suggest", "none") and not rules:
        return
    again = row.plan(rules=rules)
    loaded = [entry for entry in again.entries if entry.action == "load"]
    fed = {str(each) for entry in loaded for each in (entry.name, *entry.aliases)}
    if row.cure in ("suggest", "none"):
        assert fed >= set(row.right), f"{sorted(set(row.right) - fed)} stay:\n{rules}"
    whole = row.plan(rules=rules, policy=everything_kept())
    after = flat(whole.load())
    assert [leaf for leaf in fed & set(row.right) if not equal(after[leaf], row.right[leaf])] == []
    assert row.cure in ("suggest", "none", "ops") or not {
        str(entry.name) for entry in again.entries if entry.rule in rules.certain
    } - set(row.right), rules


@pytest.mark.parametrize("name", known("repair"))
def test_what_a_report_prints_to_go_on_with_loads_the_right_values(name: str) -> None:
    """In the order in which it is printed, pasted as it stands."""
    row = TABLE[name]()
    plan = tried(row.plan())
    repair = repaired(row, plan)
    if repair is None or (repair[0] is row.src and not repair[1]):
        return
    src, rules = repair
    how = {key: value for key, value in row.how.items() if key not in ("rules", "policy")}
    if src is not row.src:
        how.pop("separator", None)
    whole = treeload.plan(row.dst, src, **how, rules=rules, policy=everything_kept())
    fed = {str(each) for e in whole.entries if e.action == "load" for each in (e.name, *e.aliases)}
    assert fed, whole
    after = flat(whole.load())
    assert [leaf for leaf in fed & set(row.right) if not equal(after[leaf], row.right[leaf])] == []
    assert len(whole.errors) == 0


def everything_kept() -> Policy:
    return Policy(
        missing="keep", unexpected="ignore", shape="keep", dtype="keep", structure="keep", rule="ignore",
        tie="first", collision="first",
    )  # fmt: skip


def test_the_parts_of_a_joined_leaf_are_printed_in_their_order() -> None:
    src = {"attn": {name: r(4, 4) for name in "vkq"}}
    plan = treeload.plan(
        {"qkv": own(4, 12)}, src, rules=[Concat(["attn/q", "attn/k", "attn/v"], "qkv", axis=1)]
    )
    assert "<- attn/{q,k,v}, joined" in str(plan)


def test_a_pattern_is_printed_only_where_it_matches_no_other_leaf() -> None:
    plan = two_layers_missing_in_the_middle().plan()
    assert 'missing={"layers/3/w": "keep", "layers/4/w": "keep"}' in str(plan)
    whole = treeload.plan({"layers": layers(3, w=(3,)), "x": own(1)}, {"x": r(1)})
    assert 'Policy(missing={"layers/*/w": "keep"})' in str(whole)


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("a_raw_key_into_a_typed_one", 'Rename("k", "k", Apply(jax.random.wrap_key_data))'),
        ("a_typed_key_into_a_raw_one", 'Rename("k", "k", Apply(jax.random.key_data))'),
        ("a_vocabulary_that_grew", 'Rename("tok/embedding", "tok/embedding", Pad(7, fill=\'destination\'))'),
        ("a_vocabulary_that_grew_abstract", 'Rename("tok/embedding", "tok/embedding", Pad(7))'),
        ("a_vocabulary_that_shrank", 'Rename("tok/embedding", "tok/embedding", Slice(5))'),
    ],
)
def test_an_op_is_offered_before_the_leaf_is_given_up(name: str, code: str) -> None:
    (finding,) = TABLE[name]().plan().findings
    first, last = finding.remedies
    assert first.code == code and last.before == "to keep the destination's own:"


@pytest.mark.parametrize("name", ["a_causal_mask_too_many", "a_causal_mask_of_floats"])
def test_no_zeros_are_spoken_of_for_a_mask(name: str) -> None:
    assert "absent_is_zero" not in str(TABLE[name]().plan())


def test_the_table_is_large_enough_and_what_is_known_is_in_it() -> None:
    assert len(TABLE) >= 60 and {name for name, _ in KNOWN} <= set(TABLE)
