"""What keeps the house one to live in: sizes of files and functions, how deep and how wide they are.

Which room may import which is held by the contract in ``pyproject.toml``.
"""

from __future__ import annotations

import ast
import re
import statistics
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

import treeload

PYPROJECT = Path(__file__).parent.parent / "pyproject.toml"
ROOMS = Path(treeload.__file__).parent
FILES = {path.relative_to(ROOMS): path.read_text("utf-8") for path in sorted(ROOMS.rglob("*.py"))}
BRANCHES = (ast.For, ast.While, ast.If, ast.With, ast.Try, ast.Match)


def functions() -> Iterator[tuple[str, ast.FunctionDef]]:
    """Every function and method, with where it is."""
    for path, text in FILES.items():
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef):
                yield f"{path}:{node.name}", node


def depth(node: ast.AST, above: int = 0) -> int:
    """How many branches and loops lie around the innermost statement; a function within counts anew."""
    deepest = above
    for child in ast.iter_child_nodes(node):
        elif_ = isinstance(node, ast.If) and isinstance(child, ast.If) and node.orelse == [child]
        if isinstance(child, ast.FunctionDef):
            continue
        deepest = max(deepest, depth(child, above + (isinstance(child, BRANCHES) and not elif_)))
    return deepest


def parameters(function: ast.FunctionDef) -> int:
    """How many parameters a function has, itself not counted."""
    arguments = function.args
    named = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
    several = [one for one in (arguments.vararg, arguments.kwarg) if one is not None]
    return len(named) + len(several) - (bool(named) and named[0].arg in ("self", "cls"))


def test_files_are_read_at_one_sitting() -> None:
    lines = {str(path): text.count("\n") for path, text in FILES.items()}
    assert {path: count for path, count in lines.items() if count > 450} == {}
    assert statistics.median(lines.values()) <= 150


def test_functions_fit_a_screen_but_for_three() -> None:
    long = [where for where, node in functions() if (node.end_lineno or 0) - node.lineno + 1 > 60]
    assert len(long) <= 3, long


# What users call may ask for as much as they have to say.
PUBLIC = {
    "load",
    "update",
    "restore_optimizer",
    "plan_optimizer",
    "resume",
    "save",
    "export",
    "__init__",
    "__new__",
}


def test_no_private_function_takes_more_than_six() -> None:
    wide = [where for where, node in functions() if parameters(node) > 6]
    commands = [where for where in wide if where.startswith("cli/")]  # whose options are public, too
    assert [where for where in wide if where.rpartition(":")[2] not in PUBLIC and where not in commands] == []


def test_nothing_is_nested_deeper_than_four() -> None:
    assert [where for where, node in functions() if depth(node) > 4] == []


@pytest.mark.parametrize("folder", sorted({path.parent for path in FILES if len(path.parts) > 1}), ids=str)
def test_each_room_says_what_it_is_for_and_lists_its_files(folder: Path) -> None:
    doc = ast.get_docstring(ast.parse(FILES[folder / "__init__.py"]))
    assert doc
    if not folder.parts[0].startswith("_"):
        return
    inside = [path.relative_to(folder).parts for path in FILES if path.is_relative_to(folder)]
    there = {parts[0].removesuffix(".py") for parts in inside} - {"__init__"}
    assert {match[1] for match in re.finditer(r"^ *(\w+)  +\S", doc, re.MULTILINE)} == there


def test_what_is_to_be_covered_to_the_last_branch_is_there() -> None:
    listed = tomllib.loads(PYPROJECT.read_text("utf-8"))["tool"]["coverage"]["run"]["include"]
    assert len(listed) >= 14 and all((PYPROJECT.parent / path).is_file() for path in listed)
