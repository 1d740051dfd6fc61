"""Names that are printed as one: every item in one group, and nothing lost or added by the short form."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from itertools import product

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from treeload import Name
from treeload._naming.pattern import compile_pattern
from treeload._reports.groups import Group, group, print_names, siblings

KEYS = st.one_of(
    st.sampled_from(["layers", "kernel", "bias", "0", "1", "2", "3", "10", "11", "w7", "w8", "007", "x1y2"]),
    st.text(alphabet="a01/{},.*\\\x1b\x10", max_size=5),
)
NAMES = st.lists(KEYS, max_size=4).map(tuple)
ITEMS = st.lists(st.tuples(NAMES, st.sampled_from(["f", "g"])), max_size=40, unique=True)
NUMBERS = st.sets(st.integers(0, 6), min_size=1)
HEADS = st.sets(st.sampled_from(["q", "k", "v"]), min_size=1)
HOLES = st.sets(st.tuples(st.integers(0, 6), st.integers(0, 6)), max_size=4)


def expand(text: str) -> list[str]:
    """What a shell would make of the braces of a group's text: printed names."""
    at = next(_open_braces(text), None)
    if at is None:
        return [re.sub(r"\\([{}])", r"\1", text)]
    inside = re.compile(r"(?:[^\\}]|\\.)*").match(text, at + 1)
    assert inside is not None
    end = inside.end()
    words = [
        re.sub(r"\\([{},])", r"\1", number) for word in re.findall(r"((?:[^\\,]|\\.)+)", text[at + 1 : end])
        for number in _numbers(word)
    ]  # fmt: skip
    rest = expand(text[end + 1 :])
    head = re.sub(r"\\([{}])", r"\1", text[:at])
    return [head + word + tail for word, tail in product(words, rest)]


def _open_braces(text: str):
    return (found.start() for found in re.finditer(r"\\.|\{", text) if found[0] == "{")


def _numbers(word: str) -> list[str]:
    run = re.fullmatch(r"(\d+)\.\.(\d+)", word)
    return [str(number) for number in range(int(run[1]), int(run[2]) + 1)] if run else [word]


def names_of(found: Group, items: list[tuple[tuple[str, ...], str]]) -> list[str]:
    return [str(Name(items[member][0])) for member in found.members]


def says(found: Group) -> list[str]:
    return [found.text] if len(found.members) == 1 else expand(found.text)


@given(ITEMS)
@example([(("a{0..3}",), "f"), (("a{0..4}",), "f")])
@example([((f"\x1b{n}",), "f") for n in range(3)])
@example([(("x" + "9" * 5000,), "f")])
def test_every_item_is_in_exactly_one_group(items: list[tuple[tuple[str, ...], str]]) -> None:
    members = Counter(member for found in group(items) for member in found.members)
    assert members == Counter(range(len(items)))


@given(ITEMS)
@example([(("a{0..3}",), "f"), (("a{0..4}",), "f")])
@example([(("\x10",), "f"), (("\x11",), "f")])
@example([(("a,1",), "f"), (("a,2",), "f")])
def test_the_text_of_a_group_expands_to_exactly_its_members(items: list[tuple[tuple[str, ...], str]]) -> None:
    for found in group(items):
        assert sorted(says(found)) == sorted(names_of(found, items))


@given(ITEMS)
@example([(("*1", "\\"), "f"), (("*2", "\\"), "f")])
@example([(("", "1"), "f"), (("", "2"), "f")])
def test_the_pattern_of_a_group_matches_all_its_members(items: list[tuple[tuple[str, ...], str]]) -> None:
    for found in [*group(items), *siblings([(found, None) for found in group(items)])]:
        pattern = compile_pattern(found.pattern)
        assert all(pattern.matches(name) for name in names_of(found, items))


@given(ITEMS)
def test_all_members_of_a_group_share_their_facts(items: list[tuple[tuple[str, ...], str]]) -> None:
    assert all(len({items[member][1] for member in found.members}) == 1 for found in group(items))


@given(ITEMS)
@example([(("p", "a,b"), "f"), (("p", "{c}"), "f"), (("p", "d"), "f")])
@example([(("a/b", "c"), "f"), (("a/b", "d"), "f"), (("a", "b/e"), "f")])
def test_siblings_lose_no_name_and_add_none(items: list[tuple[tuple[str, ...], str]]) -> None:
    groups = group(items)
    merged = siblings([(found, items[found.members[0]][1]) for found in groups])
    assert Counter(m for found in merged for m in found.members) == Counter(range(len(items)))
    for found in merged:
        assert sorted(says(found)) == sorted(names_of(found, items))


