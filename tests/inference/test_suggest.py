"""What names and shapes tell: rules that write themselves, and sentences about what is wrong."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from treeload._inference.changes import changes
from treeload._inference.diagnosis import diagnose, near_layout
from treeload._inference.evidence import candidates
from treeload._inference.suggest import suggest
from treeload._inference.suggestions import Suggestions
from treeload._inference.templates import modules
from treeload._naming.name import Name, print_name
from treeload._ops.expression import Leaf
from treeload._ops.layout import Reshape, Transpose
from treeload._rules.apply import apply_rules
from treeload._rules.rename import Rename
from treeload._rules.split import Concat, Split
from treeload._rules.stack import Stack, Unstack
from treeload._rules.tie import Tie

Shapes = Mapping[str, tuple[int, ...]]


def _specs(shapes: Shapes) -> dict[tuple[str, ...], jax.ShapeDtypeStruct]:
    return {
        tuple(Name.parse(name)): jax.ShapeDtypeStruct(shape, np.float32) for name, shape in shapes.items()
    }


def _suggest(destination: Shapes, source: Shapes) -> Suggestions:
    return suggest(_specs(destination), _specs(source))


def _layers(count: int, *leaves: tuple[str, tuple[int, ...]], first: int = 0) -> dict[str, tuple[int, ...]]:
    return {name.format(i=first + i): shape for i in range(count) for name, shape in leaves}


def _loads(destination: Shapes, source: Shapes, rules: Suggestions) -> dict[str, str]:
    """Which source leaf feeds each destination leaf; a leaf whose shape is wrong is left out."""
    wanted = _specs(destination)
    leaves = [(name, Leaf(0, Name(name), spec)) for name, spec in _specs(source).items()]
    fed, faults = apply_rules(leaves, rules)
    assert not [fault for fault in faults if not isinstance(fault.rule, Tie)]
    return {
        print_name(name): str(next(iter(each.value.leaves())).name)
        for name, each in fed
        if name in wanted and each.value is not None and each.value.spec.shape == wanted[name].shape
    }


# Laws.

_SYNONYMS = {
    "query": ("query", "q", "q_proj", "wq"),
    "key": ("key", "k", "k_proj", "wk"),
    "value": ("value", "v", "v_proj", "wv"),
    "out": ("out", "o", "o_proj", "out_proj"),
    "up": ("up", "up_proj", "fc1", "c_fc"),
    "down": ("down", "down_proj", "fc2"),
    "gate": ("gate", "gate_proj"),
    "ln1": ("ln1", "norm1", "layer_norm1", "LayerNorm_1"),
    "ln2": ("ln2", "norm2", "layer_norm2", "LayerNorm_2"),
    "odd": ("odd",),
}


@st.composite
def _two_spellings(
    draw: st.DrawFn,
) -> tuple[dict[str, tuple[int, ...]], dict[str, tuple[int, ...]], dict[str, str]]:
    """One model under two spellings, in two orders, and which leaf is which."""
    kinds = draw(st.lists(st.sampled_from(sorted(_SYNONYMS)), min_size=2, unique=True))
    wrapper = draw(st.sampled_from(["", "model/", "params/", "net/deep/"]))
    layers = draw(st.sampled_from([("layers", "blocks"), ("h", "layer"), ("layers", "layers")]))
    count = draw(st.integers(1, 3))
    destination: dict[str, tuple[int, ...]] = {}
    source: dict[str, tuple[int, ...]] = {}
    truth: dict[str, str] = {}
    for kind in kinds:
        here, there = (draw(st.sampled_from(_SYNONYMS[kind])) for _ in range(2))
        norm = kind.startswith("ln")
        sizes = (6,) if norm else draw(st.sampled_from([(6, 6), (6, 8)]))
        for i in range(count):
            name = f"{layers[1]}/{i}/{there}/{'scale' if norm else 'kernel'}"
            destination[name] = sizes
            truth[name] = f"{wrapper}{layers[0]}/{i}/{here}/weight"
            source[truth[name]] = sizes[::-1]
    order = draw(st.permutations(sorted(source)))
    return destination, {name: source[name] for name in order}, truth


@given(_two_spellings())
@settings(max_examples=150, deadline=None)
def test_what_is_certain_is_right(case: tuple[Shapes, Shapes, dict[str, str]]) -> None:
    destination, source, truth = case
    found = _suggest(destination, source)
    fed = _loads(destination, source, Suggestions(found.certain))
    untouched = set(truth.values()) - set(fed.values())
    assert {name: fed[name] for name in truth if name in fed} == {
        name: truth[name] for name in truth if name in fed
    }
    assert untouched <= set(truth.values())


@given(_two_spellings())
@settings(max_examples=150, deadline=None)
def test_words_that_mean_the_same_are_enough(case: tuple[Shapes, Shapes, dict[str, str]]) -> None:
    destination, source, truth = case
    assert _loads(destination, source, _suggest(destination, source)) == truth


@given(_two_spellings(), st.randoms(use_true_random=False))
@settings(max_examples=60, deadline=None)
def test_the_order_of_leaves_says_nothing(case: tuple[Shapes, Shapes, dict[str, str]], random) -> None:  # type: ignore[no-untyped-def]
    destination, source, _ = case
    shuffled = [list(side.items()) for side in (destination, source)]
    for side in shuffled:
        random.shuffle(side)
    one, other = _suggest(destination, source), _suggest(*map(dict, shuffled))
    assert set(map(repr, one)) == set(map(repr, other))
    assert set(map(repr, one.certain)) == set(map(repr, other.certain))


@given(st.integers(2, 6), st.booleans())
def test_modules_without_a_word_in_common_are_ambiguous(count: int, layered: bool) -> None:
    prefix = "layers/{i}/" if layered else ""
    here = [(f"{prefix}{'abcdef'[at] * 3}/weight", (4, 4)) for at in range(count)]
    there = [(f"{prefix}{'uvwxyz'[at] * 3}/kernel", (4, 4)) for at in range(count)]
    found: Any = _suggest(_layers(2, *there), _layers(2, *here))
    assert found == ()
    assert len(found.ambiguous) == 1
    assert len(found.ambiguous[0].destination) == len(found.ambiguous[0].source) == count


@given(_two_spellings())
@settings(max_examples=60, deadline=None)
def test_what_is_printed_is_the_code_of_the_rules(case: tuple[Shapes, Shapes, dict[str, str]]) -> None:
    found = _suggest(*case[:2])
    scope: dict[str, object] = {
        each.__name__: each for each in (Rename, Stack, Unstack, Concat, Split, Tie, Transpose, Reshape)
    }
    exec(str(found), scope)
    assert repr(scope["rules"]) == repr(list(found))


@given(_two_spellings())
@settings(max_examples=60, deadline=None)
def test_once_converted_nothing_is_suggested(case: tuple[Shapes, Shapes, dict[str, str]]) -> None:
    destination = case[0]
    found = _suggest(destination, destination)
    assert (found, found.certain, found.reasons, found.ambiguous) == ((), (), (), ())
    assert str(found) == "rules = []"


# Examples.


def test_each_rule_has_a_reason_that_says_how_sure() -> None:
    found = _suggest({"up/kernel": (2, 3), "q/kernel": (3, 3)}, {"up/weight": (3, 2), "query/weight": (3, 3)})
    assert found.reasons == (
        "certain: 1 leaf; the same name but for its last key; no other shape fits; matches if transposed",
        "certain: 1 leaf; the names share query; no other shape fits; square, but transposed, "
        "as the other weight → kernel of this file are (1 that are not square)",
    )
    assert found.certain == tuple(found)


def test_a_wrapper_is_one_rule() -> None:
    model = {"up/kernel": (2, 3), "down/kernel": (3, 2), "norm/scale": (2,)}
    assert list(_suggest(model, {f"params/{name}": shape for name, shape in model.items()})) == [
        Rename("params/{*rest}", "{*rest}")
    ]
    assert list(_suggest({f"params/{name}": shape for name, shape in model.items()}, model)) == [
        Rename("{*rest}", "params/{*rest}")
    ]


def test_one_rule_takes_all_leaves_that_change_alike() -> None:
    here = _layers(3, ("h/{i}/up/weight", (8, 4)), ("h/{i}/down/weight", (4, 8)), ("h/{i}/norm/weight", (4,)))
    there = _layers(
        3, ("h/{i}/up/kernel", (4, 8)), ("h/{i}/down/kernel", (8, 4)), ("h/{i}/norm/weight", (4,))
    )
    found = _suggest(there, here)
    fed = _loads(there, here, found)
    assert fed == {name: name.replace("kernel", "weight") for name in there}
    assert len(found) <= 2  # and none of them takes the norms, which match already


def test_one_square_kernel_alone_does_not_show_whether_it_is_transposed() -> None:
    found = _suggest({"query/kernel": (4, 4)}, {"q_proj/weight": (4, 4)})
    assert list(found) == [Rename("q_proj/weight", "query/kernel", Transpose())]
    assert found.certain == ()
    assert "nothing in this file shows" in found.reasons[0]


@pytest.mark.parametrize(("up", "ops"), [((8, 4), (Transpose(),)), ((4, 8), ())])
def test_square_kernels_go_as_the_others_of_the_file_do(
    up: tuple[int, ...], ops: tuple[Transpose, ...]
) -> None:
    found = _suggest({"q/kernel": (4, 4), "up/kernel": (4, 8)}, {"m/q/weight": (4, 4), "m/up/weight": up})
    (rule,) = (rule for rule in found.certain if rule.patterns[0].matches("m/q/weight"))
    assert isinstance(rule, Rename) and rule.ops == ops


def test_square_kernels_of_a_file_that_does_both_are_ambiguous() -> None:
    found = _suggest(
        {"up/kernel": (4, 8), "down/kernel": (8, 4), "q/kernel": (4, 4)},
        {"up/weight": (8, 4), "down/weight": (8, 4), "q/weight": (4, 4)},
    )
    assert not any(pattern.matches("q/weight") for rule in found for pattern in rule.patterns)
    assert [each.destination for each in found.ambiguous] == [("q/kernel",)]


def test_an_embedding_is_not_turned_because_kernels_are() -> None:
    there = {"embed/embedding": (4, 4), "up/kernel": (4, 8)}
    found = _suggest(there, {"embed/weight": (4, 4), "up/weight": (8, 4)})
    assert Rename("embed/weight", "embed/embedding") in found


def test_a_square_kernel_that_matches_by_name_is_turned_where_the_others_must_be() -> None:
    found = _suggest({"a/weight": (4, 8), "b/weight": (4, 4)}, {"a/weight": (8, 4), "b/weight": (4, 4)})
    turned = [rule for rule in found if rule.patterns[0].matches("b/weight")]
    assert [rule.ops for rule in turned if isinstance(rule, Rename)] == [(Transpose(),)]


def test_a_capture_does_not_take_what_matches_already() -> None:
    there = {"a/0/w": (4,), "a/1/w": (4, 8), "a/2/w": (8, 2), "a/last/w": (8, 4)}
    found = _suggest(there, {"a/0/w": (4,), "a/1/w": (8, 4), "a/2/w": (2, 8), "a/last/w": (8, 4)})
    assert _loads(there, {"a/0/w": (4,), "a/1/w": (8, 4), "a/2/w": (2, 8), "a/last/w": (8, 4)}, found) == {
        name: name for name in there
    }


@pytest.mark.parametrize(
    ("source", "destination", "axes"),
    [
        ((8, 3, 5, 5), (5, 5, 3, 8), (2, 3, 1, 0)),
        ((8, 3, 5), (5, 3, 8), ()),
        ((8, 3, 2, 5, 5), (2, 5, 5, 3, 8), (2, 3, 4, 1, 0)),
    ],
)
def test_convolutions_go_from_channels_first_to_last(
    source: tuple[int, ...], destination: tuple[int, ...], axes: tuple[int, ...]
) -> None:
    found = _suggest({"stem/kernel": destination}, {"stem/weight": source})
    assert list(found.certain) == [Rename("stem/weight", "stem/kernel", Transpose(*axes))]


def test_heads_are_split_and_merged() -> None:
    there = {"attn/query/kernel": (6, 2, 4), "attn/query/bias": (2, 4), "attn/out/kernel": (2, 4, 6)}
    here = {"attn/q_proj/weight": (8, 6), "attn/q_proj/bias": (8,), "attn/o_proj/weight": (6, 8)}
    assert _loads(there, here, _suggest(there, here)).keys() == there.keys()
    assert _loads(here, there, _suggest(here, there)).keys() == here.keys()


def test_layers_are_stacked_and_unstacked() -> None:
    layers = _layers(12, ("model/layers/{i}/up_proj/weight", (8, 4)))
    assert list(_suggest({"layers/up/kernel": (12, 4, 8)}, layers)) == [
        Stack("model/layers/{i}/up_proj/weight", "layers/up/kernel", Transpose(), axis=0)
    ]
    assert list(_suggest(layers, {"layers/up/kernel": (12, 4, 8)})) == [
        Unstack("layers/up/kernel", "model/layers/{i}/up_proj/weight", Transpose(), axis=0)
    ]
    (other,) = _suggest({"layers/up/kernel": (4, 12, 8)}, layers)
    assert isinstance(other, Stack) and other.axis == 1


def test_an_axis_that_two_readings_fit_is_not_certain() -> None:
    found = _suggest({"layers/up/kernel": (4, 4, 8)}, _layers(4, ("layers/{i}/up/weight", (8, 4))))
    assert isinstance(found[0], Stack) and found.certain == ()


def test_layers_that_count_from_one_keep_their_order() -> None:
    there = _layers(3, ("layers/{i}/up/kernel", (4, 8)))
    here = _layers(3, ("layers/{i}/up/weight", (8, 4)), first=1)
    found = _suggest(there, here)
    assert _loads(there, here, found) == {
        f"layers/{i}/up/kernel": f"layers/{i + 1}/up/weight" for i in range(3)
    }
    assert found.certain == ()


def test_more_layers_on_one_side_are_never_certain() -> None:
    found = _suggest(
        _layers(6, ("layers/{i}/up/kernel", (4, 8))), _layers(4, ("layers/{i}/up/weight", (8, 4)))
    )
    assert found and found.certain == ()
    assert "the source has 0..3, the destination 0..5" in found.reasons[0]


def test_fused_projections_are_split_and_joined() -> None:
    parts = _layers(2, *((f"h/{{i}}/attn/{name}/kernel", (8, 8)) for name in ("query", "key", "value")))
    fused = _layers(2, ("h/{i}/attn/c_attn/weight", (8, 24)))
    names = [f"h/{{i}}/attn/{name}/kernel" for name in ("query", "key", "value")]
    assert list(_suggest(parts, fused)) == [Split("h/{i}/attn/c_attn/weight", names, axis=1)]
    joined = _suggest(
        {"attn/qkv/kernel": (8, 16)},
        {"attn/q/weight": (8, 8), "attn/k/weight": (4, 8), "attn/v/weight": (4, 8)},
    )
    assert list(joined) == [
        Concat(
            ["attn/q/weight", "attn/k/weight", "attn/v/weight"],
            "attn/qkv/kernel",
            Transpose(),
            axis=1,
            sizes=(8, 4, 4),
        )
    ]
    assert joined.certain == ()  # heads may be interleaved: shapes do not show it


def test_a_head_that_the_source_leaves_out_is_tied_to_the_embedding() -> None:
    found = _suggest(
        {"embed/embedding": (50, 8), "lm_head/kernel": (8, 50)}, {"model/embed_tokens/weight": (50, 8)}
    )
    assert Tie("lm_head/kernel", "embed/embedding", Transpose()) in found
    assert not any(isinstance(rule, Tie) for rule in found.certain)


def test_statistics_of_a_batch_norm_go_to_their_own_collection() -> None:
    there = {
        "params/bn/scale": (8,),
        "params/bn/bias": (8,),
        "batch_stats/bn/mean": (8,),
        "batch_stats/bn/var": (8,),
    }
    here = {
        "bn/weight": (8,),
        "bn/bias": (8,),
        "bn/running_mean": (8,),
        "bn/running_var": (8,),
        "bn/num_batches_tracked": (),
    }
    assert _loads(there, here, _suggest(there, here)) == {
        "params/bn/scale": "bn/weight", "params/bn/bias": "bn/bias",
        "batch_stats/bn/mean": "bn/running_mean", "batch_stats/bn/var": "bn/running_var",
    }  # fmt: skip


def test_rules_that_are_given_stand_first() -> None:
    given_ = Rename("x", "y")
    found = suggest(_specs({"a/w": (3,)}), _specs({"p/a/w": (3,)}), given=[given_])
    assert found[0] is given_ and len(found) == 2 and found.reasons[0] == "as given"


# What must not mislead it.


def test_query_and_key_are_never_swapped_whatever_their_order() -> None:
    names = ("query", "key", "value")
    there = {f"attn/{name}/kernel": (4, 4) for name in reversed(names)}
    here = {f"self_attn/{name[0]}_proj/weight": (4, 4) for name in ("key", "value", "query")}
    assert _loads(there, here, _suggest(there, here)) == {
        f"attn/{name}/kernel": f"self_attn/{name[0]}_proj/weight" for name in names
    }


def test_a_value_is_not_taken_for_a_query_because_its_shape_fits() -> None:
    block = "decoder/layers/{i}/self_attn"
    assert (
        _suggest(_layers(2, (f"{block}/query/kernel", (4, 6))), _layers(2, (f"{block}/v/weight", (6, 4))))
        == ()
    )


def test_words_that_exclude_each_other_make_no_candidate() -> None:
    there, here = modules(_specs({"attn/query/kernel": (4, 6)})), modules(_specs({"attn/v/weight": (6, 4)}))
    assert list(candidates(there, here)) == []
    assert len(list(candidates(there, modules(_specs({"attn/q/weight": (6, 4)}))))) == 1


def test_unnamed_projections_are_ambiguous() -> None:
    there = {f"attn/Dense_{at}/kernel": (4, 4) for at in range(3)}
    found: Any = _suggest(there, {f"attn/{name}_proj/weight": (4, 4) for name in "qkv"})
    assert found == () and set(found.ambiguous[0].destination) == set(there)


def test_two_models_in_one_file_are_ambiguous() -> None:
    model = _layers(3, ("layers/{i}/up/weight", (8, 4)), ("layers/{i}/down/weight", (4, 8)))
    both = {f"{who}/{name}": shape for who in ("student", "teacher") for name, shape in model.items()}
    found: Any = _suggest(
        _layers(3, ("layers/{i}/up/kernel", (4, 8)), ("layers/{i}/down/kernel", (8, 4))), both
    )
    assert found == ()
    assert {"student/layers/{i}/up/weight", "teacher/layers/{i}/up/weight"} in [
        set(each.source) for each in found.ambiguous
    ]


def test_numbers_that_count_otherwise_are_no_names() -> None:
    found: Any = _suggest(
        {"norm1/scale": (8,), "norm2/scale": (8,)}, {"m/norm0/weight": (8,), "m/norm1/weight": (8,)}
    )
    assert found == () and len(found.ambiguous) == 1


def test_encoder_and_decoder_are_told_apart() -> None:
    there = {f"{side}/norm/scale": (8,) for side in ("decoder", "encoder")}
    here = {f"model/{side}/layer_norm/weight": (8,) for side in ("encoder", "decoder")}
    assert _loads(there, here, _suggest(there, here)) == {
        f"{side}/norm/scale": f"model/{side}/layer_norm/weight" for side in ("encoder", "decoder")
    }


def test_words_that_a_rival_nearly_has_make_nothing_certain() -> None:
    """The norm goes to the query of the two that lacks fewer words; but it might be the other's."""
    found = _suggest(
        {"cross/q/scale": (4,), "pos/query/scale": (4,)}, {"norm/q/weight": (4,), "token/attn/weight": (4,)}
    )
    assert Rename("norm/q/weight", "cross/q/scale") in found
    assert found.certain == ()


