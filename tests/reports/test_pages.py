"""Pages for a browser, as files: what they say, what they hold for the script, and that no name breaks them.

What they do in a browser is in ``test_pages_in_a_browser``.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from html.parser import HTMLParser
from importlib.resources import files
from typing import Any

import failing_plans
import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import treeload
from treeload import BIAS, Concat, From, Inventory, Name, Policy, Rename, SourceLeaf, Transpose
from treeload._findings.explained import meaning
from treeload._findings.kinds import KINDS
from treeload._naming.name import print_name
from treeload._reports.browser.fill import as_json

EVIL = "</script><script>alert('\"&amp;')</script><img src=x onerror=alert(1)>\x1b[31m\u202e<!--"
VOID = {"meta", "input", "br", "img"}


def f32(*shape: int) -> np.ndarray:
    return np.zeros(shape, np.float32)


class Page(HTMLParser):
    """A page: its tags, its outline, what it shows, and what stands in its scripts and styles."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.open: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.texts: list[str] = []
        self.raw: dict[str, str] = {}
        self.pre = ""
        self.outline: list[str] = []
        self._raw = ""
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        said = {name: value or "" for name, value in attrs}
        self.tags.append(tag)
        self.attributes += [(tag, name, value) for name, value in said.items()]
        if "id" in said and tag not in ("button", "script", "h2"):
            self.outline.append(f"{'  ' * (len(self.open) - 1)}{tag}#{said['id']}")
        if tag in ("script", "style"):
            self._raw = said.get("type", tag)
        if tag == "pre":
            self.pre = ""
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open[-1:] in (["script"], ["style"]):
            self.raw[self._raw] = self.raw.get(self._raw, "") + data
            return
        if self.open[-1:] == ["title"]:
            return
        if "pre" in self.open:
            self.pre += data
        self.texts.append(data)
        heading = self.open[-1:] and self.open[-1] in ("h1", "h2", "h3", "summary") and data.strip()
        if heading and self.open[-2:] != ["summary", "h2"]:
            self.outline.append(f"{'  ' * (len(self.open) - 1)}{self.open[-1]}: {data.strip()}")
        elif heading:
            self.outline.append(f"{'  ' * (len(self.open) - 1)}h2, folds: {data.strip()}")

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())

    @property
    def data(self) -> Any:
        return json.loads(self.raw["application/json"])

    def leaves(self) -> dict[str, dict[str, Any]]:
        """The leaves of the page's data, by name and word."""
        data, found = self.data, {}
        texts = data["texts"]
        for name, word, size, spec, tags, facts in data["leaves"]:
            said = list(zip(*(iter(texts[each] for each in facts),) * 2, strict=True))
            key = f"{name}, {data['words'][word][0]}"
            assert key not in found
            found[key] = {
                "size": size, "spec": texts[spec], "tags": [data["tags"][tag][0] for tag in tags],
                "facts": said,
            }  # fmt: skip
        return found


def broken() -> treeload.Plan:
    layers = [{"kernel": f32(2, 3), "bias": f32(3)} for _ in range(12)]
    dst = {"layers": layers, "head": {"kernel": f32(3, 2), "bias": f32(2)}, "ids": np.zeros(2, np.int32)}
    dst["norm"] = f32(3)
    src = {"layers": [{"kernel": f32(2, 4)} for _ in range(12)], "ids": f32(2), "old": f32(1), "norm": f32(3)}
    return treeload.plan(dst, src)


def forgiven() -> treeload.Plan:
    dst = {"a": {"kernel": f32(4, 4), "bias": f32(4)}, "b": {"kernel": f32(3, 3)}, "c": f32(2), "d": f32(6)}
    src = {"a": {"kernel": f32(4, 4)}, "b": {"kernel": f32(3, 3), "bias": f32(3)}, "d": f32(5), "e": f32(1)}
    policy = Policy(missing="keep", unexpected="ignore", shape="keep", absent_is_zero=BIAS)
    return treeload.plan(dst, src, policy=policy)


