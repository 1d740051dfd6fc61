"""What a plan and a ``LoadError`` say, to the letter.

The texts are in ``tests/golden``; ``TREELOAD_UPDATE_GOLDEN=1 pytest tests/reports`` writes them anew.
"""

from __future__ import annotations

import io
import re
import time
from collections.abc import Callable
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import jax
import numpy as np
import optax
import pytest
from rich.console import Console

import treeload
from treeload import (
    BIAS,
    Cast,
    From,
    History,
    LoadError,
    Name,
    Plan,
    Policy,
    Rename,
    Source,
    Tie,
    Transpose,
    Version,
)
from treeload._findings.kinds import KINDS
from treeload._reports.going_on import GoingOn
from treeload._reports.text import error_rich, plan_rich
from treeload._sources.memory import MemorySource

Tree = Any
Check = Callable[[str, str], None]


def f32(*shape: int) -> np.ndarray:
    return np.zeros(shape, np.float32)


def encoder(layers: int = 12, size: int = 384) -> Tree:
    return {
        "layers": [
            {"attn": {"q": {"kernel": f32(size, size), "bias": f32(size)}}, "norm": {"scale": f32(size)}}
            for _ in range(layers)
        ]
    }


def memory(tree: Tree, label: str) -> Source:
    source = MemorySource(tree)
    source.label = label
    return source


def error_of(plan: Plan) -> str:
    with pytest.raises(LoadError) as raised:
        plan.raise_for_errors()
    return str(raised.value)


# One for each kind of finding; a plan, for which the error is checked as well where there is one.


def missing() -> Plan:
    return treeload.plan(
        {"trunk": encoder(3), "head": {"kernel": f32(9, 2), "bias": f32(2)}}, {"trunk": encoder(3)}
    )


def missing_biases() -> Plan:
    """A bias has a way of its own, and layers that lack theirs are one problem."""
    dst = {"layers": [{"kernel": f32(2, 2), "bias": f32(2)} for _ in range(4)], "head": {"bias": f32(1)}}
    return treeload.plan(dst, {"layers": [{"kernel": f32(2, 2), "bias": None} for _ in range(4)]})


def unexpected() -> Plan:
    src = {"trunk": encoder(3), "old_head": {"kernel": f32(9, 2), "bias": f32(2)}, "step": f32()}
    return treeload.plan({"trunk": encoder(3)}, src)


def shape() -> Plan:
    dst = {"pos": f32(1, 577, 768), "layers": [{"kernel": f32(3, 4), "bias": f32(4)} for _ in range(3)]}
    src = {"pos": f32(1, 197, 768), "layers": [{"kernel": f32(4, 3), "bias": f32(4)} for _ in range(3)]}
    return treeload.plan(dst, src)


def dtype() -> Plan:
    dst = {"ids": np.zeros(4, np.int32), "mask": np.zeros(4, np.float32), "w": f32(4)}
    return treeload.plan(dst, {"ids": f32(4), "mask": np.zeros(4, bool), "w": f32(4)})


def structure() -> Plan:
    dst = {"a": f32(3), "b": {"c": f32(3), "d": f32(2)}, "act": "relu", "rng": jax.random.key(0)}
    dst["w"] = f32(4)
    src = {
        "w": f32(4),
        "a": {"x": f32(1), "y": f32(2)},
        "b": f32(9),
        "act": f32(1),
        "rng": jax.random.key_data(jax.random.key(0)),
    }
    return treeload.plan(dst, src)


def absent() -> Plan:
    src = {"layers": [{"w": f32(2), "bias": np.array([0, 0.5 + i], np.float32)} for i in range(3)]}
    dst = {"layers": [{"w": f32(2)} for _ in range(3)]}
    return treeload.plan(dst, src, policy=Policy(absent_is_zero=BIAS)).verify()


def tie() -> Plan:
    shared = f32(2)
    return treeload.plan({"embed": shared, "head": shared}, {"embed": f32(2), "head": f32(2) + 1}).verify()


