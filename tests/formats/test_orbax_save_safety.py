"""What a save does not do, wherever it is asked to write: follow a link, leave litter, believe a backend."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import treeload
from treeload._errors import SaveError
from treeload._files import exchange, replace, sync
from treeload._formats.orbax import write as module
from treeload._formats.orbax.source import OrbaxSource
from treeload._formats.orbax.write import write
from treeload._naming.name import Name

OLD = {Name(("w",)): np.zeros(3, np.float32)}
NEW = {Name(("w",)): np.ones(3, np.float32)}


def is_whole(path: Path, leaves: dict[Name, Any]) -> bool:
    source = OrbaxSource(path)
    read = dict(source.read(source.specs()))
    return read.keys() == leaves.keys() and all((read[name] == leaves[name]).all() for name in leaves)


# What Orbax and TensorStore make of a path.


@pytest.mark.parametrize("name", ["run[1]/ck", "ck[1]", "a*b/c?d", "lr=[0.1,*]/seed[2]/ck"])
def test_signs_of_patterns_may_be_in_a_path(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    write(path, OLD)
    write(path, NEW, overwrite=True)
    assert is_whole(path, NEW)
    assert os.listdir(path.parent) == [path.name]


@pytest.mark.parametrize("name", ["a\\b", "a\\b/ck", "\udc80/ck"])
def test_signs_that_tensorstore_takes_for_others_are_refused_by_name(tmp_path: Path, name: str) -> None:
    with pytest.raises(SaveError, match="TensorStore"):
        write(tmp_path / name, NEW)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    "name",
    ["x.orbax-checkpoint-tmp-1", "x.orbax-checkpoint-tmp", ".x.treeload-save", "x.orbax-checkpoint-tmp/"],
)
def test_names_that_say_something_else_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(SaveError, match="cannot be the name of a checkpoint"):
        write(f"{tmp_path}/{name}", NEW)
    assert os.listdir(tmp_path) == []


def _lose_a_leaf(new: Path, tree: Any, *more: Any) -> None:
    _written(new, {**tree, "w": np.zeros(4, np.float32)}, *more)


def _lose_the_store(new: Path, *args: Any) -> None:
    _written(new, *args)
    (new / "state" / "manifest.ocdbt").unlink()


_written = module._write_orbax


@pytest.mark.parametrize("fault", [_lose_a_leaf, _lose_the_store, lambda new, *args: new.mkdir()])
def test_a_backend_that_writes_something_else_replaces_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: Any
) -> None:
    write(tmp_path / "x", OLD)
    monkeypatch.setattr(module, "_write_orbax", fault)
    with pytest.raises(SaveError, match="what was written"):
        write(tmp_path / "x", NEW, overwrite=True)
    assert is_whole(tmp_path / "x", OLD)
    assert os.listdir(tmp_path) == ["x"]


# What lies where the save would work.


def test_a_link_in_place_of_the_folder_is_not_followed(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    (precious / ("0" * 32)).mkdir(parents=True)
    (precious / "thesis").write_text("kept")
    replace.beside(tmp_path / "x").symlink_to(precious)
    with pytest.raises(SaveError, match="treeload-save"):
        write(tmp_path / "x", NEW)
    assert sorted(os.listdir(precious)) == ["0" * 32, "thesis"]
    assert not (tmp_path / "x").exists()


def test_the_users_own_files_in_a_folder_of_that_name_stay(tmp_path: Path) -> None:
    folder = replace.beside(tmp_path / "x")
    for name in ("new/thesis", "mine", "0123/thesis"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("kept")
    (folder / ("a" * 32)).write_text("kept")  # of a workspace's name, and a file
    before = sorted(folder.rglob("*"))
    write(tmp_path / "x", OLD)
    write(tmp_path / "x", NEW, overwrite=True)
    assert is_whole(tmp_path / "x", NEW)
    assert sorted(folder.rglob("*")) == before


@pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can give a folder away"
)
def test_what_another_user_planted_is_neither_written_to_nor_read(tmp_path: Path) -> None:
    folder = replace.beside(tmp_path / "x")
    planted = folder / ("0" * 32)
    write(planted / "new", NEW)
    write(planted / "old", OLD)
    os.chown(folder, 65534, -1)
    assert replace.finish_dead_save(tmp_path / "x") == tmp_path / "x"
    with pytest.raises(SaveError, match="belongs to another user"):
        write(tmp_path / "x", NEW)
    assert not (tmp_path / "x").exists()


def test_a_dead_save_that_cannot_be_finished_is_not_overwritten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a death on the way would lose both of its halves."""
    left = replace.beside(tmp_path / "x") / ("0" * 32)
    write(left / "new", NEW)
    write(left / "old", OLD)

    def refuse(*args: Any) -> None:
        raise PermissionError

    monkeypatch.setattr(replace.os, "rename", refuse)
    with pytest.raises(SaveError, match="cannot be finished"):
        write(tmp_path / "x", NEW, overwrite=True)
    assert is_whole(left / "new", NEW) and is_whole(left / "old", OLD)


