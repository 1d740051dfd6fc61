"""What users see: the names that the design lists, their signatures, and a quiet and light import."""

from __future__ import annotations

import inspect
import json
import pkgutil
import subprocess
import sys
from types import ModuleType

import pytest

import treeload

# Section 3 of the design. What a later issue brings is here before it exists.
VERBS = {
    "plan", "load", "update", "save", "state", "open", "inspect", "names", "diff", "average", "resume",
    "export", "initializer", "verify", "digest", "check_lock",
}  # fmt: skip
RULES_AND_OPS = {
    "From", "Rename", "Copy", "Stack", "Unstack", "Concat", "Split", "Tie",
    "Transpose", "Reshape", "Cast", "Pad", "Slice", "Resize", "Apply", "Rule", "Op",
}  # fmt: skip
DATA = {
    "Policy", "BIAS", "Plan", "Entry", "Finding", "Name", "Source", "SourceLeaf", "Inventory", "Diff",
    "History", "Version", "Verification",
}  # fmt: skip
ERRORS = {
    "TreeloadError", "LoadError", "SourceError", "RuleError", "NameCollision", "SaveError", "LockError",
}  # fmt: skip
WARNINGS = {"TreeloadWarning"}
UNSTARRED = {"open"}  # public, and not in __all__: the builtin stays after a star import
DESIGN = VERBS | RULES_AND_OPS | DATA | ERRORS | WARNINGS

# What there has been since the first release, and stays.
CORE = ERRORS | {
    "plan", "load", "update", "save", "state", "open", "inspect", "names",
    "From", "Rename", "Transpose", "Reshape", "Cast", "Apply",
    "Policy", "BIAS", "Plan", "Entry", "Finding", "Name", "Source", "SourceLeaf", "Inventory",
}  # fmt: skip

MODULES = {"cli", "demo", "finetune", "inference", "plot", "reports", "rules", "sources", "testing"}


def _run(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, timeout=120, check=True
    )
    assert done.stderr == ""
    return done.stdout


def test_the_public_names_are_what_the_design_lists_as_far_as_it_exists() -> None:
    assert {*treeload.__all__, *UNSTARRED} == {name for name in DESIGN if hasattr(treeload, name)}
    assert len(treeload.__all__) == len(set(treeload.__all__))
    assert {*treeload.__all__, *UNSTARRED} >= CORE


def test_a_star_import_leaves_the_builtin_open_alone() -> None:
    namespace: dict[str, object] = {"open": open}
    exec("from treeload import *", namespace)
    assert namespace["open"] is open
    assert namespace["plan"] is treeload.plan and namespace["Copy"] is treeload.Copy
    assert id(treeload.open) != id(open) and UNSTARRED.isdisjoint(treeload.__all__)


def test_nothing_else_is_public() -> None:
    public = {name for name in dir(treeload) if not name.startswith("_")}
    modules = {name for name in public if isinstance(getattr(treeload, name), ModuleType)}
    assert public - modules == {*treeload.__all__, *UNSTARRED}
    assert modules <= MODULES
    assert {name for _, name, _ in pkgutil.iter_modules(treeload.__path__) if name[0] != "_"} <= MODULES


def test_a_fresh_import_holds_the_same_names() -> None:
    code = "import json, treeload; print(json.dumps([n for n in dir(treeload) if n[0] != '_']))"
    assert set(json.loads(_run(code))) - MODULES == {*treeload.__all__, *UNSTARRED}


def test_an_import_alone_loads_next_to_nothing_and_each_name_when_it_is_asked_for() -> None:
    code = "import sys, treeload; print({*sys.modules} & {'jax', 'numpy', 'flax', 'rich', 'orbax', 'typer'})"
    assert _run(code) == "set()\n"
    code = (
        "import treeload; e = treeload.LoadError; print(e.__module__, treeload.finetune.merge_lora.__name__)"
    )
    assert _run(code) == "treeload merge_lora\n"
    code = (
        "import sys, numpy as np, treeload; d = {'w': np.ones(2)}; treeload.load(d, d); "
        "print({*sys.modules} & {'flax', 'optax', 'orbax', 'tensorstore', 'safetensors', 'equinox'})"
    )
    assert _run(code) == "set()\n"
    code = "import treeload.testing as t; print(t.SourceError.__module__)"
    assert _run(code) == "treeload\n"