def collision() -> Plan:
    sources = [memory({"w": f32(3)}, "'a.npz' (npz)"), memory({"old": {"w": f32(3)}}, "'b.npz' (npz)")]
    return treeload.plan({"w": f32(3)}, sources, rules=[Rename("old/{x}", "{x}")])


def rule() -> Plan:
    rules = [
        Rename("bert/encoder/layer/{i}/attention/query/weight", "layers/{i}/attn/q/kernel", Transpose()),
        Rename("w", "w", Transpose(1, 0)),
    ]
    return treeload.plan({"w": f32(3)}, {"w": f32(3)}, rules=rules)


def version() -> Plan:
    """One source is of tomorrow, of another it is not known, and the third takes the steps it lacks."""
    history = History(
        Version(2, rules=[Rename("dense/{*rest}", "proj/{*rest}")]),
        Version(3, policy=Policy(missing={"scale": "keep"})),
        Version(2, rules=[Rename("w", "q/kernel", Transpose())], scope="**/attn"),
    )
    old = {"dense": {"kernel": f32(2, 3)}, "attn": {"w": f32(3, 2)}}

    def new() -> Tree:
        return {"proj": {"kernel": f32(2, 3)}, "attn": {"q": {"kernel": f32(2, 3)}}, "scale": f32(2)}

    return treeload.plan(
        {name: new() for name in "abc"},
        [From(memory(old, "'ckpts/a' (Orbax)"), into="a", version=1),
         From(memory(old, "'ckpts/b' (Orbax)"), into="b"),
         From(memory(new(), "'ckpts/c' (Orbax)"), into="c", version={"": 4, "**/attn": 2})],
        history=history,
    )  # fmt: skip


def migrated() -> Plan:
    src = {"dense": {"kernel": f32(2, 3)}, "layers": [{"attn": {"w": f32(3, 2)}} for _ in range(4)]}
    dst = {
        "proj": {"kernel": f32(2, 3)}, "layers": [{"attn": {"q": {"kernel": f32(2, 3)}}} for _ in range(4)],
        "scale": f32(2),
    }  # fmt: skip
    history = History(
        Version(2, rules=[Rename("dense/{*rest}", "proj/{*rest}")]),
        Version(3, policy=Policy(missing={"scale": "keep"})),
        Version(2, rules=[Rename("w", "q/kernel", Transpose())], scope="**/attn"),
    )
    return treeload.plan(dst, From(memory(src, "'ckpts/vit' (Orbax, step 300)"), version=1), history=history)


def one_leaf_twice() -> Plan:
    rules = [Rename("gru/bias_hh", "dense_h/bias"), Rename("gru/bias_hh", "hn/bias")]
    dst = {"dense_h": {"bias": f32(3)}, "hn": {"bias": f32(3)}}
    return treeload.plan(dst, {"gru": {"bias_hh": f32(3)}}, rules=rules)


def abstract() -> Plan:
    dst = {"w": f32(3), "head": {k: jax.ShapeDtypeStruct((3,), np.float32) for k in ("bias", "kernel")}}
    return treeload.plan(dst, {"w": f32(3)}, policy=Policy(missing={"head/**": "keep"}))


# Whole situations.


def hopeless() -> Plan:
    """Nothing of the source has a place: to forgive all of it would be a load of nothing."""
    dst = {"enc": {"kernel": f32(3, 5), "bias": f32(5)}, "head": {"kernel": f32(5, 2)}}
    return treeload.plan(dst, {"gru": {"w": f32(7, 11), "r": f32(11, 11)}, "step": np.float32(3)})


def repaired_in_part() -> Plan:
    """Another project's names, and a head of another size."""
    dst = {
        "layers": [{"attn": {"kernel": f32(4, 6), "bias": f32(6)}} for _ in range(6)],
        "head": {"kernel": f32(6, 3), "bias": f32(3)},
    }
    src = {f"enc.{i}.attn.{k}": f32(*s) for i in range(6) for k, s in
           (("weight", (6, 4)), ("bias", (6,)))} | {"classifier.weight": f32(10, 6)}  # fmt: skip
    return treeload.plan(dst, From(src, separator="."))


