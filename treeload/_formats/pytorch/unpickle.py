"""A pickle as what it describes: the machine that pickles are written for, without its power to call.

Owns the opcodes. A pickle is a program; this runs it over descriptions (``described``). Globals are looked
up in one short list (``known``), and "call" means to ask that list what the call would make. What the
program may take is counted in bytes as it goes: values are charged for what they take here, so that neither
memory nor time grow with anything but the file. Nothing is hashed, compared or walked, so that what refers
to itself does no harm.

The opcodes: CPython's ``pickletools``. Protocols 0 to 5, without what only classes of a user's own need.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any, BinaryIO, TypeAlias

from treeload._formats.pytorch.described import Keyed, NumpyType, Other
from treeload._formats.pytorch.known import Known, known
from treeload._trees.collector import no_collections

Persistent: TypeAlias = Callable[[Any], Any]

BUDGET = 300 << 20
"""Bytes that the values of a pickle may take."""


_MOST_TEXT = 64 << 20  # bytes of one text


_MOST_LINE = 1 << 12  # bytes of a number or a name, as protocol 0 has them


_MOST_TEXT_LINE = 1 << 20


_MOST_DIGITS = 256  # bytes of an integer: seeds and states of generators take 16


def unpickled(stream: BinaryIO, persistent: Persistent, *, budget: int = BUDGET) -> Any:
    """What the pickle that begins where ``stream`` is describes; the stream is left behind it.

    Args:
        stream: the bytes.
        persistent: what a persistent id stands for, such as a storage.
        budget: how many bytes its values may take.

    Raises:
        ValueError: it is no pickle, takes too much, or names what is not known.
    """
    machine = _Machine(stream, persistent, budget)
    try:
        with no_collections():  # each would look through all that was made so far
            return machine.run()
    except IndexError:
        raise ValueError("its pickle takes values that it did not put there") from None
    except struct.error:
        raise ValueError("its pickle ends in the middle of a value") from None


class _Machine:
    """A stack, what lies below its marks, and a memo: as the pickle's writer thinks of it."""

    __slots__ = ("below", "left", "memo", "persistent", "read", "stack", "stream")

    def __init__(self, stream: BinaryIO, persistent: Persistent, budget: int) -> None:
        self.stream, self.persistent, self.left = stream, persistent, budget
        self.read = stream.read
        self.stack: list[Any] = []
        self.below: list[list[Any]] = []
        self.memo: dict[int, Any] = {}

    def run(self) -> Any:
        read = self.read
        while True:
            code = read(1)
            if not code:
                raise ValueError("its pickle has no end")
            if code == b".":
                return self.stack.pop()
            step = _STEPS.get(code)
            if step is None:
                raise ValueError(f"its pickle has the opcode 0x{code.hex()}, which PyTorch does not write")
            self.left -= _COSTS.get(code, 40)
            if self.left < 0:
                raise ValueError("its pickle is too large for a description of tensors")
            step(self)

    def take(self, count: int) -> bytes:
        """The next bytes, charged for before they are read."""
        if count > _MOST_TEXT:
            raise ValueError(f"its pickle has a text of {count:,} bytes")
        self.left -= count
        if self.left < 0:
            raise ValueError("its pickle is too large for a description of tensors")
        found = self.read(count)
        if len(found) < count:
            raise ValueError("its pickle ends in the middle of a value")
        return found

    def charge(self, count: int) -> None:
        """Takes off what is done with ``count`` values at once."""
        self.left -= 16 * count
        if self.left < 0:
            raise ValueError("its pickle is too large for a description of tensors")

    def number(self, form: str) -> Any:
        return struct.unpack(form, self.read(struct.calcsize(form)))[0]

    def line(self) -> str:
        return self.raw_line(_MOST_LINE).decode("utf-8")

    def raw_line(self, most: int) -> bytes:
        raw = self.stream.readline(most)
        if not raw.endswith(b"\n"):
            raise ValueError("its pickle has a line without an end")
        self.left -= len(raw)
        return raw[:-1]

    def since_mark(self) -> list[Any]:
        """What was put since the last mark, taken away with it."""
        found, self.stack = self.stack, self.below.pop()
        return found


# --- Values ------------------------------------------------------------------------------------------


def _put(value: Any) -> Callable[[_Machine], None]:
    return lambda m: m.stack.append(value)


def _make(make: Callable[[], Any]) -> Callable[[_Machine], None]:
    return lambda m: m.stack.append(make())


def _number(form: str) -> Callable[[_Machine], None]:
    return lambda m: m.stack.append(m.number(form))


def _long(form: str) -> Callable[[_Machine], None]:
    def step(m: _Machine) -> None:
        count = m.number(form)
        if not 0 <= count <= _MOST_DIGITS:
            raise ValueError(f"its pickle has an integer of {count:,} bytes")
        m.stack.append(int.from_bytes(m.take(count), "little", signed=True))

    return step


