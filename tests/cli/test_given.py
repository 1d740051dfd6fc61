"""What is given to ``treeload plan``: models and rules in files, policies, checkpoints in place of models."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import save_file

import treeload
from treeload.cli import given, policies

Run = Callable[..., Any]

# Models and rules in files.


@pytest.mark.parametrize("module", ["models_of_test.py", "./models_of_test.py", "deep/models.py"])
def test_a_model_may_be_in_a_file(here: Path, run: Run, module: str) -> None:
    (here / "deep").mkdir()
    (here / "deep" / "layers.py").write_text(
        "def zeros(n):\n    import numpy as np\n    return np.zeros(n)\n"
    )
    (here / "deep" / "models.py").write_text(
        "from layers import zeros\ndef make(): return {'head': zeros(2)}\n"
    )
    done = run("plan", "ckpt", "--into", f"{module}:make")
    assert done.status == 1 and done.out.startswith(("1 of 7 leaves load", "1 of 1 leaf loads"))


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("no.py:make", "--into no.py:make: there is no file 'no.py'\n"),
        ("./no:make", "--into ./no:make: there is no file './no'\n"),
        ("./models_of_test:make", "no file './models_of_test'; './models_of_test.py' is one\n"),
        ("models_of_test.py", "--into takes MODULE:FACTORY"),
        ("models_of_test.py:mkae", "models_of_test.py has no 'mkae'; near: make"),
        (
            "models_of_test.py:broken",
            "your code raised ValueError: no weights today (line 12 of models_of_test.py)",
        ),
        (
            "models_of_test:broken",
            "your code raised ValueError: no weights today (line 12 of models_of_test.py)",
        ),
    ],
)
def test_what_is_wrong_with_a_model_in_a_file_is_said(here: Path, run: Run, target: str, said: str) -> None:
    done = run("plan", "ckpt", "--into", target)
    assert done.status == 2 and said in done.err and done.out == ""


def test_a_file_of_rules_under_other_names_is_said_with_what_it_has(here: Path, run: Run) -> None:
    (here / "two.py").write_text(
        "from treeload import Rename\nmine = [Rename('a', 'b')]\none = mine[0]\nn = []\n"
    )
    asked = ("plan", "ckpt", "--like", "ckpt", "--rules")
    has = "it has mine, one: --rules two.py:mine\n"
    assert run(*asked, "two.py").err == f"treeload: --rules two.py: 'two.py' has no 'rules'; {has}"
    near = run(*asked, "two.py:onw").err
    assert (
        near == "treeload: --rules two.py:onw: 'two.py' has no 'onw'; it has mine, one: --rules two.py:one\n"
    )


def test_a_rule_that_is_none_is_said_with_its_line(here: Path, run: Run) -> None:
    (here / "bad.py").write_text("from treeload import Rename\n\nrules = [Rename('a/*', '*')]\n")
    done = run("plan", "ckpt", "--like", "ckpt", "--rules", "bad.py")
    assert done.status == 2 and "your code raised RuleError: " in done.err
    assert done.err.endswith(" (line 3 of bad.py)\n")


def test_what_code_of_yours_prints_is_no_part_of_what_is_printed(here: Path, run: Run) -> None:
    (here / "loud.py").write_text(
        "from treeload import Rename\nprint('imported')\n"
        "def make():\n    print('made')\n    return {'head': __import__('numpy').zeros(2)}\n"
        "def rules():\n    print('ruled')\n    return [Rename('net/{*x}', '{*x}')]\n"
    )
    done = run("plan", "ckpt", "--into", "loud.py:make", "--rules", "loud.py:rules", "--json")
    assert done.json["ok"] is False
    assert done.err.split() == ["imported", "made", "imported", "ruled"]
    assert run("diff", "ckpt", "ckpt", "--rules", "loud.py:rules", "--json").json["equal"] is False
    (here / "loud.py").write_text(
        "from treeload import Apply, Rename\n"
        "def said(x):\n    print('ruled')\n    return x\n"
        "rules = [Rename('net/layers/{i}/bias', 'net/layers/{i}/bias', Apply(said))]\n"
    )
    for more in ((), ("--json",), ("--suggest",), ("--policy", "p.toml")):
        (here / "p.toml").write_text("")
        done = run("plan", "ckpt", "--into", "models_of_test:make", "--rules", "loud.py", *more)
        assert "ruled" in done.err.split() and "ruled" not in done.out.split()
    done = run("convert", "ckpt", "new", "--rules", "loud.py:rules", "--json")
    assert done.json["leaves"] == 7 and "ruled" in done.err


# A checkpoint in place of a model.


def test_what_a_checkpoint_stands_for_may_be_kept(here: Path, run: Run) -> None:
    save_file({"head": np.ones(2, np.float32)}, here / "part.safetensors")
    done = run("plan", "part.safetensors", "--like", "ckpt")
    assert done.status == 1
    (here / "p.toml").write_text(_block(done.out))
    done = run("plan", "part.safetensors", "--like", "ckpt", "--policy", "p.toml")
    assert done.status == 0 and "6 kept; 6 forgiven; no problems" in done.out


def test_a_checkpoint_asks_for_what_its_specs_ask_for(tmp_path: Path) -> None:
    names = ("float32", "float16", "int8", "uint8", "int32", "bool", "complex64")
    tree: dict[str, Any] = {name: np.zeros((3, 2), name) for name in names}
    more = {name: np.ones((2, 2), getattr(ml_dtypes, name)) for name in ("bfloat16", "float8_e4m3fn", "int4")}
    tree |= {**more, "scalar": np.float32(1), "key": jax.random.key(0), "empty": np.zeros((0, 3), np.float32)}
    treeload.save(tmp_path / "c", tree)
    save_file({"wide": np.zeros(3), "long": np.zeros(2, np.int64)}, tmp_path / "w.safetensors")
    for path in ("c", "w.safetensors"):
        stood_for = given.like(str(tmp_path / path))
        specs = {str(name): spec for name, spec in treeload.open(tmp_path / path).specs().items()}
        for src in (
            tmp_path / path,
            {"float32": np.zeros((3, 2), np.float16), "wide": np.zeros(3, np.float32)},
        ):
            one, other = treeload.plan(stood_for, src), treeload.plan(specs, src)
            assert one.to_dict() == other.to_dict()
    assert given.like(str(tmp_path / "c"))["float32"].strides == (0, 0)  # of any size it takes no room


# Policies.


def _block(report: str) -> str:
    """The file of a policy that a report ends with."""
    head, _, text = report.partition("\nas a file for --policy")[2].partition("\n")
    assert text, (head, report)
    return text


def test_a_report_ends_with_its_policies_as_a_file(here: Path, run: Run) -> None:
    (here / "m.py").write_text(
        "import numpy as np\n"
        "def make(): return {'head': np.zeros(2), 'new': {'w': np.zeros(2), 'v': np.zeros(1)}}\n"
    )
    done = run("plan", "ckpt", "--into", "m.py:make")
    assert done.out.endswith(
        '\nas a file for --policy\n  [missing]\n  "new/**" = "keep"\n'
        '  [unexpected]\n  "net/layers/*/**" = "ignore"\n'
    ), done.out
    (here / "p.toml").write_text(_block(done.out))
    assert run("plan", "ckpt", "--into", "m.py:make", "--policy", "p.toml").status == 0
    assert "--policy" not in run("plan", "ckpt", "--like", "ckpt").out
    assert run("plan", "ckpt", "--into", "m.py:make", "--json").json["ok"] is False


def test_of_several_ways_none_is_taken_as_the_file_stands(here: Path, run: Run) -> None:
    (here / "m.py").write_text(
        "import numpy as np\ndef make():\n"
        "    return {'head': np.zeros(2), 'bias': np.zeros(2), 'net': {'layers': {\n"
        "        str(i): {'weight': np.zeros((3, 4)), 'bias': np.zeros(3)} for i in range(3)}}}\n"
    )
    done = run("plan", "ckpt", "--into", "m.py:make")
    block = _block(done.out)
    assert "take the # from what you choose" in done.out
    assert block == '  # absent_is_zero = ["bias"]\n  [missing]\n  # "bias" = "keep"\n'
    (here / "p.toml").write_text(block)
    assert run("plan", "ckpt", "--into", "m.py:make", "--policy", "p.toml").status == 1
    for one in ("# absent", '# "bias"'):
        (here / "p.toml").write_text(block.replace(one, one.removeprefix("# ")))
        assert run("plan", "ckpt", "--into", "m.py:make", "--policy", "p.toml").status == 0


def test_a_model_without_values_is_said_where_its_own_would_be_kept(here: Path, run: Run) -> None:
    (here / "m.py").write_text(
        "import jax, numpy as np\ns = jax.ShapeDtypeStruct\n"
        "def make(): return {'head': s((2,), np.float32), 'new': s((2, 2), np.float32)}\n"
    )
    save_file({"head": np.ones(2, np.float32)}, here / "part.safetensors")
    done = run("plan", "part.safetensors", "--into", "m.py:make")
    assert "  # to keep needs values, and the model is abstract: " in done.out
    assert tomllib.loads(_block(done.out)) == {"missing": {"new": "keep"}}
    save_file({"head": np.ones(2), "new": np.ones((2, 2)), "x": np.ones(1)}, here / "part.safetensors")
    done = run("plan", "part.safetensors", "--into", "m.py:make")
    assert '"x" = "ignore"' in done.out and "abstract" not in done.out


@pytest.mark.parametrize("name", ['a"b', "a\\b", "ä ö", "a\x7fb", "a.b", "#", "a\tb", "a*b"])
def test_any_name_comes_back_from_the_file(name: str) -> None:
    model = {name: jnp.zeros(2), "w": jnp.zeros((3, 3))}
    plan = treeload.plan(model, {"w": jnp.zeros((3, 3))})
    (found,) = tomllib.loads(policies.advised(plan, treeload.Policy()).partition("\n")[2])["missing"].items()
    kept = treeload.Policy(missing=dict([found]))
    held = treeload.Policy(missing={f"*{name.replace('*', '')}": "error", "\x7f": "keep"})
    said = tomllib.loads(policies.advised(plan, held).partition("\n")[2])["missing"]
    assert said.items() >= {"\x7f": "keep", found[0]: "keep"}.items()
    assert treeload.plan(model, {"w": jnp.zeros((3, 3))}, policy=kept).ok


HELD = """\
casting = "no"
absent_is_zero = ["**/x"]
[missing]
"new" = "error"
"bia*" = "error"
"**" = "keep"
"""

GROWN = """\
  absent_is_zero = [
      "**/x",
      # "bias",
  ]
  [missing]
  # "bias" = "keep"
  "new" = "error"  # or "keep"
  "bia*" = "error"
  "**" = "keep"
  [unexpected]
  "left" = "ignore"
  [dtype]
  # "old" = "keep"
  [casting]
  # "old" = "unsafe"
  "**" = "no"