def training_state() -> Plan:
    """A model's parameters, from a checkpoint of its training."""
    params = {"enc": {"kernel": f32(4, 6), "bias": f32(6)}, "head": {"kernel": f32(6, 3)}}
    return treeload.plan(params, {"params": params, "opt_state": {"0": {"mu": params, "nu": params}}})


def one_of_two() -> Plan:
    """Two models in one checkpoint, and nothing says which is meant."""
    model = {"enc": {"kernel": f32(4, 6), "bias": f32(6)}, "head": {"kernel": f32(6, 3)}}
    return treeload.plan(model, {"student": model, "teacher": model})


def idle_patterns() -> Plan:
    """A policy and a rule that were meant for something."""
    dst = {"enc": {"w": f32(3)}, "head": {"kernel": f32(3, 2), "bias": f32(2)}}
    policy = Policy(missing={"head.*": "keep"}, unexpected={"old": "ignore"})
    src = {"encoder": {"w": f32(3)}}
    return treeload.plan(dst, src, rules=Rename("encoder", "enc"), policy=policy)


def optimizer() -> Plan:
    """The state of adam for a chain of two."""
    params = {"w": f32(3)}
    dst = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(1e-3)).init(params)
    return treeload.plan(dst, optax.adam(1e-3).init(params))


def section_8() -> Plan:
    """The example of the design: a position embedding of another size, and a head of another name."""
    dst = {
        "encoder": {**encoder(), "pos_embed": f32(1, 577, 768)},
        "head": {"kernel": f32(768, 10), "bias": f32(10)},
    }
    src = {
        "encoder": {**encoder(), "pos_embed": f32(1, 197, 768)},
        "classifier": {"kernel": f32(768, 1000), "bias": f32(1000)},
    }
    plan = treeload.plan(dst, memory(src, "'ckpts/vit' (Orbax, step 300)"))
    near = {"unexpected": "head"}
    return plan.with_findings(
        findings=[
            replace(f, near=(Name((near[f.kind], f.name[-1])),) if f.kind in near else ())
            for f in plan.findings
        ]
    )


def clean() -> Plan:
    return treeload.plan(
        {"encoder": encoder()}, memory({"encoder": encoder()}, "'ckpts/vit' (Orbax, step 300)")
    )


def fine_tune() -> Plan:
    """Forgiven is said once: what is kept among the leaves, what is left out among what is not used."""
    head, old = {"kernel": f32(768, 10), "bias": f32(10)}, {"kernel": f32(768, 1000), "bias": f32(1000)}
    src = {"encoder": encoder(), "head": old, "decoder": {"w": f32(3)}}
    dst = {"encoder": encoder(), "head": head, "adapter": f32(4)}
    policy = Policy(
        shape={"head/**": "keep"}, missing={"adapter": "keep"}, unexpected={"decoder/**": "ignore"}
    )
    return treeload.plan(dst, memory(src, "'ckpts/vit' (Orbax, step 300)"), policy=policy)


def renamed() -> Plan:
    rules = [
        Rename("bert/layer/{i}/query/weight", "layers/{i}/attn/q/kernel", Transpose(), Cast("bfloat16")),
        Rename("bert/layer/{i}/query/bias", "layers/{i}/attn/q/bias"),
        Rename("bert/layer/{i}/ln/weight", "layers/{i}/norm/scale"),
    ]
    src = {
        "bert": {
            "layer": [
                {"query": {"weight": f32(4, 4), "bias": f32(4)}, "ln": {"weight": f32(4).astype(np.float16)}}
                for _ in range(6)
            ]
        }
    }
    return treeload.plan(encoder(6, 4), src, rules=rules)


def several_sources() -> Plan:
    """Which source it is about, and what the leaf is called there."""
    sources = [
        From(memory(encoder(2, 4), "'ckpts/encoder' (Orbax, step 300)"), into="encoder"),
        From(
            memory({"lm": {"w": f32(3), "v": f32(2)}}, "'lm.safetensors' (safetensors)"),
            subtree="lm",
            into="decoder",
        ),
    ]
    return treeload.plan({"encoder": encoder(2, 4), "decoder": {"w": f32(4)}}, sources)


