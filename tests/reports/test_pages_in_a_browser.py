"""Pages in a real Chromium, where one is installed: searched, folded, filtered, copied from, and inert."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

import treeload
from treeload import Policy
from treeload._leaves.spec import in_bytes

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
if CHROMIUM is None:
    pytest.skip("no Chromium is installed", allow_module_level=True)
playwright = pytest.importorskip("playwright.sync_api")

EVIL = "</script><script>window.owned = 1</script><img src=x onerror='window.owned = 1'>\x1b[31m\u202e"


def spec(*shape: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, np.float32)


def model(layers: int = 12, *, positions: int = 577, classes: int = 10, head: str = "head") -> dict[str, Any]:
    attention = {key: {"kernel": spec(64, 64), "bias": spec(64)} for key in "qkvo"}
    mlp = {"up": {"kernel": spec(64, 256)}, "down": {"kernel": spec(256, 64)}}
    return {
        "encoder": {
            "pos_embed": spec(1, positions, 64),
            "layers": {str(i): {"attn": attention, "mlp": mlp} for i in range(layers)},
        },
        head: {"kernel": spec(64, classes), "bias": spec(classes)},
    }  # fmt: skip


def failing() -> treeload.Plan:
    return treeload.plan(model(), model(positions=197, classes=1000, head="classifier"))


def large() -> treeload.Plan:
    """10,000 leaves, of which 100 are missing."""
    layer = {f"layer_{j}": {m: {"kernel": spec(8, 8), "bias": spec(8)} for m in "qkvou"} for j in range(10)}
    tree = {f"block_{i}": layer for i in range(100)}
    return treeload.plan(tree, {**tree, "block_7": {}})


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    with playwright.sync_playwright() as started:
        # A sandbox needs rights that containers mostly lack; the pages are our own.
        browser = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


Show = Callable[..., Any]


@pytest.fixture
def complaints() -> list[str]:
    """What the browser complains of, and what a page asks for beyond itself."""
    return []


@pytest.fixture
def show(chromium: Any, tmp_path: Path, complaints: list[str]) -> Iterator[Show]:
    """Opens the page of a report from a file, with no network; nothing may be complained of."""
    contexts: list[Any] = []

    def show(found: Any, **how: Any) -> Any:
        path = tmp_path / f"{len(contexts)}.html"
        path.write_text(found.to_html(), encoding="utf-8")
        context = chromium.new_context(offline=True, **{"viewport": {"width": 1200, "height": 900}, **how})
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("dialog", lambda dialog: complaints.append(dialog.message))
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        page.goto(path.as_uri())
        page.wait_for_selector("html[data-ready]", timeout=20_000)
        requests.append((path.as_uri(), asked))
        return page

    requests: list[tuple[str, list[str]]] = []
    yield show
    for context in contexts:
        context.close()
    assert complaints == [] and all(asked == [own] for own, asked in requests)


def names(page: Any) -> list[str]:
    """The rows of the tree, as they are shown."""
    return [text.strip() for text in page.locator("#tree .name").all_inner_texts()]


def found(page: Any) -> str:
    return str(page.locator("#found").inner_text())


REPORTS: dict[str, Callable[[], Any]] = {
    "failing": failing,
    "large": large,
    "nothing": lambda: treeload.plan({}, {}),
    "the root": lambda: treeload.plan(np.zeros(2), np.zeros(3)),
    "without bytes": lambda: treeload.plan({"a": spec(0), "b": {"c": spec(0)}}, {"a": spec(0)}),
    "diff": lambda: treeload.diff({"a": np.zeros(2), "b": np.ones(3)}, {"a": np.ones(2), "c": np.ones(1)}),
    "inventory": lambda: treeload.inspect(model(2)),
}


@pytest.mark.parametrize("name", REPORTS)
@pytest.mark.parametrize("width", [1200, 400])
@pytest.mark.parametrize("colours", ["light", "dark"])
def test_a_page_opens_without_a_complaint_and_is_no_wider_than_the_window(
    show: Show, name: str, width: int, colours: str
) -> None:
    page = show(REPORTS[name](), viewport={"width": width, "height": 800}, color_scheme=colours)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.locator("h1").is_visible() and page.locator("#leaves").is_visible()
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert ground == {"light": "rgb(244, 246, 248)", "dark": "rgb(16, 20, 26)"}[colours]


def test_what_is_wrong_and_how_to_go_on_comes_before_the_leaves(show: Show) -> None:
    page = show(failing())
    tops = [page.locator(each).first.bounding_box()["y"] for each in
            ("h1", ".summary", ".bar.big", "#problems", "#modules", "#map", "#tree")]  # fmt: skip
    assert tops == sorted(tops)
    assert page.locator("h1").inner_text() == "×Does not load: 5 problems"
    shape = page.locator("#problems .both")
    assert shape.locator("mark").all_inner_texts() == ["577", "197"]


def test_the_tree_unfolds_and_folds(show: Show) -> None:
    page = show(failing())
    assert "layers/" in names(page) and "attn/" not in names(page)
    layer = page.locator("#tree .line", has_text="11/").first
    assert layer.get_attribute("aria-expanded") == "false"
    layer.click()
    at = names(page).index("11/")
    assert names(page)[at : at + 3] == ["11/", "attn/", "mlp/"]
    page.locator("#tree .line", has_text="11/").first.click()
    assert "attn/" not in names(page)
    page.click("#unfold")
    assert names(page).count("kernel") == 12 * 6 + 2
    page.click("#fold")
    assert names(page) == ["encoder/", "head/", "classifier/"]


def test_numbered_siblings_come_in_the_order_of_their_numbers(show: Show) -> None:
    page = show(failing())
    listed = [name for name in names(page) if name[:-1].isdigit()]
    assert listed == [f"{i}/" for i in range(12)]


def test_a_search_leaves_the_leaves_that_hold_all_its_parts(show: Show) -> None:
    page = show(failing())
    page.fill("#search", "LAYERS/7 attn  kern")
    assert found(page) == "4 of 125 leaves"
    assert names(page) == [
        "encoder/", "layers/", "7/", "attn/", "k/", "kernel", "o/", "kernel", "q/", "kernel", "v/", "kernel",
    ]  # fmt: skip
    assert page.locator("#tree mark").first.inner_text() == "attn"
    page.fill("#search", "no such leaf")
    assert found(page) == "0 of 125 leaves" and "No leaf is what you ask for." in page.inner_text("#tree")
    page.keyboard.press("Escape")
    assert found(page) == "125 leaves" and page.input_value("#search") == ""


def test_leaves_are_filtered_by_action_and_by_finding(show: Show) -> None:
    page = show(failing())
    chips = [" ".join(text.split()) for text in page.locator(".chips .chip").all_inner_texts()]
    assert chips == ["load 120", "wrong 3", "not used 2", "missing 2", "unexpected 2", "shape 1"]
    page.click("#words .chip:has-text('wrong')")
    assert found(page) == "3 of 125 leaves"
    assert [name for name in names(page) if not name.endswith("/")] == ["pos_embed", "bias", "kernel"]
    page.click("#tags .chip:has-text('shape')")
    assert found(page) == "1 of 125 leaves"
    page.click("#tags .chip:has-text('missing')")  # of either finding
    assert found(page) == "3 of 125 leaves"
    page.click("#words .chip:has-text('wrong')")
    page.click("#words .chip:has-text('not used')")
    assert found(page) == "0 of 125 leaves"
    page.keyboard.press("Escape")
    assert found(page) == "125 leaves" and page.locator(".chips [aria-pressed=true]").count() == 0


def test_a_problem_leads_to_its_leaves(show: Show) -> None:
    page = show(failing())
    page.click(".show[data-tag=shape]")
    assert found(page) == "1 of 125 leaves" and names(page) == ["encoder/", "pos_embed"]
    assert page.evaluate("document.activeElement.innerText").startswith("encoder/")


def test_a_leaf_shows_both_sides_with_what_they_differ_in(show: Show) -> None:
    page = show(failing())
    page.fill("#search", "pos_embed")
    page.click("#tree .leaf .line")
    details = page.locator("#tree .details")
    assert details.locator(".both dt").all_inner_texts() == ["destination", "source"]
    assert details.locator(".both dd").all_inner_texts() == ["float32[1,577,64]", "float32[1,197,64]"]
    assert details.locator("mark").all_inner_texts() == ["577", "197"]
    assert "shapes differ" in details.inner_text()
    page.fill("#search", "head kernel")
    page.click("#tree .leaf .line")
    assert page.locator("#tree .both dd").all_inner_texts() == ["float32[64,10]", "nothing"]


def test_code_is_copied_as_it_stands(show: Show) -> None:
    page = show(failing(), permissions=["clipboard-read", "clipboard-write"])
    code = page.locator("#problems .code").first
    code.locator("button.copy").click()
    assert code.locator("button.copy").inner_text() == "Copied"
    copied = page.evaluate("navigator.clipboard.readText()")
    assert copied == 'Policy(missing={"head/**": "keep"})'
    assert isinstance(eval(copied, {"Policy": Policy}), Policy)
    page.click("#report summary")
    page.click("#report button.copy")
    assert page.evaluate("navigator.clipboard.readText()").replace("\r\n", "\n") == str(failing())


def test_where_there_is_no_clipboard_it_is_copied_all_the_same(show: Show) -> None:
    page = show(failing(), permissions=["clipboard-read"])
    page.evaluate("() => { navigator.clipboard.writeText = async () => { throw new Error('refused'); }; }")
    page.locator("#problems .code button.copy").first.click()
    page.wait_for_selector("text=Copied")
    assert page.evaluate("navigator.clipboard.readText()").startswith("Policy(missing=")


def test_all_of_it_can_be_done_with_keys(show: Show) -> None:
    page = show(failing())

    def here() -> str:
        return str(page.evaluate("document.activeElement.querySelector('.name').innerText"))

    def press(*keys: str) -> None:
        for key in keys:
            page.keyboard.press(key)

    press("/")
    assert page.evaluate("document.activeElement.id") == "search"
    page.keyboard.type("encoder")
    playwright.expect(page.locator("#found")).to_have_text("121 of 125 leaves")
    press("Escape", "ArrowDown")
    assert here() == "encoder/" and page.locator("#tree [tabindex='0']").count() == 1
    press("ArrowRight")
    assert here() == "layers/"
    press("Home", "ArrowLeft")
    assert names(page)[:2] == ["encoder/", "head/"]
    press("ArrowDown", "ArrowDown", "ArrowUp")
    assert here() == "head/"
    press("ArrowLeft", "ArrowRight", "ArrowRight", "Enter")
    assert here() == "bias" and page.locator("#tree .details").count() == 1
    press(" ")
    assert page.locator("#tree .details").count() == 0
    press("ArrowLeft")
    assert here() == "head/"
    press("End")
    assert here() == names(page)[-1]
    press("Home", "*")
    assert page.locator("#tree .line[aria-level='1'][aria-expanded='true']").count() == 3


def test_the_tree_says_what_it_is_to_those_who_do_not_see_it(show: Show) -> None:
    page = show(failing())
    assert page.locator("#tree").get_attribute("role") == "tree"
    lines = page.locator("#tree [role=treeitem]")
    assert lines.count() == len(names(page))
    assert lines.nth(1).get_attribute("aria-level") == "2"
    assert page.evaluate(
        "[...document.querySelectorAll('button, input')].every(b => b.innerText.trim() || b.ariaLabel)"
    )


def test_the_map_is_looked_into_and_leads_to_leaves(show: Show) -> None:
    page = show(failing())
    assert page.locator("#tiles button.tile").count() == 3
    page.locator("#tiles button[aria-label^='encoder']").click(position={"x": 5, "y": 5})
    assert page.locator("#crumbs button").all_inner_texts()[1:] == ["encoder"]
    embed = page.locator("#tiles button[aria-label^='encoder/pos_embed']")
    assert "float32[1,577,64], wrong" in embed.get_attribute("aria-label")
    embed.click()
    assert page.evaluate("document.activeElement.innerText").startswith("pos_embed")
    assert page.locator("#tree .details").count() == 1
    page.locator("#crumbs button").first.click()
    assert page.locator("#tiles button.tile").count() == 3
    boxes = page.evaluate(
        "[...document.querySelectorAll('#tiles button.tile')].map(t => t.offsetWidth * t.offsetHeight)"
    )
    whole = page.evaluate("document.getElementById('tiles').clientWidth * 320")
    assert 0.9 * whole < sum(boxes) <= whole


def test_bytes_are_printed_as_reports_print_them(show: Show) -> None:
    sizes = [0, 1, 249, 250, 2_499, 2_500, 250_000, 2_499_999, 3_000_000, 300_000_000, 2_600_000_000]
    page = show(treeload.plan({f"w{i}": spec(size) for i, size in enumerate(sizes)}, {}))
    assert page.locator("#tree .size").all_inner_texts() == [in_bytes(4 * size) for size in sizes]


@pytest.mark.parametrize("colours", ["light", "dark"])
def test_the_colours_can_be_chosen(show: Show, colours: str) -> None:
    page = show(failing(), color_scheme=colours)
    ground = "getComputedStyle(document.body).backgroundColor"
    seen = []
    for _ in range(3):
        page.click("#theme")
        seen.append(page.evaluate(ground))
    assert seen == ["rgb(244, 246, 248)", "rgb(16, 20, 26)", seen[0] if colours == "light" else seen[1]]


def test_words_can_be_read_on_their_grounds(show: Show) -> None:
    for colours in ("light", "dark"):
        page = show(failing(), color_scheme=colours)
        assert page.evaluate(_LEAST_CONTRAST) >= 4.5, colours


# The least contrast (WCAG 2) of texts in chips and lines with what they stand on.
_LEAST_CONTRAST = """() => {
  const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const paint = (...colours) => {
    for (const colour of colours) { canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1); }
    return [...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3);
  };
  const linear = (v) => (v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
  const light = (rgb) => rgb.reduce((sum, v, at) => sum + linear(v / 255) * [0.2126, 0.7152, 0.0722][at], 0);
  const what = ".chip, .said, .spec, .size, .quiet, p, h1, .sign, .problem code";
  const texts = [...document.querySelectorAll(what)];
  return Math.min(...texts.filter((each) => each.offsetParent).map((each) => {
    const grounds = [];
    for (let at = each; at; at = at.parentElement) grounds.unshift(getComputedStyle(at).backgroundColor);
    const [a, b] = [light(paint(...grounds)), light(paint(...grounds, getComputedStyle(each).color))];
    return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
  }));
}"""


def test_on_paper_it_is_light_and_without_what_is_pressed(show: Show) -> None:
    page = show(failing(), color_scheme="dark")
    page.emulate_media(media="print")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    for each in ("#search", "#theme", ".copy", "#unfold"):
        assert not page.locator(each).first.is_visible()
    assert page.locator("#problems").is_visible() and page.locator("#tree").is_visible()


def test_without_scripts_it_still_says_what_is_wrong(show: Show, chromium: Any, tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    path.write_text(failing().to_html(), encoding="utf-8")
    context = chromium.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(path.as_uri())
    assert page.locator("#problems").is_visible() and not page.locator("#leaves").is_visible()
    assert "need JavaScript" in page.inner_text("main") and not page.locator(".copy").first.is_visible()
    context.close()


@pytest.mark.parametrize("report", ["plan", "diff", "inventory"])
def test_hostile_names_are_shown_and_do_nothing(show: Show, report: str) -> None:
    ours = {EVIL: {"w": np.zeros(3), "v": np.zeros(1)}}
    theirs = {EVIL: {"w": np.zeros(2), "b": np.zeros(1)}}
    made: Any = {
        "plan": lambda: treeload.plan(ours, theirs), "diff": lambda: treeload.diff(ours, theirs),
        "inventory": lambda: treeload.inspect(ours),
    }[report]()  # fmt: skip
    page = show(made)
    page.click("#unfold")
    for line in page.locator("#tree .leaf .line").all():
        line.click()
    page.fill("#search", "onerror")
    assert page.evaluate("window.owned === undefined")
    assert page.locator("img").count() == 0 and page.locator("script").count() == 2
    assert "<script>window.owned" in page.inner_text("#tree")
    for acts in ("\x1b", "\u202e"):
        assert acts not in page.inner_text("body")


def test_a_script_from_elsewhere_would_not_run(show: Show, complaints: list[str]) -> None:
    """Even if an escape were forgotten: the page allows its own script alone."""
    page = show(failing())
    refused = page.evaluate(
        """() => new Promise((done) => {
          document.addEventListener("securitypolicyviolation", (event) => done(event.violatedDirective));
          const script = document.createElement("script");
          script.textContent = "window.owned = 1";
          document.body.append(script);
        })"""
    )
    assert refused.startswith("script-src") and page.evaluate("window.owned === undefined")
    assert "Executing inline script violates" in complaints.pop()


def test_of_very_many_leaves_only_what_is_unfolded_is_on_the_page(show: Show) -> None:
    page = show(large())
    assert found(page) == "10,000 leaves"
    assert page.evaluate("document.querySelectorAll('*').length") < 4_000
    page.fill("#search", "block_7/ missing")
    playwright.expect(page.locator("#found")).to_have_text("100 of 10,000 leaves")
    page.fill("#search", "")
    playwright.expect(page.locator("#found")).to_have_text("10,000 leaves")
    page.click("#tree .more .line")
    assert names(page)[-1] == "block_99/"


@pytest.mark.slow
def test_a_page_of_10_000_leaves_can_be_used_within_two_seconds(show: Show) -> None:
    assert min(int(show(large()).locator("html").get_attribute("data-ready")) for _ in range(3)) < 2_000
