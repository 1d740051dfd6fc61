"""Each command as a shell gives it: what it prints, its JSON, and its status."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

import treeload
from treeload._findings.explained import page
from treeload._findings.kinds import KINDS, Kind

Run = Callable[..., Any]


# inspect


def test_inspect_prints_a_tree_with_sums(here: Path, run: Run) -> None:
    done = run("inspect", "ckpt")
    assert done.status == 0 and done.err == ""
    assert done.out.splitlines() == [
        "7 leaves, 47 elements, 188 B in 'ckpt' (Orbax)",
        "",
        "  head  float32[2]                 8 B",
        "  net/                           180 B  6 leaves",
        "    layers/                      180 B  6 leaves",
        "      {0..2}/                    180 B  6 leaves",
        "        bias ×3  float32[3]       36 B",
        "        weight ×3  float32[3,4]  144 B",
    ]


def test_inspect_folds_sorts_and_selects(here: Path, run: Run) -> None:
    folded = run("inspect", "ckpt", "--depth", "1", "--sort", "bytes").out.splitlines()[2:]
    assert [row.split()[0] for row in folded] == ["net/", "head"]
    named = run("inspect", "ckpt", "--depth", "1", "--sort", "name").out.splitlines()[2:]
    assert [row.split()[0] for row in named] == ["head", "net/"]
    assert "weight" not in run("inspect", "ckpt", "--pattern", "**/bias").out
    assert "3 leaves" in run("inspect", "ckpt", "--pattern", "**/bias").out


def test_inspect_of_a_foreign_file_says_that_it_cannot_be_verified(here: Path, run: Run) -> None:
    assert "cannot be verified: it holds no digests" in run("inspect", "ckpt.safetensors").out


def test_inspect_with_stats(here: Path, run: Run) -> None:
    rows = run("inspect", "ckpt", "--stats").out.splitlines()
    assert next(row for row in rows if "head" in row).endswith("0 … 0, mean 0, all zero")
    assert next(row for row in rows if "bias" in row).endswith("0 … 2, mean 1, 3 zero")
    found = run("inspect", "ckpt", "--stats", "--json").json["stats"]["net/layers/2/bias"]
    assert found == {"count": 3, "min": 2.0, "max": 2.0, "mean": 2.0, "zeros": 0, "nan": 0, "infinite": 0}


def test_inspect_as_json_is_the_inventory(here: Path, run: Run) -> None:
    assert run("inspect", "ckpt", "--json").json == json.loads(json.dumps(treeload.inspect("ckpt").to_dict()))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("nothing",), "treeload: 'nothing' does not exist; '.' holds"),
        (("ckpt", "--sort", "size"), "treeload: --sort takes file, bytes, name, not 'size'"),
        (("ckpt", "--pattern", "**/wieght"), "treeload: '**/wieght' matches none of the 7 leaves of 'ckpt'"),
        (("ckpt", "--pattern", "a//b"), "treeload: "),
    ],
)
def test_inspect_says_what_is_wrong_in_a_sentence(
    here: Path, run: Run, arguments: tuple[str, ...], said: str
) -> None:
    done = run("inspect", *arguments)
    assert done.status == 2 and done.out == ""
    assert done.err.startswith(said) and "Traceback" not in done.err


def test_debug_shows_where_an_error_came_from_and_changes_nothing_else(here: Path, run: Run) -> None:
    plain, debug = run("inspect", "nothing"), run("inspect", "nothing", "--debug")
    assert plain.status == debug.status == 2 and debug.out == ""
    assert debug.err.startswith("Traceback") and debug.err.endswith(plain.err)


# plan


def test_plan_says_what_is_wrong_and_its_status_is_one(here: Path, run: Run) -> None:
    done = run("plan", "ckpt", "--into", "models_of_test:make")
    assert done.status == 1
    assert done.out.startswith("1 of 7 leaves load") and "to go on" in done.out


def test_plan_with_rules_that_fit(here: Path, run: Run) -> None:
    for rules in ("rules.py:rules", "rules.py:made", "rules.py"):
        done = run("plan", "ckpt", "--into", "models_of_test:ready", "--rules", rules)
        assert done.status == 0, done
        assert done.out.startswith("7 of 7 leaves load")


def test_what_suggest_prints_is_a_file_of_rules(here: Path, run: Run) -> None:
    done = run("plan", "ckpt", "--into", "models_of_test:make", "--suggest")
    assert done.status == 1
    (here / "suggested.py").write_text(done.out)
    assert run("plan", "ckpt", "--into", "models_of_test:make", "--rules", "suggested.py:rules").status == 0
    found = run("plan", "ckpt", "--into", "models_of_test:make", "--suggest", "--json").json
    assert len(found["rules"]) == len(found["reasons"]) == 2


def test_plan_like_another_checkpoint(here: Path, run: Run) -> None:
    assert run("plan", "ckpt.safetensors", "--like", "ckpt").status == 0
    assert run("plan", "ckpt", "--like", "ckpt", "--json").json["ok"] is True


def test_a_policy_has_a_table_for_each_kind(here: Path, run: Run) -> None:
    (here / "policy.toml").write_text(
        'absent_is_zero = ["**/bias"]\n[missing]\n"layers/**" = "keep"\n[unexpected]\n"net/**" = "ignore"\n'
    )
    done = run("plan", "ckpt", "--into", "models_of_test:make", "--policy", "policy.toml")
    assert done.status == 0, done
    assert "3 zeroed; 3 kept" in done.out


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[mising]\n"a" = "keep"\n', "a policy has no 'mising'; 'missing' is near: it has missing,"),
        ('missing = "drop"\n', "Policy(missing=...) takes 'error', 'keep', or a mapping"),
        ("missing\n", "no TOML: "),
    ],
)
def test_what_is_wrong_with_a_policy_is_said_by_name(here: Path, run: Run, text: str, said: str) -> None:
    (here / "policy.toml").write_text(text)
    done = run("plan", "ckpt", "--into", "models_of_test:make", "--policy", "policy.toml")
    assert done.status == 2 and f"--policy policy.toml: {said}" in done.err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "plan takes a model, --into MODULE:FACTORY, or a checkpoint of one, --like OTHER"),
        (("--into", "models_of_test"), "--into takes MODULE:FACTORY"),
        (("--into", "modles:make"), "there is no module 'modles' here, nor among what is installed"),
        (("--into", "models_of_te:make"), "there is no module 'models', which models_of_te imports"),
        (("--into", "models_of_test:mkae"), "models_of_test has no 'mkae'; near: make"),
        (("--like", "ckpt", "--rules", "ruels.py:rules"), "there is no file 'ruels.py'"),
        (
            ("--like", "ckpt", "--rules", "rules.py:ruels"),
            "'rules.py' has no 'ruels'; it has rules: --rules rules.py:rules",
        ),
        (("--like", "ckpt", "--policy", "none.toml"), "--policy none.toml: No such file or directory"),
        (("--into", "models_of_test:broken"), "your code raised ValueError: no weights today"),
        (("--into", "models_of_test:nothing"), "None: give a model or a tree of arrays"),
        (("--like", "ckpt", "--html", "no/such/page.html"), "--html no/such/page.html: No such file"),
        (("--like", "ckpt", "--rules", "broken.py:rules"), "your code raised NameError: name 'Renmae'"),
    ],
)
def test_plan_says_what_it_was_given_wrongly(
    here: Path, run: Run, arguments: tuple[str, ...], said: str
) -> None:
    done = run("plan", "ckpt", *arguments)
    assert done.status == 2 and said in done.err and done.out == ""


def test_plan_writes_a_page_and_a_lock_and_holds_to_it(here: Path, run: Run) -> None:
    asked = ("--into", "models_of_test:make", "--rules", "rules.py:rules")
    assert run("plan", "ckpt", *asked, "--html", "plan.html", "--lock", "plan.lock").status == 0
    page = (here / "plan.html").read_text("utf-8")
    assert page.startswith("<!doctype html>") and "7 of 7 leaves load" in page
    assert run("plan", "ckpt", *asked, "--check-lock", "plan.lock").status == 0
    treeload.save(here / "other", _values("ckpt") | {"extra": np.ones(2)})
    done = run("plan", "other", *asked, "--check-lock", "plan.lock")
    assert done.status == 1 and "extra" in done.err


def _values(path: str) -> Any:
    """A checkpoint as a tree."""
    from treeload._trees.tree import nested

    source = treeload.open(path)
    return nested({tuple(name): array for name, array in source.read(source.specs())})


# diff, verify, digest


def test_diff(here: Path, run: Run) -> None:
    assert run("diff", "ckpt", "ckpt.safetensors").status == 0
    treeload.save(here / "other", {"head": np.ones(2, np.float32)})
    done = run("diff", "ckpt", "other")
    assert done.status == 1 and "only in a" in done.out
    assert run("diff", "ckpt", "other", "--json").json["equal"] is False


def test_verify_and_digest(here: Path, run: Run) -> None:
    assert run("verify", "ckpt").out == "7 leaves verified in 'ckpt' (Orbax)\n"
    assert run("verify", "ckpt.safetensors", "--json").json["unverified"]
    assert run("digest", "ckpt.safetensors").out.strip().endswith("ckpt.safetensors.digests.json")
    assert run("verify", "ckpt.safetensors").status == 0
    raw = bytearray((here / "ckpt.safetensors").read_bytes())
    raw[-1] ^= 1
    (here / "ckpt.safetensors").write_bytes(raw)
    done = run("verify", "ckpt.safetensors", "--json")
    assert done.status == 1 and list(done.json["damaged"]) == ["net/layers/2/weight"]
    assert run("verify", "nothing").status == 2


# average, convert


def test_average(here: Path, run: Run) -> None:
    for name, number in (("a", 0), ("b", 4)):
        treeload.save(here / name, {"w": np.full(2, number, np.float32)})
    assert run("average", "a", "b", "-o", "mean", "--weights", "3,1").out == "1 leaf, 8 bytes in mean\n"
    assert treeload.load({"w": np.zeros(2, np.float32)}, "mean")["w"].tolist() == [1, 1]
    assert run("average", "a", "b", "-o", "mean").status == 2  # nothing is replaced
    assert run("average", "a", "b", "-o", "c", "--weights", "3;1").status == 2
    assert run("average", "a", "ckpt", "-o", "c").status == 2
    assert not (here / "c").exists()


def test_convert_there_and_back_is_the_same_bit_for_bit(here: Path, run: Run) -> None:
    assert run("convert", "ckpt", "there.safetensors", "--json").json == {
        "path": "there.safetensors", "leaves": 7, "bytes": 188,
    }  # fmt: skip
    assert run("convert", "there.safetensors", "back").status == 0
    assert run("diff", "ckpt", "back").status == 0
    there, first = load_file(here / "there.safetensors"), load_file(here / "ckpt.safetensors")
    assert {name: array.tobytes() for name, array in there.items()} == {
        name: array.tobytes() for name, array in first.items()
    }


def test_convert_under_rules_and_never_onto_what_is_there(here: Path, run: Run) -> None:
    assert run("convert", "ckpt", "new", "--rules", "rules.py:rules").status == 0
    assert run("plan", "new", "--into", "models_of_test:make").status == 0
    done = run("convert", "ckpt", "new")
    assert done.status == 2 and "'new' exists, and is not replaced" in done.err
    done = run("convert", "ckpt", "x", "--rules", "models_of_test.py:make")
    assert done.status == 2 and not (here / "x").exists()


def test_what_is_tied_is_tied_after_a_convert(here: Path, run: Run) -> None:
    shared = np.ones(3, np.float32)
    treeload.save(here / "tied", {"a": shared, "b": shared})
    assert run("convert", "tied", "again").status == 0
    assert len(treeload.inspect(here / "again").ties) == 1


# explain


def test_explain_lists_the_kinds_a_line_each(run: Run) -> None:
    done = run("explain")
    assert done.status == 0 and done.err == ""
    assert [row.split()[0] for row in done.out.splitlines()] == list(KINDS)
    assert "tie         leaves that are one array in the destination, with" in done.out
    assert "`" not in done.out


def test_explain_prints_pages_in_the_order_in_which_they_are_asked_for(run: Run) -> None:
    done = run("explain", "shape", "missing", "shape")
    assert done.status == 0 and done.err == ""
    assert done.out == page(Kind.SHAPE) + "\n" + page(Kind.MISSING)


def test_explain_as_json_has_what_is_printed(run: Run) -> None:
    done = run("explain", "values", "tie", "--json").json
    assert list(done) == ["values", "tie"]
    assert done["tie"]["verdicts"] == ["error", "first"] and done["tie"]["page"] == page(Kind.TIE)
    listed = run("explain", "--json").json
    assert list(listed) == list(KINDS) and listed["tie"]["meaning"] == KINDS[Kind.TIE].meaning


def test_explain_says_which_kinds_there_are_where_it_does_not_know_one(run: Run) -> None:
    done = run("explain", "missing", "Shapes")
    known = ", ".join(KINDS)
    assert done.status == 2 and done.out == ""
    assert done.err == f"treeload: 'Shapes' is no kind of finding; 'shape' is near: the kinds are {known}\n"
    done = run("explain", "zzz", "--json")
    assert done.status == 2 and done.err == f"treeload: 'zzz' is no kind of finding: the kinds are {known}\n"


def shown_plainly(text: str) -> str:
    """A text without its colours."""
    return re.sub(r"\x1b\[[\d;]*m", "", text)


def test_explain_on_a_terminal_lays_out_the_page_and_leaves_reports_as_wide_as_they_are(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    shown = run("explain", "collision").out
    rows = [row.rstrip() for row in shown_plainly(shown).splitlines()]
    heads = [row.strip() for row in rows]  # older versions of rich have them in the middle
    assert "## An example" not in heads and "An example" in heads and "```text" not in heads
    report = page(Kind.COLLISION).partition("```text\n")[2].partition("```")[0].rstrip().splitlines()
    at = rows.index(report[0])
    assert rows[at : at + len(report)] == report
    (code,) = re.findall(r"^treeload.load.*collision=.*$", page(Kind.COLLISION), re.MULTILINE)
    assert len(code) > 80 and "".join(code.split()) in "".join(shown_plainly(shown).split())


# the whole


def test_env_and_version(run: Run) -> None:
    assert run("--version").out == f"treeload {run('env', '--json').json['treeload']}\n"
    assert "jaxlib" in run("env").out


@pytest.mark.parametrize("arguments", [("--help",), ("explain", "missing")])
def test_help_and_explain_import_no_jax(run: Run, arguments: tuple[str, ...]) -> None:
    assert run(*arguments).status == 0
    code = (
        f"import sys; sys.argv = ['treeload', *{arguments}]\nfrom treeload.cli import main\n"
        "try: main()\nexcept SystemExit: pass\n"
        "print({*sys.modules} & {'jax', 'numpy', 'flax', 'orbax', 'tensorstore'})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "set()"


def test_help_names_every_command(run: Run) -> None:
    said = run("--help").out
    for command in (
        "inspect", "plan", "explain", "diff", "verify", "digest", "average", "convert", "demo", "env",
    ):  # fmt: skip
        assert command in said
        assert run(command, "--help").status == 0


def test_what_is_no_command_is_said(run: Run) -> None:
    assert run("inspcet", "x").status == 2