def pending() -> Plan:
    shared = f32(2)
    dst = {"embed": shared, "head": shared, "layers": [{"w": f32(2)} for _ in range(3)]}
    src = {"embed": f32(2), "head": f32(2), "layers": [{"w": f32(2), "bias": f32(2)} for _ in range(3)]}
    return treeload.plan(dst, src, policy=Policy(absent_is_zero=BIAS))


def forgiven_elsewhere() -> Plan:
    rules = [Rename("b", "a"), Rename("nothing", "here")]
    return treeload.plan(
        {"a": f32(3)},
        {"a": f32(3), "b": f32(3)},
        rules=rules,
        policy=Policy(collision="first", rule="ignore"),
    )


def thousand() -> Plan:
    def words(first: str) -> list[str]:
        return [f"{first}_{a}{b}" for a in "abcdefghijklmnopqrstuvwxy" for b in "abcdefghijklmnopqrst"]

    return treeload.plan(
        {w: {"kernel": f32(2)} for w in words("new")}, {w: {"kernel": f32(3)} for w in words("x")}
    )


SITUATIONS = [
    missing, missing_biases, unexpected, shape, dtype, structure, absent, tie, collision, rule, abstract,
    version, migrated, one_leaf_twice,
    section_8, clean, fine_tune, renamed, several_sources, pending, forgiven_elsewhere, thousand, hopeless,
    repaired_in_part, training_state, one_of_two, idle_patterns, optimizer,
]  # fmt: skip


@pytest.mark.parametrize("situation", SITUATIONS)
def test_a_plan_reads_as_it_is_meant_to(situation: Callable[[], Plan], check: Check) -> None:
    check(f"plan_{situation.__name__}", str(situation()))


@pytest.mark.parametrize("situation", [each for each in SITUATIONS if not each().ok])
def test_an_error_reads_as_it_is_meant_to(situation: Callable[[], Plan], check: Check) -> None:
    check(f"error_{situation.__name__}", error_of(situation()))


def test_every_kind_of_finding_has_a_golden_text() -> None:
    told = {finding.kind for situation in SITUATIONS for finding in situation().findings}
    assert told == KINDS.keys() - {"values"}  # values: of an average, not of a plan


# What holds for all of them.


@pytest.mark.parametrize("situation", SITUATIONS)
def test_the_summary_comes_first(situation: Callable[[], Plan]) -> None:
    plan = situation()
    assert " ".join(str(plan).split()).startswith(plan.summary())


@pytest.mark.parametrize("situation", [each for each in SITUATIONS if not each().ok])
def test_the_last_line_of_an_error_says_that_nothing_was_changed(situation: Callable[[], Plan]) -> None:
    assert error_of(situation()).splitlines()[-1] == "Nothing was changed."


MORE = re.compile(r"^  more about (it|these): treeload explain (.+)$", re.MULTILINE)


@pytest.mark.parametrize("situation", SITUATIONS)
def test_a_report_with_problems_ends_them_once_with_where_to_read_about_its_kinds(
    situation: Callable[[], Plan],
) -> None:
    plan = situation()
    for text in (str(plan), *([] if plan.ok else [error_of(plan)])):
        if plan.ok:
            assert "more about" not in text and "explain" not in text
            continue
        (more,) = MORE.finditer(text)
        above, below = text[: more.start()], text[more.end() :]
        told = {kind for kind in KINDS if re.search(rf"^  {kind} ", above, re.MULTILINE)}
        assert more[2].split() == [kind for kind in KINDS if kind in told]
        assert not any(re.search(rf"^  {kind} ", below, re.MULTILINE) for kind in KINDS)
        assert above.endswith("\n\n") and re.match(
            r"\n\n(forgiven|to be|leaves|not used|Nothing was changed)", below
        )
        assert (more[1] == "it") == (len(plan.errors) == 1)


