"""Prefixes, parts of a source, numbered modules, and what is said where nothing is found."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
import pytest

import treeload
from treeload._inference.diagnosis import diagnose
from treeload._inference.parts import best, parts
from treeload._inference.suggest import suggest
from treeload._inference.suggestions import Suggestions
from treeload._naming.name import Name
from treeload._ops.layout import Transpose
from treeload._rules.rename import Rename
from treeload._rules.stack import Stack

Shapes = Mapping[str, tuple[int, ...]]


def _specs(shapes: Shapes) -> dict[tuple[str, ...], jax.ShapeDtypeStruct]:
    return {
        tuple(Name.parse(name)): jax.ShapeDtypeStruct(shape, np.float32) for name, shape in shapes.items()
    }


def _suggest(destination: Shapes, source: Shapes) -> Suggestions:
    return suggest(_specs(destination), _specs(source))


def _under(prefix: str, shapes: Shapes) -> dict[str, tuple[int, ...]]:
    return {f"{prefix}/{name}": shape for name, shape in shapes.items()}


_NAMELESS = {f"layer_{i}/module_{j}/leaf_{k}": (4, 4) for i in range(3) for j in range(2) for k in range(2)}
_MODEL = {f"l{i}/{leaf}": shape for i in range(3) for leaf, shape in (("kernel", (4, 6)), ("bias", (6,)))}


# Equal rests under two prefixes.


@pytest.mark.parametrize(
    ("there", "here"), [("model", "params"), ("model/a/net", "x/a"), ("", "params"), ("params", "")]
)
def test_equal_names_under_two_prefixes_are_one_certain_rule(there: str, here: str) -> None:
    destination, source = (_under(prefix, _NAMELESS) if prefix else _NAMELESS for prefix in (there, here))
    (rule,) = _suggest(destination, source).certain
    slash: Any = [f"{prefix}/{{*rest}}" if prefix else "{*rest}" for prefix in (here, there)]
    assert rule == Rename(*slash)


def test_wrappers_within_the_path_are_added_and_dropped() -> None:
    wrapped = {**_under("enc/core", _NAMELESS), **_under("dec/core", _NAMELESS)}
    bare = {**_under("enc", _NAMELESS), **_under("dec", _NAMELESS)}
    assert set(_suggest(wrapped, bare).certain) == {
        Rename("enc/{*rest}", "enc/core/{*rest}"),
        Rename("dec/{*rest}", "dec/core/{*rest}"),
    }
    assert set(_suggest(bare, wrapped).certain) == {
        Rename("enc/core/{*rest}", "enc/{*rest}"),
        Rename("dec/core/{*rest}", "dec/{*rest}"),
    }


def test_equal_names_are_no_evidence_where_layers_are_counted_from_another_number() -> None:
    there = {f"a/norm{i}/scale": (4,) for i in (1, 2, 3)}
    found = _suggest(there, {f"b/norm{i}/weight": (4,) for i in (0, 1, 2)})
    assert found.certain == ()


# Parts.


@pytest.mark.parametrize("names", [("student", "teacher"), ("params", "ema_params")])
def test_two_parts_that_hold_it_all_are_both_named(names: tuple[str, str]) -> None:
    source = {**_under(names[0], _MODEL), **_under(names[1], _MODEL)}
    assert diagnose(_specs(_MODEL), _specs(source))[0] == (
        f"6 of 6 match under `{names[0]}/`, and 6 under `{names[1]}/`"
    )
    found: Any = _suggest(_MODEL, source)
    assert found == () and found.ambiguous[0].source == tuple(f"{name}/**" for name in names)


@pytest.mark.parametrize("order", [1, -1])
def test_the_parameters_of_a_training_state_come_before_its_moments(order: int) -> None:
    each: list[Shapes] = [
        *(_under(f"opt_state/0/{moment}", _MODEL) for moment in ("mu", "nu")), _under("params", _MODEL),
        {"step": (), "opt_state/0/count": ()},
    ]  # fmt: skip
    source = {name: shape for part in each[::order] for name, shape in part.items()}
    assert diagnose(_specs(_MODEL), _specs(source))[0] == "6 of 6 match under `params/`"
    assert list(_suggest(_MODEL, source).certain) == [Rename("params/{*rest}", "{*rest}")]
    ranked = parts(_specs(_MODEL), _specs(source))
    assert [part.kept_by for part in ranked] == ["parameters", "optimizer", "optimizer"]
    assert [part.source for part in best(ranked)] == [("params",)]


def test_parameters_come_first_also_where_they_lie_deeper() -> None:
    source = {**_under("mu", _MODEL), **_under("state/model/params", _MODEL)}
    assert diagnose(_specs(_MODEL), _specs(source))[0] == "6 of 6 match under `state/model/params/`"


def test_moments_are_named_where_there_is_nothing_else() -> None:
    source = {**_under("opt/mu", _MODEL), **_under("opt/nu", _MODEL)}
    assert (
        diagnose(_specs(_MODEL), _specs(source))[0] == "6 of 6 match under `opt/mu/`, and 6 under `opt/nu/`"
    )


# Numbers.


def test_a_list_and_a_dict_of_numbered_layers_are_one_rule() -> None:
    listed = {f"layers/{i}/{leaf}": shape for i in range(3) for leaf, shape in (("w", (4, 6)), ("b", (6,)))}
    named = {name.replace("layers/", "layers_"): shape for name, shape in listed.items()}
    assert list(_suggest(named, listed)) == [Rename("layers/{i}/{*rest}", "layers_{i}/{*rest}")]
    assert list(_suggest(listed, named)) == [Rename("layers_{i}/{*rest}", "layers/{i}/{*rest}")]


def test_layers_with_leaves_directly_below_are_stacked_and_the_headline_says_so() -> None:
    there = {"layers/kernel": (3, 4, 8), "layers/bias": (3, 8)}
    here = {f"layers_{i}/{leaf}": s for i in range(3) for leaf, s in (("kernel", (4, 8)), ("bias", (8,)))}
    assert list(_suggest(there, here)) == [Stack("layers_{i}/{*rest}", "layers/{*rest}", axis=0)]
    assert diagnose(_specs(there), _specs(here)) == ("the destination is scanned over 3 layers on axis 0",)


def test_modules_numbered_alike_are_gathered_with_what_stands_behind_the_number() -> None:
    convs = [(f"conv{n}/weight", (4, 4, 3, 3)) for n in range(3)]
    norms = [(f"conv{n}_BN/{leaf}", (4,)) for n in range(3) for leaf in ("weight", "bias")]
    there: dict[str, tuple[int, ...]] = {f"c{n}/kernel": (3, 3, 4, 4) for n in range(3)}
    there |= {f"c{n}_BN/{leaf}": (4,) for n in range(3) for leaf in ("scale", "bias")}
    found = _suggest(there, dict([*convs, *norms]))
    assert set(found) == {
        Rename("conv{i}/weight", "c{i}/kernel", Transpose(2, 3, 1, 0)),
        Rename("conv{i}_BN/weight", "c{i}_BN/scale"),
        Rename("conv{i}_BN/bias", "c{i}_BN/bias"),
    }
    assert found.certain == ()
    for n in range(3):  # the first rule that matches takes a leaf: the longer pattern stands first
        rule = next(rule for rule in found if rule.patterns[0].matches(f"conv{n}_BN/weight"))
        assert rule == Rename("conv{i}_BN/weight", "c{i}_BN/scale")


# Little to go by.


def test_the_only_leaves_on_either_side_pair() -> None:
    assert list(_suggest({"fc/kernel": (3, 4)}, {"fc/weight": (4, 3)})) == [
        Rename("fc/weight", "fc/kernel", Transpose())
    ]
    found = _suggest({"w": (3, 4), "b": (4,)}, {"kern": (3, 4), "beta": (4,)})
    assert set(found) == {Rename("kern", "w"), Rename("beta", "b")} and found.certain == ()


@pytest.mark.parametrize(
    ("destination", "source"), [({}, {"0": ()}), ({"0": ()}, {}), ({"a": ()}, {"0": ()})]
)
def test_next_to_nothing_is_no_accident(destination: Shapes, source: Shapes) -> None:
    assert len(_suggest(destination, source)) == bool(destination and source)
    diagnose(_specs(destination), _specs(source))


def test_what_nothing_was_found_for_is_named_and_why() -> None:
    found = _suggest({"abc/kernel": (3, 4), "de/kernel": (5, 5)}, {"xyz/weight": (5, 7)})
    assert str(found).splitlines() == [
        "rules = []",
        "# no rule for abc/kernel, de/kernel: the source has none of their size",
    ]
    apart = _suggest({"attn/query/kernel": (4, 6)}, {"attn/v/weight": (6, 4)})
    assert apart.left == (
        "no rule for attn/query/kernel: the source has leaves of its size, but by their names these are "
        "something else",
    )


def test_the_short_form_is_one_line() -> None:
    found = _suggest({"up/kernel": (2, 3), "q/kernel": (3, 3)}, {"up/weight": (3, 2), "q/weight": (3, 3)})
    assert repr(found) == "<Suggestions: 1 rule, 1 certain>"
    assert repr(_suggest({"x/w": (2,)}, {"x/w": (2,)})) == "<Suggestions: 0 rules>"
    names = [f"{part}/{leaf}" for part in ("abc", "def") for leaf in ("kernel",)]
    open_ = _suggest(dict.fromkeys(names, (4, 4)), {f"{n}x/weight": (4, 4) for n in ("uvw", "rst")})
    assert repr(open_) == "<Suggestions: 0 rules; 1 open>"


@pytest.mark.parametrize(
    "key", ["a\0b", "\0", "<hole>", "a<hole>1", "{i}", "a*", "²", "9" * 5000, "", "a/b\\"]
)
def test_no_key_breaks_it(key: str) -> None:
    there = {(key, "0", "kernel"): (2,), (key, "1", "kernel"): (2,), ("up", key): (3, 4), ("x", "w"): (5, 6)}
    destination = {name: jax.ShapeDtypeStruct(shape, np.float32) for name, shape in there.items()}
    source = {("m", *name): spec for name, spec in destination.items()}
    (rule,) = suggest(destination, source)
    assert all(rule.rename(name) == name[1:] for name in source)
    turned = {
        ("m", *name): jax.ShapeDtypeStruct(spec.shape[::-1], np.float32) for name, spec in destination.items()
    }
    diagnose(destination, turned)
    for rule in suggest(destination, turned):  # whatever is found, it compiles and keeps to its leaves
        assert all(rule.rename(name) in (None, name[1:]) for name in turned)


# What grew.


def _wide(width: int, vocabulary: int = 50, head: int = 50) -> dict[str, tuple[int, ...]]:
    layers = {
        f"layers_{i}/{name}": shape
        for i in range(3)
        for name, shape in (
            ("up/kernel", (width, 4 * width)), ("down/kernel", (4 * width, width)), ("norm/scale", (width,)),
        )
    }  # fmt: skip
    return {"emb/embedding": (vocabulary, width), "head/kernel": (width, head), **layers}


def test_another_width_is_said_as_what_it_is() -> None:
    assert diagnose(_specs(_wide(32)), _specs(_wide(16))) == (
        "every size 16 is 32, every 64 is 128: twice as wide",
    )


def test_a_new_head_is_no_vocabulary() -> None:
    assert diagnose(_specs(_wide(16, head=5)), _specs(_wide(16))) == ("outputs of head/kernel: 50 -> 5",)


def test_another_vocabulary_is_none_of_the_width() -> None:
    assert "vocabulary 50 -> 60" in diagnose(_specs(_wide(16, vocabulary=60)), _specs(_wide(16)))


_PROGRAM = """
import sys, json
sys.path.insert(0, sys.argv[1])
import jax, numpy as np
from treeload._inference.suggest import suggest
from treeload._inference.diagnosis import diagnose
for destination, source in json.load(sys.stdin):
    sides = [{tuple(n.split("/")): jax.ShapeDtypeStruct(tuple(s), np.float32) for n, s in side.items()}
             for side in (destination, source)]
    print(suggest(*sides), diagnose(*sides))
