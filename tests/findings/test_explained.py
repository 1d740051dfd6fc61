"""The pages of the kinds: one for each, of one form, and the same in the package and in the documentation."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

import treeload
from treeload._findings.explained import as_documentation, meaning, page
from treeload._findings.kinds import KINDS, Kind

PAGES = Path(treeload.__file__).parent / "_findings" / "pages"
DOCS = PAGES.parents[2] / "docs" / "reference" / "findings"
LINK = re.compile(r"\]\(([^)#]+)(?:#[^)]*)?\)")


def written(kind: Kind) -> str:
    return (PAGES / f"{kind}.md").read_text("utf-8")


def test_every_kind_has_a_page_and_every_page_a_kind() -> None:
    assert {path.name for path in PAGES.iterdir()} == {f"{kind}.md" for kind in KINDS}


@pytest.mark.parametrize("kind", KINDS)
def test_a_page_is_headed_by_its_kind_and_has_its_parts_in_order(kind: Kind) -> None:
    heads = re.findall(
        r"^#+ .*", re.sub(r"^```.*?^```", "", written(kind), flags=re.DOTALL | re.MULTILINE), re.M
    )
    parts = ["When it happens", "An example", "To go on", "What no policy can do"]
    assert heads == [f"# {kind}", *(f"## {part}" for part in parts)]


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != Kind.VALUES])
def test_the_example_of_a_page_is_a_report_of_its_kind(kind: Kind) -> None:
    report = re.search(r"^```text\n(.*?)^```", written(kind), re.DOTALL | re.MULTILINE)
    assert report is not None and f"\n  {kind} " in report[1]
    assert re.search(rf"^  more about .*: treeload explain .*\b{kind}\b", report[1], re.MULTILINE)


@pytest.mark.parametrize("kind", KINDS)
def test_a_page_shows_the_verdicts_that_forgive_its_kind(kind: Kind) -> None:
    for verdict in KINDS[kind].verdicts[1:]:
        assert re.search(rf'{kind}=(?:"|.*: "){verdict}"', written(kind))


@pytest.mark.parametrize("kind", KINDS)
def test_the_documentation_has_the_same_page(kind: Kind) -> None:
    copy = DOCS / f"{kind}.md"
    if os.environ.get("TREELOAD_UPDATE_GOLDEN"):
        copy.write_text(as_documentation(kind), "utf-8")
    assert copy.read_text("utf-8") == as_documentation(kind)


@pytest.mark.parametrize("kind", KINDS)
def test_links_lead_somewhere_from_both_places(kind: Kind) -> None:
    for folder, text in ((PAGES, written(kind)), (DOCS, as_documentation(kind))):
        links = LINK.findall(text)
        assert links and all((folder / link).is_file() for link in links)


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_read_without_a_browser_has_no_links(kind: Kind) -> None:
    said = page(kind)
    assert "](" not in said and "../" not in said and said.startswith(f"# {kind}\n")
    assert all(re.search(rf"`{other}`", said) for other in re.findall(r"\]\((\w+)\.md\)", written(kind)))


def test_a_link_into_the_documentation_says_which_file_it_means() -> None:
    assert "Another vocabulary (docs/how-to/vocabulary.md)" in page(Kind.SHAPE)


def test_the_meaning_is_the_first_paragraph_on_one_line() -> None:
    assert (
        meaning(Kind.TIE) == "Leaves that are one array in the model have different values in the checkpoint."
    )
    assert all("\n" not in meaning(kind) and meaning(kind).endswith(".") for kind in KINDS)
