"""Locks: what would load is written down, and any difference from it is an error that names it."""

from __future__ import annotations

import functools
import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save_file

import treeload
from treeload import Apply, From, LockError, Plan, Policy, Rename, SaveError, Transpose, check_lock
from treeload._plans.lock import FACTS

FIRST = b'{"treeload lock": 1}\n'
RULES = (Rename("h/{i}/w", "layers/{i}/kernel", Transpose()), Rename("h/{i}/b", "layers/{i}/bias"))


def destination(layers: int = 12, width: int = 4) -> dict[str, Any]:
    def layer() -> dict[str, Any]:
        return {"kernel": jnp.zeros((width, 3)), "bias": jnp.zeros(3)}

    return {"layers": {str(i): layer() for i in range(layers)}, "head": jnp.zeros(2)}


def source(layers: int = 12) -> dict[str, Any]:
    made: dict[str, Any] = {
        f"h.{i}.{key}": np.ones(shape, np.float16)
        for i in range(layers) for key, shape in (("w", (3, 4)), ("b", (3,)))
    }  # fmt: skip
    return {**made, "head": np.ones(2, np.float32)}


def plan(dst: Any = None, src: Any = None, *, rules: Any = RULES, **how: Any) -> Plan:
    given = From(source() if src is None else src, separator=".")
    return treeload.plan(destination() if dst is None else dst, given, rules=rules, **how)


@pytest.fixture
def locked(tmp_path: Path) -> Path:
    path = tmp_path / "model.lock"
    plan().lock(path)
    return path


def differences(made: Plan, path: Path) -> dict[tuple[str, str], tuple[Any, Any]]:
    with pytest.raises(LockError) as raised:
        check_lock(made, path)
    return {(str(d.name), d.what): (d.locked, d.now) for d in raised.value.differences}


def test_a_plan_is_what_its_own_lock_holds(locked: Path) -> None:
    check_lock(plan(), locked)
    check_lock(plan().verify(), str(locked))


def test_a_lock_is_sorted_and_says_one_fact_a_line(locked: Path) -> None:
    first, *lines = locked.read_bytes().splitlines(keepends=True)
    assert first == FIRST and lines == sorted(lines)
    facts = [json.loads(line) for line in lines]
    of_one = [fact[1:] for fact in facts if fact[0] == "layers/3/kernel"]
    assert of_one == [
        ["action", "load"],
        ["cast", "error"],
        ["op", 0, "Transpose()"],
        ["rule", "Rename('h/{i}/w', 'layers/{i}/kernel', Transpose())"],
        ["source", 0, 0, "h/3/w", "float16[3,4]"],
        ["spec", "float32[4,3]"],
    ]


def test_a_lock_is_the_same_wherever_the_checkpoint_lies(tmp_path: Path) -> None:
    locks = []
    for folder in ("here", "there"):
        treeload.save(tmp_path / folder / "ckpt", {"w": np.ones(3, np.float32), "n": 3})
        made = treeload.plan({"w": jnp.zeros(3), "n": 0}, tmp_path / folder / "ckpt")
        made.lock(tmp_path / folder / "deep" / "model.lock")
        locks.append((tmp_path / folder / "deep" / "model.lock").read_bytes())
    assert locks[0] == locks[1] and os.fsencode(tmp_path) not in locks[0]
    assert b'["w", "digest", 0, "w", "' in locks[0]


def test_another_checkpoint_of_the_same_names_is_told_by_its_digests(tmp_path: Path) -> None:
    dst = {"w": jnp.zeros(3), "v": jnp.zeros(2)}
    for name, number in (("one", 1), ("two", 2)):
        value = np.full(3, number, np.float32)
        treeload.save(tmp_path / name, {"w": value, "v": np.ones(2, np.float32)})
    treeload.plan(dst, tmp_path / "one").lock(tmp_path / "lock")
    check_lock(treeload.plan(dst, tmp_path / "one"), tmp_path / "lock")
    found = differences(treeload.plan(dst, tmp_path / "two"), tmp_path / "lock")
    assert set(found) == {("w", "digest")}


def test_the_digest_of_a_tied_leaf_is_found_under_its_other_name(tmp_path: Path) -> None:
    shared = jnp.ones(3)
    treeload.save(tmp_path / "ckpt", {"a": shared, "b": shared})
    treeload.plan({"a": jnp.zeros(3), "b": jnp.zeros(3)}, tmp_path / "ckpt").lock(tmp_path / "lock")
    assert b'["b", "digest"' in (tmp_path / "lock").read_bytes()