# Permissions.


@pytest.mark.parametrize("mode", [0o700, 0o2750, 0o777])
def test_the_permissions_of_what_is_replaced_stay(tmp_path: Path, mode: int) -> None:
    write(tmp_path / "x", OLD)
    os.chmod(tmp_path / "x", mode)
    seen: list[int] = []

    def look(new: Path, *args: Any) -> None:
        seen.append(stat.S_IMODE(os.stat(new.parent).st_mode))
        _written(new, *args)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(module, "_write_orbax", look)
        write(tmp_path / "x", NEW, overwrite=True)
    assert stat.S_IMODE(os.stat(tmp_path / "x").st_mode) == mode
    assert seen == [mode]  # the new one is no easier to read while it is written


def test_a_new_checkpoint_follows_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        write(tmp_path / "deep/x", NEW)
        treeload.export(tmp_path / "f.safetensors", {"w": np.ones(3)}, rules=[])
    finally:
        os.umask(before)
    assert stat.S_IMODE(os.stat(tmp_path / "deep/x").st_mode) == 0o750
    assert stat.S_IMODE(os.stat(tmp_path / "deep/x/state/_METADATA").st_mode) == 0o640
    assert stat.S_IMODE(os.stat(tmp_path / "f.safetensors").st_mode) == 0o640


# A power cut.


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """What was asked of the system, in order: ("sync", path), ("exchange", path), ("remove", name)."""
    seen: list[tuple[str, str]] = []
    fsync, swap, rename, rmtree = os.fsync, exchange._swap, os.rename, replace.shutil.rmtree

    def synced(descriptor: int) -> None:
        seen.append(("sync", os.readlink(f"/proc/self/fd/{descriptor}")))
        fsync(descriptor)

    def swapped(one: Path, other: Path) -> bool:
        seen.append(("exchange", str(other)))
        return swap(one, other)

    def renamed(one: Any, other: Any) -> None:
        seen.append(("exchange", str(other)))
        rename(one, other)

    def removed(name: str, **options: Any) -> None:
        seen.append(("remove", name))
        rmtree(name, **options)

    monkeypatch.setattr(sync.os, "fsync", synced)
    monkeypatch.setattr(exchange, "_swap", swapped)
    monkeypatch.setattr(os, "rename", renamed)
    monkeypatch.setattr(replace.shutil, "rmtree", removed)
    return seen


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="asks /proc what a descriptor is of")
@pytest.mark.parametrize("overwrite", [False, True])
def test_all_is_on_the_disk_before_it_is_put_in_place_and_that_before_the_old_goes(
    tmp_path: Path, calls: list[tuple[str, str]], overwrite: bool
) -> None:
    path = tmp_path / "deep" / "x"
    if overwrite:
        write(path, OLD)
        calls.clear()
    write(path, NEW, overwrite=overwrite)
    placed = max(at for at, call in enumerate(calls) if call == ("exchange", str(path)))
    before = {Path(where) for what, where in calls[:placed] if what == "sync"}
    (new,) = {where for where in before if where.name == "new"}
    everything = {new.joinpath(file.relative_to(path)) for file in path.rglob("*")}
    assert before >= {new, new.parent, *everything}
    assert len(everything) > 8
    gone = next(at for at, (what, _) in enumerate(calls) if what == "remove" and at > placed)
    after = {Path(where) for what, where in calls[placed:gone] if what == "sync"}
    assert after >= {path.parent, new.parent}
    if not overwrite:
        assert tmp_path in before  # where the name of a directory that was made is kept


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="asks /proc what a descriptor is of")
def test_an_exported_file_is_on_the_disk_before_it_has_its_name(
    tmp_path: Path, calls: list[tuple[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    link = os.link

    def linked(one: Path, other: Path) -> None:
        calls.append(("exchange", str(other)))
        link(one, other)

    monkeypatch.setattr(os, "link", linked)
    path = tmp_path / "deep" / "f.safetensors"
    treeload.export(path, {"w": np.ones(3)}, rules=[])
    placed = calls.index(("exchange", str(path)))
    assert [Path(where).name for what, where in calls[:placed] if what == "sync"] == [tmp_path.name, "new"]
    assert calls[placed + 1] == ("sync", str(path.parent))


@pytest.mark.parametrize("system", ["exchange", "two renames"])
@pytest.mark.parametrize("overwrite", [False, True])
def test_a_place_that_cannot_be_synced_is_given_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, system: str, overwrite: bool
) -> None:
    if system == "two renames":
        monkeypatch.setattr(exchange, "_swap", lambda one, other: False)
    if overwrite:
        write(tmp_path / "x", OLD)
    synced = sync.sync_directory

    def broken(path: Path) -> None:
        if path == tmp_path:
            raise OSError(5, "no disk")
        synced(path)

    monkeypatch.setattr(exchange, "sync_directory", broken)
    with pytest.raises(SaveError, match="no disk"):
        write(tmp_path / "x", NEW, overwrite=overwrite)
    assert os.listdir(tmp_path) == (["x"] if overwrite else [])
    assert not overwrite or is_whole(tmp_path / "x", OLD)


@pytest.mark.parametrize(("code", "fine"), [(22, True), (5, False)])
def test_a_file_system_that_does_not_sync_directories_will_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, fine: bool
) -> None:
    def refuse(descriptor: int) -> None:
        raise OSError(code, "no")

    monkeypatch.setattr(sync.os, "fsync", refuse)
    if fine:
        sync.sync_directory(tmp_path)
    else:
        with pytest.raises(OSError, match="no"):
            sync.sync_directory(tmp_path)


# Ctrl-C.


@pytest.mark.parametrize("fails", [False, True])
def test_an_interrupt_arrives_when_the_save_has_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: bool
) -> None:
    def interrupted(new: Path, *args: Any) -> None:
        signal.raise_signal(signal.SIGINT)
        _written(new, *args)
        if fails:
            raise OSError("full")

    write(tmp_path / "x", OLD)
    monkeypatch.setattr(module, "_write_orbax", interrupted)
    with pytest.raises(KeyboardInterrupt) as caught:
        write(tmp_path / "x", NEW, overwrite=True)
    assert isinstance(caught.value.__context__, SaveError) is fails
    assert is_whole(tmp_path / "x", OLD if fails else NEW)
    assert os.listdir(tmp_path) == ["x"]


