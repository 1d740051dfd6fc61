"""What a source says of its version: where it says it, what it may say, and what is said of it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flax import serialization

import treeload
from treeload import (
    From,
    History,
    LoadError,
    Name,
    Policy,
    Rename,
    RuleError,
    Source,
    SourceError,
    Version,
)
from treeload._checkpoints.one_model import NoAverage
from treeload._formats.orbax import write as _save
from treeload._formats.orbax.record import seal_of
from treeload._sources.memory import MemorySource
from treeload._sources.stamp import checked_stamp, print_stamp

TWO = History(Version(2, rules=[Rename("w", "kernel")]))
OLD, NEW = {"w": np.ones(2, np.float32)}, {"kernel": np.zeros(2, np.float32)}
HOSTILE = [
    True, 1.0, "1", None, [1], {"": True}, {"": 1.5}, {"": -1}, {"": 0}, {"": "2"}, {"": None}, {1: 2},
    {"": 2**31}, {"": 10**40}, {"x" * 5000: 2},
]  # fmt: skip


class Stamped(MemorySource):
    """A source of a user's that says what it is told."""

    label = "a source of mine"

    def __init__(self, tree: Any, version: Any) -> None:
        super().__init__(tree)
        self.version = version


def test_a_save_records_the_newest_of_the_whole_and_of_each_scope(tmp_path: Path) -> None:
    history = History(*TWO.versions, Version(2, scope="**/attn"))
    for name, given, stamp in (
        ("a", history, {"": 2, "**/attn": 2}),
        ("b", History(), {"": 1}),
        ("c", None, {}),
    ):
        treeload.save(tmp_path / name, NEW, history=given)
        assert treeload.open(tmp_path / name).version == stamp
        assert treeload.inspect(tmp_path / name).version == stamp
        assert treeload.inspect(tmp_path / name).to_dict()["version"] == stamp
    assert "\nversion 2, 2 of **/attn\n" in str(treeload.inspect(tmp_path / "a"))
    assert "\nversion" not in str(treeload.inspect(tmp_path / "c"))


def test_a_stamp_is_read_through_every_way_to_look_at_a_source(tmp_path: Path) -> None:
    treeload.save(tmp_path / "x", OLD, history=History())
    for src in (tmp_path / "x", str(tmp_path / "x"), treeload.open(tmp_path / "x"), From(tmp_path / "x"),
                From(tmp_path / "x", separator="."), [From(tmp_path / "x")]):  # fmt: skip
        np.testing.assert_array_equal(treeload.load(NEW, src, history=TWO)["kernel"], OLD["w"])


def test_the_steps_work_for_every_kind_of_source(tmp_path: Path) -> None:
    treeload.export(tmp_path / "x.safetensors", OLD)
    (tmp_path / "x.msgpack").write_bytes(serialization.to_bytes(OLD))
    for src in (OLD, tmp_path / "x.safetensors", tmp_path / "x.msgpack", MemorySource(OLD)):
        loaded = treeload.load(NEW, From(src, version=1), history=TWO)
        np.testing.assert_array_equal(loaded["kernel"], OLD["w"])


# Where it is unknown, or newer.


def test_a_source_that_does_not_say_its_version_is_an_error_that_may_be_forgiven() -> None:
    (finding,) = treeload.plan(NEW, {"kernel": OLD["w"]}, history=TWO).errors
    assert finding.kind == "version" and finding.name == () and finding.found == "no version"
    assert treeload.plan(NEW, {"kernel": OLD["w"]}, history=TWO, policy=Policy(version="ignore")).ok
    with pytest.raises(LoadError, match="does not say its version"):
        treeload.load(NEW, OLD, history=History())


