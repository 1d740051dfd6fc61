"""The table of kinds: complete, told by the docs as it is, and asked by every other room."""

from __future__ import annotations

import ast
import copy
import dataclasses
import pickle
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import treeload
from treeload import Finding, Name, Policy, RuleError
from treeload._findings.kinds import KINDS, Kind

PACKAGE = Path(treeload.__file__).parent
PAGE = PACKAGE.parent / "docs" / "reference" / "findings.md"

# Where findings of a certain kind are made; the last two answer for some of them, as a policy does.
MAKES_FINDINGS = (
    "_loading/overflow.py", "_matching/", "_checkpoints/one_model.py", "_versions/", "finetune/_restore.py",
)  # fmt: skip


def test_every_kind_has_a_row_and_the_rows_are_in_the_order_of_the_kinds() -> None:
    assert tuple(KINDS) == tuple(Kind)


def test_by_default_every_kind_is_an_error() -> None:
    assert {manner.verdicts[0] for manner in KINDS.values()} == {"error"}


def test_the_settings_of_a_policy_are_the_kinds_that_may_be_forgiven() -> None:
    settings = {field.name for field in dataclasses.fields(Policy) if field.init}
    forgivable = {kind for kind, manner in KINDS.items() if len(manner.verdicts) > 1}
    assert settings - {"casting", "absent_is_zero"} == forgivable


def test_what_one_side_lacks_is_the_counterpart_of_what_the_other_lacks() -> None:
    pairs = {kind: manner.counterpart for kind, manner in KINDS.items() if manner.counterpart}
    assert pairs and all(pairs[other] == kind for kind, other in pairs.items())


def test_the_table_of_the_docs_is_this_one() -> None:
    rows = re.findall(
        r"^\| \[`(\w+)`\]\(findings/\1\.md\) \| (.*) \| (.*) \|$", PAGE.read_text("utf-8"), re.MULTILINE
    )
    assert rows == [
        (kind, manner.meaning, ", ".join(f"`{verdict}`" for verdict in manner.verdicts))
        for kind, manner in KINDS.items()
    ]


def test_a_kind_is_its_text_wherever_it_is_compared_printed_or_copied() -> None:
    kind = Kind.MISSING
    held: dict[str, int] = {kind: 1}
    assert kind == "missing" and held["missing"] == 1 and str(kind) == f"{kind}" == "missing"
    assert repr([kind]) == "['missing']"
    assert pickle.loads(pickle.dumps(kind)) is kind and copy.deepcopy(kind) is kind


@pytest.mark.parametrize("wrong", ["mising", "Missing", "MISSING", "", "casting"])
def test_an_unknown_kind_is_an_error_in_a_finding(wrong: str) -> None:
    with pytest.raises(RuleError, match=f"'{wrong}' is no kind of finding; the kinds are 'missing', 'unex"):
        Finding(wrong, Name(("a",)), "error")  # type: ignore[arg-type]


@pytest.mark.parametrize("wrong", ["mising", "Missing", "MISSING", ""])
def test_an_unknown_kind_is_an_error_when_a_policy_is_asked(wrong: str) -> None:
    for policy in (Policy(), Policy(missing="keep"), Policy(missing={"a": "keep"})):
        with pytest.raises(RuleError, match=f"'{wrong}' is no kind of finding"):
            policy.verdict(wrong, "a")


def test_a_text_is_taken_for_the_kind_of_that_name() -> None:
    finding = Finding("shape", Name(("a",)), "error")  # type: ignore[arg-type]
    assert type(finding.kind) is Kind
    assert finding == Finding(Kind.SHAPE, Name(("a",)), "error")
    assert type(dataclasses.replace(finding, kind="dtype").kind) is Kind  # type: ignore[arg-type]


def test_no_other_room_knows_a_kind_by_its_name() -> None:
    """Whatever is true of a kind stands in the table, so that a new kind is a row there."""
    found = []
    for path in sorted(PACKAGE.rglob("*.py")):
        where = path.relative_to(PACKAGE).as_posix()
        if where.startswith(("_findings/", *MAKES_FINDINGS)):
            continue
        nodes: Iterator[Any] = ast.walk(ast.parse(path.read_text("utf-8")))
        for node in nodes:
            sides = [node.left, *node.comparators] if isinstance(node, ast.Compare) else []
            asked = any(isinstance(side, ast.Attribute) and side.attr == "kind" for side in sides)
            texts = {side.value for side in sides if isinstance(side, ast.Constant)}
            if asked and texts & {*KINDS} and where != "_reports/diff.py":  # a ``LeafDiff`` has others
                found.append(f"{where}:{node.lineno}")
            if isinstance(node, ast.Attribute) and getattr(node.value, "id", None) == "Kind":
                found.append(f"{where}:{node.lineno}")
    assert found == []


USED = """
import numpy as np, treeload
from treeload import Finding, Name, Policy

assert Policy().verdict("drift", "w") == "error"
plan = treeload.plan({"w": np.zeros(2)}, {"w": np.ones(3)})
drift = Finding("drift", Name(("w",)), "error", found="3 days", message="it has drifted since")
plan = plan.with_findings(findings=[*plan.findings, drift])
assert [finding.kind for finding in plan.errors] == ["drift", "shape"], plan.errors
assert plan.to_dict()["findings"][0]["kind"] == "drift"
assert "drift" in plan._repr_html_()
print(plan)
"""


def test_a_new_kind_of_finding_touches_this_one_file(tmp_path: Path) -> None:
    copied = tmp_path / "treeload"
    shutil.copytree(PACKAGE, copied, ignore=shutil.ignore_patterns("__pycache__"))
    table = copied / "_findings" / "kinds.py"
    text = table.read_text("utf-8")
    for before, new in (
        ('    MISSING = "missing"\n', '    DRIFT = "drift"\n'),
        (
            "        Kind.MISSING: Manner(\n",
            '        Kind.DRIFT: Manner("the weights are old", columns=_BOTH),\n',
        ),
    ):
        assert text.count(before) == 1
        text = text.replace(before, new + before)
    table.write_text(text, "utf-8")
    done = subprocess.run(
        [sys.executable, "-c", USED], capture_output=True, text=True, timeout=120, cwd=tmp_path,
        env={"PYTHONPATH": str(tmp_path), "JAX_PLATFORMS": "cpu", "PATH": ""},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert (
        "drift       w\n              source       3 days\n              it has drifted since" in done.stdout
    )