def test_a_lock_holds_the_digests_that_lie_beside_a_foreign_checkpoint(tmp_path: Path) -> None:
    dst = {"w": jnp.zeros(3), "v": jnp.zeros(2)}
    for name, number in (("one", 1), ("two", 2)):
        path = tmp_path / f"{name}.safetensors"
        save_file({"w": np.full(3, number, np.float32), "v": np.ones(2, np.float32)}, path)
        treeload.digest(path)
    treeload.plan(dst, tmp_path / "one.safetensors").lock(tmp_path / "lock")
    found = differences(treeload.plan(dst, tmp_path / "two.safetensors"), tmp_path / "lock")
    assert set(found) == {("w", "digest")}


def changed(what: str) -> Plan:
    if what == "spec":
        return plan(destination(width=5))
    if what == "gone":
        return plan(destination(layers=11), policy=Policy(unexpected="ignore"))
    if what == "new":
        return plan({**destination(), "extra": 1}, policy=Policy(missing={"extra": "keep"}))
    if what == "rule":
        return plan(rules=(*RULES, Rename("head", "head", Apply(jnp.negative))))
    if what == "kept":
        src = {name: value for name, value in source().items() if name != "head"}
        return plan(src=src, policy=Policy(missing={"head": "keep"}))
    if what == "unused":
        return plan(src={**source(), "x": np.ones(2)}, policy=Policy(unexpected="ignore"))
    if what == "tied":
        return plan({**(made := destination()), "tail": made["head"]})
    assert what == "cast"
    return plan(policy=Policy(casting="unsafe"))


@pytest.mark.parametrize(
    ("what", "expected"),
    [
        (
            "spec",
            {("layers/0/kernel", "spec"), ("layers/0/kernel", "problem"), ("layers/0/kernel", "action")},
        ),
        ("gone", {("layers/11/kernel", "action"), ("layers/11/bias", "unused")}),
        ("new", {("extra", "leaf")}),
        ("rule", {("head", "rule"), ("head", "op")}),
        ("kept", {("head", "action"), ("head", "source")}),
        ("unused", {("x", "leaf")}),
        ("tied", {("head", "alias")}),
        ("cast", {("layers/0/bias", "cast")}),
    ],
)
def test_each_change_of_what_would_load_is_found(
    locked: Path, what: str, expected: set[tuple[str, str]]
) -> None:
    assert expected <= set(differences(changed(what), locked))


def test_what_is_found_has_both_sides(locked: Path) -> None:
    found = differences(changed("rule"), locked)
    assert found["head", "op"] == ((), ((0, "Apply(negative)"),))
    assert found["head", "rule"] == ((), (("Rename('head', 'head', Apply(negative))",),))