# Several at once.


def test_threads_that_save_to_paths_of_their_own_all_succeed(tmp_path: Path) -> None:
    failed: list[Exception] = []

    def work(number: int) -> None:
        try:
            for _ in range(4):
                write(tmp_path / str(number), {Name(("w",)): np.full(500, number)}, overwrite=True)
        except Exception as error:  # noqa: BLE001  # none may leave the thread unseen
            failed.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    assert sorted(os.listdir(tmp_path)) == ["0", "1", "2", "3"]
    assert all(is_whole(tmp_path / str(n), {Name(("w",)): np.full(500, n)}) for n in range(4))


def test_only_one_thread_is_in_orbax_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inside: list[int] = []

    def count(new: Path, *args: Any) -> None:
        inside.append(1)
        assert len(inside) == 1
        _written(new, *args)
        inside.pop()

    monkeypatch.setattr(module, "_write_orbax", count)
    test_threads_that_save_to_paths_of_their_own_all_succeed(tmp_path)


def test_of_two_threads_on_one_path_one_wins_whole_and_the_other_gets_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "x", OLD)
    refused: list[str] = []

    def second(new: Path, *args: Any) -> None:
        monkeypatch.setattr(module, "_write_orbax", _written)
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
        _written(new, *args)

    def other() -> None:
        with pytest.raises(SaveError) as caught:
            write(tmp_path / "x", OLD, overwrite=True)
        refused.append(str(caught.value))

    monkeypatch.setattr(module, "_write_orbax", second)
    write(tmp_path / "x", NEW, overwrite=True)
    assert len(refused) == 1 and "another process or thread is saving there" in refused[0]
    assert is_whole(tmp_path / "x", NEW)
    assert os.listdir(tmp_path) == ["x"]


# What is raised is ours, and nothing is printed.


def test_late_writes_of_a_failed_save_print_nothing_and_all_else_is_printed(tmp_path: Path) -> None:
    program = f"""
import resource, sys, time
import numpy as np, treeload
tree = {{str(at): np.random.rand(3000).astype(np.float32) for at in range(20)}}
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, resource.RLIM_INFINITY))
for _ in range(4):
    try:
        treeload.save({str(tmp_path / "x")!r}, tree)
    except treeload.SaveError:
        pass
time.sleep(0.5)
class Loud:
    def __del__(self):
        raise RuntimeError("Event loop is closed")
del tree
Loud()
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=True
    )
    assert done.stdout == ""
    assert done.stderr.count("Event loop is closed") == 1 and "Loud.__del__" in done.stderr
    assert os.listdir(tmp_path) == []


def test_a_working_directory_that_is_gone_is_an_error_of_ours(tmp_path: Path) -> None:
    program = f"""
import os
import jax, numpy as np, treeload
os.mkdir({str(tmp_path / "gone")!r})
os.chdir({str(tmp_path / "gone")!r})
os.rmdir({str(tmp_path / "gone")!r})
tree = {{"w": np.ones(3)}}
for verb, path in ((treeload.save, "x"), (treeload.export, "x.safetensors"), (treeload.export, "y")):
    try:
        verb(path, tree)
    except treeload.SaveError as error:
        print("ours")
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=True
    )
    assert done.stdout.split() == ["ours", "ours", "ours"]