def _text(form: str) -> Callable[[_Machine], None]:
    return lambda m: m.stack.append(m.take(m.number(form)).decode("utf-8", "surrogatepass"))


def _bytes(form: str) -> Callable[[_Machine], None]:
    return lambda m: m.stack.append(m.take(m.number(form)))


def _old_text(form: str) -> Callable[[_Machine], None]:
    """Python 2's strings: what is UTF-8 is text, and what is not, characters of a byte each."""

    def step(m: _Machine) -> None:
        raw = m.take(_counted(m.number(form)))
        try:
            m.stack.append(raw.decode("utf-8"))
        except UnicodeDecodeError:
            m.stack.append(raw.decode("latin-1"))

    return step


def _counted(count: int) -> int:
    if count < 0:
        raise ValueError("its pickle has a text of less than nothing")
    return count


def _int_line(m: _Machine) -> None:
    line = m.line()
    m.stack.append({"00": False, "01": True}[line] if line in ("00", "01") else int(line))


def _long_line(m: _Machine) -> None:
    m.stack.append(int(m.line().removesuffix("L")))


def _float_line(m: _Machine) -> None:
    m.stack.append(float(m.line()))


def _text_line(m: _Machine) -> None:
    m.stack.append(m.raw_line(_MOST_TEXT_LINE).decode("raw-unicode-escape"))


# --- Containers --------------------------------------------------------------------------------------


def _mark(m: _Machine) -> None:
    m.below.append(m.stack)
    m.stack = []


def _tuple(m: _Machine) -> None:
    made = tuple(m.since_mark())
    m.stack.append(made)


def _tuple_of(count: int) -> Callable[[_Machine], None]:
    def step(m: _Machine) -> None:
        if len(m.stack) < count:
            raise IndexError
        m.stack[-count:] = [tuple(m.stack[-count:])]

    return step


def _list(m: _Machine) -> None:
    made = m.since_mark()
    m.stack.append(made)


def _dict(m: _Machine) -> None:
    found, made = m.since_mark(), Keyed()
    _fill(made, found)
    m.stack.append(made)


def _append(m: _Machine) -> None:
    value = m.stack.pop()
    _as_list(m.stack[-1]).append(value)


def _appends(m: _Machine) -> None:
    values = m.since_mark()
    _as_list(m.stack[-1]).extend(values)


def _as_list(value: Any) -> list[Any]:
    if type(value) is not list:
        raise ValueError("its pickle appends to what is no list")
    return value


def _setitem(m: _Machine) -> None:
    value, key = m.stack.pop(), m.stack.pop()
    _fill(m.stack[-1], [key, value])


def _setitems(m: _Machine) -> None:
    found = m.since_mark()
    _fill(m.stack[-1], found)


def _fill(made: Any, found: list[Any]) -> None:
    if type(made) is not Keyed or len(found) % 2:
        raise ValueError("its pickle puts items into what is no dict, or a key without a value")
    made.keys.extend(found[::2])
    made.values.extend(found[1::2])


def _additems(m: _Machine) -> None:
    m.since_mark()
    if type(m.stack[-1]) is not Other:
        raise ValueError("its pickle adds to what is no set")


def _frozenset(m: _Machine) -> None:
    m.since_mark()
    m.stack.append(Other("a set"))


# --- The memo and the stack --------------------------------------------------------------------------


def _memoize(m: _Machine) -> None:
    m.memo[len(m.memo)] = m.stack[-1]


def _memo_put(form: str) -> Callable[[_Machine], None]:
    def step(m: _Machine) -> None:
        m.memo[m.number(form)] = m.stack[-1]

    return step


def _memo_get(form: str) -> Callable[[_Machine], None]:
    return lambda m: m.stack.append(_remembered(m, m.number(form)))


def _memo_put_line(m: _Machine) -> None:
    m.memo[int(m.line())] = m.stack[-1]


def _memo_get_line(m: _Machine) -> None:
    m.stack.append(_remembered(m, int(m.line())))


def _remembered(m: _Machine, number: int) -> Any:
    if number not in m.memo:
        raise ValueError("its pickle refers to what it never made")
    return m.memo[number]


def _pop(m: _Machine) -> None:
    if m.stack:
        m.stack.pop()
    else:
        m.since_mark()


def _pop_mark(m: _Machine) -> None:
    m.since_mark()


def _dup(m: _Machine) -> None:
    m.stack.append(m.stack[-1])


def _skip(count: int) -> Callable[[_Machine], None]:
    def step(m: _Machine) -> None:
        m.take(count)

    return step


# --- What would call something -----------------------------------------------------------------------


def _global(m: _Machine) -> None:
    m.stack.append(known(m.line(), m.line()))


