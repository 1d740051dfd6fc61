"""``treeload demo``, and the command itself: exit statuses."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from treeload import cli, demo


def _run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int | str | None:
    """The exit status of ``treeload *arguments``: a text goes to stderr and counts as 1."""
    monkeypatch.setattr(sys, "argv", ["treeload", *arguments])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    return caught.value.code


class TestDemo:
    def test_help_lists_the_commands(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert _run(monkeypatch, "--help") == 0
        assert "demo" in capsys.readouterr().out

    def test_an_unknown_command_fails(self, monkeypatch: pytest.MonkeyPatch) -> None:
        assert _run(monkeypatch, "dmeo") == 2

    def test_demo_succeeds_on_the_small_model(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert _run(monkeypatch, "demo", "--small") == 0
        out = capsys.readouterr().out
        assert "bit for bit" in " ".join(out.split())
        assert "\x1b" not in out

    def test_demo_fails_where_a_leaf_comes_back_different(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(demo, "tell", lambda console, **how: False)
        assert _run(monkeypatch, "demo", "--small") == 1

    def test_demo_fails_in_one_sentence_where_out_exists(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        (tmp_path / "notes.txt").write_text("mine")
        assert _run(monkeypatch, "demo", "--small", "--out", str(tmp_path)) == 2
        assert capsys.readouterr().err.startswith("treeload: ")
        assert (tmp_path / "notes.txt").read_text() == "mine"
