"""An Orbax checkpoint that changes while it is read: the old one or the new one, never a mixture of both."""

from __future__ import annotations

import os
import pickle
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from orbax.checkpoint import v1 as ocp

import treeload
from treeload import SourceError
from treeload._formats.orbax import layout as _layout
from treeload._formats.orbax.source import OrbaxSource

DST = {"a": np.zeros(8, np.float32), "b": np.zeros(8, np.float32)}


def _tree(number: int) -> dict[str, Any]:
    return {key: np.full(8, number, np.float32) for key in DST}


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    treeload.save(tmp_path / "x", _tree(1))
    return tmp_path / "x"


def _is(loaded: Any, number: int) -> bool:
    return all(np.array_equal(loaded[key], _tree(number)[key]) for key in DST)


def test_a_plan_of_a_checkpoint_that_was_overwritten_loads_what_is_there_now(saved: Path) -> None:
    plan = treeload.plan(DST, saved)
    for number in (2, 3):
        treeload.save(saved, _tree(number), overwrite=True)
        assert _is(plan.load(), number)
        assert _is(plan.load(check_digests=False), number)


def test_a_plan_of_a_checkpoint_that_holds_other_leaves_by_now_is_refused(saved: Path) -> None:
    plan = treeload.plan(DST, saved)
    treeload.save(saved, {**_tree(2), "a": np.zeros(9, np.float32)}, overwrite=True)
    with pytest.raises(
        SourceError, match="changed while it was read, and holds other leaves by now: plan again"
    ):
        plan.load()
    with pytest.raises(treeload.LoadError, match="shape"):
        treeload.load(DST, saved)


def test_of_a_checkpoint_that_is_overwritten_between_two_leaves_nothing_more_is_given(saved: Path) -> None:
    source = OrbaxSource(saved)
    leaves = source.read(source.specs())
    next(leaves)
    treeload.save(saved, _tree(2), overwrite=True)
    with pytest.raises(SourceError, match="changed while it was read: read it again") as raised:
        list(leaves)
    assert raised.value.changed and pickle.loads(pickle.dumps(raised.value)).changed