def test_the_kinds_of_what_is_left_once_rules_are_given_are_among_them() -> None:
    dst = {"trunk": {"w": f32(2, 3)}, "head": {"w": f32(3, 5), "b": f32(5)}}
    src = {"net": {"trunk": {"w": f32(2, 3)}, "head": {"w": f32(3, 9), "b": f32(9)}}}
    plan = treeload.plan(dst, src)
    assert {finding.kind for finding in plan.errors} == {"missing", "unexpected"}
    assert "treeload explain missing unexpected shape\n" in str(plan)


def test_where_a_line_has_no_room_for_all_kinds_there_are_several_commands() -> None:
    plan = missing()
    (finding, *_) = plan.errors
    findings = [replace(finding, kind=kind, remedies=()) for kind in KINDS]
    text = str(plan.with_findings(findings=findings))
    assert max(map(len, text.splitlines())) <= 80
    commands = re.findall(r"^    treeload explain (.+)$", text, re.MULTILINE)
    assert len(commands) == 2 and " ".join(commands).split() == list(KINDS)


def pasted(text: str) -> list[Policy]:
    """Every policy in a text, as somebody would paste it."""
    found = re.findall(r"Policy\((?:[^()]|\([^()]*\))*\)", text)
    return [eval(code, {"Policy": Policy}) for code in found if "..." not in code]


@pytest.mark.parametrize("situation", [missing, missing_biases, unexpected, shape, dtype, tie, structure])
def test_the_code_in_an_error_can_be_pasted_whole_and_mends_it(situation: Callable[[], Plan]) -> None:
    plan = situation()
    settled = GoingOn(plan, plan.errors).settled
    for kind in {finding.kind for finding in plan.errors}:
        policies = [policy for policy in pasted(error_of(plan)) if getattr(policy, kind) != "error"]
        left = [
            f
            for f in plan.errors
            if f.kind == kind
            and f not in settled
            and not any(p.verdict(kind, str(f.name)) != "error" for p in policies)
        ]
        assert policies and not left


def test_one_way_in_several_wordings_is_said_without_any_of_them() -> None:
    """Each head would take the value of its own embedding, and the code is for both."""
    dst = {"embed": [f32(2), f32(2)], "head": [f32(2), f32(2)]}
    src = {"embed": [f32(2), f32(2)], "head": [f32(2) + 1, f32(2) + 1]}
    plan = treeload.plan(dst, src, rules=Tie("head/{i}", "embed/{i}")).verify()
    assert [finding.remedy.partition(":")[0] for finding in plan.errors] == [
        "to take the value of embed/0",
        "to take the value of embed/1",
    ]
    text = error_of(plan)
    assert 'to go on: Policy(tie={"head/*": "first"})' in text
    assert "to take the value of" not in text


def test_code_that_fits_on_a_line_is_not_broken() -> None:
    for situation in SITUATIONS:
        for start in re.finditer(r"^ *(Policy\(.*)$", str(situation()), re.MULTILINE):
            assert start[1].endswith((")", "),")) or start[1].endswith(("{", "("))


def test_names_that_hold_quotes_and_backslashes_come_out_as_code_that_means_them() -> None:
    name = ('a"b', "c\\d", "e/f", "{g}", "h*", "\x1b[31m", "; ")
    tree: Tree = f32(2)
    for key in reversed(name):
        tree = {key: tree}
    plan = treeload.plan({"w": f32(2), **tree}, {"w": f32(2)})
    (policy,) = pasted(error_of(plan))
    assert policy.verdict("missing", str(Name(name))) == "keep"


def test_no_text_holds_an_escape_sequence_whatever_the_source_says(
    acted_upon: Callable[[str], list[str]],
) -> None:
    evil = "\x1b]0;owned\x07\x1b[31m\r\n\u202e"

    class Evil(Source):
        label = evil
        metadata = MappingProxyType({evil: evil})

        def specs(self):
            return {Name((evil, "w")): jax.ShapeDtypeStruct((2,), np.float32)}

        def read(self, requests):
            return iter(())

    class Fails(treeload.Apply):
        def __repr__(self) -> str:
            return evil

    for rules in ([], [Rename(f"{evil}/w", "w", Fails(lambda x: x[evil]))]):
        plan = treeload.plan({"w": f32(2)}, Evil(), rules=rules)
        for text in (
            str(plan),
            error_of(plan),
            str(treeload.inspect(Evil())),
            repr(treeload.inspect(Evil())),
        ):
            assert not acted_upon(text)


