"""Names are tuples of keys that print, and are read back as what was printed."""

from __future__ import annotations

import copy
import pickle

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from treeload._errors import RuleError
from treeload._naming.name import Name, as_name, print_key, print_name, split, unescape_key
from treeload._naming.near import NearNames

KEYS = st.one_of(st.text(max_size=6), st.text("ab/\\eux0.*{}\n\0", max_size=6))
NAMES = st.lists(KEYS, max_size=5).map(tuple)


@given(NAMES)
@example(())
@example(("",))
@example(("", ""))
@example(("a/b", "\\", "\\/"))
@example(("\\e", "e", ""))
@example(("\x00", "\x1b[31m", "\u2028", "\U000e0001", "\x85"))
@example(("\ud800",))
def test_what_a_name_prints_as_is_read_back_as_the_name(keys: tuple[str, ...]) -> None:
    assert Name.parse(str(Name(keys))) == keys


@given(NAMES)
def test_a_printed_name_is_one_printable_line(keys: tuple[str, ...]) -> None:
    assert print_name(keys).isprintable()


@given(NAMES, NAMES)
def test_two_names_print_the_same_only_if_they_are_the_same(a: tuple[str, ...], b: tuple[str, ...]) -> None:
    assert (print_name(a) == print_name(b)) == (a == b)


@given(NAMES)
def test_a_name_is_equal_to_the_plain_tuple_and_hashes_like_it(keys: tuple[str, ...]) -> None:
    assert Name(keys) == keys
    assert hash(Name(keys)) == hash(keys)
    assert {keys: 1}[Name(keys)] == 1


@given(NAMES)
def test_a_name_survives_pickling_and_copying(keys: tuple[str, ...]) -> None:
    name = Name(keys)
    copies = [pickle.loads(pickle.dumps(name, protocol)) for protocol in range(pickle.HIGHEST_PROTOCOL + 1)]
    for other in (*copies, copy.copy(name), copy.deepcopy(name)):
        assert type(other) is Name
        assert other == name


@given(NAMES)
def test_however_a_name_comes_in_it_is_the_same_name(keys: tuple[str, ...]) -> None:
    name = Name(keys)
    assert as_name(name) is name
    assert as_name(keys) == as_name(print_name(keys)) == Name(print_name(keys)) == name
    assert type(as_name(keys)) is type(as_name(print_name(keys))) is Name


@given(NAMES)
def test_the_printed_name_is_its_printed_keys_joined(keys: tuple[str, ...]) -> None:
    printed = print_name(keys)
    assert printed == "/".join(map(print_key, keys))
    if keys:
        assert split(printed) == list(map(print_key, keys))
        assert tuple(map(unescape_key, split(printed))) == keys


@pytest.mark.parametrize(
    ("keys", "printed"),
    [
        (("encoder", "layers", "0", "kernel"), "encoder/layers/0/kernel"),
        ((), ""),
        (("",), r"\e"),
        (("a", "", "b"), r"a/\e/b"),
        (("a/b", "c"), r"a\/b/c"),
        (("a\\b",), r"a\\b"),
        (("a\nb", "\x7f"), r"a\x0ab/\x7f"),
        (("\u200b",), r"\u200b"),
        (("\U000e0001",), r"\U000e0001"),
        (("Größe", "層", "a b"), "Größe/層/a b"),
        (("a.b", "*", "{i}"), "a.b/*/{i}"),
    ],
)
def test_names_print_as_documented(keys: tuple[str, ...], printed: str) -> None:
    assert str(Name(keys)) == print_name(keys) == printed
    assert repr(Name(keys)) == f"Name({printed!r})"
    assert Name.parse(printed) == keys


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a//b", "empty segment"),
        ("/a", "empty segment"),
        ("a/", "ends in '/'"),
        ("/", "empty segment"),
        ("a\\", "lone"),
        ("a/\\", "lone"),
        ("\\\\\\", "lone"),
        (r"\x1", "hexadecimal"),
        (r"\xGG", "hexadecimal"),
        (r"\u12", "hexadecimal"),
        (r"\U0001", "hexadecimal"),
        (r"\Uffffffff", "no character"),
        (r"\U00110000", "no character"),
    ],
)
def test_text_that_no_name_prints_as_is_a_rule_error(text: str, says: str) -> None:
    with pytest.raises(RuleError, match=says) as raised:
        Name.parse(text)
    assert repr(text) in str(raised.value)
    assert isinstance(raised.value, ValueError)


def test_an_escaped_character_that_needs_no_escape_is_itself() -> None:
    assert Name.parse(r"\a\*/\{b\}") == ("a*", "{b}")


@pytest.mark.parametrize("keys", [(0,), ("a", None), ("a", b"b")])
def test_a_key_that_is_no_string_is_a_type_error(keys: tuple[object, ...]) -> None:
    with pytest.raises(TypeError, match="made of strings"):
        Name(keys)  # type: ignore[arg-type]


def test_the_empty_name_is_the_root() -> None:
    assert Name() == Name("") == Name.parse("") == ()
    assert str(Name()) == ""


def test_a_near_name_is_found_for_a_typo_a_prefix_and_a_renamed_key() -> None:
    near = NearNames([("encoder", "layers", str(i), key) for i in range(100) for key in ("kernel", "scale")])
    assert near.near(("encoder", "layers", "7", "kernal"))[0] == ("encoder", "layers", "7", "kernel")
    assert near.near(("encodr", "layers", "7", "scale"))[0] == ("encoder", "layers", "7", "scale")
    assert near.near(("params", "encoder", "layers", "9", "scale"))[0] == ("encoder", "layers", "9", "scale")


def test_nothing_is_near_what_shares_nothing() -> None:
    assert NearNames([("head", "kernel")]).near(("zzz", "q")) == []
    assert NearNames([]).near(("a",)) == []


def test_of_equally_near_names_the_first_come_first_and_no_more_than_asked_for() -> None:
    near = NearNames([("block1",), ("block2",), ("block3",), ("block4",)])
    assert near.near(("block0",)) == [("block1",), ("block2",), ("block3",)]
    assert near.near(("block0",), count=1) == [("block1",)]


def test_a_name_that_shares_no_key_is_still_found_among_few() -> None:
    assert NearNames([("classifier",), ("x",)]).near(("clasifier",)) == [("classifier",)]


def test_a_key_that_very_many_names_hold_tells_nothing() -> None:
    near = NearNames([("params", f"{i:04}") for i in range(3000)])
    assert near.near(("params", "none")) == []