def test_the_text_groups_what_differs_in_the_same_way(locked: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(locked.parent)
    made = plan({**destination(), "extra": 1}, policy=Policy(missing={"extra": "keep"}, casting="unsafe"))
    with pytest.raises(LockError) as raised:
        check_lock(made, "model.lock")
    assert str(raised.value) == (
        "the plan is not what 'model.lock' holds: 25 differences\n\n"
        "  leaf         extra\n"
        "                 locked  nothing\n"
        "                 now     keep, int64[]\n"
        "  cast         layers/{0..11}/{bias,kernel} ×24\n"
        "                 locked  error\n"
        "                 now     cast\n\n"
        "If this is meant: plan.lock('model.lock')"
    )


def test_a_long_text_is_cut_and_the_differences_are_not(tmp_path: Path) -> None:
    dst = {"x" * n: jnp.zeros(n) for n in range(1, 61)}
    treeload.plan(dst, dst).lock(tmp_path / "lock")
    other = {name: jnp.zeros((1, *value.shape)) for name, value in dst.items()}
    with pytest.raises(LockError) as raised:
        check_lock(treeload.plan(other, other), tmp_path / "lock")
    assert len(raised.value.differences) == 120
    assert "and 80 more; .differences has them all" in str(raised.value)


def test_a_lock_error_that_crosses_a_process_keeps_its_differences(locked: Path) -> None:
    with pytest.raises(LockError) as raised:
        check_lock(changed("rule"), locked)
    again = pickle.loads(pickle.dumps(raised.value))
    assert type(again) is LockError and str(again) == str(raised.value)
    assert again.differences == raised.value.differences and again.differences


# What cannot be locked.


def test_what_would_not_load_is_not_locked(tmp_path: Path) -> None:
    with pytest.raises(treeload.LoadError, match="1 problem"):
        treeload.plan({"w": jnp.zeros(2)}, {"w": jnp.zeros(3)}).lock(tmp_path / "lock")
    assert not (tmp_path / "lock").exists()


def test_an_abstract_leaf_that_init_will_make_can_be_locked(tmp_path: Path) -> None:
    dst = {"w": jax.ShapeDtypeStruct((2,), np.float32), "head": jax.ShapeDtypeStruct((3,), np.float32)}
    made = treeload.plan(dst, {"w": jnp.ones(2)}, policy=Policy(missing={"head": "keep"}))
    assert not made.ok
    made.lock(tmp_path / "lock")
    check_lock(made, tmp_path / "lock")


@pytest.mark.parametrize("held", [b"", b"import jax\n", FIRST[:-1]])
def test_what_is_no_lock_is_never_replaced(tmp_path: Path, held: bytes) -> None:
    path = tmp_path / "model.py"
    path.write_bytes(held)
    with pytest.raises(SaveError, match="is no lock of treeload"):
        plan().lock(path)
    assert path.read_bytes() == held


def test_a_lock_is_replaced_as_a_whole_and_leaves_nothing_beside_it(locked: Path) -> None:
    changed("cast").lock(locked)
    check_lock(changed("cast"), locked)
    assert os.listdir(locked.parent) == [locked.name]


def test_a_lock_that_cannot_be_written_is_a_save_error_and_the_old_one_stays(
    locked: Path, monkeypatch: Any
) -> None:
    before = locked.read_bytes()
    monkeypatch.setattr(os, "replace", functools.partial(_refuse, OSError(28, "No space left on device")))
    with pytest.raises(SaveError, match="could not be written: .*No space left"):
        changed("cast").lock(locked)
    assert locked.read_bytes() == before and os.listdir(locked.parent) == [locked.name]


def _refuse(error: Exception, *arguments: Any) -> None:
    raise error


# What is no lock.


def test_where_there_is_no_lock_it_is_said_how_one_is_made(tmp_path: Path) -> None:
    with pytest.raises(LockError, match="does not exist; plan.lock.path. writes one") as raised:
        check_lock(plan(), tmp_path / "model.lock")
    assert raised.value.differences == ()


def test_what_is_no_plan_is_a_type_error(locked: Path) -> None:
    with pytest.raises(TypeError, match="takes a Plan first, not a dict"):
        check_lock({}, locked)  # type: ignore[arg-type]


def pipe(path: Path) -> None:
    os.mkfifo(path)


@pytest.mark.parametrize("make", [pipe, Path.mkdir], ids=["pipe", "directory"])
def test_nothing_but_a_file_is_read(tmp_path: Path, make: Callable[[Path], None]) -> None:
    make(tmp_path / "lock")
    with pytest.raises(LockError, match="not a file"):
        check_lock(plan(), tmp_path / "lock")


def test_a_lock_of_unbelievable_size_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "lock").open("wb") as file:
        file.write(FIRST)
        file.truncate((64 << 20) + 1)
    with pytest.raises(LockError, match="67,108,865 bytes, and 67,108,864 are plenty"):
        check_lock(plan(), tmp_path / "lock")


