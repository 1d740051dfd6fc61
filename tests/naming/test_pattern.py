"""Patterns mean what the design says, escape as names do, and stay fast on any name."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from treeload import Name, Rename, RuleError, TreeloadError
from treeload._naming.name import print_name
from treeload._naming.pattern import compile_pattern, quote
from treeload._naming.template import compile_template

KEYS = st.one_of(st.text(max_size=5), st.text("ab/\\eux0*{}\n", max_size=5))
NAMES = st.lists(KEYS, max_size=4).map(tuple)


def captures(pattern: object, *keys: str) -> dict[str, str] | None:
    match = compile_pattern(pattern).match(print_name(keys))  # type: ignore[arg-type]
    return None if match is None else match.groupdict()


def matches(pattern: object, printed: str) -> bool:
    return compile_pattern(pattern).matches(printed)  # type: ignore[arg-type]


def renamed(source: object, destination: object, *keys: str) -> tuple[str, ...]:
    pattern = compile_pattern(source)  # type: ignore[arg-type]
    match = pattern.match(print_name(keys))
    assert match is not None
    return compile_template(destination, pattern).expand(match)  # type: ignore[arg-type]


# --- laws -------------------------------------------------------------------------------------------


@given(NAMES, NAMES)
@example((), ("",))
@example(("*",), ("a",))
@example(("",), ("\\e",))
def test_a_quoted_name_is_a_pattern_of_that_name_alone(a: tuple[str, ...], b: tuple[str, ...]) -> None:
    for pattern in (quote(a), a, Name(a)):
        assert matches(pattern, print_name(a))
        assert matches(pattern, print_name(b)) == (a == b)


@given(NAMES)
def test_two_stars_match_every_name(keys: tuple[str, ...]) -> None:
    assert matches("**", print_name(keys))
    assert matches("{*all}", print_name(keys))


@given(NAMES)
def test_as_many_stars_as_keys_match_a_name(keys: tuple[str, ...]) -> None:
    for count in range(6):
        pattern = "/".join(["*"] * count)
        assert matches(pattern, print_name(keys)) == (count == len(keys))


@given(KEYS)
@example("")
@example("\n")
@example("a/b")
def test_a_capture_carries_any_key_unchanged(key: str) -> None:
    assert renamed("a/{k}/b", "{k}/x/{k}", "a", key, "b") == (key, "x", key)


@given(NAMES, NAMES)
def test_a_capture_of_many_carries_any_segments_unchanged(a: tuple[str, ...], b: tuple[str, ...]) -> None:
    assert renamed("{*p}/<-/{*q}", "{*q}/->/{*p}", *a, "<-", *b) == (*b, "->", *a)


STRANGE = st.text("\n\x00\u2028\x85/\\abx028", max_size=4)


@given(STRANGE, STRANGE)
@example("\n", "a")
@example("\x00", "0")
@example("", "e")
def test_a_wildcard_takes_whole_characters_of_a_key_not_of_its_escapes(key: str, end: str) -> None:
    assert matches(f"*{quote((end,))}", print_name((key,))) == key.endswith(end)
    if len(key) > 1:
        assert renamed("{a}{b}", "{a}/{b}", key) == (key[:-1], key[-1])
    else:
        assert captures("{a}{b}", key) is None


# What a pattern means, told as plainly as can be: every way of matching, the greediest first.


def _ways(parts: list[str], keys: tuple[str, ...], found: dict[str, object]) -> Iterator[dict[str, object]]:
    if not parts:
        if not keys:
            yield found
        return
    head, *rest = parts
    if head == "**" or head.startswith("{*"):
        for count in range(len(keys), -1, -1):
            taken = found if head == "**" else {**found, head: keys[:count]}
            if found.get(head, keys[:count]) == keys[:count]:
                yield from _ways(rest, keys[count:], taken)
    elif keys:
        for within in _ways_within(re.findall(r"\{\w\}|.", head), keys[0], found):
            yield from _ways(rest, keys[1:], within)


def _ways_within(parts: list[str], key: str, found: dict[str, object]) -> Iterator[dict[str, object]]:
    if not parts:
        if not key:
            yield found
        return
    head, *rest = parts
    if head == "*" or len(head) > 1:
        for count in range(len(key), -1 if head == "*" else 0, -1):
            taken = found if head == "*" else {**found, head: key[:count]}
            if found.get(head, key[:count]) == key[:count]:
                yield from _ways_within(rest, key[count:], taken)
    elif key.startswith(head):
        yield from _ways_within(rest, key[1:], found)


ATOMS = st.sampled_from(["a", "b", "*", "{i}", "{j}", "{k}"])
SEGMENTS = st.one_of(
    st.lists(ATOMS, min_size=1, max_size=4).map("".join).filter(lambda segment: "**" not in segment),
    st.sampled_from(["**", "{*p}", "{*q}", "{*r}", "a", "b"]),
)


@given(st.lists(SEGMENTS, max_size=6), st.lists(st.text("ab", min_size=1, max_size=4), max_size=6).map(tuple))
@example(["{*p}", "a", "{*q}", "b", "{*r}"], ("a", "b", "a", "b", "a"))
@example(["**", "a*", "{i}", "**", "*b"], ("a", "a", "ab", "b"))
@example(["{i}a{j}b{k}"], ("aabbab",))
@example(["{i}{j}{i}", "{*p}", "{*p}"], ("aba", "a", "b", "a", "b"))
def test_a_pattern_matches_and_captures_as_its_definition_says(
    parts: list[str], keys: tuple[str, ...]
) -> None:
    expected = next(_ways(parts, keys, {}), None)
    found = captures("/".join(parts), *keys)
    assert (found is None) == (expected is None)
    if found is not None and expected is not None:
        text = {
            capture.strip("{*}"): value if isinstance(value, str) else "".join(f"{key}/" for key in value)  # type: ignore[attr-defined]
            for capture, value in expected.items()
        }
        assert found == text


# --- examples ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pattern", "yes", "no"),
    [
        ("enc", ["enc"], ["encoder", "enc/kernel", "x/enc", ""]),
        ("layers/*/bias", ["layers/0/bias", r"layers/\e/bias"], ["layers/bias", "layers/0/1/bias"]),
        ("*", ["a", r"\e", r"a\/b"], ["", "a/b"]),
        ("layer_*", ["layer_0", "layer_"], ["layer", "layer_0/kernel"]),
        ("*_norm", ["_norm", "q_norm"], ["q_norm_2"]),
        ("**/bias", ["bias", "a/bias", "a/b/bias"], ["biases", "a/biases", "bias/a", ""]),
        ("head/**", ["head", "head/bias", "head/a/b"], ["heads", "a/head", ""]),
        ("a/**/b", ["a/b", "a/x/b", "a/x/y/b"], ["a/xb", "ab", "a", "b"]),
        ("**", ["", "a", "a/b/c"], []),
        ("**/*", ["a", "a/b"], [""]),
        ("layers/{i}/k", ["layers/0/k", "layers/x/k"], ["layers/k", "layers/0/1/k"]),
        ("layer_{i}/k", ["layer_0/k", "layer_12/k"], ["layer_/k", "layer/k"]),
        ("{i}/{i}", ["a/a", r"\e/\e"], ["a/b"]),
        ("{*rest}", ["", "a", "a/b"], []),
        ("model/{*rest}", ["model", "model/a/b"], ["models/a", "a/model"]),
        ("", [""], ["a", r"\e"]),
        (r"\e", [r"\e"], ["", "e"]),
        (r"a/\e/b", [r"a/\e/b"], ["a/b", "a/x/b"]),
        (r"\e*", [r"\e", "a"], ["", "a/b"]),
        (r"a\/b", [r"a\/b"], ["a/b"]),
        (r"a\\b", [r"a\\b"], [r"a\/b", "ab"]),
        (r"a\*", ["a*"], ["ab", "a"]),
        (r"\{i\}", ["{i}"], ["i", "a"]),
        (r"\x41", ["A"], [r"\\x41"]),
        ("a\nb", [r"a\x0ab"], ["ab"]),
        ("a.b+(c)?[d]^$|", ["a.b+(c)?[d]^$|"], ["aXb+(c)?[d]^$|", "a"]),
        ("{i}.b+(c)?[d]^$|", ["1.b+(c)?[d]^$|"], ["1Xb+(c)?[d]^$|", "1"]),
        ("{Größe}", ["a"], [""]),
    ],
)
def test_what_a_pattern_matches(pattern: str, yes: list[str], no: list[str]) -> None:
    assert [printed for printed in yes if not matches(pattern, printed)] == []
    assert [printed for printed in no if matches(pattern, printed)] == []
    assert str(compile_pattern(pattern)) == pattern


@pytest.mark.parametrize(
    ("pattern", "printed", "found"),
    [
        ("layers/{i}/kernel", "layers/3/kernel", {"i": "3"}),
        ("layer_{i}/kernel", "layer_3/kernel", {"i": "3"}),
        ("{a}_{b}", "conv_block_3", {"a": "conv_block", "b": "3"}),
        ("{*p}/kernel", "kernel", {"p": ""}),
        ("{*p}/kernel", "a/b/kernel", {"p": "a/b/"}),
        ("{*p}/x/{*q}", "a/x/b/x/c", {"p": "a/x/b/", "q": "c/"}),
        ("**/l/{i}/**", "l/0/l/1/k", {"i": "1"}),
        ("*{a}", "abc", {"a": "c"}),
    ],
)
def test_where_there_are_several_ways_the_earlier_wildcard_takes_more(
    pattern: str, printed: str, found: dict[str, str]
) -> None:
    match = compile_pattern(pattern).match(printed)
    assert match is not None
    assert match.groupdict() == found


@pytest.mark.parametrize(
    ("source", "destination", "keys", "new"),
    [
        ("layer_{i}/weight", "layers/{i}/kernel", ("layer_7", "weight"), ("layers", "7", "kernel")),
        ("{*rest}", "encoder/{*rest}", ("a", "b"), ("encoder", "a", "b")),
        ("model/{*rest}", "{*rest}", ("model", "a", "b"), ("a", "b")),
        ("model/{*rest}", "{*rest}", ("model",), ()),
        ("{*rest}", "x/{*rest}/y", (), ("x", "y")),
        ("a", "", ("a",), ()),
        ("", "a", (), ("a",)),
        ("{a}", "x_{a}", ("",), ("x_",)),
        ("{a}", r"\e/{a}", ("b",), ("", "b")),
        ("{a}", r"\*\{\}\/\\/{a}", ("b",), ("*{}/\\", "b")),
        ("{a}", Name(("{a}", "x/y", "*", "")), ("b",), ("{a}", "x/y", "*", "")),
        ("{a}", ("\n", "\\"), ("b",), ("\n", "\\")),
    ],
)
def test_what_a_template_makes_of_a_match(
    source: str, destination: object, keys: tuple[str, ...], new: tuple[str, ...]
) -> None:
    assert renamed(source, destination, *keys) == new


def test_a_template_prints_as_it_was_written() -> None:
    assert str(compile_template("layers/{i}", compile_pattern("layer_{i}"))) == "layers/{i}"


def test_the_same_text_is_compiled_once() -> None:
    assert compile_pattern("a/{i}/**") is compile_pattern("a/{i}/**")


# --- compiled regular expressions -------------------------------------------------------------------


def test_an_expression_matches_the_whole_printed_name() -> None:
    expression = re.compile(r"layer(\d+)/.*")
    assert matches(expression, "layer3/kernel")
    assert not matches(expression, "xlayer3/kernel") and not matches(re.compile("a"), "a/b")
    assert matches(re.compile(r"a\\/b"), r"a\/b")
    assert matches(re.compile(""), "")
    assert matches(re.compile("A", re.IGNORECASE), "a")
    assert compile_pattern(re.compile("(?P<i>.)(.)")).captures == ("i",)


@pytest.mark.parametrize(
    ("expression", "template", "keys", "new"),
    [
        (r"layer(\d+)/(.*)", r"layers/\1/\2", ("layer3", "k"), ("layers", "3", "k")),
        (r"layer(?P<i>\d+)/(.*)", r"layers/\g<i>/\g<2>", ("layer3", "k"), ("layers", "3", "k")),
        (r"(.*)/w", r"\1/kernel", ("a/b", "w"), ("a/b", "kernel")),
        (r"(.*)/w", r"\1/x\\/y", ("a", "w"), ("a", "x/y")),
        (r"a(b)?", r"x\1", ("a",), ("x",)),
        (r"a", "{i}/*", ("a",), ("{i}", "*")),
        (r"a", "", ("a",), ()),
        (r".*", ("x/y", "\\1", "\n", "*", ""), ("a",), ("x/y", "\\1", "\n", "*", "")),
    ],
)
def test_templates_of_expressions_are_as_in_match_expand(
    expression: str, template: object, keys: tuple[str, ...], new: tuple[str, ...]
) -> None:
    assert renamed(re.compile(expression), template, *keys) == new


@pytest.mark.parametrize("template", [r"\1", r"\g<x>", r"\g<1>", r"\q", "\\"])
def test_a_template_that_does_not_fit_its_expression_is_a_rule_error(template: str) -> None:
    with pytest.raises(RuleError, match="does not fit the expression 'ab'"):
        compile_template(template, compile_pattern(re.compile("ab")))


def test_an_expression_that_makes_no_name_is_a_rule_error() -> None:
    with pytest.raises(RuleError, match="'b/' ends in '/'"):
        renamed(re.compile("a(x)?"), r"b/\1", "a")


# --- what cannot mean anything ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pattern", "says"),
    [
        ("layers/{i", "lone '{'"),
        ("layers/i}", "lone '}'"),
        ("{a/b}", "lone '{'"),
        ("{{i}}", "lone '{'"),
        ("a//b", "empty segment"),
        ("/a", "empty segment"),
        ("a/", "ends in '/'"),
        ("/", "empty segment"),
        ("a\\", "ends in a lone"),
        ("a**", "stands alone"),
        ("**a/b", "stands alone"),
        ("***", "stands alone"),
        ("a{*rest}", "stands alone"),
        ("{*p}{*q}", "stands alone"),
        ("{}", "proper name"),
        ("{*}", "proper name"),
        ("{0}", "proper name"),
        ("{a-b}", "proper name"),
        ("{a b}x", "proper name"),
        ("{**p}", "proper name"),
        ("{i}/{*i}", "both as one segment and as many"),
        ("{*i}/{i}", "both as one segment and as many"),
        (r"\x4{i}", "hexadecimal"),
        (r"a/\u12", "hexadecimal"),
    ],
)
def test_what_cannot_mean_anything_is_a_rule_error(pattern: str, says: str) -> None:
    with pytest.raises(RuleError) as raised:
        compile_pattern(pattern)
    assert says in str(raised.value)
    assert isinstance(raised.value, ValueError)
    assert isinstance(raised.value, TreeloadError)


@pytest.mark.parametrize("pattern", [None, 3, b"a", ["a"], re.compile(b"a"), (1, 2), ("a", None)])
def test_what_is_no_pattern_is_a_rule_error(pattern: object) -> None:
    with pytest.raises(RuleError, match="a pattern (is a string|over names is)"):
        compile_pattern(pattern)  # type: ignore[arg-type]
    with pytest.raises(
        RuleError, match="a pattern (is a string|over names is)|Rename.* of several leaves needs"
    ):
        Rename(pattern, "b")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("source", "destination", "says"),
    [
        ("{i}", "{j}", "does not capture (its captures: {i})"),
        ("a", "{j}", "(its captures: none)"),
        ("{*i}", "{i}", "many on the other"),
        ("{i}", "{*i}", "many on the other"),
        ("a/*", "b/*", "a wildcard cannot be filled in"),
        ("a/**", "b/**", "a wildcard cannot be filled in"),
        ("a", "b//c", "empty segment"),
        ("{i}", "b/{i", "lone"),
        ("a", None, "a string or a Name"),
        ("a", re.compile("b"), "a string or a Name"),
        ("a", (1,), "a string or a Name"),
    ],
)
def test_a_template_that_cannot_mean_anything_is_a_rule_error(
    source: str, destination: object, says: str
) -> None:
    with pytest.raises(RuleError) as raised:
        compile_template(destination, compile_pattern(source))  # type: ignore[arg-type]
    assert says in str(raised.value)


# --- speed ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pattern", "name"),
    [
        ("**/a/**/a/**/a/**/a/**/b", "a/" * 2000 + "c"),
        ("**/**/**/**/**/**/b", "a/" * 2000 + "c"),
        ("*a*a*a*a*a*b", "a" * 5000),
        ("**/*a*/**/*a*/**/*a*/b", "aaa/" * 1000 + "c"),
        ("{*a}/{*b}/{*c}/{*d}/{*e}/x", "a/" * 1000 + "c"),
        ("{a}a{b}a{c}a{d}a{e}b", "a" * 2000),
        ("{*a}/x/{*b}/y/{*c}/z/{*d}", "x/y/z/" + "x/" * 500 + "y/" * 500 + "w"),
        ("{*a}/x/{*b}/y", "a/x/" * 20_000 + "c"),
        ("{a}x{b}y{c}z{d}", "axbyczd" + "x" * 100 + "y" * 100),
        ("layers/{i}/**/{j}/{*rest}/x", "layers/" + "a/" * 2000 + "c"),
        ("**", "a" * 1_000_000),
        ("{i}/x", "a" * 1_000_000),
    ],
)
def test_no_pattern_takes_long_on_any_name(pattern: str, name: str) -> None:
    compiled = compile_pattern(pattern)
    start = time.process_time()
    compiled.match(name)
    assert time.process_time() - start < 2  # tried every way, each would take minutes to years


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a/{rest*}", "{rest*} is written {*rest}"),
        ("head/", "all that is below it is 'head/**', in a rule 'head/{*rest}' on both sides"),
        ("b/{4,5}/**", "{4,5} is how reports fold names; write 'b/4/**' and 'b/5/**'"),
        ("b/{0..2}", "{0..2} is how reports fold names; write 'b/0' and 'b/1' and 'b/2'"),
        ("{a,b}/{k,x}", "write 'a/k' and 'a/x' and 'b/k' and 'b/x'"),
        ("b/{0..9999999}", "write a pattern for each, or '*' where all of them are meant"),
        ("b/{0,1,2,…,40}", "write a pattern for each, or '*' where all of them are meant"),
        ("b/{4 5}", "has a capture without a proper name: {4 5}"),
    ],
)
def test_what_is_nearly_a_pattern_is_told_with_what_to_write(text: str, said: str) -> None:
    with pytest.raises(RuleError, match=re.escape(said)):
        compile_pattern(text)


def test_a_key_that_ends_in_a_slash_of_its_own_is_a_name() -> None:
    assert compile_pattern("a\\/").matches("a\\/")