"""


def test_no_answer_depends_on_the_hash_seed() -> None:
    import json

    names = ("query", "key", "value", "out", "norm1", "norm2", "embedding", "vocabulary")
    words = {f"block_{i}/{name}/weight": (8, 8) for i in range(2) for name in names}
    kernels = {name.replace("weight", "kernel").replace("query", "queries"): s for name, s in words.items()}
    cases = [
        (_wide(32), _wide(16)), (_wide(16, head=5), _wide(16)), (kernels, words),
        (_NAMELESS, _under("p", _NAMELESS)),
        (_MODEL, {**_under("student", _MODEL), **_under("teacher", _MODEL)}),
    ]  # fmt: skip
    root = os.path.dirname(os.path.dirname(treeload.__file__))
    said = {
        subprocess.run(
            [sys.executable, "-c", _PROGRAM, root], input=json.dumps(cases), capture_output=True, text=True,
            check=True, env={**os.environ, "PYTHONHASHSEED": seed, "JAX_PLATFORMS": "cpu"},
        ).stdout
        for seed in ("0", "1", "2")
    }  # fmt: skip
    assert len(said) == 1 and "every size 16 is 32" in said.pop()


# Growth.


@pytest.mark.parametrize("leaf", ["x{i}/p{i}", "{i:08x}q/r{i:05x}/kernel", "aaa/{i}/p"])
def test_names_that_have_nothing_in_common_take_time_by_their_number(leaf: str) -> None:
    def took(count: int) -> float:
        there = {tuple(leaf.format(i=i).split("/")): spec for i in range(count)}
        here = {tuple(f"z{key}z" for key in name): spec for name in there}
        start = time.process_time()
        suggest(there, here)
        diagnose(there, here)
        return time.process_time() - start

    spec = jax.ShapeDtypeStruct((4, 4), np.float32)
    assert took(4_000) < 8
    assert took(100_000) < 20  # about 5 s on an idle machine; 33 s for 800 leaves before


# What differs in size.


def _attention(width: int) -> dict[str, tuple[int, ...]]:
    leaves = {
        "q/kernel": (width, 2, width // 2), "q/bias": (2, width // 2), "out/kernel": (2, width // 2, width),
        "fc/kernel": (width, 2 * width), "fc/bias": (2 * width,),
    }  # fmt: skip
    layers = {f"blocks/{at}/{name}": shape for at in range(3) for name, shape in leaves.items()}
    return {**layers, "norm/scale": (width,), "head/kernel": (width, 7), "head/bias": (7,)}


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        (8, 16, "every size 4 is 8, every 8 is 16, every 16 is 32: twice as wide"),
        (16, 8, "every size 8 is 4, every 16 is 8, every 32 is 16: half as wide"),
        (8, 12, "every size 4 is 6, every 8 is 12, every 16 is 24"),
    ],
)
def test_a_model_of_another_width_is_one_sentence(before: int, after: int, said: str) -> None:
    assert diagnose(_specs(_attention(after)), _specs(_attention(before))) == (said,)


def test_what_a_head_takes_is_not_what_it_gives() -> None:
    def side(*shape: int, key: str = "kernel", **more: tuple[int, ...]) -> Any:
        return _specs({f"head/{key}": shape, "norm/scale": (3,), **more})

    assert diagnose(side(16, 7), side(8, 7)) == ("inputs of head/kernel: 8 -> 16",)
    assert diagnose(side(8, 9), side(8, 7)) == ("outputs of head/kernel: 7 -> 9",)
    assert diagnose(side(9, 8, key="weight"), side(7, 8, key="weight")) == ("outputs of head/weight: 7 -> 9",)
    several = [{f"head/{at}/kernel": (size, 7) for at in range(2)} for size in (16, 8)]
    assert not any("puts of" in each for each in diagnose(*map(_specs, several)))


def test_leaves_of_equal_sizes_are_not_compared_with_others() -> None:
    """A momentum is of a parameter's shape: which of Adam's two it becomes is open, and no size differs."""
    leaves = {"bn/scale": (16,), "head/kernel": (16, 10), "head/bias": (10,), "stem/bias": (16,)}
    source = {f"opt_state/0/trace/{name}": shape for name, shape in leaves.items()}
    destination = {f"opt_state/0/{m}/{name}": shape for m in ("mu", "nu") for name, shape in leaves.items()}
    assert not any("every size" in each for each in diagnose(_specs(destination), _specs(source)))


def _scanned(layers: int, width: int = 4) -> dict[str, tuple[int, ...]]:
    return {"layers/kernel": (layers, width, 5), "layers/bias": (layers, 5), "norm": (3,)}


def test_another_number_of_scanned_layers_is_said_with_the_rule_that_takes_the_first() -> None:
    (said,) = diagnose(_specs(_scanned(16)), _specs(_scanned(12)))
    assert said == (
        "the source is scanned over 12 layers, the destination over 16; to load the first 12 and keep the "
        "destination's own after them: "
        "Rename('layers/{*rest}', 'layers/{*rest}', Pad(16, fill='destination'))"
    )
    (said,) = diagnose(_specs(_scanned(8)), _specs(_scanned(12)))
    assert said.endswith("to load the first 8 alone: Rename('layers/{*rest}', 'layers/{*rest}', Slice(8))")
    said, *others = diagnose(_specs(_scanned(16, 6)), _specs(_scanned(12)))
    assert said == "the source is scanned over 12 layers, the destination over 16"
    assert others == ["layers/kernel: axis 1 4 -> 6"]


@pytest.mark.parametrize(("ours", "theirs"), [(12, 16), (12, 8)])
def test_the_rule_for_scanned_layers_loads_the_first_and_keeps_the_others(ours: int, theirs: int) -> None:
    def side(layers: int, sign: int) -> dict[str, Any]:
        at = sign * np.arange(1, layers + 1, dtype=np.float32)
        return {"layers": {"kernel": at[:, None, None] * np.ones((4, 5)), "bias": at[:, None] * np.ones(5)}}

    source, destination = side(ours, 1), side(theirs, -1)
    specs: list[dict[tuple[str, ...], jax.ShapeDtypeStruct]] = [
        {
            ("layers", name): jax.ShapeDtypeStruct(leaf.shape, leaf.dtype)
            for name, leaf in one["layers"].items()
        }
        for one in (destination, source)
    ]
    (said,) = diagnose(*specs)
    rule = eval(
        said[said.index("Rename(") :], {name: getattr(treeload, name) for name in ("Rename", "Pad", "Slice")}
    )
    loaded = treeload.load(destination, source, rules=[rule])["layers"]
    expected = [n if n <= ours else -n for n in range(1, theirs + 1)]
    assert loaded["bias"][:, 0].tolist() == loaded["kernel"][:, 0, 0].tolist() == expected


@pytest.mark.parametrize(
    ("destination", "source"),
    [
        ({"layer/kernel": (16, 16), "layer/bias": (16,)}, {"layer/kernel": (8, 8), "layer/bias": (8,)}),
        ({"layer/a": (16, 16), "layer/b": (16, 16)}, {"layer/a": (8, 8), "layer/b": (8, 8)}),
        ({"layers/0/a": (16, 4), "layers/1/a": (16, 4)}, {"layers/0/a": (8, 4), "layers/1/a": (8, 4)}),
        ({"layers/a": (16, 4), "layers/b": (9, 4)}, {"layers/a": (8, 4), "layers/b": (7, 4)}),
        ({"layers/a": (16, 4)}, {"layers/a": (12, 4)}),
        ({"layer/kernel": (16, 4), "layer/bias": (16,)}, {"layer/kernel": (8, 4), "layer/bias": (8,)}),
    ],
)
def test_a_width_is_not_a_number_of_scanned_layers(destination: Shapes, source: Shapes) -> None:
    assert not any("scanned" in each for each in diagnose(_specs(destination), _specs(source)))


# Moments, ties, joined names.

_PARAMS = {"stem/kernel": (5, 16), "bn/scale": (16,), "bn/bias": (16,), "head/kernel": (16, 10)}


def test_nothing_is_certain_where_an_optimizers_moments_have_the_shapes_too() -> None:
    destination = _under("params", _PARAMS) | {"step": ()}
    alone = _suggest(destination, _PARAMS)
    assert len(alone.certain) == len(alone) == 1
    moments = {f"opt_state/0/{m}/{name}": shape for m in ("mu", "nu") for name, shape in _PARAMS.items()}
    found = _suggest({**destination, **moments, "opt_state/0/count": ()}, _PARAMS)
    assert [repr(rule) for rule in found] == ["Rename('{*rest}', 'params/{*rest}')"]
    assert found.certain == () and "no other shape fits" not in found.reasons[0]
    assert "an optimizer's state in the destination fits as well" in found.reasons[0]
    assert found.left == (
        "no rule for step: the source has none of its size", "no rule for 9 leaves of an optimizer's state",
    )  # fmt: skip


def test_one_leaf_of_an_optimizer_is_one_leaf() -> None:
    found = _suggest({"a/kernel": (2, 3), "opt_state/0/count": ()}, {"a/weight": (3, 2)})
    assert found.left == ("no rule for 1 leaf of an optimizer's state",)


def test_moments_that_have_moments_to_come_from_are_no_rivals() -> None:
    moments = [f"opt_state/0/{m}" for m in ("mu", "nu")]
    both = {f"{node}/{name}": shape for node in moments for name, shape in _PARAMS.items()}
    found = _suggest(_under("params", _PARAMS) | both, _under("model", _PARAMS) | both)
    assert found.certain == tuple(found) != ()
    there, here = (
        _under("params", _PARAMS) | {f"{node}/{m}/{name}": shape for m in ("mu", "nu") for name, shape in
                                     _PARAMS.items()}
        for node in ("opt_state/0", "optimizer/0")
    )  # fmt: skip
    here = {name.replace("params/", "model/"): shape for name, shape in here.items()}
    renamed = _suggest(there, here)
    assert any(reason.startswith("certain") for reason in renamed.reasons)
    assert not any("an optimizer's state" in reason for reason in renamed.reasons)


def test_no_optimizer_is_spoken_of_where_there_is_none() -> None:
    found = _suggest({"fc/kernel": (2, 3)}, {"encoder/fc/kernel": (2, 3)})
    assert found.reasons == ("certain: 1 leaf; all names and shapes are those under encoder/",)


@pytest.mark.parametrize(
    ("head", "embedding", "tie"),
    [
        ("lm_head/kernel", {"embed": (5, 2)}, "Tie('lm_head/kernel', 'embed', Transpose())"),
        ("head/weight", {"wte/embedding": (2, 5)}, "Tie('head/weight', 'wte/embedding')"),
        ("head/kernel", {"wte/embedding": (2, 2)}, ""),  # another size
        ("mlp/kernel", {"embed": (5, 2)}, ""),
        ("head/bias", {"embed": (5, 2)}, ""),
        ("head/kernel", {"pos_embed/embedding": (5, 2)}, ""),
        ("head/kernel", {"a_embed": (5, 2), "b_embed": (5, 2)}, ""),  # which of the two
        ("head/kernel", {"norm/scale": (5, 2)}, ""),
    ],
)
def test_a_missing_head_may_be_tied_to_an_embedding_that_loads(
    head: str, embedding: Shapes, tie: str
) -> None:
    found = _suggest({head: (2, 5), **embedding}, embedding)
    assert not found and found.possible == ((f"if {head} is tied to the embedding: {tie}",) if tie else ())
    assert str(found) == "\n".join(["rules = []", *(f"# {each}" for each in found.possible)])
    assert _suggest({head: (2, 5), **embedding}, {**embedding, "rest": (5, 2)}).possible == ()


def test_a_square_embedding_does_not_show_how_a_head_is_tied_to_it() -> None:
    embedding = {"embed": (4, 4)}
    assert _suggest({"head/kernel": (4, 4), **embedding}, embedding).possible == ()


def test_names_that_are_joined_are_to_be_split_first_and_turned_as_they_are_then() -> None:
    destination = {"conv/kernel": (3, 3, 3, 3), "conv/bias": (3,)}
    joined = suggest(
        _specs(destination),
        {(name,): jax.ShapeDtypeStruct(shape, np.float32)
         for name, shape in {"conv.weight": (3, 3, 3, 3), "conv.bias": (3,)}.items()},
    )  # fmt: skip
    assert str(joined).splitlines()[0] == (
        '# the source\'s names are joined by ".": split them first, '
        'From(src, separator="."), then plan.suggest()'
    )
    split = _suggest(destination, {"conv/weight": (3, 3, 3, 3), "conv/bias": (3,)})
    assert split.first == ""
    assert [rule.ops for rule in joined if isinstance(rule, Rename)] == [
        rule.ops for rule in split if isinstance(rule, Rename)
    ]


def test_a_square_kernel_is_no_evidence_of_a_transposition() -> None:
    assert diagnose(_specs({"fc/kernel": (4, 4)}), _specs({"fc/weight": (4, 4)})) == ()
