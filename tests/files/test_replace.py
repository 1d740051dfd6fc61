"""One directory replaces another, whole or not at all, whenever the process dies."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from treeload._files import exchange as module
from treeload._files.exchange import put_in_place
from treeload._files.replace import beside, finish_dead_save, saved_to, workspace

WORK = "0123456789abcdef" * 2  # a workspace of a dead save


def directory(path: Path, content: str) -> Path:
    path.mkdir(parents=True)
    (path / "f").write_text(content)
    return path


def content_of(path: Path) -> str:
    return (path / "f").read_text()


@pytest.fixture(params=["exchange", "two renames"])
def system(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """A system that can exchange two names at once, and one that cannot."""
    if request.param == "two renames":
        monkeypatch.setattr(module, "_swap", lambda one, other: False)
    return str(request.param)


@pytest.mark.parametrize("name", ["vit", "a.b", ".hidden", "ü", "x.treeload-save"])
def test_the_folder_beside_a_path_says_which_path_it_is_of(name: str) -> None:
    folder = beside(Path("ckpts") / name)
    assert folder.parent == Path("ckpts")
    assert saved_to(folder.name) == name


@pytest.mark.parametrize(
    "name", ["vit", ".vit", "vit.treeload-save", "..treeload-save", ".vit.treeload-save2"]
)
def test_another_folder_is_of_no_save(name: str) -> None:
    assert saved_to(name) is None


def test_what_is_new_comes_where_nothing_was(tmp_path: Path, system: str) -> None:
    put_in_place(directory(tmp_path / "w/new", "new"), tmp_path / "vit")
    assert content_of(tmp_path / "vit") == "new"
    assert not (tmp_path / "w/new").exists()


def test_what_was_there_lies_in_the_workspace_afterwards(tmp_path: Path, system: str) -> None:
    directory(tmp_path / "vit", "old")
    put_in_place(directory(tmp_path / "w/new", "new"), tmp_path / "vit")
    assert content_of(tmp_path / "vit") == "new"
    assert content_of(tmp_path / "w" / ("new" if system == "exchange" else "old")) == "old"


def test_where_the_second_rename_fails_the_old_is_put_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_swap", lambda one, other: False)
    rename = os.rename

    def failing(source: Path, destination: Path) -> None:
        if Path(source).name == "new":
            raise OSError(errno.EIO, "no luck")
        rename(source, destination)

    monkeypatch.setattr(os, "rename", failing)
    directory(tmp_path / "vit", "old")
    with pytest.raises(OSError, match="no luck"):
        put_in_place(directory(tmp_path / "w/new", "new"), tmp_path / "vit")
    assert content_of(tmp_path / "vit") == "old"
    assert content_of(tmp_path / "w/new") == "new"


def test_a_workspace_is_empty_and_goes_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "vit"
    litter = beside(path) / WORK
    directory(litter / "new", "dead")
    (litter / "a file").write_text("dead")
    (litter / "a link").symlink_to(tmp_path)
    with workspace(path) as new:
        assert os.listdir(beside(path)) == [new.parent.name]
        assert new.parent != litter
        assert list(new.parent.iterdir()) == []
        directory(new, "new")
        put_in_place(new, path)
    assert os.listdir(tmp_path) == ["vit"]
    assert content_of(path) == "new"


def test_a_link_in_the_litter_is_removed_and_not_what_it_leads_to(tmp_path: Path) -> None:
    precious = directory(tmp_path / "precious", "kept")
    (beside(tmp_path / "vit") / WORK).mkdir(parents=True)
    (beside(tmp_path / "vit") / WORK / "link").symlink_to(precious)
    with workspace(tmp_path / "vit"):
        pass
    assert content_of(precious) == "kept"


def test_a_writer_that_fails_leaves_the_old_and_no_workspace(tmp_path: Path) -> None:
    path = directory(tmp_path / "vit", "old")

    def write_half() -> None:
        with workspace(path) as new:
            directory(new, "half")
            raise RuntimeError("full")

    with pytest.raises(RuntimeError, match="full"):
        write_half()
    assert os.listdir(tmp_path) == ["vit"]
    assert content_of(path) == "old"


def test_a_second_saver_is_refused_while_the_first_is_at_work(tmp_path: Path) -> None:
    path = tmp_path / "vit"
    with workspace(path) as new:
        directory(new, "first")
        with (
            pytest.raises(BlockingIOError, match="another process or thread is saving there"),
            workspace(path),
        ):
            raise AssertionError("there were two")
        assert content_of(new) == "first"


def test_two_paths_are_saved_to_at_once(tmp_path: Path) -> None:
    with workspace(tmp_path / "a") as one, workspace(tmp_path / "b") as other:
        assert one != other


def test_where_a_way_back_failed_the_workspace_stays(tmp_path: Path) -> None:
    path = tmp_path / "vit"
    with workspace(path) as new:
        directory(new, "new")
        directory(new.parent / "old", "old")  # and nothing at the path: it died between two renames
    assert content_of(finish_dead_save(path)) == "new"


def test_a_save_that_died_between_two_renames_is_finished(tmp_path: Path) -> None:
    path = tmp_path / "vit"
    directory(beside(path) / WORK / "old", "old")
    directory(beside(path) / WORK / "new", "new")
    assert finish_dead_save(path) == path
    assert content_of(path) == "new"
    assert os.listdir(tmp_path) == ["vit"]


def test_where_nothing_may_be_renamed_the_complete_one_is_shown_where_it_lies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "vit"
    directory(beside(path) / WORK / "old", "old")
    new = directory(beside(path) / WORK / "new", "new")

    def refuse(source: Path, destination: Path) -> None:
        raise PermissionError(errno.EACCES, "read-only")

    monkeypatch.setattr(os, "rename", refuse)
    assert finish_dead_save(path) == new
    assert content_of(new) == "new"


@pytest.mark.parametrize("left", ["old", "new"])
def test_half_of_a_dead_save_is_litter(tmp_path: Path, left: str) -> None:
    path = tmp_path / "vit"
    directory(beside(path) / WORK / left, "half")
    assert finish_dead_save(path) == path
    assert not path.exists()


def test_what_is_at_the_path_always_wins(tmp_path: Path) -> None:
    path = directory(tmp_path / "vit", "there")
    directory(beside(path) / WORK / "old", "old")
    directory(beside(path) / WORK / "new", "new")
    assert finish_dead_save(path) == path
    assert content_of(path) == "there"
    assert content_of(beside(path) / WORK / "new") == "new"


def test_a_link_is_asked_for_what_it_leads_to(tmp_path: Path) -> None:
    real = directory(tmp_path / "deep/vit", "real")
    (tmp_path / "link").symlink_to(real)
    assert finish_dead_save(tmp_path / "link") == real.resolve()


def test_where_nothing_is_nothing_is_made(tmp_path: Path) -> None:
    assert finish_dead_save(tmp_path / "vit") == (tmp_path / "vit").resolve()
    assert os.listdir(tmp_path) == []
