"""A load or an update that is ended early, wherever that is, changes nothing and leaves nothing behind (E7).

Faults are put in two ways. By place: at each call of what reads, checks, casts, places and assigns, an error
or an interrupt. By line: at each line of treeload that an update runs, an interrupt, as Ctrl-C may come at
any of them; only then may the values be all new, where it came after the last of them was set.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import sys
import tempfile
import threading
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx, serialization

import treeload
from treeload import Policy, Rename, Stack
from treeload._files import frames, interrupts
from treeload._formats.orbax.arrays import Reading
from treeload._loading import deliver, gather, overflow
from treeload._plans import check
from treeload._sources.memory import MemorySource
from treeload._trees import rebuild

ROOM = os.path.dirname(treeload.__file__)
SEED = 20261127


def hook(variable: Any, value: Any) -> Any:
    raise AssertionError("a load runs no hooks")


class Model(nnx.Module):
    """Every way in which values are put into a Module: Variables, a Ref, attributes, a list of them."""

    def __init__(self, start: float) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # hooks are on their way out of Flax, and still in models
            self.w = nnx.Param(jnp.full((2, 3), start), on_set_value=hook, mine="kept")
        self.half = nnx.Param(jnp.full(3, start, jnp.bfloat16))
        self.tied = self.w
        self.raw = nnx.data(jnp.full(2, start))
        self.host = nnx.data(np.full(2, start, np.float32))
        self.layers = nnx.List([nnx.Param(jnp.full(1, start)) for _ in range(2)])
        self.stack = nnx.Param(jnp.full((2, 2), start))
        self.bias = nnx.Param(jnp.full(2, start))
        self.count = nnx.Variable(jnp.int32(start))
        self.box = nnx.data({"a": jnp.full(1, start)})


RULES = [Stack("rows/{i}", "stack"), Rename("first", "w")]
POLICY = Policy(absent_is_zero=("bias", "gone"))


def checkpoint() -> dict[str, Any]:
    return {
        "first": np.full((2, 3), 7, np.float32), "half": np.full(3, 7, np.float32),
        "raw": np.full(2, 7, np.float32), "host": np.full(2, 7, np.float32),
        "layers": [np.full(1, 7, np.float32), np.full(1, 7, np.float32)],
        "rows": {"0": np.full(2, 7, np.float32), "1": np.full(2, 7, np.float32)},
        "count": np.int32(7), "gone": np.zeros(3, np.float32), "box": {"a": np.full(1, 7, np.float32)},
    }  # fmt: skip


@pytest.fixture(autouse=True)
def own_temporary_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The machine's own is others' too, who come and go there."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


@pytest.fixture(scope="module", params=["memory", "orbax", "safetensors", "msgpack"])
def src(request: Any, tmp_path_factory: Any) -> Any:
    path: Path = tmp_path_factory.mktemp("checkpoints") / request.param
    if request.param == "memory":
        return checkpoint()
    if request.param == "orbax":
        treeload.save(path, checkpoint())
    elif request.param == "safetensors":
        path = path.with_suffix(".safetensors")
        treeload.export(path, checkpoint())
    else:
        path = path.with_suffix(".msgpack")
        path.write_bytes(serialization.to_bytes(checkpoint()))
    return path


def facts(model: Any) -> list[Any]:
    """All there is of a model, bit for bit: values and which objects they are, metadata, attributes."""
    found: list[Any] = []
    for path, node in nnx.iter_graph(model):
        if isinstance(node, nnx.Variable):
            raw = node.get_raw_value()
            found.append((path, id(node), id(raw), np.asarray(raw).tobytes(), dict(node.get_metadata())))
        elif isinstance(node, nnx.Module):
            held = {key: id(value) for key, value in vars(node).items()}
            found.append((path, id(node), held, dict(node._pytree__nodes)))
        elif isinstance(node, (jax.Array, np.ndarray)):
            found.append((path, id(node), np.asarray(node).tobytes()))
    return found


def values(model: Any) -> list[Any]:
    return [np.asarray(each).ravel().tolist() for each in jax.tree.leaves(nnx.state(model))]


def left_behind() -> tuple[Any, ...]:
    """Threads of ours, open files, temporary files."""
    threads = sorted(each.name for each in threading.enumerate() if "treeload" in each.name)
    handles = sorted(os.readlink(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd") if _is_open(fd))
    files = [each for each in handles if each.startswith("/") and not each.startswith(("/proc", "/dev"))]
    return threads, files, sorted(os.listdir(tempfile.gettempdir()))


def _is_open(fd: str) -> bool:
    return os.path.islink(f"/proc/self/fd/{fd}")


class Tripwire:
    """Counts the calls of some functions, and raises at one of them, once."""

    def __init__(self, at: int, error: BaseException) -> None:
        self.left, self.error, self.tripped = at, error, False

    def pull(self) -> None:
        if self.left == 0 and not self.tripped:
            self.tripped = True
            raise self.error
        self.left -= 1

    def around(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, with the wire before each call and behind it."""

        def wired(*arguments: Any, **named: Any) -> Any:
            self.pull()
            result = function(*arguments, **named)
            self.pull()
            return result

        return wired


