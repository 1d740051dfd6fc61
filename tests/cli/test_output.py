"""Where what is printed goes: pipes that close, disks that are full, and the status that says it."""

from __future__ import annotations

import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from treeload.cli.say import show

Run = Callable[..., Any]

TREELOAD = f"{shlex.quote(sys.executable)} -m treeload"


def shell(command: str, cwd: Path) -> tuple[int, str, str]:
    """Status, output and errors of a command in which ``treeload`` is run as a process."""
    root = str(Path(__file__).parents[2])
    command = command.replace("treeload", f"PYTHONPATH={shlex.quote(root)} {TREELOAD}")
    done = subprocess.run(["bash", "-c", command], cwd=cwd, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout, done.stderr


def test_the_package_runs_as_the_command_does(here: Path, run: Run) -> None:
    status, out, err = shell("treeload inspect ckpt.safetensors", here)
    assert (status, out, err) == (0, run("inspect", "ckpt.safetensors").out, "")
    assert "Usage: treeload [OPTIONS]" in shell("treeload --help", here)[1]


@pytest.mark.parametrize("asked", ["explain", "--help"])
def test_a_reader_that_has_seen_enough_hears_nothing_more(tmp_path: Path, asked: str) -> None:
    _, out, err = shell(f"(sleep 1; treeload {asked}; echo $? >status) | true", tmp_path)
    assert (out, err) == ("", "")
    assert (tmp_path / "status").read_text() == "141\n"


@pytest.mark.parametrize("terminal", [True, False])
def test_what_is_printed_as_a_report_is_made_stands_beside_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], terminal: bool
) -> None:
    class Loud:
        def __str__(self) -> str:
            print("trying")
            return "report"

        __rich__ = __str__

    monkeypatch.setattr("sys.stdout.isatty", lambda: terminal)
    show(Loud())
    said = capsys.readouterr()
    assert (said.out, said.err) == ("report\n", "trying\n")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no full disk to write to")
@pytest.mark.parametrize("asked", ["explain", "--help", "explain --json"])
def test_a_full_disk_is_said_in_a_sentence(tmp_path: Path, asked: str) -> None:
    said = "treeload: the standard output cannot be written: No space left on device\n"
    assert shell(f"treeload {asked} >/dev/full", tmp_path) == (2, "", said)
    assert shell("treeload explain mising 2>/dev/full", tmp_path) == (2, "", "")


def test_a_closed_output_is_said_before_anything_is_done(tmp_path: Path) -> None:
    save_file({"a": np.ones(2, np.float32)}, tmp_path / "a.safetensors")
    said = "treeload: the standard output is closed: there is nowhere to print to\n"
    assert shell("treeload convert a.safetensors b.safetensors >&-", tmp_path) == (2, "", said)
    assert not (tmp_path / "b.safetensors").exists()
    assert shell("treeload explain mising 2>&-", tmp_path) == (2, "", "")


@pytest.mark.parametrize("command", ["inspect", "verify", "digest"])
def test_an_empty_path_is_not_the_working_directory(here: Path, run: Run, command: str) -> None:
    done = run(command, "")
    assert (done.status, done.out) == (2, "") and "an argument is empty" in done.err


def test_help_writes_words_as_the_documentation_does(run: Run) -> None:
    assert "Usage: treeload plan [OPTIONS] PATH " in run("plan", "--help").out
    assert "Usage: treeload explain [OPTIONS] [KIND]... " in run("explain", "--help").out
    for command in ((), ("plan",), ("demo",)):
        assert "bool" not in run(*command, "--help").out


def test_a_demo_that_could_not_be_saved_is_not_begun(tmp_path: Path, run: Run) -> None:
    (tmp_path / "there").mkdir()
    done = run("demo", "--small", "--out", "there")
    assert (done.status, done.out) == (2, "") and "choose another --out" in done.err


def test_verify_says_which_command_makes_digests(here: Path, run: Run) -> None:
    assert "treeload digest ckpt.safetensors\n" in run("verify", "ckpt.safetensors").out
    assert "treeload digest" not in run("verify", "ckpt").out


def test_a_diff_of_names_that_begin_otherwise_says_the_rule(here: Path, run: Run) -> None:
    arrays = {name: array for name, array in load_file("ckpt.safetensors").items() if name != "head"}
    for prefix, old in (
        ("model.", "net."),
        ("", "net."),
        ("net.layers.x.", "net.layers."),
        ("a*.b.", "net."),
    ):
        save_file({name.replace(old, prefix, 1): array for name, array in arrays.items()}, "b.safetensors")
        save_file(arrays, "a.safetensors")
        for one, other in (("a", "b"), ("b", "a")):
            asked = ("diff", f"{one}.safetensors", f"{other}.safetensors")
            done = run(*asked)
            assert done.status == 1 and "in how they begin, and in nothing else" in done.out
            Path("r.py").write_text(done.out.partition("FILE.py with\n")[2])
            assert run(*asked, "--rules", "r.py").status == 0
            assert "begin" not in run(*asked, "--json").out
    moved = {name.replace("net.", "m."): array for name, array in arrays.items()}
    for extra, said in (("head", True), ("net.head", True), ("net.layers.head", False)):
        save_file({**arrays, extra: np.ones(3, np.float32)}, "a.safetensors")
        save_file({**moved, extra: np.ones(3, np.float32)}, "b.safetensors")
        assert ("begin" in run("diff", "a.safetensors", "b.safetensors").out) is said
    save_file(arrays, "a.safetensors")
    save_file(moved, "b.safetensors")
    Path("r.py").write_text("from treeload import Rename\nrules = [Rename('net/{*x}', 'n/{*x}')]\n")
    assert "begin" not in run("diff", "a.safetensors", "b.safetensors", "--rules", "r.py").out
    save_file({**moved, "extra": np.ones(3, np.float32)}, "b.safetensors")
    assert "begin" not in run("diff", "a.safetensors", "b.safetensors").out
    changed = {name.replace("net.", "m."): array.T.copy() for name, array in arrays.items()}
    save_file(changed, "b.safetensors")
    assert "begin" not in run("diff", "a.safetensors", "b.safetensors").out