def test_the_version_that_leaves_nothing_wrong_is_named() -> None:
    for tree, number in ((OLD, 1), ({"kernel": OLD["w"]}, 2)):
        finding = treeload.plan(NEW, tree, history=TWO).errors[-1]
        first = finding.remedies[0]
        assert first.before == f"nothing else is wrong if it is of version {number}:"
        assert first.code == first.outline == f"From(src, version={number})" and first.lines == (first.code,)
        assert treeload.plan(NEW, From(tree, version=number), history=TWO).ok
    both = treeload.plan({"a": NEW}, {"a": NEW}, history=History(Version(2), Version(3))).errors[0]
    assert both.remedies[0].before == "nothing else is wrong if it is of version 1 or 2 or 3:"
    none = treeload.plan(NEW, {"other": OLD["w"]}, history=TWO).errors[-1]
    assert str(none.remedies[0]) == "to state which it is of, from 1 to 2: From(src, version=1)"
    code = none.remedies[1].code
    assert code == 'Policy(version={"": "ignore"})'
    forgiven = treeload.plan(NEW, {"other": OLD["w"]}, history=TWO, policy=eval(code, {"Policy": Policy}))
    assert "version" not in {finding.kind for finding in forgiven.errors}


def test_a_report_says_the_version_first_and_what_that_settles() -> None:
    text = str(treeload.plan(NEW, OLD, history=TWO))
    first, settled, left = (text.index(each) for each in ("to go on", "what that settles", "what is left"))
    assert "From(src, version=1)" in text[first:settled] and "Rename" not in text
    assert "missing     kernel" in text[settled:left] and "version     the root" in text[left:]
    several = treeload.plan(
        {"a": NEW, "b": NEW}, [From(OLD, into="a"), From(NEW, into="b", version=9)], history=TWO
    )
    said = str(several)
    assert "for a: nothing else is wrong if it is of version 1: From(src, version=1)" in said
    assert said.index("what is left") < said.index("does not know: 9")


@pytest.mark.parametrize(
    ("stamp", "said"),
    [({"": 3}, "3"), ({"": 2, "**/mlp": 2}, "2 of **/mlp"), ({"": 2**31 - 1}, str(2**31 - 1))],
)
def test_a_newer_source_is_an_error_that_says_what_is_beyond(stamp: dict[str, int], said: str) -> None:
    (finding,) = treeload.plan(NEW, Stamped({"kernel": OLD["w"]}, stamp), history=TWO).errors
    assert finding.kind == "version" and finding.message.endswith(f"the history does not know: {said}")
    assert len(finding.remedies) == 2
    forgiving = Policy(version={"": "ignore"})
    assert treeload.plan(NEW, Stamped({"kernel": OLD["w"]}, stamp), history=TWO, policy=forgiving).ok


def test_each_of_several_sources_is_said_where_it_goes() -> None:
    parts = [From(NEW, into="a", version=2), From(NEW, into="b"), From(NEW, into="c", version=9)]
    plan = treeload.plan(dict.fromkeys("abc", NEW), parts, history=TWO)
    assert [(f.kind, str(f.name)) for f in plan.errors] == [("version", "b"), ("version", "c")]
    ignored = treeload.plan(
        dict.fromkeys("abc", NEW),
        parts,
        history=TWO,
        policy=Policy(version={"b": "ignore", "c": "ignore"}),
    )
    assert ignored.ok


def test_what_a_from_states_goes_before_what_the_source_says() -> None:
    wrongly = Stamped(OLD, {"": 2})
    assert not treeload.plan(NEW, wrongly, history=TWO).ok
    assert treeload.plan(NEW, From(wrongly, version=1), history=TWO).ok
    scoped = History(Version(2, scope="a", rules=[Rename("w", "kernel")]))
    assert treeload.plan({"a": NEW}, From({"a": NEW}, version={"a": 2}), history=scoped).ok
    assert treeload.plan({"a": NEW}, From({"a": OLD}, version={"": 1}), history=scoped).ok


def test_arrays_without_names_have_no_steps() -> None:
    arrays = [np.ones(2, np.float32)]
    assert treeload.plan(NEW, From(arrays, by_position=True, version=2), history=TWO).ok
    (old,) = treeload.plan(NEW, From(arrays, by_position=True, version=1), history=TWO).errors
    assert old.kind == "version" and "no names that steps could be over" in old.message
    (unknown,) = treeload.plan(NEW, From(arrays, by_position=True), history=TWO).errors
    assert unknown.kind == "version" and unknown.found == "no version"


def test_without_a_history_a_stamp_says_nothing(tmp_path: Path) -> None:
    treeload.save(tmp_path / "x", NEW, history=TWO)
    assert treeload.plan(NEW, tmp_path / "x").ok


# Hostile ones.