def evil() -> treeload.Plan:
    return treeload.plan({EVIL: {"w": f32(3), "v": f32(1)}}, {EVIL: {"w": f32(2), "bias": f32(1)}})


def inventory(label: str = "'ckpt'", key: str = "w") -> Inventory:
    spec = jax.ShapeDtypeStruct((2, 3), np.float32)
    names = [Name((key, "a")), Name((key, "b")), Name((f"{key}2", "a"))]
    leaves = tuple(SourceLeaf(label, name, spec) for name in names)
    known: Any = {"source": label, "name": print_name((key,)), "ops": [], "rule": None}
    return Inventory(
        label, leaves, {names[1]: names[0]}, {Name((key, "none")): None}, {"said": label},
        left_out={Name((key, "f")): key}, provenance={str(names[0]): known}, unverifiable=(names[0],),
    )  # fmt: skip


def diff(key: str = "w") -> treeload.Diff:
    a = {key: {"same": f32(2), "values": f32(3), "shape": f32(4), "dtype": f32(5), "gone": f32(6)}}
    b = {key: {"same": f32(2), "values": f32(3) + 1, "shape": f32(4, 1), "new": f32(7)}}
    b[key]["dtype"] = np.zeros(5, np.float16)
    return treeload.diff(a, b)


PAGES: dict[str, Any] = {
    "broken": broken(), "forgiven": forgiven(), "evil": evil(), "nothing": treeload.plan({}, {}),
    "the root": treeload.plan(f32(2), f32(3)),
    "inventory": inventory(), "evil inventory": inventory(EVIL, EVIL),
    "empty inventory": Inventory("x", (), {}, {}, {}), "diff": diff(), "evil diff": diff(EVIL),
    "equal": treeload.diff({"w": f32(1)}, {"w": f32(1)}), "nothing to compare": treeload.diff({}, {}),
}  # fmt: skip