def _stack_global(m: _Machine) -> None:
    name, module = m.stack.pop(), m.stack.pop()
    if type(name) is not str or type(module) is not str:
        raise ValueError("its pickle names a global by what is no text")
    m.stack.append(known(module, name))


def _reduce(m: _Machine) -> None:
    arguments, called = m.stack.pop(), m.stack.pop()
    if type(called) is not Known or type(arguments) is not tuple:
        raise ValueError("its pickle calls what is no function")
    m.stack.append(_described(m, called, arguments))


def _newobj(m: _Machine) -> None:
    arguments, called = m.stack.pop(), m.stack.pop()
    if type(called) is not Known or not called.is_object or type(arguments) is not tuple:
        raise ValueError("its pickle makes an object of what is not known as a class")
    m.stack.append(_described(m, called, arguments))


def _described(m: _Machine, called: Known, arguments: tuple[Any, ...]) -> Any:
    m.charge(sum(map(_length, arguments)) + len(arguments))  # what is memoized may be given again and again
    try:
        return called.describe(arguments)
    except (TypeError, IndexError) as error:
        raise ValueError(f"its pickle gives {called.name} other arguments than it takes") from error
    except ValueError as error:
        if "unpack" in str(error):
            raise ValueError(f"its pickle gives {called.name} other arguments than it takes") from error
        raise


def _length(value: Any) -> int:
    if type(value) is Keyed:
        return len(value.keys)
    return len(value) if type(value) in (tuple, list, str, bytes) else 1


def _build(m: _Machine) -> None:
    """Attributes of an object: of a Namespace its items, of a NumPy dtype its order, of a dict nothing."""
    state = m.stack.pop()
    made = m.stack[-1]
    if type(made) is Keyed:
        if made.by_attributes:
            if type(state) is not Keyed:
                raise ValueError("its pickle has a Namespace without attributes")
            m.charge(4 * len(state.keys))
            _fill(made, [each for pair in zip(state.keys, state.values, strict=True) for each in pair])
    elif type(made) is NumpyType:
        order = state[1] if type(state) is tuple and len(state) > 1 else None
        if order not in ("<", ">", "=", "|"):
            raise ValueError("its pickle has a NumPy dtype of no order of bytes")
        made.order = order
    else:
        raise ValueError("its pickle sets attributes of what has none")


def _persistent(m: _Machine) -> None:
    m.stack.append(m.persistent(m.stack.pop()))


_STEPS: dict[bytes, Callable[[_Machine], None]] = {
    b"N": _put(None), b"\x88": _put(True), b"\x89": _put(False), b")": _put(()),
    b"K": _number("<B"), b"M": _number("<H"), b"J": _number("<i"), b"G": _number(">d"),
    b"\x8a": _long("<B"), b"\x8b": _long("<i"),
    b"X": _text("<I"), b"\x8c": _text("<B"), b"\x8d": _text("<Q"),
    b"B": _bytes("<I"), b"C": _bytes("<B"), b"\x8e": _bytes("<Q"),
    b"T": _old_text("<i"), b"U": _old_text("<B"),
    b"I": _int_line, b"L": _long_line, b"F": _float_line, b"V": _text_line,
    b"(": _mark, b"t": _tuple, b"\x85": _tuple_of(1), b"\x86": _tuple_of(2), b"\x87": _tuple_of(3),
    b"]": _make(list), b"l": _list, b"a": _append, b"e": _appends,
    b"}": _make(Keyed), b"d": _dict, b"s": _setitem, b"u": _setitems,
    b"\x8f": _put(Other("a set")), b"\x90": _additems, b"\x91": _frozenset,
    b"\x94": _memoize, b"q": _memo_put("<B"), b"r": _memo_put("<I"), b"p": _memo_put_line,
    b"h": _memo_get("<B"), b"j": _memo_get("<I"), b"g": _memo_get_line,
    b"0": _pop, b"1": _pop_mark, b"2": _dup, b"\x80": _skip(1), b"\x95": _skip(8),
    b"c": _global, b"\x93": _stack_global, b"R": _reduce, b"\x81": _newobj, b"b": _build, b"Q": _persistent,
}  # fmt: skip
"""Opcode → what it does."""


_COSTS = {
    **dict.fromkeys((b"X", b"\x8c", b"\x8d", b"V", b"T", b"U", b"B", b"C", b"\x8e"), 90),
    **dict.fromkeys((b"\x94", b"q", b"r", b"p"), 110),
    **dict.fromkeys((b"]", b"(", b"t", b"\x85", b"\x86", b"\x87", b"Q"), 120),
    **dict.fromkeys((b"}", b"d", b"R", b"\x81"), 260),
}
"""Opcode → bytes that it may take; 40 where it is none of these."""