@pytest.mark.parametrize("stamp", HOSTILE, ids=lambda stamp: repr(stamp)[:12])
def test_what_is_no_stamp_is_refused_wherever_it_comes_from(stamp: Any, tmp_path: Path) -> None:
    with pytest.raises(ValueError):
        checked_stamp(stamp)
    with pytest.raises(
        SourceError, match="'a source of mine' says a version|a source of mine says a version"
    ):
        treeload.plan(NEW, Stamped(OLD, stamp), history=TWO)
    with pytest.raises(SourceError, match="says a version that is none"):
        treeload.inspect(Stamped(OLD, stamp))
    if isinstance(stamp, Mapping) or stamp is True:
        with pytest.raises(RuleError, match="From"):
            From(OLD, version=stamp)


@pytest.mark.parametrize(
    "stamp", [one for one in HOSTILE if one != {1: 2}], ids=lambda stamp: repr(stamp)[:12]
)
def test_a_record_that_says_no_stamp_is_malformed(stamp: Any, tmp_path: Path) -> None:
    _restamped(tmp_path / "x", stamp)
    with pytest.raises(SourceError, match="its record of treeload is malformed"):
        treeload.open(tmp_path / "x")


def test_a_record_without_a_stamp_is_of_no_version(tmp_path: Path) -> None:
    _restamped(tmp_path / "x", {})
    assert treeload.plan({"w": OLD["w"]}, tmp_path / "x", history=History()).errors[0].kind == "version"


def _restamped(path: Path, stamp: Any) -> None:
    """A checkpoint whose record has a stamp of somebody else's making, and is sealed with it."""
    treeload.save(path, OLD, history=History())
    (file,) = path.rglob("_CHECKPOINT_METADATA")
    described = json.loads(file.read_text())
    custom = described["custom_metadata"]
    custom["treeload"]["version"] = stamp
    del custom["treeload"]["seal"]
    custom["treeload"]["seal"] = seal_of(custom)
    file.write_text(json.dumps(described))
    _save._mark_tree(path, custom["treeload"]["seal"])


def test_a_source_that_fails_to_say_it_is_a_source_error() -> None:
    class Broken(Source):
        @property
        def version(self) -> Any:  # type: ignore[override]
            raise OSError("gone")

        def specs(self) -> Mapping[Name, Any]:
            return {}

        def read(self, requests: Mapping[Name, Any]) -> Iterator[tuple[Name, Any]]:
            yield from ()

    with pytest.raises(SourceError, match="gone"):
        treeload.plan(NEW, Broken(), history=TWO)


def test_a_scope_of_a_file_does_nothing_to_a_terminal() -> None:
    finding = treeload.plan(NEW, Stamped(NEW, {"": 1, "\x1b[31m": 4}), history=TWO)
    assert "\x1b" not in str(finding)
    assert "\x1b" not in str(treeload.inspect(Stamped(NEW, {"\x1b[31m": 4})))


def test_stamps_print_the_whole_first() -> None:
    assert print_stamp({"**/attn": 2, "": 3}) == "3, 2 of **/attn"
    assert print_stamp({"a": 1}) == "1 of a"


# The other verbs.


def test_an_average_is_of_one_version(tmp_path: Path) -> None:
    for name, history in (("a", History()), ("b", TWO), ("c", None)):
        treeload.save(tmp_path / name, NEW, history=history)
    with pytest.raises(NoAverage, match=r"(?s)version 1\s+in .*;\s+version 2\s+in") as raised:
        treeload.average([tmp_path / "a", tmp_path / "b"])
    assert [finding.kind for finding in raised.value.findings] == ["version"]
    assert set(treeload.average([tmp_path / "a", tmp_path / "c"])) == {"kernel"}


def test_a_training_goes_on_from_what_older_code_saved(tmp_path: Path) -> None:
    treeload.save(tmp_path / "ckpts" / "7", OLD, history=History())
    state, step = treeload.resume(NEW, tmp_path / "ckpts", otherwise=NEW, history=TWO)
    assert step == 7
    np.testing.assert_array_equal(state["kernel"], OLD["w"])
    with pytest.raises(LoadError):
        treeload.resume(NEW, tmp_path / "ckpts", otherwise=NEW)
    assert treeload.resume(NEW, tmp_path / "none", otherwise=NEW, history=TWO)[1] is None