def test_a_label_that_is_too_long_for_a_line_has_one_of_its_own_and_stays_whole() -> None:
    label = f"'/data/{'very/' * 20}long path' (Orbax, step 300)"
    assert f"from\n  {label}\n" in str(treeload.plan({}, memory({}, label)))
    two = [memory({"a": f32(1)}, label), memory({"b": f32(1)}, "'b'")]
    assert f"in loading 1 leaf from 2 sources\n  {label}\n  'b'\n" in error_of(
        treeload.plan({"a": f32(2)}, two)
    )


def test_colours_are_for_terminals_alone() -> None:
    plan = section_8()
    for text in (plan_rich(plan), error_rich(plan, plan.errors)):
        plain, coloured = io.StringIO(), io.StringIO()
        Console(file=plain, width=80).print(text)
        Console(file=coloured, width=80, force_terminal=True, color_system="standard", no_color=False).print(
            text
        )
        assert plain.getvalue().rstrip() == text.plain.rstrip()
        assert "\x1b[31mshape" in coloured.getvalue() and "\x1b[36mPolicy" in coloured.getvalue()


def test_a_thousand_problems_are_a_page_and_the_plan_has_them_all() -> None:
    plan = thousand()
    assert len(plan.errors) == len(plan.to_dict()["findings"]) == 1000
    assert len(error_of(plan).splitlines()) < 70 and len(str(plan).splitlines()) < 70


def test_a_root_that_is_a_leaf_has_a_word() -> None:
    assert "shape       the root\n" in error_of(treeload.plan(f32(2), f32(3)))


def experts(layers: int, count: int) -> Tree:
    return {
        "layers": {
            str(i): {"experts": {str(e): {k: f32(1) for k in ("up", "down", "gate")} for e in range(count)}}
            for i in range(layers)
        }
    }


def test_a_mixture_of_experts_is_a_few_lines() -> None:
    text = str(treeload.plan(experts(64, 208), experts(64, 208)))
    assert "load  39,936 leaves as they are" in text
    assert len(text.splitlines()) < 10


def test_an_expert_that_is_missing_is_named() -> None:
    source = experts(4, 8)
    del source["layers"]["2"]["experts"]["5"]
    text = str(treeload.plan(experts(4, 8), source))
    assert "missing     layers/2/experts/5/{down,gate,up}   float32[1]" in text
    assert len(text.splitlines()) < 16


@pytest.mark.slow
def test_a_hundred_thousand_leaves_print_in_three_seconds() -> None:
    tree = {f"block_{i}": {f"leaf_{j}": f32(1) for j in "abcdefghij"} for i in range(10_000)}
    plan = treeload.plan(tree, dict(tree))
    start = time.process_time()
    str(plan)
    assert time.process_time() - start < 3


def test_of_a_sharding_that_does_not_fit_it_is_said_why() -> None:
    mesh = jax.sharding.Mesh(np.array(jax.devices()[:4]), ("a",))
    sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(None, "a"))
    dst = {"w": jax.ShapeDtypeStruct((8, 6), np.float32, sharding=sharding)}
    text = " ".join(str(treeload.plan(dst, {"w": np.ones((8, 6), np.float32)})).split())
    assert "splits axis 1 into 4, which does not divide 6" in text


def layered(layers: int) -> Tree:
    def block() -> Tree:
        return {name: {"kernel": f32(4, 3), "bias": f32(3)} for name in "abc"}

    return {"blocks": [block() for _ in range(layers)]}


def test_patterns_of_whole_layers_are_written_where_they_are_few() -> None:
    plan = treeload.plan(layered(6), layered(4))
    policy = 'Policy(missing={"blocks/4/**": "keep", "blocks/5/**": "keep"})'
    assert policy in str(plan)
    assert treeload.plan(layered(6), layered(4), policy=pasted(str(plan))[0]).ok


