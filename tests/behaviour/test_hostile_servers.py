"""A server that does harm: only a ``SourceError``, soon, and in little memory.

Each answers whatever it is asked with bytes of its own. What is slow in them is slow without end. Patience is
shorter here than outside of tests, but where it says that it is as it is.
"""

from __future__ import annotations

import itertools
import socket
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import numpy as np
import pytest

import treeload
from treeload import From, SourceError
from treeload._files import patience

MOST_SECONDS, MOST_BYTES = 5.0, 500 << 20


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        patience, "PATIENCE", patience.Patience(connect=1, answer=0.3, slowest=4096, tries=3, pause=0.001)
    )
    monkeypatch.setenv("no_proxy", "*")


PATIENCE = patience.PATIENCE


@pytest.fixture(autouse=True, scope="module")
def _imported() -> None:
    """What is imported when it is needed first is not what a server makes slow."""
    treeload.load({"w": np.ones(2)}, {"w": np.ones(2)})
    with pytest.raises(SourceError):
        treeload.open("there-is-none.safetensors")


@contextmanager
def answering(answers: Callable[[str], Iterable[bytes]]) -> Iterator[str]:
    """The URL of a server that answers each request, of which it sees the head, with these bytes."""
    listener = socket.create_server(("127.0.0.1", 0))
    over = threading.Event()

    def serve(connection: socket.socket) -> None:
        with connection:
            try:
                while head := connection.recv(65536):
                    for part in answers(head.decode("latin-1")):
                        if over.is_set():
                            return
                        connection.sendall(part)
            except OSError:
                pass

    def accept() -> None:
        while not over.is_set():
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=serve, args=(connection,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/w.safetensors"
    finally:
        over.set()
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()


def slowly(content: bytes) -> Iterator[bytes]:
    for at in range(len(content)):
        time.sleep(0.05)
        yield content[at : at + 1]


def endless(part: bytes) -> Iterator[bytes]:
    return itertools.repeat(part)


def good(head: str, size: int = 1 << 40, first: bytes = b"") -> list[bytes]:
    """What a server answers that has a file of ``size``, which begins with ``first``; the rest are zeros."""
    start, stop = (int(each) for each in head.partition("bytes=")[2].partition("\r")[0].split("-"))
    stop = min(stop + 1, size)
    body = first[start:stop] + bytes(max(stop - max(start, len(first)), 0))
    return [
        f"HTTP/1.1 206 X\r\nContent-Range: bytes {start}-{stop - 1}/{size}\r\n"
        f"Content-Length: {stop - start}\r\n\r\n".encode(),
        body,
    ]


def part(said: str, body: bytes = b"x" * 64, more: str = "") -> Callable[[str], Iterable[bytes]]:
    head = f"HTTP/1.1 206 X\r\nContent-Range: {said}\r\nContent-Length: {len(body)}\r\n{more}\r\n".encode()
    return lambda request: [head, body]


_OK = b"HTTP/1.1 200 X\r\n"
_PART = b"HTTP/1.1 206 X\r\nContent-Range: bytes 0-63/1000000\r\n"

HOSTILE: dict[str, Callable[[str], Iterable[bytes]]] = {
    "says-nothing": lambda head: slowly(b""),
    "hangs-up": lambda head: [],
    "is-no-web-server": lambda head: [b"SSH-2.0-OpenSSH_9.6\r\n" * 100],
    "endless-garbage": lambda head: endless(b"x" * 65536),
    "endless-heads": lambda head: itertools.chain([_OK], endless(b"X-A: b\r\n" * 1000)),
    "one-endless-head": lambda head: itertools.chain([_OK, b"X-A: "], endless(b"b" * 65536)),
    "endless-continues": lambda head: endless(b"HTTP/1.1 100 Continue\r\n\r\n" * 100),
    "a-head-that-drips": lambda head: slowly(_PART + b"X: y\r\n" * 1000),
    "a-body-that-drips": lambda head: itertools.chain(
        [_PART, b"Content-Length: 64\r\n\r\n"], slowly(b"x" * 64)
    ),
    "an-endless-body": lambda head: itertools.chain([_OK, b"\r\n"], endless(b"x" * 65536)),
    "an-endless-part": lambda head: itertools.chain(
        [_PART, b"Transfer-Encoding: chunked\r\n\r\n"], endless(b"1;" + b"a" * 60000 + b"\r\nx\r\n")
    ),
    "more-than-was-asked": lambda head: itertools.chain(
        [_PART, b"Content-Length: 99999999999\r\n\r\n"], endless(b"x" * 65536)
    ),
    "an-absurd-length": lambda head: [_OK + b"Content-Length: 99999999999999999999999999\r\n\r\n"],
    "a-length-below-zero": lambda head: [_PART + b"Content-Length: -5\r\n\r\n", b"x" * 64],
    "no-content-range": lambda head: [b"HTTP/1.1 206 X\r\nContent-Length: 64\r\n\r\n", b"x" * 64],
    "another-range": part("bytes 64-127/1000000"),
    "a-range-behind-the-end": part("bytes 0-63/10"),
    "a-range-backwards": part("bytes 63-0/1000000"),
    "several-ranges": part("bytes 0-63/1000000", more="Content-Type: multipart/byteranges; boundary=a\r\n"),
    "a-size-that-is-not-known": part("bytes 0-63/*"),
    "a-size-of-many-digits": part("bytes 0-63/" + "9" * 60000),
    "a-part-that-is-shorter": lambda head: [_PART + b"Content-Length: 10\r\n\r\n", b"x" * 10],
    "compressed": part("bytes 0-63/1000000", more="Content-Encoding: gzip\r\n"),
    "416": lambda head: [b"HTTP/1.1 416 X\r\nContent-Length: 0\r\n\r\n"],
    "416-of-something": lambda head: [
        b"HTTP/1.1 416 X\r\nContent-Range: bytes */999\r\nContent-Length: 0\r\n\r\n"
    ],
    "304": lambda head: [b"HTTP/1.1 304 X\r\n\r\n"],
    "999": lambda head: [b"HTTP/1.1 999 X\r\nContent-Length: 0\r\n\r\n"],
    "wait-for-a-year": lambda head: [b"HTTP/1.1 503 X\r\nRetry-After: 31536000\r\nContent-Length: 0\r\n\r\n"],
    "round-in-circles": lambda head: [b"HTTP/1.1 302 X\r\nLocation: /x\r\nContent-Length: 0\r\n\r\n"],
    "to-a-file": lambda head: [
        b"HTTP/1.1 302 X\r\nLocation: file:///etc/passwd\r\nContent-Length: 0\r\n\r\n"
    ],
    "to-line-breaks": lambda head: [
        b"HTTP/1.1 302 X\r\nLocation: http://127.0.0.1:1/a b\xff\x01\r\nContent-Length: 0\r\n\r\n"
    ],
    "a-terabyte-of-zeros": good,
    "a-header-of-100-megabytes": lambda head: good(
        head, first=(99_999_999).to_bytes(8, "little") + b"{" * 60
    ),
    "one-byte-at-a-time": lambda head: [
        b"".join(good(head, first=(99_999).to_bytes(8, "little") + b"{" * 60)).partition(b"{")[0]
    ],
}


@pytest.mark.parametrize("name", list(HOSTILE))
@pytest.mark.parametrize("whole", [False, True], ids=["parts", "whole"])
def test_a_hostile_server_is_an_error_soon_and_takes_little_memory(name: str, whole: bool) -> None:
    tracemalloc.start()
    begun = time.monotonic()
    try:
        with answering(HOSTILE[name]) as url, pytest.raises(SourceError) as error:
            treeload.load({"w": np.ones(2)}, From(url, whole=whole))
        assert time.monotonic() - begun < MOST_SECONDS
        assert tracemalloc.get_traced_memory()[1] < MOST_BYTES
    finally:
        tracemalloc.stop()
    assert str(error.value).isprintable() or "\n" in str(error.value)
    assert len(str(error.value)) < 2000


def first_then(rest: Callable[[str], Iterable[bytes]]) -> Callable[[str], Iterable[bytes]]:
    """A server that gives the first bytes of a file, and then does as ``rest``."""
    first = (60_000).to_bytes(8, "little") + b"{" * 56
    return lambda head: good(head, 1 << 20, first) if "bytes=0-63" in head else rest(head)


SLOW: dict[str, Callable[[str], Iterable[bytes]]] = {
    "says-nothing": HOSTILE["says-nothing"],
    "a-head-that-drips": HOSTILE["a-head-that-drips"],
    "a-body-that-drips": HOSTILE["a-body-that-drips"],
    "hangs-up": HOSTILE["hangs-up"],
    "wait-for-a-year": HOSTILE["wait-for-a-year"],
    "says-nothing-more": first_then(lambda head: slowly(b"")),
    "drips-then": first_then(lambda head: itertools.chain(good(head, 1 << 20)[:1], slowly(b"x" * 60_000))),
}


_QUICK = ("says-nothing", "says-nothing-more")


@pytest.mark.parametrize(
    "name", [name if name in _QUICK else pytest.param(name, marks=pytest.mark.slow) for name in SLOW]
)
def test_a_slow_server_that_has_sent_little_is_given_up_in_five_seconds(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(patience, "PATIENCE", PATIENCE)
    begun = time.monotonic()
    with answering(SLOW[name]) as url, pytest.raises(SourceError, match=r"after \d tr"):
        treeload.open(url)
    assert time.monotonic() - begun < MOST_SECONDS


def test_a_server_that_has_recovered_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of one source: what it had lagged behind before somebody tried anew is forgotten."""
    monkeypatch.setattr(
        patience, "PATIENCE", patience.Patience(answer=0.3, stranger=0.4, tries=2, pause=0.001)
    )
    monkeypatch.setattr("treeload._files.web._ANEW", 0.2)
    header = b'{"w":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}'
    content = len(header).to_bytes(8, "little") + header + np.arange(2, dtype=np.float32).tobytes()
    is_down = threading.Event()

    def answer(head: str) -> Iterable[bytes]:
        if is_down.is_set():
            time.sleep(0.5)
            return []
        if ".digests.json" in head:
            return [b"HTTP/1.1 404 X\r\nContent-Length: 0\r\n\r\n"]
        return good(head, len(content), content)

    with answering(answer) as url:
        plan = treeload.plan({"w": np.zeros(2, np.float32)}, url)
        is_down.set()
        with pytest.raises(SourceError):
            plan.load()
        is_down.clear()
        time.sleep(0.3)
        assert plan.load()["w"].tolist() == [0, 1]


@pytest.mark.parametrize(
    "said", ["0-{n}", "65-{m}", "64-200", "64-65"], ids=["first", "next", "more", "less"]
)
def test_a_server_that_is_honest_once_and_then_gives_another_range_is_noticed(said: str) -> None:
    def answer(head: str) -> Iterable[bytes]:
        size = 1000
        start = int(head.partition("bytes=")[2].partition("-")[0])
        if start == 0:
            return good(head, size, (500).to_bytes(8, "little") + b"{" + b" " * 500)
        numbers = said.format(n=size - 65, m=size - 1)
        first, last = map(int, numbers.split("-"))
        body = b" " * (last - first + 1)
        return part(f"bytes {numbers}/{size}", body)(head)

    with answering(answer) as url, pytest.raises(SourceError, match=r"does not fit|sent less than was asked"):
        treeload.open(url)


def test_an_index_that_names_very_many_shards_is_refused_before_they_are_asked_for() -> None:
    asked: list[str] = []
    entries = ",".join(f'"{i}":"{i}.safetensors"' for i in range(2001))
    index = f'{{"weight_map":{{{entries}}}}}'.encode()

    def answer(head: str) -> Iterable[bytes]:
        asked.append(head)
        return good(head, len(index), index)

    with answering(answer) as url, pytest.raises(SourceError, match="2,001 files; of a server 2,000"):
        treeload.open(url + ".index.json")
    assert len(asked) < 10


def test_whole_takes_no_less_than_was_said() -> None:
    def half(request: str) -> Iterator[bytes]:
        yield _OK + b"Content-Length: 1000\r\n\r\n" + b"x" * 500
        raise ConnectionError("it hangs up")

    with answering(half) as url, pytest.raises(SourceError, match="broke off, after 3 tries"):
        treeload.load({"w": np.ones(2)}, From(url, whole=True))