def test_little_in_common_makes_nothing_certain() -> None:
    here = {"head/weight": (5, 4), **{f"other/{at}x/w{at}": (at + 7, 3) for at in range(9)}}
    there = {"head/kernel": (4, 5), **{f"mine/{at}y/z{at}": (at + 70, 2) for at in range(9)}}
    found = _suggest(there, here)
    assert found.certain == () and "most of the two sides do not correspond" in str(found)


@pytest.mark.parametrize(
    ("destination", "source"), [({}, {}), ({}, {"a": (2,)}), ({"a": (2,)}, {}), ({"a": ()}, {"b": (2, 0)})]
)
def test_sides_with_nothing_to_pair_give_nothing(destination: Shapes, source: Shapes) -> None:
    assert _suggest(destination, source) == ()


def test_keys_that_hold_separators_stay_whole() -> None:
    here, there = {"model/a\\/b/up/weight": (8, 4)}, {"a\\/b/up/kernel": (4, 8)}
    assert _loads(there, here, _suggest(there, here)) == {"a\\/b/up/kernel": "model/a\\/b/up/weight"}


def test_forty_thousand_experts_are_three_decisions() -> None:
    parts = {"gate": (3, 2), "up": (3, 2), "down": (2, 3)}
    here = {
        f"model/layers/{layer}/mlp/experts/{expert}/{part}_proj/weight": shape
        for layer in range(64) for expert in range(208) for part, shape in parts.items()
    }  # fmt: skip
    there = {f"layers/moe/{part}/kernel": (64, 208, *shape[::-1]) for part, shape in parts.items()}
    destination, source = _specs(there), _specs(here)
    found = suggest(destination, source)
    assert {repr(rule) for rule in found.certain} == {
        f"Stack('model/layers/{{i}}/mlp/experts/{{j}}/{part}_proj/weight', "
        f"'layers/moe/{part}/kernel', Transpose(), axis=0)"
        for part in parts
    }