def test_a_name_that_there_is_not_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'treeload' has no attribute 'lode'"):
        treeload.lode  # noqa: B018


def test_everything_public_is_known_under_its_public_name_and_says_what_it_is() -> None:
    for name in (*treeload.__all__, *UNSTARRED):
        public = getattr(treeload, name)
        if isinstance(public, type):
            assert (public.__module__, public.__qualname__) == ("treeload", name)
        if callable(public):
            assert (inspect.getdoc(public) or "").strip(), f"{name} has no docstring"


def test_what_a_rule_of_ones_own_is_made_with_is_known_by_the_name_of_the_public_module() -> None:
    assert {"Matched", "Made", "compile_pattern", "compile_template", "chain", "derive"} <= set(
        treeload.rules.__all__
    )
    for name in treeload.rules.__all__:
        public = getattr(treeload.rules, name)
        assert (inspect.getdoc(public) or "").strip(), f"{name} has no docstring"
        if isinstance(public, type):
            assert (public.__module__, public.__qualname__) == ("treeload.rules", name)


@pytest.mark.parametrize(
    ("verb", "signature"),
    [
        ("plan", "dst, src, *, rules, policy, scope, history"),
        ("load", "dst, src, *, rules, policy, scope, history, **how"),
        ("update", "obj, src, *, rules, policy, scope, history, **how"),
        ("state", "tree"),
        ("open", "path"),
        ("inspect", "src"),
        ("names", "tree"),
    ],
)
def test_verbs_are_called_as_the_design_says(verb: str, signature: str) -> None:
    assert _names_of_parameters(getattr(treeload, verb)) == signature


def _names_of_parameters(function: object) -> str:
    parameters, starred = [], False
    for parameter in inspect.signature(function).parameters.values():  # type: ignore[arg-type]
        if parameter.kind is parameter.KEYWORD_ONLY and not starred:
            parameters.append("*")
            starred = True
        stars = "**" if parameter.kind is parameter.VAR_KEYWORD else ""
        parameters.append(stars + parameter.name)
    return ", ".join(parameters)


def test_save_takes_at_least_what_the_design_says() -> None:
    parameters = inspect.signature(treeload.save).parameters
    assert list(parameters)[:2] == ["path", "tree"]
    for option in ("metadata", "overwrite"):
        assert parameters[option].kind is inspect.Parameter.KEYWORD_ONLY
    assert parameters["overwrite"].default is False


def test_from_takes_what_the_design_says() -> None:
    parameters = inspect.signature(treeload.From).parameters
    expected = {"subtree": None, "into": None, "rules": (), "item": None, "separator": None}
    assert {name: parameters[name].default for name in expected} == expected
    assert all(parameters[name].kind is inspect.Parameter.KEYWORD_ONLY for name in expected)


def test_importing_it_imports_nothing_optional_and_no_test_library() -> None:
    optional = ["typer", "tokenizers", "torch", "equinox", "pytest", "hypothesis", "treeload.testing"]
    code = f"import json, sys, treeload; print(json.dumps([m for m in {optional} if m in sys.modules]))"
    assert json.loads(_run(code)) == []


def test_importing_it_starts_no_backend_and_prints_nothing() -> None:
    code = "import treeload; from jax._src import xla_bridge; print(xla_bridge.backends_are_initialized())"
    assert _run(code) == "False\n"


def test_making_rules_and_policies_starts_no_backend() -> None:
    code = (
        "import treeload as t; from jax._src import xla_bridge;"
        "t.Rename('{*r}', 'a/{*r}', t.Transpose(), t.Reshape(2, -1), t.Cast('bfloat16'), t.Apply(abs));"
        "t.Policy(missing={'a': 'keep'}, absent_is_zero=t.BIAS);"
        "print(xla_bridge.backends_are_initialized())"
    )
    assert _run(code) == "False\n"