@pytest.mark.parametrize(
    ("held", "why"),
    [
        (b"", "does not begin with"),
        (b'{"treeload lock": 2}\n', "no lock that this treeload reads"),
        (FIRST[:-1], "was cut short"),
        (FIRST + b'["a", "action", "load"]', "was cut short"),
        (FIRST + b"\n", "line 2 is no fact"),
        (FIRST + b"[\n", "line 2 is no fact"),
        (FIRST + b"[" * 10_000 + b"\n", "line 2 is no fact: nested too deeply"),
        (FIRST + b'["a", "action"]\n', "is no array of a name"),
        (FIRST + b'{"a": "action"}\n', "is no array of a name"),
        (FIRST + b'["a", "action", null]\n', "is no array of a name"),
        (FIRST + b'["a", "action", true]\n', "is no array of a name"),
        (FIRST + b'["a", "action", NaN]\n', "NaN is not JSON"),
        (FIRST + b'["a", "colour", "red"]\n', "'colour' is nothing that is said of a leaf"),
        (FIRST + b'["a", 1, "red"]\n', "'1' is nothing that is said of a leaf"),
        (FIRST + b'["a", "action", 1]\n', "has not the values that are said of 'action'"),
        (FIRST + b'["a", "source", 0, 0, "w"]\n', "has not the values that are said of 'source'"),
        (FIRST + b'["a//b", "action", "load"]\n', "has an empty segment"),
        (FIRST + b'[1, "action", "load"]\n', "'1' is no name"),
        (FIRST + b'["a", "alias", "\\u001b[31m"]\n', r"'\\x1b\[31m' is no name"),
        (FIRST + b'["a", "action", "\xff"]\n', "can't decode byte"),
        (FIRST + b'["' + b"a" * 70_000 + b'", "action", "load"]\n', "70,022 bytes"),
        (FIRST + b'["b", "action", "load"]\n["a", "action", "load"]\n', "line 3 is not in order"),
        (FIRST + b'["b", "action", "load"]\n["b", "action", "load"]\n', "line 3 is not in order"),
    ],
    ids=lambda each: None if isinstance(each, str) else str(len(each)),
)
def test_a_damaged_lock_is_said_to_be_one(tmp_path: Path, held: bytes, why: str) -> None:
    (tmp_path / "lock").write_bytes(held)
    with pytest.raises(LockError, match=f"cannot be compared with: .*{why}") as raised:
        check_lock(plan(), tmp_path / "lock")
    assert raised.value.differences == () and len(str(raised.value)) < 1000


def test_any_flipped_bit_of_a_lock_is_found(locked: Path) -> None:
    whole = locked.read_bytes()
    made = plan()
    for at in range(0, len(whole), 37):
        locked.write_bytes(whole[:at] + bytes([whole[at] ^ (1 << at % 8)]) + whole[at + 1 :])
        with pytest.raises(LockError):
            check_lock(made, locked)


def test_nothing_in_a_lock_acts_on_a_terminal(tmp_path: Path) -> None:
    (tmp_path / "lock").write_bytes(FIRST + b'["head", "rule", "\\u001b]0;x\\u0007\\u202e\\ud800"]\n')
    with pytest.raises(LockError) as raised:
        check_lock(plan(), tmp_path / "lock")
    assert str(raised.value).replace("\n", "").isprintable() and r"\x1b]0;x\x07\u202e" in str(raised.value)


def test_every_fact_is_said_of_some_plan(tmp_path: Path, locked: Path) -> None:
    lone: Any = treeload.plan([jnp.zeros(2)], From([jnp.ones(2)], by_position=True))
    lone.lock(tmp_path / "lone")
    held = (tmp_path / "lone").read_bytes() + locked.read_bytes()
    for each in (changed("tied"), changed("unused")):
        each.lock(tmp_path / "other")
        held += (tmp_path / "other").read_bytes()
    treeload.save(tmp_path / "ckpt", {"w": jnp.ones(2)})
    treeload.plan({"w": jnp.ones(2)}, tmp_path / "ckpt").lock(tmp_path / "other")
    held += (tmp_path / "other").read_bytes()
    assert {what for what in FACTS if f'", "{what}", '.encode() in held} == set(FACTS) - {"problem"}


class Plain(treeload.Op):
    """An op whose author wrote no ``__repr__``."""

    def infer(self, *specs: Any) -> Any:
        return specs[0]

    def apply(self, *arrays: Any) -> Any:
        return arrays[0]


@pytest.mark.parametrize(
    "op",
    [Plain(), Apply(functools.partial(jnp.add, 1)), Apply(Plain().apply)],
    ids=["plain", "partial", "method"],
)
def test_no_address_is_in_a_lock(tmp_path: Path, op: Any) -> None:
    treeload.plan({"w": jnp.zeros(2)}, {"w": jnp.ones(2)}, rules=Rename("{*r}", "{*r}", op)).lock(
        tmp_path / "lock"
    )
    (said,) = [line for line in (tmp_path / "lock").read_text().splitlines() if '"op"' in line]
    assert " at 0x" not in said
