"""How much of two sides is looked at: leaves without end, names that differ up to a limit, and it is said."""

from __future__ import annotations

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from treeload import Rename
from treeload._inference import limits
from treeload._inference import suggest as suggesting
from treeload._inference.proposals import Named
from treeload._inference.suggest import suggest
from treeload._leaves.spec import Spec
from treeload._naming.name import Keys
from treeload._naming.pattern import compile_pattern

SPEC = jax.ShapeDtypeStruct((4, 8), np.float32)


def named(*names: str) -> dict[Keys, Spec]:
    return {tuple(name.split("/")): SPEC for name in names}


def layers(count: int, text: str, *leaves: str) -> dict[Keys, Spec]:
    return named(*(text.format(i=i, leaf=leaf) for i in range(count) for leaf in leaves))


def test_leaves_that_differ_in_their_numbers_are_few_however_many_they_are() -> None:
    there = layers(11_000, "layers/{i}/{leaf}/kernel", "attn/q", "mlp/up")
    here = layers(11_000, "h/block/{i}/{leaf}/weight", "attention/query", "ffn/fc1")
    assert max(len(there), len(here)) > limits.LEAVES
    found = suggest(there, here)
    assert set(found) == set(suggest(*(dict(list(side.items())[:20]) for side in (there, here))))
    assert len(found) == 2 and not found.left


def test_of_too_many_groups_those_with_rare_words_in_common_are_looked_at(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(limits, "_TEMPLATES", 3)
    words = ("alpha", "beta", "gamma", "delta")
    there = named("common/query/kernel", *(f"{word}/kernel" for word in words))
    here = named("common/q/kernel", *(f"{word}{word}/kernel" for word in words))
    found = suggest(there, here)
    assert list(found) == [Rename("common/q/kernel", "common/query/kernel")]
    kept = "1 was looked at: those that share the rarest words with the other side"
    assert found.left[-2:] == (
        f"of the destination's 5 groups of leaves {kept}",
        f"of the source's 5 groups of leaves {kept}",
    )


def test_of_too_many_names_those_with_a_word_in_common_are_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "LEAVES", 3)
    monkeypatch.setattr(suggesting, "LEAVES", 3)
    there = named("net/query/kernel", "a/kernel", "b/kernel", "c/kernel")
    here = named("net/q/kernel", "d/kernel", "e/kernel", "f/kernel")
    found = suggest(there, here)
    assert list(found) == [Rename("net/q/kernel", "net/query/kernel")]
    assert found.left[0] == "no rule for 3 leaves"
    assert found.left[1].startswith("of the destination's 4 leaves 1 was looked at")


def test_where_names_share_no_word_that_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "LEAVES", 3)
    found = suggest(named(*(f"{key}/w" for key in "abcd")), named(*(f"{key}/w" for key in "efgh")))
    assert not found
    assert found.left[-1] == (
        "the source's 4 leaves were not looked at: there are too many, and but for their last keys they "
        "share no word with the other side"
    )


def test_leaves_that_were_not_tried_one_by_one_are_said(monkeypatch: pytest.MonkeyPatch) -> None:
    there, here = named("a/query/kernel", "b/query/kernel"), named("c/key/kernel", "d/key/kernel")
    assert not [sentence for sentence in suggest(there, here).left if "one by one" in sentence]
    monkeypatch.setattr(suggesting, "_LITERAL", 1)
    monkeypatch.setattr(suggesting, "_NOT_TRIED", {1: "they were not looked at one by one"})
    monkeypatch.setattr(suggesting, "_NUMBERED", 2)
    assert suggest(there, here).left[-1] == "more than 1 leaves are left: they were not looked at one by one"


PRINTED = st.lists(st.sampled_from(["a", "b", "ab", r"a\/b", "0", r"\e"]), min_size=1, max_size=4).map(
    "/".join
)
PATTERNS = st.lists(
    st.sampled_from(["a", "b", "{i}", "a{j}", "*", "**", "{*rest}", r"a\/b", r"\*"]),
    min_size=1,
    max_size=4,
    unique=True,
).map("/".join)


@given(st.lists(PRINTED, unique=True), PATTERNS)
def test_names_by_their_keys_are_matched_as_one_by_one(names: list[str], text: str) -> None:
    pattern = compile_pattern(text)
    assert Named(names).matched_by(pattern) == set(filter(pattern.matches, names))