# Diagnosis.

_MODEL = {
    **_layers(12, ("layers/{i}/up/kernel", (4, 8)), ("layers/{i}/q/kernel", (4, 6))),
    "embed/embedding": (100, 8),
}
_SCANNED = {"layers/up/kernel": (12, 4, 8), "layers/q/kernel": (12, 4, 6), "embed/embedding": (100, 8)}


def _diagnose(destination: Shapes, source: Shapes) -> tuple[str, ...]:
    return diagnose(_specs(destination), _specs(source))


def test_a_wrapper_is_named_with_how_much_it_explains() -> None:
    wrapped = {f"params/{name}": shape for name, shape in _MODEL.items()}
    assert _diagnose({**_MODEL, "new/kernel": (3, 5)}, wrapped)[0] == "25 of 26 match under `params/`"
    assert _diagnose(wrapped, _MODEL)[0] == "25 of 25 match under `params/` of the destination"


@pytest.mark.parametrize(("count", "said"), [(1, True), (4, True), (5, False), (50, False)])
def test_a_wrapper_of_less_than_a_quarter_is_chance(count: int, said: bool) -> None:
    model = {f"a{at}": (at + 2, 3) for at in range(count)}
    wrapped = {"params/a0": (2, 3), **{f"other/{at}": (at + 2, 99) for at in range(100, 150)}}
    found = [sentence for sentence in _diagnose(model, wrapped) if "under" in sentence]
    assert found == ([f"1 of {count} matches under `params/`"] if said else [])