"""


def test_the_file_holds_what_the_policy_held(here: Path, run: Run) -> None:
    (here / "m.py").write_text(
        "import numpy as np\ndef make():\n"
        "    shapes = {'head': 2, 'new': 5, 'old': 6, 'bias': 4}\n"
        "    return {n: np.zeros(s, np.int8 if n == 'old' else float) for n, s in shapes.items()}\n"
    )
    (here / "p.toml").write_text(HELD)
    save_file(
        {"head": np.ones(2), "old": np.zeros(6, np.int16), "left": np.ones(7)}, here / "part.safetensors"
    )
    asked = ("plan", "part.safetensors", "--into", "m.py:make", "--policy", "p.toml")
    done = run(*asked)
    assert "as a file for --policy, with what it holds now; take the #" in done.out
    assert _block(done.out) == GROWN, done.out
    (here / "p.toml").write_text(GROWN)
    assert run(*asked).status == 1
    chosen = GROWN.replace('"error"  # or', "").replace("# ", "")
    (here / "p.toml").write_text(chosen)
    assert run(*asked).status == 0


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[missing]\nnet/** = "keep"\n', '; patterns need quotes: "net/**" = "keep"\n'),
        ('[missing]\n"a" = "keep"\n  **/bias="keep"\n', '; patterns need quotes: "**/bias" = "keep"\n'),
        ('[missing]\nnet.bias = "keep"\n', "in [missing] patterns need quotes, as in "),
        ('Policy(missing={"a/**": "keep"})\n', 'written in TOML as\n[missing]\n"a/**" = "keep"\n'),
        ("Policy(absent_is_zero=('b',))", 'written in TOML as\nabsent_is_zero = ["b"]\n'),
        ("Policy(missing='keep')", 'written in TOML as\nmissing = "keep"\n'),
        ("Policy(missing=open('x'))", "(at line 1, column 7)\n"),
        ("missing = keep\n", "(at line 1, column 11)\n"),
        ("missing = '\xff", "no TOML: "),
    ],
)
def test_what_is_meant_by_what_is_no_toml_is_said(here: Path, run: Run, text: str, said: str) -> None:
    (here / "p.toml").write_text(text)
    done = run("plan", "ckpt", "--like", "ckpt", "--policy", "p.toml")
    assert done.status == 2 and said in done.err


def test_a_policy_that_is_no_text_is_said(here: Path, run: Run) -> None:
    (here / "p.toml").write_bytes(b"\xff\xfe")
    assert "no UTF-8" in run("plan", "ckpt", "--like", "ckpt", "--policy", "p.toml").err


def test_the_policy_of_the_manual_is_one() -> None:
    page = (Path(__file__).parents[2] / "docs" / "reference" / "commands.md").read_text("utf-8")
    (text,) = re.findall(r"```toml\n(.*?)```", page, re.DOTALL)
    treeload.Policy(**tomllib.loads(text))


# Pages and locks.


def test_a_page_replaces_pages_alone(here: Path, run: Run) -> None:
    before = (here / "ckpt.safetensors").read_bytes()
    asked = ("plan", "ckpt", "--like", "ckpt", "--html")
    done = run(*asked, "ckpt.safetensors")
    said = "'ckpt.safetensors' exists and is no page of treeload: it is never replaced"
    assert done.status == 2 and done.out == "" and done.err == f"treeload: {said}\n"
    assert (here / "ckpt.safetensors").read_bytes() == before
    (here / "link.html").symlink_to("ckpt.safetensors")
    assert run(*asked, "link.html").status == 2
    (here / "other.html").write_text("<!doctype html>\n<title>mine</title>")
    assert run(*asked, "other.html").status == 2 and "mine" in (here / "other.html").read_text()
    for _ in range(2):
        assert run(*asked, "plan.html").status == 0
    for made in (treeload.inspect("ckpt"), treeload.diff("ckpt", "ckpt")):
        (here / "made.html").write_text(made.to_html())
        assert run(*asked, "made.html").status == 0


def test_a_lock_that_is_not_written_is_said_beside_the_report(here: Path, run: Run) -> None:
    asked = ("plan", "ckpt", "--into", "models_of_test:make", "--lock", "plan.lock")
    for more in ((), ("--json",)):
        done = run(*asked, *more)
        assert done.status == 1 and done.err.startswith("treeload: no lock was written: ")
        assert "1 of 7 leaves load" in done.out
    assert json.loads(run(*asked, "--json").out)["ok"] is False
    assert not (here / "plan.lock").exists()


def test_a_lock_to_compare_with_must_be_there(here: Path, run: Run) -> None:
    asked = ("plan", "ckpt", "--like", "ckpt")
    done = run(*asked, "--check-lock", "no.lock")
    said = "treeload: there is no lock at 'no.lock'; --lock no.lock writes one\n"
    assert (done.status, done.out, done.err) == (2, "", said)
    assert run(*asked, "--check-lock", "ckpt.safetensors").status == 2
    done = run(*asked, "--lock", "l", "--check-lock", "l")
    assert done.status == 2 and "one of them, not both" in done.err and not (here / "l").exists()


# By position.


def test_arrays_without_names_are_taken_by_position_where_there_is_a_model(here: Path, run: Run) -> None:
    eqx.tree_serialise_leaves(here / "x.eqx", eqx.nn.Linear(2, 3, key=jax.random.key(0)))
    (here / "m.py").write_text(
        "import equinox as eqx, jax\ndef make(): return eqx.nn.Linear(2, 3, key=jax.random.key(1))\n"
    )
    asked = ("plan", "x.eqx", "--into", "m.py:make")
    done = run(*asked)
    assert (
        done.status == 2 and "'x.eqx' holds arrays without names: --into MODULE:FACTORY --by-pos" in done.err
    )
    done = run(*asked, "--by-position")
    assert done.status == 0 and "2 by position" in done.out
    assert run("plan", "ckpt", "--like", "ckpt", "--by-position").status == 2
    assert "says no model's leaves" in run("plan", "ckpt", "--like", "x.eqx").err
    for other in (
        ("convert", "x.eqx", "y"),
        ("diff", "ckpt", "x.eqx"),
        ("average", "x.eqx", "x.eqx", "-o", "y"),
    ):
        done = run(*other)
        assert done.status == 2 and "into which Python loads them: treeload.load(model, From(" in done.err


def test_a_model_and_a_checkpoint_of_one_are_not_both_given(here: Path, run: Run) -> None:
    done = run("plan", "ckpt", "--into", "models_of_test:make", "--like", "ckpt")
    assert done.status == 2 and "one of them, not both" in done.err