@given(NUMBERS, HEADS, NUMBERS, HOLES)
def test_grids_with_holes_become_a_few_groups_that_say_exactly_what_is_there(
    layers: set[int], heads: set[str], experts: set[int], holes: set[tuple[int, int]]
) -> None:
    items = [
        (("layers", str(layer), head, f"expert_{expert}"), "f")
        for layer, head, expert in product(sorted(layers), sorted(heads), sorted(experts))
        if (layer, expert) not in holes
    ]
    groups = group(items)
    assert sorted(name for found in groups for name in says(found)) == sorted(str(Name(n)) for n, _ in items)
    assert len(groups) <= len(heads) * (1 + len(holes))


@given(ITEMS)
@example([(("p", "w"), "f"), (("p", "w"), "g"), (("p", "v"), "f")])
def test_siblings_keep_every_item_whatever_groups_they_are_made_of(
    items: list[tuple[tuple[str, ...], str]],
) -> None:
    merged = siblings([(found, None) for found in group(items)])
    assert Counter(m for found in merged for m in found.members) == Counter(range(len(items)))


def test_a_layer_that_lacks_an_expert_is_told_apart_from_the_others() -> None:
    names = [(str(i), f"e{e}") for i in range(4) for e in range(4) if (i, e) != (2, 3)]
    assert [found.text for found in group([(name, None) for name in names])] == [
        "{0,1,3}/e{0..3}",
        "2/e{0..2}",
    ]


@pytest.mark.parametrize(
    ("names", "title"),
    [
        ([f"layers/{i}/attn/q/kernel" for i in range(12)], "layers/{0..11}/attn/q/kernel ×12"),
        (["a/0/w", "a/2/w", "a/5/w", "a/6/w", "a/7/w"], "a/{0,2,5..7}/w ×5"),
        ([f"l{i}/e{j}" for i in range(2) for j in range(3)], "l{0,1}/e{0..2} ×6"),
        (["encoder/kernel"], "encoder/kernel"),
        (["w{0..3}"], "w{0..3}"),
        (["w{1}", "w{2}"], r"w\{{1,2}\} ×2"),
        ([f"a/{i}/w" for i in range(0, 60, 2)], "a/{0,2,4,…,58}/w ×30"),
    ],
)
def test_names_that_differ_in_numbers_print_as_one(names: list[str], title: str) -> None:
    assert [found.title for found in group([(Name.parse(name), None) for name in names])] == [title]


def test_words_that_look_like_numbers_stay_what_they_are() -> None:
    assert len(group([(("block", key), None) for key in ("007", "7", "+7", "٣")])) == 4


def test_siblings_print_in_one_pair_of_braces_in_alphabetical_order() -> None:
    groups = group([(("head", key), None) for key in ("kernel", "bias")])
    (head,) = siblings([(found, None) for found in groups])
    assert (head.title, head.pattern, head.members) == ("head/{bias,kernel}", "head/**", (1, 0))


def test_siblings_with_other_facts_stay_apart() -> None:
    groups = group([(("head", key), None) for key in ("kernel", "bias")])
    assert len(siblings([(found, number) for number, found in enumerate(groups)])) == 2


def test_many_siblings_print_a_few_at_a_time() -> None:
    groups = group([(("p", key), None) for key in "abcdefgh"])
    assert [found.title for found in siblings([(g, None) for g in groups])] == ["p/{a,b,c,d,e,f}", "p/{g,h}"]


def test_a_row_of_names_is_cut_and_counted() -> None:
    names = [(word, "w") for word in ("a", "b", "c", "d")]
    assert print_names(names, most=2) == "a/w, b/w, … (4 in all)"
    assert print_names(names[:1], most=2, facts=["shapes differ"]) == "a/w (shapes differ)"


def test_where_names_are_hopelessly_different_those_that_come_late_are_looked_at_no_more() -> None:
    seen: list[str] = []

    def items() -> Iterator[tuple[tuple[str, ...], str]]:
        for letters in product("abcdefgh", repeat=4):
            seen.append("".join(letters))
            yield (seen[-1],), ""

    assert [found.title for found in group(items(), most=3)] == ["aaaa", "aaab", "aaac"]
    assert len(seen) == 16  # of 4,096