@pytest.mark.parametrize("step", ["read_tree_metadata", "read_custom_metadata", "check_files", "locate"])
def test_what_is_overwritten_while_it_is_opened_is_opened_again(
    saved: Path, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before and after each step of it; the metadata of both agree, or those of one alone are believed."""
    number = [1]
    ours = getattr(_layout, step)

    def between(*given: Any, **how: Any) -> Any:
        found = ours(*given, **how)
        if number[0] < 3:
            number[0] += 1
            monkeypatch.setattr(_layout, step, ours)
            treeload.save(saved, {**_tree(number[0]), "more": 3}, overwrite=True, metadata={"n": number[0]})
            monkeypatch.setattr(_layout, step, between)
        return found

    monkeypatch.setattr(_layout, step, between)
    plan = treeload.plan({**DST, "more": 0}, saved)
    monkeypatch.undo()
    (source,) = plan.sources
    assert _is(plan.load(), number[0]) and source.metadata == {"n": number[0]}


def test_what_changes_again_and_again_is_given_up(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ours = _layout.read_custom_metadata

    def touched(layout: Any) -> Any:
        (saved / f"{len(os.listdir(saved))}").mkdir()
        return ours(layout)

    monkeypatch.setattr(_layout, "read_custom_metadata", touched)
    with pytest.raises(SourceError, match="changed while it was read: read it again"):
        treeload.open(saved)


def test_value_checks_and_values_are_of_one_checkpoint(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a bias that was zero when it was looked at would be dropped for one that is not."""
    treeload.save(saved, {**_tree(1), "bias": np.zeros(2)}, overwrite=True)
    plan = treeload.plan(DST, saved, policy=treeload.Policy(absent_is_zero=treeload.BIAS))
    ours = treeload.Plan.verify

    def then_overwritten(self: treeload.Plan) -> treeload.Plan:
        found = ours(self)
        monkeypatch.undo()
        treeload.save(saved, {**_tree(2), "bias": np.ones(2)}, overwrite=True)
        return found

    monkeypatch.setattr(treeload.Plan, "verify", then_overwritten)
    with pytest.raises(treeload.LoadError, match="bias"):
        plan.load()


@pytest.mark.parametrize("check_digests", [True, False])
def test_an_update_is_of_one_checkpoint_too(saved: Path, check_digests: bool) -> None:
    from flax import nnx

    class Both(nnx.Module):
        def __init__(self) -> None:
            self.a, self.b = (nnx.Param(np.zeros(8, np.float32)) for _ in range(2))

    module = Both()
    treeload.update(module, saved, check_digests=check_digests)
    assert _is({"a": module.a[...], "b": module.b[...]}, 1)


def test_a_reader_sees_the_old_or_the_new_while_it_is_overwritten(saved: Path) -> None:
    assert _read_while_overwritten(saved, 12) >= 0


@pytest.mark.slow
def test_a_reader_sees_the_old_or_the_new_through_five_hundred_overwrites(saved: Path) -> None:
    print("changed while it was read:", _read_while_overwritten(saved, 500))


def _read_while_overwritten(saved: Path, times: int) -> int:
    """How often a load gave up; every other one was of one checkpoint."""
    code = (
        "import sys, numpy, treeload\n"
        "for n in range(2, int(sys.argv[2]) + 2):\n"
        "    treeload.save(sys.argv[1], {k: numpy.full(8, n, 'f4') for k in 'ab'}, overwrite=True)\n"
    )
    writer = subprocess.Popen([sys.executable, "-c", code, str(saved), str(times)])
    given_up = loads = 0
    try:
        while writer.poll() is None:
            try:
                loaded = treeload.load(DST, saved)
            except SourceError as error:
                if not error.changed or "changed while it was read" not in str(error):
                    raise
                given_up += 1
                continue
            loads += 1
            assert _is(loaded, int(loaded["a"][0]))
    finally:
        writer.kill()
        writer.wait()
    assert writer.returncode == 0 and loads
    assert _is(treeload.load(DST, saved), times + 1)
    return given_up


# --- what is put in a file's place between a plan and its load ----------------------------------------


def _data(path: Path) -> Path:
    return max((file for file in path.rglob("*") if file.parent.name == "d"), key=lambda f: f.stat().st_size)


@pytest.mark.parametrize("what", ["pipe", "link", "other"])
def test_what_takes_a_files_place_between_plan_and_load_is_not_read(tmp_path: Path, what: str) -> None:
    ocp.save(tmp_path / "x", _tree(1))
    plan = treeload.plan(DST, tmp_path / "x")
    file = _data(tmp_path / "x")
    status, content = file.stat(), file.read_bytes()
    (tmp_path / "outside").write_bytes(content)
    file.unlink()
    if what == "pipe":
        os.mkfifo(file)
    elif what == "link":
        file.symlink_to(tmp_path / "outside")
    else:  # of the same size and time of change
        file.write_bytes(content[::-1])
        os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    reasons = {"pipe": "is no regular file", "link": "leads out to", "other": "changed while it was read"}
    found: list[BaseException] = []

    def load() -> None:
        try:
            plan.load()
        except Exception as error:  # noqa: BLE001  # whatever it is
            found.append(error)

    thread = threading.Thread(target=load, daemon=True)  # one that hangs must not hold the tests
    thread.start()
    thread.join(60)
    assert not thread.is_alive()
    if what == "other":  # opened again, and then it is what it is: nobody else's digests are there
        assert not found or isinstance(found[0], SourceError)
    else:
        assert isinstance(found[0], SourceError) and reasons[what] in str(found[0])


def test_a_checkpoint_that_is_gone_is_an_error_of_ours(saved: Path) -> None:
    plan = treeload.plan(DST, saved)
    shutil.rmtree(saved)
    with pytest.raises(SourceError, match="does not exist"):
        plan.load()


def test_a_working_directory_that_is_gone_is_an_error_of_ours(tmp_path: Path) -> None:
    code = (
        "import os, sys, jax, treeload\n"  # to import it there is beyond some Pythons
        "os.mkdir('w'); os.chdir('w'); os.rmdir('../w')\n"
        "for verb in (treeload.open, treeload.inspect, treeload.verify, treeload.digest):\n"
        "    try:\n        verb('x')\n        sys.exit('no error')\n"
        "    except treeload.SourceError as error:\n        print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("'x'") == 4
