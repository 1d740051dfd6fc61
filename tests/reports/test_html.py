"""What a notebook shows, a small piece of HTML: the same words, and nothing that a page would obey."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from html.parser import HTMLParser
from typing import Any

import jax
import numpy as np
import pytest

import treeload
from treeload import BIAS, Name, Plan, Policy, Rename, Source

EVIL = "<script>alert('\"&amp;')</script>\x1b[31m"


def f32(*shape: int) -> np.ndarray:
    return np.zeros(shape, np.float32)


class Page(HTMLParser):
    """The tags of a page, what it shows, and whether every tag that was opened was closed."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.open: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        if tag != "br":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


class Evil(Source):
    label = EVIL

    def specs(self) -> Mapping[Name, Any]:
        return {Name((EVIL, key)): jax.ShapeDtypeStruct((2,), np.float32) for key in ("w", "bias")}

    def read(self, requests: Mapping[Name, Any]) -> Iterator[tuple[Name, Any]]:
        return iter(())


def broken() -> Plan:
    layers = [{"kernel": f32(2, 3), "bias": f32(3)} for _ in range(12)]
    dst = {"layers": layers, "head": {"kernel": f32(3, 2), "bias": f32(2)}, "ids": np.zeros(2, np.int32)}
    dst["norm"] = f32(3)
    src = {"layers": [{"kernel": f32(2, 4)} for _ in range(12)], "ids": f32(2), "old": f32(1), "norm": f32(3)}
    return treeload.plan(dst, src)


def evil(policy: Policy = Policy()) -> Plan:  # noqa: B008
    dst = {EVIL: {"w": f32(3), "v": f32(1)}}
    return treeload.plan(dst, Evil(), rules=[Rename(f"nothing {EVIL.replace('/', '')}", "w")], policy=policy)


PLANS = [
    broken(), evil(), evil(Policy(missing="keep", unexpected="ignore", shape="keep", rule="ignore")),
    evil(Policy(absent_is_zero=BIAS)), treeload.plan({}, {}),
]  # fmt: skip


@pytest.mark.parametrize("plan", PLANS, ids=range(len(PLANS)))
def test_a_plan_is_one_well_formed_piece_that_runs_and_fetches_nothing(plan: Plan) -> None:
    page = Page(plan._repr_html_())
    assert page.open == [] and page.tags[0] == "div"
    assert set(page.tags) <= set(
        "div p b br table thead tbody tr th td details summary code span ul li pre".split()
    )
    assert {name for name, _ in page.attributes} <= {"class", "style"}
    assert "\x1b" not in page.text


def test_the_summary_the_problems_and_the_remedies_are_shown() -> None:
    plan = broken()
    page = Page(plan._repr_html_())
    assert page.text.startswith(plan.summary())
    for said in (
        "layers/{0..11}/kernel ×12", "head/{bias,kernel}", "float32[2,3]", "float32[2,4]",
        'Policy(shape={"layers/*/kernel": "keep"})',
        'Policy(missing={"head/**": "keep", "layers/*/bias": "keep"})',
        "float32 does not become int32",
    ):  # fmt: skip
        assert said in page.text


def test_where_to_read_about_the_kinds_of_problems_is_said_once_and_only_where_there_are_some() -> None:
    plan = broken()
    with pytest.raises(treeload.LoadError) as raised:
        plan.raise_for_errors()
    for html in (plan._repr_html_(), raised.value._repr_html_()):
        said = "<p>more about these: <code>treeload explain missing unexpected shape dtype</code></p>"
        assert html.count(said) == html.count("explain") == 1
    forgiven = treeload.plan({"w": f32(2)}, {"w": f32(2), "v": f32(1)}, policy=Policy(unexpected="ignore"))
    assert "explain" not in forgiven._repr_html_()


def test_names_and_labels_of_a_checkpoint_are_text_and_no_markup() -> None:
    page = Page(evil()._repr_html_())
    assert "script" not in page.tags
    assert "<script>alert('\"&amp;')<\\/script>\\x1b[31m/bias" in page.text


def test_what_a_notebook_shows_is_no_page_but_a_piece_of_one() -> None:
    small, page = broken()._repr_html_(), broken().to_html()
    assert "<script" not in small and "<html" not in small and "<script" in page and "<html" in page
    assert len(small) < len(page) / 4


def test_many_leaves_are_a_table_of_bounded_length() -> None:
    tree = {f"{a}{b}{c}": f32(1) for a in "abcdefghij" for b in "abcdefghij" for c in "abcdefghij"}
    html = treeload.plan(tree, dict(tree))._repr_html_()
    assert html.count("<tr>") < 220 and "800 more" in html


def test_a_difference_is_tables_with_nothing_that_a_page_would_obey() -> None:
    page = Page(treeload.diff({EVIL: f32(2), "same": f32(1)}, {EVIL: f32(3), "same": f32(1)})._repr_html_())
    assert page.open == [] and "script" not in page.tags and "\x1b" not in page.text
    assert (
        page.text.startswith("1 of 2 leaves differ: 1 in shape") and "float32[2] -> float32[3]" in page.text
    )


def test_an_inventory_is_a_table_with_nothing_that_a_page_would_obey() -> None:
    page = Page(treeload.inspect(Evil())._repr_html_())
    assert page.open == [] and "script" not in page.tags and "\x1b" not in page.text
    assert "<script>alert('\"&amp;')<\\/script>\\x1b[31m/w" in page.text and "8 B" in page.text
