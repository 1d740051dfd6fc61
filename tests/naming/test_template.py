"""What captures are written into, beyond what ``test_pattern`` says of patterns and templates together."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from treeload import Name, RuleError
from treeload._naming.name import print_key, print_name
from treeload._naming.pattern import compile_pattern
from treeload._naming.template import Template, compile_template

KEYS = st.one_of(st.text(max_size=5), st.text("ab/\\eux0*{}\n", max_size=5))
NAMES = st.lists(KEYS, max_size=4).map(tuple)


def template(text: Any, pattern: Any = "{i}/{*rest}") -> Template:
    return compile_template(text, compile_pattern(pattern))


@given(NAMES)
def test_a_name_is_the_template_that_gives_this_name_whatever_is_in_it(keys: tuple[str, ...]) -> None:
    for given_ in (keys, Name(keys)):
        assert template(given_, "x").expand({}) == keys


@given(NAMES)
def test_a_name_is_given_back_beside_an_expression_too(keys: tuple[str, ...]) -> None:
    pattern = compile_pattern(re.compile("x"))
    match = pattern.match("x")
    assert match is not None and compile_template(keys, pattern).expand(match) == keys


@given(KEYS, NAMES)
def test_what_is_captured_is_written_unchanged(key: str, rest: tuple[str, ...]) -> None:
    captured = {"i": print_key(key), "rest": "".join(print_key(each) + "/" for each in rest)}
    assert template("{*rest}/new/{i}").expand(captured) == (*rest, "new", key)
    assert template("pre_{i}").expand(captured) == ("pre_" + key,)


@given(KEYS, NAMES)
def test_a_template_like_its_pattern_gives_the_name_itself(key: str, rest: tuple[str, ...]) -> None:
    pattern = compile_pattern("{i}/{*rest}")
    match = pattern.match(print_name((key, *rest)))
    assert match is not None
    assert compile_template("{i}/{*rest}", pattern).expand(match) == (key, *rest)


def test_a_capture_may_be_written_twice_or_not_at_all() -> None:
    captured = {"i": "3", "rest": "a/b/"}
    assert template("{i}/x_{i}/{i}").expand(captured) == ("3", "x_3", "3")
    assert template("alone").expand(captured) == ("alone",)


def test_the_empty_template_is_the_root() -> None:
    assert template("").expand({}) == ()
    assert template("{*rest}").expand({"rest": ""}) == ()


def test_a_template_is_a_value_that_prints_as_it_was_written() -> None:
    assert template("a/{i}") == template("a/{i}") != template("b/{i}")
    assert str(template("a/{i}")) == template("a/{i}").text == "a/{i}"


def test_escaped_wildcards_are_the_characters_themselves() -> None:
    assert template(r"\*/\{i\}").expand({}) == ("*", "{i}")


@pytest.mark.parametrize(
    ("text", "pattern", "says"),
    [
        ("{j}", "{i}/{*rest}", r"uses \{j\}, which .* does not capture \(its captures: \{i\}, \{rest\}\)"),
        ("{j}", "plain", r"\(its captures: none\)"),
        ("{*i}", "{i}", "captures one segment on one side and many on the other"),
        ("{rest}", "{*rest}", "captures one segment on one side and many on the other"),
        ("a/*", "a/*", "a wildcard cannot be filled in"),
        ("**/a", "**/a", "a wildcard cannot be filled in"),
        ("a//b", "a", "empty segment"),
        (None, "a", "is a string or a Name, not None"),
        (("a", 1), "a", "is a string or a Name"),
        (re.compile("a"), "a", "is a string or a Name"),
    ],
)
def test_what_cannot_be_filled_in_is_refused_when_it_is_written(text: Any, pattern: str, says: str) -> None:
    with pytest.raises(RuleError, match=says):
        template(text, pattern)


@pytest.mark.parametrize("text", [r"\2", r"\g<j>", "\\"])
def test_a_group_that_an_expression_lacks_is_refused_when_it_is_written(text: str) -> None:
    with pytest.raises(RuleError, match="does not fit the expression"):
        template(text, re.compile("(?P<i>a)"))


def test_an_expression_whose_result_is_no_name_is_refused_when_it_is_filled_in() -> None:
    pattern = compile_pattern(re.compile("a(.*)"))
    made = compile_template(r"x/\1", pattern)
    full, empty = pattern.match("ab"), pattern.match("a")
    assert full is not None and empty is not None
    assert made.expand(full) == ("x", "b")
    with pytest.raises(RuleError, match="'x/' ends in '/'"):
        made.expand(empty)


@pytest.mark.parametrize(
    ("pattern", "template", "said"),
    [
        ("a/*", "b/*", "write 'a/{x}' and 'b/{x}'"),
        ("a/*/**", "*/b/**", "write 'a/{x}/{*y}' and '{x}/b/{*y}'"),
        ("a/*", "b/**", "name it in braces on both sides, 'b/**'"),
    ],
)
def test_a_wildcard_on_the_right_is_told_with_the_captures_to_write(
    pattern: str, template: str, said: str
) -> None:
    with pytest.raises(RuleError, match=re.escape(said)):
        compile_template(template, compile_pattern(pattern))
