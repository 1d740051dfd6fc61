"""Entries and findings as JSON-like data: every fact, in plain words."""

from __future__ import annotations

import json

import jax
import numpy as np
import pytest

from treeload import Cast, Name, Rename, Transpose
from treeload._findings.finding import Finding
from treeload._findings.kinds import Kind
from treeload._findings.remedy import keep_own
from treeload._plans.as_dict import entry_dict, finding_dict, leaf_dict
from treeload._plans.entry import Action, Entry, OnOverflow
from treeload._sources.source import SourceLeaf

SPEC = jax.ShapeDtypeStruct((2, 3), np.float32)
LEAF = SourceLeaf("a file", Name(("a/b", "c")), SPEC)
RULE = Rename("x", "y", Transpose())


def test_a_leaf_says_its_source_its_printed_name_and_its_size() -> None:
    assert leaf_dict(LEAF) == {
        "source": "a file",
        "name": r"a\/b/c",
        "spec": {"shape": [2, 3], "dtype": "float32", "bytes": 24},
    }


def test_a_key_has_a_size_too() -> None:
    key = jax.random.key(0)
    spec = leaf_dict(SourceLeaf("", Name(), jax.ShapeDtypeStruct((), key.dtype)))["spec"]
    assert spec == {"shape": [], "dtype": "key<fry>", "bytes": 8}


def test_an_entry_says_all_that_it_holds() -> None:
    line = Entry(
        Name(("y",)), Action.TIE, SPEC, (LEAF,), (Transpose(), Cast("int8")), True, RULE, "a word",
        (Name(("z",)),), True, True, True, on_overflow=OnOverflow.KEEP,
    )  # fmt: skip
    told = entry_dict(line)
    assert told["sources"] == [leaf_dict(LEAF)] and told["ops"] == ["Transpose()", "Cast('int8')"]
    assert (told["name"], told["action"], told["rule"]) == ("y", "tie", repr(RULE))
    assert told["aliases"] == ["z"] and told["reason"] == "a word" and told["on_overflow"] == "keep"
    assert told["cast"] is told["optional"] is told["needs_values"] is told["by_position"] is True
    assert json.loads(json.dumps(told)) == told


def test_an_entry_without_a_rule_has_none() -> None:
    told = entry_dict(Entry(Name(("y",)), Action.KEEP, SPEC))
    assert told["rule"] is None and told["sources"] == told["ops"] == told["aliases"] == []


@pytest.mark.parametrize(
    ("side", "told"), [(None, None), ("a static", "a static"), (SPEC, leaf_dict(LEAF)["spec"])]
)
def test_each_side_of_a_finding_is_a_spec_words_or_nothing(side: object, told: object) -> None:
    finding = Finding(Kind.SHAPE, Name(("y",)), "error", expected=side, found=side)  # type: ignore[arg-type]
    assert finding_dict(finding)["expected"] == finding_dict(finding)["found"] == told


def test_a_finding_says_all_that_it_holds() -> None:
    way = keep_own(Kind.MISSING, ("y",))
    full = Finding(
        Kind.MISSING, Name(("y",)), "keep", None, None, LEAF, RULE, "why", (way,), (Name(("a/b",)),)
    )
    told = finding_dict(full)
    assert (told["kind"], told["name"], told["verdict"], told["message"]) == ("missing", "y", "keep", "why")
    assert told["source"] == leaf_dict(LEAF) and told["rule"] == repr(RULE) and told["near"] == [r"a\/b"]
    assert told["remedies"] == [{"before": way.before, "code": way.code, "after": way.after}]
    assert told["remedy"] == str(way) and json.loads(json.dumps(told)) == told
    empty = finding_dict(Finding(Kind.MISSING, Name(), "error"))
    assert empty["source"] is empty["rule"] is None and empty["name"] == empty["remedy"] == ""
