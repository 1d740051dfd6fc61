"""Every fenced block of the README and the docs runs, is checked as output, or says why not.

The Python blocks of a page run in order in one namespace, in an empty working directory. A ``text`` block
that follows one of them is what it prints, to the letter (``...`` stands for anything). Any other block, and
a Python block that cannot run, has a comment ``<!-- not run: why -->`` on the line before it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import doctest
import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
FENCE = re.compile(r"^(?P<indent> *)```(?P<language>\S*)")
NOT_RUN = re.compile(r"^\s*<!-- not run: \S.* -->$")


@dataclasses.dataclass(frozen=True)
class Block:
    """One fenced block: its language, its text, its first line's number; does it say why it does not run?"""

    language: str
    text: str
    line: int
    is_excused: bool


def blocks(text: str) -> Iterator[Block]:
    """The fenced blocks of a page, in order."""
    lines = text.splitlines()
    at = 0
    while at < len(lines):
        fence = FENCE.match(lines[at])
        if fence is None:
            at += 1
            continue
        indent = len(fence["indent"])
        end = next(i for i in range(at + 1, len(lines)) if lines[i].strip() == "```")
        body = "\n".join(line[indent:] for line in lines[at + 1 : end]) + "\n"
        is_excused = at > 0 and NOT_RUN.match(lines[at - 1]) is not None
        yield Block(fence["language"], body, at + 2, is_excused)
        at = end + 1


def run(page: Path, text: str) -> None:
    """Runs a page's blocks; raises at the first that fails or prints something else than the page shows."""
    namespace: dict[str, Any] = {"__name__": "__main__"}
    printed: str | None = None  # by the block before, where it is still unclaimed
    for block in blocks(text):
        where = f"{page.name}:{block.line}"
        if block.is_excused:
            printed = None
        elif block.language == "python":
            out = io.StringIO()
            code = compile("\n" * (block.line - 1) + block.text, str(page), "exec")
            with contextlib.redirect_stdout(out):
                exec(code, namespace)
            printed = out.getvalue()
        elif block.language == "text" and printed is not None:
            compare(block.text, printed, where)
            printed = None
        else:
            pytest.fail(
                f"{where}: a {block.language or 'plain'} block that nothing checks, and no reason given"
            )


def compare(shown: str, printed: str, where: str) -> None:
    """Fails unless the page shows what was printed, but for blanks at the ends of lines."""
    shown, printed = (
        re.sub(r"[ \t]+$", "", text, flags=re.MULTILINE).strip("\n") + "\n" for text in (shown, printed)
    )
    if not doctest.OutputChecker().check_output(shown, printed, doctest.ELLIPSIS):
        pytest.fail(f"{where}: the page shows\n{shown}\nbut this is printed:\n{printed}")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_block_runs_and_prints_what_the_page_shows(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run(page, page.read_text("utf-8"))


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("```python\nprint(1)\n```\n```text\n2\n```\n", "page.md:5: the page shows\n2"),
        ("```python\nx = 1\n```\n```text\n1\n```\n", "page.md:5: the page shows\n1"),
        ("```sh\nls\n```\n", "page.md:2: a sh block that nothing checks"),
        ("```text\nls\n```\n", "page.md:2: a text block that nothing checks"),
        ("```\nls\n```\n", "page.md:2: a plain block that nothing checks"),
    ],
)
def test_a_block_that_is_wrong_or_unchecked_fails(text: str, problem: str) -> None:
    with pytest.raises(pytest.fail.Exception, match=re.escape(problem)):
        run(Path("page.md"), text)


def test_a_block_that_raises_names_its_line() -> None:
    with pytest.raises(ZeroDivisionError) as raised:
        run(Path("page.md"), "one\n\n```python\nx = 0\n1 / x\n```\n")
    assert raised.traceback[-1].lineno + 1 == 5


def test_blocks_of_a_page_share_a_namespace_and_excused_ones_are_left_out() -> None:
    run(
        Path("page.md"),
        "```python\nx = 1\n```\n<!-- not run: it would not end -->\n```sh\nyes\n```\n"
        "- item\n\n    ```python\n    print(x, 'and more')\n    ```\n    ```text\n    1 ...\n    ```\n",
    )


def test_the_first_two_blocks_of_the_readme_are_the_commands_that_ci_runs() -> None:
    first, second, *_ = blocks((ROOT / "README.md").read_text("utf-8"))
    assert first.language == second.language == "sh"
    assert first.text.splitlines()[-1].endswith("treeload demo")
    assert second.text.splitlines()[-1].endswith("pytest")
    ci = (ROOT / ".ci" / "run").read_text("utf-8")
    assert re.search(r'^readme_block "\$old" 1$', ci, re.MULTILINE)
    assert len(re.findall(r'readme_block "\$(?:old|new)" 2$', ci, re.MULTILINE)) == 2
