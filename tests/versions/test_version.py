"""What a ``Version`` and a ``History`` may be, what they print as, and which steps a source has not seen."""

from __future__ import annotations

import copy
import pickle
import re
from typing import Any

import pytest

import treeload
from treeload import BIAS, History, Policy, Rename, RuleError, Tie, Transpose, Version
from treeload._versions.version import Dated, checked_history

THREE = History(
    Version(2, rules=Rename("a", "b")), Version(2, scope="**/attn"), Version(3, policy=Policy(missing="keep"))
)


def test_numbers_of_each_scope_ascend_by_one_from_two() -> None:
    assert THREE.newest == {"": 3, "**/attn": 2}
    assert History().newest == {"": 1}


@pytest.mark.parametrize(
    ("versions", "said"),
    [
        ([Version(3)], "the next version in this History is 2, not 3"),
        ([Version(2), Version(2)], "the next version in this History is 3, not 2"),
        ([Version(2), Version(3, scope="x")], "the next version of scope 'x' in this History is 2, not 3"),
        ([2], "a History is made of Versions, not of 2"),
    ],
)
def test_a_history_with_a_gap_is_refused(versions: list[Any], said: str) -> None:
    with pytest.raises(RuleError, match=re.escape(said)):
        History(*versions)


@pytest.mark.parametrize("number", [1, 0, -2, True, 2.0, "2", None, 2**31])
def test_the_number_of_a_version_is_a_whole_one_of_two_or_more(number: Any) -> None:
    with pytest.raises(RuleError, match=r"Version\(number\) is 2 or more"):
        Version(number)


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ({"rules": "a"}, "takes rules, such as Rename"),
        ({"rules": [Tie("a", "b")]}, "is about a destination"),
        ({"policy": {"missing": "keep"}}, "policy=...) is a Policy(...)"),
        ({"scope": re.compile("a")}, "recorded as text"),
        ({"scope": "a//b"}, "empty segment"),
        ({"scope": 3}, "a pattern is a string"),
    ],
)
def test_what_cannot_mean_anything_is_refused_when_it_is_written(how: dict[str, Any], said: str) -> None:
    with pytest.raises(RuleError, match=re.escape(said)):
        Version(2, **how)


@pytest.mark.parametrize(
    "version",
    [
        Version(2),
        Version(5, rules=[Rename("a/{i}", "b/{i}", Transpose()), Rename("c", "d")]),
        Version(2, policy=Policy(missing={"s": "keep"}, unexpected="ignore", absent_is_zero=BIAS)),
        Version(2, rules=[Rename("a", "b")], scope="**/attn"),
    ],
)
def test_a_version_prints_as_the_code_that_makes_it(version: Version) -> None:
    names = {name: getattr(treeload, name) for name in treeload.__all__}
    assert eval(repr(version), names) == version
    assert repr(History(Version(2), Version(3))) == "History(Version(2), Version(3))"


def test_a_scope_may_be_a_name_and_the_whole_is_no_scope() -> None:
    assert Version(2, scope=("a*", "b")).scope == r"a\*/b"
    assert Version(2, scope="").scope is None
    assert str(Version(2)) == "version 2" and str(Version(2, scope="x")) == "version 2 of x"


def test_what_is_missing_is_what_is_newer_than_the_stamp_in_the_order_it_was_written() -> None:
    assert [str(step) for step in THREE.since({"": 1}).steps] == [
        "version 2",
        "version 2 of **/attn",
        "version 3",
    ]
    assert [str(step) for step in THREE.since({"": 2, "**/attn": 2}).steps] == ["version 3"]
    assert THREE.since(THREE.newest).steps == ()


def test_a_stamp_is_beyond_where_one_of_its_numbers_is() -> None:
    assert THREE.beyond({"": 3, "**/attn": 2}) == {}
    assert THREE.beyond({"": 4, "**/attn": 3, "other": 2}) == {"": 4, "**/attn": 3, "other": 2}
    assert THREE.beyond({"other": 1}) == {}


def test_the_words_say_from_where_to_where() -> None:
    dated = THREE.since({"": 1})
    assert dated.words(dated.scopes) == "by version 1 → 3, 1 → 2 of **/attn"
    assert dated.words(["**/attn"]) == "by version 1 → 2 of **/attn"
    assert dated.words([]) == "" == Dated({}, {}, ()).words([""])


def test_histories_are_equal_where_their_versions_are_and_copy() -> None:
    same = History(*THREE.versions)
    assert same == THREE and hash(same) == hash(THREE) and History() != THREE and THREE != 3
    assert pickle.loads(pickle.dumps(THREE)) == THREE == copy.deepcopy(THREE)


@pytest.mark.parametrize("wrong", [2, "2", [Version(2)], Version(2)])
def test_something_else_is_no_history(wrong: Any) -> None:
    with pytest.raises(RuleError, match=r"history is a History\(\.\.\.\)"):
        checked_history(wrong)
    with pytest.raises(RuleError, match=r"history is a History\(\.\.\.\)"):
        treeload.plan({"a": 1}, {"a": 1}, history=wrong)
    with pytest.raises(RuleError, match=r"history is a History\(\.\.\.\)"):
        treeload.save("nowhere", {"a": 1}, history=wrong)
