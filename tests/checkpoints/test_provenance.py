"""Where the leaves of a checkpoint came from: kept by a save, shown by inspect, carried on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import save_file

import treeload
from treeload import From, Plan, Policy, Rename, SaveError, SourceError, Stack, Transpose

GPT = "'gpt.safetensors' (safetensors)"
RULE = Rename("h/{i}/w", "layers/{i}/kernel", Transpose())


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    tensors = {f"h.{i}.w": np.full((3, 4), i, np.float32) for i in range(3)}
    save_file({**tensors, "head": np.ones(2, np.float32)}, "gpt.safetensors", metadata={"by": "us"})


def pretrained() -> tuple[Any, Plan]:
    dst = {
        "layers": {str(i): {"kernel": jnp.zeros((4, 3))} for i in range(3)},
        "head": jnp.zeros(2), "new": jnp.zeros(1), "bias": jnp.ones(1),
    }  # fmt: skip
    policy = Policy(missing={"new": "keep"}, absent_is_zero="bias")
    plan = treeload.plan(dst, "gpt.safetensors", rules=RULE, policy=policy)
    return plan.load(), plan


def saved(path: str = "first") -> Any:
    tree, plan = pretrained()
    treeload.save(path, tree, provenance=plan)
    return tree


def of_first(name: str, ops: list[str] = [], rule: str | None = None) -> dict[str, Any]:  # noqa: B006
    return {"source": GPT, "name": name, "ops": ops, "rule": rule}


def test_a_save_keeps_source_name_ops_and_rule_of_each_leaf_that_was_loaded() -> None:
    saved()
    kernel = ["Transpose()"], "Rename('h/{i}/w', 'layers/{i}/kernel', Transpose())"
    assert dict(treeload.open("first").provenance) == {
        "head": of_first("head"),
        **{f"layers/{i}/kernel": of_first(f"h/{i}/w", *kernel) for i in range(3)},
    }


def test_without_it_nothing_is_kept() -> None:
    treeload.save("first", pretrained()[0])
    assert treeload.open("first").provenance == {} and treeload.inspect("first").provenance == {}
    assert "came from" not in str(treeload.inspect("first"))


def test_a_further_load_keeps_the_whole_way() -> None:
    saved()
    dst, rule = {"all": jnp.zeros((3, 4, 3)), "head": jnp.zeros(2)}, Stack("layers/{i}/kernel", "all")
    plan = treeload.plan(dst, "first", rules=rule, policy=Policy(unexpected="ignore"))
    treeload.save("second", plan.load(), provenance=plan)
    found = treeload.open("second").provenance
    assert found["head"] == {
        "source": "'first' (Orbax)", "name": "head", "ops": [], "rule": None, "from": of_first("head"),
    }  # fmt: skip
    assert found["all"]["name"] == [f"layers/{i}/kernel" for i in range(3)]
    assert [before["name"] for before in found["all"]["from"]] == ["h/0/w", "h/1/w", "h/2/w"]


def length(link: Any) -> int:
    before = link.get("from", [])
    return 1 + max(
        (length(each) for each in (before if isinstance(before, list) else [before]) if each), default=0
    )


def test_a_training_that_goes_on_and_on_keeps_the_latest_links_and_the_first() -> None:
    tree = saved("0")
    for at in range(1, 12):
        treeload.save(str(at), tree, provenance=treeload.plan(tree, str(at - 1)))
    link = treeload.open("11").provenance["head"]
    assert length(link) == 8 and link["source"] == "'10' (Orbax)"
    while "from" in link:
        link = link["from"]
    assert link == of_first("head")


def test_a_chain_with_a_fork_does_not_grow_without_end_either() -> None:
    saved("0")
    tree: Any = {"all": jnp.zeros((3, 4, 3))}
    plan = treeload.plan(tree, From("0"), rules=Stack("layers/{i}/kernel", "all"),
                         policy=Policy(unexpected="ignore"))  # fmt: skip
    treeload.save("1", tree, provenance=plan)
    for at in range(2, 12):
        treeload.save(str(at), tree, provenance=treeload.plan(tree, str(at - 1)))
    assert length(treeload.open("11").provenance["all"]) == 8


def test_the_sources_of_an_average_are_kept_with_it() -> None:
    saved("a")
    saved("b")
    treeload.save("mean", treeload.average(["a", "b"]), provenance=["a", "b"])
    assert treeload.open("mean").provenance["head"] == {
        "source": ["'a' (Orbax)", "'b' (Orbax)"], "name": ["head", "head"], "ops": ["average"], "rule": None,
        "from": [of_first("head"), of_first("head")],
    }  # fmt: skip


def test_the_provenance_of_a_source_can_be_given_on_as_it_is() -> None:
    tree = saved()
    known = treeload.open("first").provenance
    treeload.save("again", {"head": tree["head"]}, provenance=known)
    assert treeload.open("again").provenance == {"head": known["head"]}


def test_a_tie_has_what_is_known_of_its_leaf() -> None:
    shared = jnp.ones(2)
    plan = treeload.plan({"a": shared, "b": shared}, {"a": jnp.zeros(2), "b": jnp.zeros(2)})
    treeload.save("tied", {"a": shared, "b": shared}, provenance=plan)
    both = {"a": jnp.zeros(2), "b": jnp.zeros(2)}
    treeload.save("two", both, provenance=treeload.plan(both, "tied"))
    a, b = (treeload.open("two").provenance[name]["from"] for name in "ab")
    assert a == b and a["source"] == "a tree in memory"


@pytest.mark.parametrize("suffix", [".safetensors", ""])
def test_an_export_carries_what_its_source_knew_and_no_more(suffix: str) -> None:
    tree = saved()
    treeload.export(f"out{suffix}", tree, like=treeload.plan(tree, "first"))
    assert treeload.open(f"out{suffix}").provenance == treeload.open("first").provenance
    treeload.export(f"plain{suffix}", tree, like=pretrained()[1])
    assert treeload.open(f"plain{suffix}").provenance == {}


def test_in_a_safetensors_file_it_is_metadata_of_the_file_and_not_of_the_source() -> None:
    tree = saved()
    treeload.save("first", tree, metadata={"by": "us"}, provenance=pretrained()[1], overwrite=True)
    treeload.export("out.safetensors", tree, like=treeload.plan(tree, "first"))
    with safe_open("out.safetensors", "np") as file:
        held = file.metadata()
    assert set(held) == {"by", "treeload.provenance"}
    assert json.loads(held["treeload.provenance"])["layers.1.kernel"]["name"] == "h/1/w"
    assert treeload.open("out.safetensors").metadata == {"by": "us"}


def test_names_that_are_split_otherwise_are_so_here_too() -> None:
    tree = saved()
    treeload.export("out.safetensors", tree, like=treeload.plan(tree, "first"))
    plan = treeload.plan({"layers.1.kernel": jnp.zeros((4, 3))}, From("out.safetensors", separator="/"),
                         policy=Policy(unexpected="ignore"))  # fmt: skip
    assert "layers.1.kernel" in plan.sources[0].provenance
    treeload.save("joined", {"a/b": jnp.ones(1)}, provenance={r"a\/b": of_first("x")})
    split = treeload.plan({"a": {"b": jnp.zeros(1)}}, From("joined", separator="/")).sources[0]
    assert split.provenance == {"a/b": of_first("x")}


def test_inspect_shows_it_grouped() -> None:
    saved()
    shown = str(treeload.inspect("first"))
    assert shown.partition("came from\n")[2] == (
        f"  head ← head in {GPT}\n"
        f"  layers/{{0..2}}/kernel ×3 ← h/{{0..2}}/w ×3 in {GPT} by\n"
        "      Rename('h/{i}/w', 'layers/{i}/kernel', Transpose())"
    )
    found = treeload.inspect("first")
    assert found.to_dict()["provenance"] == dict(found.provenance) == dict(treeload.open("first").provenance)
    json.dumps(found.to_dict())


def test_inspect_shows_a_page_of_it() -> None:
    tree = {"x" * n: jnp.zeros(n) for n in range(1, 21)}
    provenance = {name: of_first(name, rule=f"Rename({name!r}, {name!r})") for name in tree}
    treeload.save("many", tree, provenance=provenance)
    assert "… and 8 more; .provenance has them all" in str(treeload.inspect("many"))


# What is refused.


def test_a_plan_of_another_tree_is_refused() -> None:
    _, plan = pretrained()
    with pytest.raises(SaveError, match="the plan of another tree: .* no leaf 'layers/0/kernel'|'head'"):
        treeload.save("x", {"params": pretrained()[0]}, provenance=plan)
    with pytest.raises(SaveError, match="has none of their leaves"):
        treeload.save("x", {"other": jnp.ones(1)}, provenance=["gpt.safetensors"])
    assert not Path("x").exists()


@pytest.mark.parametrize(
    "given",
    [{"w": {"source": "a"}}, {"w": 3}, {"a//b": of_first("x")}, {"w": {**of_first("x"), "more": 1}},
     {"w": {**of_first("x"), "ops": "Transpose()"}}, {"w": {**of_first("x"), "rule": 1}},
     {"w": {**of_first("x"), "name": [1]}}, {"w": of_first("a//b")}, {"w": {**of_first("x"), "from": [{}]}}],
    ids=["few", "number", "name", "more", "ops", "rule", "names", "no-name", "from"],
)  # fmt: skip
def test_what_is_no_provenance_is_refused(given: Any) -> None:
    with pytest.raises(SaveError, match="provenance= cannot be kept"):
        treeload.save("x", {"w": jnp.ones(1)}, provenance=given)


def test_what_tells_nothing_is_a_type_error() -> None:
    with pytest.raises(TypeError, match=r"takes the Plan .* not a str"):
        treeload.save("x", {"w": jnp.ones(1)}, provenance="gpt.safetensors")


def endless() -> dict[str, Any]:
    link = of_first("x")
    for _ in range(9):
        link = {**of_first("x"), "from": link}
    return {"head": link}


@pytest.mark.parametrize(
    ("said", "why"),
    [("{", "malformed"), ("[]", "no mapping of tensors"), ('{"head": 1}', "not what treeload writes"),
     ('{"head": 1, "head": 1}', "there twice"), (json.dumps(endless()), "a chain without end")],
    ids=["cut", "list", "number", "twice", "endless"],
)  # fmt: skip
def test_a_file_whose_record_is_of_another_form_is_refused(said: str, why: str) -> None:
    save_file({"head": np.ones(2, np.float32)}, "bad.safetensors", metadata={"treeload.provenance": said})
    with pytest.raises(SourceError, match=f"record of provenance is malformed.*{why}|{why}"):
        treeload.open("bad.safetensors")


def hostile(text: str) -> dict[str, Any]:
    return {"head": {**of_first(text), "source": text, "ops": [text], "rule": text}}


def test_nothing_that_it_says_acts_on_a_terminal() -> None:
    said = json.dumps(hostile("\x1b[31m\u202e\n"))
    save_file({"head": np.ones(2, np.float32)}, "bad.safetensors", metadata={"treeload.provenance": said})
    shown = str(treeload.inspect("bad.safetensors"))
    assert shown.replace("\n", "").isprintable() and r"\x1b[31m\u202e" in shown