def test_scanned_layers_are_named_on_either_side() -> None:
    assert _diagnose(_MODEL, _SCANNED) == ("the source is scanned over 12 layers on axis 0",)
    assert _diagnose(_SCANNED, _MODEL) == ("the destination is scanned over 12 layers on axis 0",)


def test_another_number_of_layers_is_one_sentence() -> None:
    larger = _layers(16, ("layers/{i}/up/kernel", (4, 8)), ("layers/{i}/q/kernel", (4, 6)))
    sentence = "the source has 12 layers, the destination 16"
    assert sentence in _diagnose(larger, _MODEL)
    assert sentence in _diagnose(larger, _SCANNED)
    assert sentence in _diagnose({"layers/up/kernel": (16, 4, 8), "layers/q/kernel": (16, 4, 6)}, _MODEL)


def test_another_vocabulary_and_other_positions_are_named() -> None:
    assert "vocabulary 32000 -> 32128" in _diagnose(
        {"embed/embedding": (32128, 8)}, {"model/embed_tokens/weight": (32000, 8)}
    )
    assert "vocabulary 100 -> 128" in _diagnose({"lm_head/kernel": (8, 128)}, {"lm_head/weight": (100, 8)})
    assert "positions 197 -> 577" in _diagnose(
        {"pos_embed": (1, 577, 8)}, {"vit/position_embeddings": (1, 197, 8)}
    )