READS = [
    (os, "preadv"),
    (Reading, "place"),
    (gather, "read_all"),
    (frames._Unpacker, "array"),
    (MemorySource, "take"),
]
CHECKS = [(check.ZeroCheck, "failure"), (check.EqualCheck, "failure"), (overflow.Overflows, "found")]
CASTS = [(deliver, "cast"), (deliver, "evaluate")]
PLACES = [(deliver, "to_device"), (deliver, "to_default_device"), (deliver, "to_host"), (jax, "device_put")]
ASSIGNS = [(nnx.Variable, "set_raw_value"), (nnx.Module, "__setattr__"), (rebuild._Builder, "set_attribute")]
WIRED: dict[str, list[tuple[Any, str]]] = {
    "read": READS,
    "check": CHECKS,
    "cast": CASTS,
    "place": PLACES,
    "assign": ASSIGNS,
}


@pytest.mark.parametrize("place", WIRED)
@pytest.mark.parametrize("error", [KeyboardInterrupt("now"), MemoryError("no"), RuntimeError("no")], ids=repr)
@pytest.mark.parametrize("verb", ["load", "update"])
def test_a_fault_at_any_call_leaves_all_as_before(
    src: Any, place: str, error: BaseException, verb: str, monkeypatch: Any
) -> None:
    model = Model(1.0)
    before, around = facts(model), left_behind()
    count = 0
    for at in range(1000):
        wire = Tripwire(at, error)
        with monkeypatch.context() as patched:
            for owner, name in WIRED[place]:
                patched.setattr(owner, name, wire.around(getattr(owner, name)))
            ended = ended_by(lambda: getattr(treeload, verb)(model, src, rules=RULES, policy=POLICY))
        if not wire.tripped:
            assert ended is None
            break
        assert isinstance(ended, (treeload.TreeloadError, type(error))), ended
        assert isinstance(error, Exception) or ended is error
        assert facts(model) == before, f"{place} {at}"
        count += 1
    assert count >= 1 or (place, verb) == ("assign", "load")
    assert left_behind() == around


def ended_by(run: Callable[[], Any]) -> BaseException | None:
    try:
        run()
    except BaseException as error:  # noqa: BLE001  # that is what is asked
        return error.with_traceback(None)
    return None


def lines(run: Callable[[], Any], at: int, error: BaseException | None) -> int:
    """Runs, and raises at one line of treeload; how many were run."""
    count = 0

    def trace(frame: FrameType, event: str, argument: Any) -> Any:
        nonlocal count
        where = frame.f_code.co_filename
        if not where.startswith(ROOM) or where == interrupts.__file__:  # where no signal's handler can run
            return None
        if event == "line":
            count += 1
            if count == at and error is not None:
                sys.settrace(None)
                raise error
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        run()
    finally:
        sys.settrace(before)
    return count


def check_lines(src: Any, chosen: Callable[[int], Iterator[int]]) -> int:
    def once(model: Any) -> Callable[[], Any]:
        return lambda: treeload.update(model, src, rules=RULES, policy=POLICY, progress=False)

    once(Model(1.0))()  # whatever is made once for all has been made
    whole = Model(1.0)
    total = lines(once(whole), -1, None)
    new = values(whole)
    around = left_behind()
    tried = 0
    for at in chosen(total):
        model = Model(1.0)
        before = facts(model)
        with contextlib.suppress(KeyboardInterrupt):
            lines(once(model), at, KeyboardInterrupt("now"))
        assert facts(model) == before or values(model) == new, f"line {at} of {total} left half of it"
        tried += 1
    assert left_behind() == around
    return tried


def test_an_interrupt_at_any_line_leaves_all_old_or_all_new(src: Any) -> None:
    rng = random.Random(SEED)
    # The last lines are those that assign.
    assert (
        check_lines(
            src, lambda total: iter([*rng.sample(range(1, total), 25), *range(total - 260, total, 4)])
        )
        == 90
    )


class Interrupting(nnx.Param[Any]):
    """A Param that is interrupted by a real signal as it takes its value."""

    def set_raw_value(self, value: Any, **how: Any) -> None:
        signal.raise_signal(signal.SIGINT)
        super().set_raw_value(value, **how)


def test_ctrl_c_while_values_are_put_in_comes_when_all_of_them_are() -> None:
    model = nnx.List([nnx.Param(jnp.zeros(2)), Interrupting(jnp.zeros(2)), nnx.Param(jnp.zeros(2))])
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        treeload.update(model, {str(at): jnp.ones(2) for at in range(3)}, progress=False)
    assert all(np.all(leaf == 1) for leaf in jax.tree.leaves(nnx.state(model)))
    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.slow
def test_an_interrupt_at_every_line_leaves_all_old_or_all_new(src: Any) -> None:
    tried = check_lines(src, lambda total: iter(range(1, total, 3)))
    sys.stdout.write(f"\n{tried:,} lines, 0 left half\n")
