"""What a release needs: a wheel that works alone, true lower bounds, papers that agree."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
LOWEST = ROOT / ".ci" / "lowest.txt"
TOOLS = {"suite", "docs", "test"}  # extras of those who work on treeload, not of those who use it
BOUND = re.compile(r"^(?P<name>[\w-]+)>=(?P<version>[\d.]+)(?:; (?P<marker>.+))?$")


def lowest() -> list[str]:
    """A constraint for each thing that a user may install: exactly its lower bound."""
    extras = [some for extra, some in PROJECT["optional-dependencies"].items() if extra not in TOOLS]
    asked = [one for some in [PROJECT["dependencies"], *extras] for one in some]
    bounds = [BOUND.match(one) for one in asked if not one.startswith("treeload[")]
    return sorted(
        f"{bound['name']}=={bound['version']}" + (f" ; {bound['marker']}" if bound["marker"] else "")
        for bound in bounds
        if bound is not None
    )


def test_everything_that_a_user_may_install_has_a_lower_bound_and_no_other() -> None:
    extras = [some for extra, some in PROJECT["optional-dependencies"].items() if extra not in TOOLS]
    for one in [*PROJECT["dependencies"], *(one for some in extras for one in some)]:
        assert one.startswith("treeload[") or BOUND.match(one), one


def test_the_lowest_versions_are_the_bounds_of_the_project() -> None:
    head = "# The lower bounds of pyproject.toml; tests/test_release.py writes and compares them."
    text = "\n".join([head, *lowest()]) + "\n"
    if os.environ.get("TREELOAD_UPDATE_GOLDEN"):
        LOWEST.write_text(text, "utf-8")
    assert LOWEST.read_text("utf-8") == text


def test_the_full_run_installs_them() -> None:
    assert "--constraint .ci/lowest.txt" in (ROOT / ".ci" / "run").read_text("utf-8")


def test_one_version_is_said_everywhere() -> None:
    version = PROJECT["version"]
    assert f"\nversion: {version}\n" in (ROOT / "CITATION.cff").read_text("utf-8")
    assert f"\n## {version}" in (ROOT / "CHANGELOG.md").read_text("utf-8")


def test_each_template_asks_for_what_an_answer_needs() -> None:
    folder = ROOT / ".github" / "ISSUE_TEMPLATE"
    texts = {path.stem: path.read_text("utf-8") for path in folder.glob("*.md")}
    assert set(texts) == {"bug", "wrong-suggestion", "new-format"}
    assert "`treeload env`" in texts["bug"] and "`treeload env`" in texts["wrong-suggestion"]
    assert "treeload inspect" in texts["new-format"]
    for text in texts.values():
        assert re.match(r"---\nname: .+\nabout: .+\nlabels: \w+\n---\n", text)


# A wheel and a source distribution.

TRY = """
import pathlib, sys
import numpy as np
import treeload
assert pathlib.Path(treeload.__file__).is_relative_to(sys.argv[1]), treeload.__file__
assert treeload.load({"w": np.zeros(2)}, {"w": np.ones(2)})["w"].tolist() == [1, 1]
treeload.save("saved", {"w": np.ones(2, np.float32)})
print(treeload.plan({"w": np.zeros(2, np.float32)}, "saved").summary())
"""


def run(*command: str | Path, cwd: Path, **environment: str) -> str:
    """What a command prints; the variables that point at sources are left out."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    done = subprocess.run(
        list(map(str, command)), cwd=cwd, env={**kept, **environment}, capture_output=True, text=True,
        timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def files(folder: Path) -> set[str]:
    """What git would have of a folder of the checkout."""
    found = (path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return {path.relative_to(ROOT).as_posix() for path in found}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of the sdist, and of the wheel that was made of it."""
    out = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", out, ROOT, cwd=out)
    return out


@pytest.mark.slow
def test_the_wheel_holds_the_package_and_nothing_else(built: Path) -> None:
    (wheel,) = built.glob("*.whl")
    held = set(zipfile.ZipFile(wheel).namelist())
    assert {
        name for name in held if not name.startswith(f"treeload-{PROJECT['version']}.dist-info/")
    } == files(ROOT / "treeload")


@pytest.mark.slow
def test_the_source_distribution_holds_what_the_tests_need(built: Path) -> None:
    (archive,) = built.glob("*.tar.gz")
    with tarfile.open(archive) as opened:
        held = {name.partition("/")[2] for name in opened.getnames()}
    wanted = set().union(
        *(files(ROOT / folder) for folder in ("treeload", "tests", "docs", "notebooks", ".ci"))
    )
    papers = {"README.md", "LICENSE", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md", "CITATION.cff"}
    assert wanted | papers | {"pyproject.toml", "mkdocs.yml"} <= held


@pytest.mark.slow
def test_the_wheel_works_where_there_are_no_sources(built: Path, tmp_path: Path) -> None:
    (wheel,) = built.glob("*.whl")
    site = tmp_path / "site"
    run(
        sys.executable,
        "-m",
        "pip",
        "install",
        "--no-deps",
        "--no-index",
        "--target",
        site,
        wheel,
        cwd=tmp_path,
    )
    said = run(sys.executable, "-c", TRY, site, cwd=tmp_path, PYTHONPATH=str(site))
    assert said == "1 of 1 leaf loads (100 % of 2 elements); no problems\n"
    command = site / "bin" / "treeload"
    assert run(command, "--version", cwd=tmp_path, PYTHONPATH=str(site)).split()[-1] == PROJECT["version"]
    assert "float32[2]" in run(command, "inspect", "saved", cwd=tmp_path, PYTHONPATH=str(site))
    assert run(command, "explain", "missing", cwd=tmp_path, PYTHONPATH=str(site)).startswith("# missing\n")


@pytest.mark.slow
def test_an_index_would_take_both(built: Path) -> None:
    said = run(sys.executable, "-m", "twine", "check", "--strict", *built.iterdir(), cwd=built)
    assert said.count("PASSED") == 2