def test_a_wildcard_is_written_for_layers_and_names_for_what_lies_beside_what_loads() -> None:
    wanted = {"blocks": [{"w": f32(2)} for _ in range(4)], "bn": {"scale": f32(2)}}
    extra = {"blocks": [{"w": f32(2), "rngs": {"count": f32(1), "key": f32(2)}} for _ in range(4)],
             "bn": {"scale": f32(2), "mean": f32(2), "var": f32(2)}}  # fmt: skip
    plan = treeload.plan(wanted, extra)
    for pattern in ("blocks/*/rngs/**", "bn/mean", "bn/var"):
        assert f'"{pattern}": "ignore"' in str(plan)
    assert treeload.plan(wanted, extra, policy=pasted(str(plan))[0]).ok


def test_a_pattern_for_zeros_is_none_of_a_leaf_that_zeros_are_not_for() -> None:
    words = ["one", "two", "three", "four", "five"]
    wanted = {word: {"kernel": f32(2), "bias": f32(3)} for word in words}
    moments = {"mu": {"one": {"bias": f32(3)}}}
    plan = treeload.plan({**wanted, **moments}, {word: {"kernel": f32(2)} for word in words})
    assert "**/bias" not in str(plan) and '"five/bias"' in str(plan)
    assert "**/bias" in str(treeload.plan(wanted, {word: {"kernel": f32(2)} for word in words}))


def test_a_way_that_is_for_one_rule_stands_under_it_and_the_policy_for_all_comes_last() -> None:
    src = {"bn": {"running_mean": f32(2)}, "head": {"weight": f32(3, 2)}}
    dst = {"bn": {"mean": f32(2)}, "head": {"kernel": f32(2, 3)}}
    rules = [Rename("bn/mean", "bn/running_mean"), Rename("head/kernel", "head/weight", Transpose())]
    text = str(treeload.plan(dst, src, rules=rules))
    order = [
        "Rename('bn/mean', 'bn/running_mean') matched nothing", "Rename('bn/running_mean', 'bn/mean')",
        "Rename('head/kernel', 'head/weight', Transpose()) matched nothing",
        "Rename('head/weight', 'head/kernel', Transpose())", 'Policy(rule={"bn/running_mean"',
    ]  # fmt: skip
    at = [text.index(each) for each in order]
    assert at == sorted(at) and "for bn/running_mean:" not in text


def test_dtypes_that_jax_narrows_are_one_problem_whatever_the_leaves_are_called() -> None:
    def spec(dtype: str, *shape: int) -> Any:
        return jax.ShapeDtypeStruct(shape, np.dtype(dtype))

    dst = {"a": spec("float64", 2), "b": spec("float64", 3), "n": spec("int64", 2), "w": spec("float32", 2),
           "layers": [{"x": spec("float64", 2), "y": spec("float64")} for _ in range(3)]}  # fmt: skip
    src = jax.tree.map(lambda leaf: np.ones(leaf.shape, leaf.dtype), dst)
    plan = treeload.plan(dst, src)
    text = str(plan)
    assert text.count("\n  dtype ") == 2
    assert "a, b, layers/{0..2}/x ×3 and 3 more\n              destination  float64\n" in text
    assert text.count("JAX_ENABLE_X64=1 in the environment, or float32 in the destination") == 1
    assert "destination  int64[2]" in text and "or int32 in the destination" in text
    (policy,) = pasted(text)
    assert treeload.plan(dst, src, policy=policy).summary().startswith("1 of 10")
    assert not [one for one in treeload.plan(dst, src, policy=policy).errors if one.kind == "dtype"]


def test_what_is_outside_the_scope_on_both_sides_is_listed_once() -> None:
    tree = {"head": {"k": f32(2)}, "enc": {"k": f32(2)}}
    text = str(treeload.plan(tree, {**tree, "step": f32(1)}, scope="haed/**"))
    assert text.count("enc/k") == 1 and text.count("\n  step") == 1