def test_transposed_kernels_are_counted() -> None:
    there = _layers(3, ("layers/{i}/up/kernel", (4, 8)))
    assert _diagnose(there, _layers(3, ("layers/{i}/up/weight", (8, 4)))) == ("3 of 3 match if transposed",)


def test_nothing_is_said_where_nothing_is_systematic() -> None:
    assert _diagnose(_MODEL, _MODEL) == ()
    assert _diagnose({}, _MODEL) == _diagnose(_MODEL, {}) == ()
    assert _diagnose({"a/kernel": (3, 4)}, {"b/weight": (5, 6)}) == ()


@pytest.mark.parametrize(
    ("source", "destination", "words"),
    [
        ((3, 2), (2, 3), "if transposed"),
        ((6,), (2, 3), "if reshaped"),
        ((6, 5), (5, 2, 3), "if transposed and reshaped"),
        ((2, 3), (2, 3), None),
        ((2, 3), (4, 5), None),
    ],
)
def test_a_near_layout_is_put_in_words(
    source: tuple[int, ...], destination: tuple[int, ...], words: str | None
) -> None:
    assert near_layout(changes(source, destination)) == words


def test_a_run_with_a_hole_is_not_closed_up() -> None:
    """Layer 3 has no bias, and there is one layer too many: what layer 4 has is not layer 3's."""
    source: dict[tuple[str, ...], Any] = {
        (f"h_{i}", "weight"): jax.ShapeDtypeStruct((4, 6), np.float32) for i in range(5)
    }
    source |= {(f"h_{i}", "bias"): jax.ShapeDtypeStruct((4,), np.float32) for i in (0, 1, 2, 4)}
    destination: dict[tuple[str, ...], Any] = {
        ("h", str(i), "kernel"): jax.ShapeDtypeStruct((6, 4), np.float32) for i in range(4)
    }
    destination |= {("h", str(i), "bias"): jax.ShapeDtypeStruct((4,), np.float32) for i in range(4)}
    for rule in suggest(destination, source):
        assert rule.rename(("h_4", "bias")) != ("h", "3", "bias")