@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_well_formed_and_holds_all_that_it_needs(name: str) -> None:
    html = PAGES[name].to_html()
    page = Page(html)
    assert page.open == [] and html.startswith("<!doctype html>")
    for tag, attribute, value in page.attributes:
        assert not attribute.startswith("on") and attribute not in ("style", "src", "action", "srcdoc")
        assert attribute != "href" or value == "#leaves", tag
    assert not set(page.tags) & {"link", "img", "iframe", "object", "embed", "form", "base"}
    style, script = page.raw["style"], page.raw["script"]
    assert "url(" not in style and "@import" not in style
    assert set(re.findall(r"https?://[^\"' ]+", style + script)) == {"http://www.w3.org/2000/svg"}
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|fetch\(", script)


@pytest.mark.parametrize("name", PAGES)
def test_the_page_allows_its_own_script_and_style_and_nothing_else(name: str) -> None:
    page = Page(PAGES[name].to_html())
    (policy,) = [value for tag, key, value in page.attributes if tag == "meta" and "default-src" in value]
    digests = {
        kind: base64.b64encode(hashlib.sha256(page.raw[kind].encode()).digest()).decode()
        for kind in ("script", "style")
    }
    assert policy.split("; ") == [
        "default-src 'none'", f"script-src 'sha256-{digests['script']}'",
        f"style-src 'sha256-{digests['style']}'", "base-uri 'none'", "form-action 'none'",
    ]  # fmt: skip


def test_what_names_hold_is_text_and_no_markup() -> None:
    printed = print_name((EVIL,))
    for found in (evil(), inventory(EVIL, EVIL), diff(EVIL)):
        html = found.to_html()
        page = Page(html)
        assert page.tags.count("script") == 2 and "<script>alert" not in html and "<img" not in html
        assert "\x1b" not in html and "\u202e" not in html
        assert printed in page.text and any(name.startswith(printed) for name, *_ in page.data["leaves"])


class Evil(treeload.Source):
    """A source whose label is hostile."""

    label = EVIL

    def specs(self) -> Mapping[Name, Any]:
        return {Name(("w",)): jax.ShapeDtypeStruct((2,), np.float32)}

    def read(self, requests: Mapping[Name, Any]) -> Iterator[tuple[Name, Any]]:
        return iter(())


def test_texts_of_the_data_are_printable() -> None:
    page = Page(treeload.plan({"w": f32(2)}, Evil()).to_html())
    assert any("alert" in text for text in page.data["texts"])
    assert all(text.isprintable() for text in page.data["texts"])


def test_what_is_no_character_at_all_can_be_written_too() -> None:
    """Names of files that are no UTF-8 come as lone surrogates."""
    html = inventory("a\udc80", "b\udc81").to_html()
    assert "a\\udc80" in html and html.encode("utf-8")


@given(st.text(), st.text())
def test_no_name_and_no_text_changes_what_a_page_is_made_of(key: str, label: str) -> None:
    plain, hostile = Page(inventory().to_html()), Page(inventory(label, key).to_html())
    assert hostile.tags == plain.tags and hostile.open == []
    assert [each[:2] for each in hostile.attributes] == [each[:2] for each in plain.attributes]
    names = [name for name, *_ in hostile.data["leaves"]]
    assert names == [print_name((key, "a")), print_name((key, "b")), print_name((f"{key}2", "a"))]
    plain, hostile = Page(diff().to_html()), Page(diff(key).to_html())
    assert hostile.tags == plain.tags


@given(st.text(min_size=1), st.text(min_size=1), st.sampled_from(["", "</script>", "<!--", "]]>", "{{ 1 }}"]))
def test_no_name_breaks_the_page_of_a_plan(ours: str, theirs: str, more: str) -> None:
    plan = treeload.plan({ours: {"w": f32(2)}}, {theirs + more: {"w": f32(3)}})
    page = Page(plan.to_html())
    assert page.open == [] and page.tags.count("script") == 2 and page.tags.count("style") == 1
    assert page.data["leaves"][0][0] == str(plan.entries[0].name)


@given(st.recursive(st.text(), st.lists))
def test_no_text_of_the_data_ends_the_element_that_holds_it(data: Any) -> None:
    text = as_json(data)
    assert text.isascii() and not set("<>&") & set(text) and json.loads(text) == data


_FAILING = dict(failing_plans.plans())


@pytest.mark.parametrize("name", [*PAGES, *sorted(_FAILING)[::4]])
def test_a_page_holds_the_report_as_text(name: str) -> None:
    found: Any = PAGES.get(name, _FAILING.get(name))
    assert Page(found.to_html()).pre == str(found)  # the last that is shown as it stands


@pytest.mark.parametrize("name", sorted(_FAILING)[::3])
def test_a_page_says_how_to_go_on_in_the_same_code(name: str) -> None:
    plan = _FAILING[name]
    page, small = Page(plan.to_html()), plan._repr_html_()
    assert page.text.index("Does not load") < page.text.index(plan.summary())
    without = re.sub(r"\s+", "", " ".join(page.texts[: page.texts.index("The report as text")]))
    for code in re.findall(r"<li>[^<]*<code>([^<]*)</code>", small):
        bare = re.sub(r"\s+", "", Page(f"<p>{code}</p>").text)
        # What breaks over lines has a comma more.
        assert bare.replace("})", ",})") in without or bare in without or bare[:-1] in without, code


def test_each_kind_of_problem_says_what_it_means_and_where_more_is_said() -> None:
    page = Page(broken().to_html())
    shown = "".join(page.texts).replace("`", "")
    for kind in KINDS:
        is_there = kind in ("missing", "unexpected", "shape", "dtype")
        assert (meaning(kind).replace("`", "") in shown) == is_there
    above, _, report = page.text.partition("The report as text")
    for text in above, report:
        assert text.count("more about these: treeload explain missing unexpected shape dtype") == 1
    assert "explain" not in Page(forgiven().to_html()).text


def test_every_leaf_of_both_sides_is_there_once_with_what_becomes_of_it() -> None:
    plan = forgiven()
    leaves = Page(plan.to_html()).leaves()
    assert list(leaves) == [
        "a/bias, zero", "a/kernel, load", "b/kernel, load", "c, keep", "d, keep", "b/bias, not used",
        "e, not used",
    ]  # fmt: skip
    assert leaves["a/kernel, load"] == {
        "size": 64, "spec": "float32[4,4]", "tags": [], "facts": [("from", "a tree in memory")],
    }  # fmt: skip
    assert leaves["c, keep"]["tags"] == ["missing"]
    assert ("the policy says", "keep") in leaves["c, keep"]["facts"]
    assert leaves["d, keep"]["facts"][:2] == [("destination", "float32[6]"), ("source", "float32[5]")]
    assert leaves["e, not used"]["facts"][:2] == [("destination", "nothing"), ("source", "float32[1]")]
    assert leaves["b/bias, not used"]["tags"] == ["to be checked"]


def test_what_is_wrong_is_told_from_what_is_kept_and_has_its_finding() -> None:
    leaves = Page(broken().to_html()).leaves()
    assert leaves["layers/7/kernel, wrong"]["tags"] == ["shape"]
    assert leaves["layers/7/kernel, wrong"]["facts"][:2] == [
        ("destination", "float32[2,3]"), ("source", "float32[2,4]"),
    ]  # fmt: skip
    assert leaves["head/bias, wrong"]["tags"] == ["missing"] and leaves["norm, load"]["tags"] == []
    assert leaves["old, not used"]["tags"] == ["unexpected"]
    assert sum(key.endswith("wrong") for key in leaves) == sum(not e.sources for e in broken().entries)


def test_rules_ops_casts_and_ties_are_among_the_facts() -> None:
    shared = f32(2)
    dst = {"up": f32(2, 3), "one": {"x": shared, "y": shared}, "both": np.zeros(4, np.float16)}
    src = {"up_t": f32(3, 2), "one": {"x": f32(2)}, "l": f32(2), "r": f32(2)}
    rules = [Rename("up_t", "up", Transpose()), Concat(["l", "r"], "both")]
    leaves = Page(treeload.plan(dst, [From(src)], rules=rules).to_html()).leaves()
    assert dict(leaves["up, load"]["facts"]) == {
        "source leaf": "up_t float32[3,2]", "from": "a tree in memory", "ops": "Transpose()",
        "by rule": "Rename('up_t', 'up', Transpose())",
    }  # fmt: skip
    assert ("cast", "from float32") in leaves["both, load"]["facts"]
    assert [text for label, text in leaves["both, load"]["facts"] if label == "source leaf"] == [
        "l float32[2]", "r float32[2]",
    ]  # fmt: skip
    assert any(("tied with", "one/y") in leaf["facts"] for leaf in leaves.values())


def test_a_problem_of_a_node_is_one_of_each_leaf_below_it() -> None:
    leaves = Page(
        treeload.plan({"a": {"b": {"w": f32(2), "v": f32(3)}}}, {"a": {"b": f32(2)}}).to_html()
    ).leaves()
    assert leaves["a/b/w, wrong"]["tags"] == leaves["a/b/v, wrong"]["tags"] == ["structure"]


def test_modules_are_said_those_first_that_do_not_load_throughout() -> None:
    text = Page(broken().to_html()).text
    listed = text[text.index("Coverage by top-level module") :]
    assert "layers 0 of 24 leaves load 432 B" in listed and "norm 1 of 1 leaf load 12 B" in listed
    assert listed.index("layers") < listed.index("norm 1")
    two = treeload.plan({"a": {"v": f32(1), "w": f32(1)}, "b": f32(2)}, {"a": {"v": f32(1), "w": f32(1)}})
    text = Page(two.to_html()).text
    assert text.index("b 0 of 1 leaf load") < text.index("a 2 of 2 leaves load")
    keys = [a + b for a in "abcdefg" for b in "hijklmn"]
    many = {key: {"w": f32(at + 1), "b": f32(1)} for at, key in enumerate(keys)}
    assert "… and 9 modules more" in Page(treeload.plan(many, many).to_html()).text
    alike = {f"layer_{i}": {"w": f32(2), "b": f32(1)} for i in range(12)}
    assert "layer_{0..11} ×12 24 of 24 leaves load 144 B" in Page(treeload.plan(alike, alike).to_html()).text


def test_an_inventory_counts_tied_bytes_once_and_says_what_it_knows_of_each_leaf() -> None:
    page = Page(inventory().to_html())
    leaves = page.leaves()
    assert [leaf["size"] for leaf in leaves.values()] == [24, 0, 24]
    assert (
        leaves["w/b, float32"]["tags"] == ["tied"] and ("tied with", "w/a") in leaves["w/b, float32"]["facts"]
    )
    assert leaves["w/a, float32"]["tags"] == ["no digest"]
    assert ("came from", "← w in 'ckpt'") in leaves["w/a, float32"]["facts"]
    for said in ("2 leaves, 12 elements, 48 B", "Absent w/none", "Left out by the save w/f (w)", "Came from"):
        assert said in page.text


def test_a_difference_has_both_sides_and_how_far_they_are_apart() -> None:
    found = diff()
    page = Page(found.to_html())
    assert found.summary() in page.text and "5 leaves differ" in page.text
    leaves = page.leaves()
    assert {key.rpartition(", ")[2] for key in leaves} == {
        "equal", "values", "shape", "dtype", "only in a", "only in b",
    }  # fmt: skip
    assert leaves["w/shape, shape"]["facts"] == [("a", "float32[4]"), ("b", "float32[4,1]")]
    assert leaves["w/new, only in b"]["facts"] == [("a", "nothing"), ("b", "float32[7]")]
    assert leaves["w/values, values"]["facts"] == [("differ", "3 of 3, max |Δ| 1, relative 1")]


@pytest.mark.parametrize("name", ["broken", "forgiven", "inventory", "diff"])
def test_what_stands_on_a_page_and_in_which_order(name: str, check: Callable[[str, str], None]) -> None:
    check(f"page_{name}", "\n".join(Page(PAGES[name].to_html()).outline))


def test_dark_is_the_same_by_choice_as_by_the_system() -> None:
    style = (files("treeload._reports.browser") / "page.css").read_text("utf-8")
    blocks = re.findall(r":root[^{]*\{([^}]*color-scheme: dark;)", style)
    assert len(blocks) == 2 and blocks[0].split() == blocks[1].split()


def test_every_tone_that_is_said_has_a_colour_and_a_fill_in_light_and_dark() -> None:
    style = (files("treeload._reports.browser") / "page.css").read_text("utf-8")
    said = {tone for found in PAGES.values() for kind in ("words", "tags")
            for _, tone, _ in Page(found.to_html()).data[kind]}  # fmt: skip
    assert {"good", "zero", "keep", "bad", "unused", "one", "five"} <= said
    for tone in said:
        assert f".{tone} {{ --tone: var(--{tone}); --fill: var(--{tone}-fill); }}" in style
        assert style.count(f"--{tone}: #") == style.count(f"--{tone}-fill: #") == 3


def test_what_fills_pages_in_is_imported_when_one_is_made() -> None:
    code = (
        "import sys, numpy as np, treeload; p = treeload.plan({'w': np.ones(2)}, {'w': np.ones(2)}); "
        "p._repr_html_(); str(p); before = 'jinja2' in sys.modules; p.to_html(); "
        "print(before, 'jinja2' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False True\n"
