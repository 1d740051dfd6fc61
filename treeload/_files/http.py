"""One request to a web server and its answer, over the standard library: bounded in time and in bytes.

Owns connections, proxies and redirects. Refuses to own how long a server is waited for (``patience``), what
is asked for and what an answer means (``web``). A server is a stranger: it may send without end, or lead
elsewhere.

HTTP: RFC 9110 and 9112. Proxies are those of the environment, as ``urllib`` knows them.
"""

from __future__ import annotations

import atexit
import base64
import functools
import http.client
import io
import ipaddress
import os
import socket
import ssl
import threading
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from typing import Any, TypeAlias
from urllib.parse import SplitResult, quote, unquote, urljoin, urlsplit

from treeload._errors import SourceError
from treeload._files import patience
from treeload._files.patience import Stop, Waiting
from treeload._naming.printable import printable

Connection: TypeAlias = http.client.HTTPConnection


FAILURES = (OSError, http.client.HTTPException)
"""What may succeed when it is tried again."""


_MOST_HEAD = 256 << 10  # bytes of the head of an answer


_ALLOWED = "%/:?#[]@!$&'()*+,;=~"  # in the path and query of a URL, beside letters, digits and -._


_MOST_REDIRECTS = 5


_REDIRECTS = (301, 302, 303, 307, 308)


_IDLE_SECONDS = 15.0


_IDLE_MOST = 8  # connections that wait for the next request to one server


class Answer:
    """A server's answer: its head, and a body that is still to come.

    Attributes:
        status: the number that HTTP gives it.
        url: who gave it, after all redirects.
        length: bytes of the body as the server says; None where it does not.
    """

    def __init__(self, response: http.client.HTTPResponse, url: str) -> None:
        self.status, self.url, self.length = response.status, url, response.length
        self._response = response

    def header(self, name: str) -> str | None:
        return self._response.getheader(name)

    def allow(self, count: int) -> None:
        """The body may have ``count`` bytes, which take their time; whoever sends more is cut."""
        self._response.allow(count)  # type: ignore[attr-defined]  # ours

    def read_into(self, buffer: memoryview) -> int:
        """How many bytes of the body came into ``buffer``: 0 at its end."""
        return self._response.readinto(buffer)

    def is_complete(self) -> bool:
        return self._response.isclosed()


@contextmanager
def asked(url: str, headers: Mapping[str, str], stop: Stop, waiting: Waiting) -> Iterator[Answer]:
    """The answer to a GET, after redirects; its body is read within, or given up.

    Args:
        url: http or https.
        headers: sent along; ``Authorization`` to the first server alone.
        stop: cuts the connection, from another thread.
        waiting: how long.

    Raises:
        SourceError: a redirect that is not followed.
        OSError, http.client.HTTPException: what may succeed when it is tried again.
    """
    with ExitStack() as held:
        connection, response, final = _follow(url, headers, stop, waiting, held)
        is_whole = False
        try:
            yield Answer(response, final)
            is_whole = response.isclosed() or response.length == 0
        finally:
            response.close()
            held.close()  # from here on nobody cuts it
            if is_whole and not response.will_close:
                _keep(_key(urlsplit(final)), connection)
            else:
                connection.close()


def _follow(
    url: str, headers: Mapping[str, str], stop: Stop, waiting: Waiting, held: ExitStack
) -> tuple[Connection, http.client.HTTPResponse, str]:
    """The answer after all redirects, who gave it, and the connection on which it comes."""
    first, was_public = urlsplit(url), False
    for _ in range(_MOST_REDIRECTS + 1):
        here = urlsplit(url)
        is_first = (here.scheme, here.netloc) == (first.scheme, first.netloc)
        sent = {name: value for name, value in headers.items() if is_first or name != "Authorization"}
        connection, response, is_public = _send(here, sent, stop, waiting, held, refuse_private=was_public)
        was_public = was_public or is_public
        if response.status not in _REDIRECTS:
            return connection, response, url
        target = response.getheader("Location") or ""
        response.close()
        connection.close()
        url = _redirected(url, target)
    raise SourceError(
        f"{shown(first)!r} leads from one address to the next, more than {_MOST_REDIRECTS} times"
    )


def _redirected(url: str, target: str) -> str:
    here = urlsplit(url)
    try:
        new = urljoin(url, target)
        there = urlsplit(new)
        is_address = bool(target) and there.scheme in ("http", "https") and bool(there.hostname)
        is_address = is_address and there.port != 0  # asked for, since it may be no number
    except ValueError:
        is_address = False
    if not is_address:
        raise SourceError(f"{shown(here)!r} leads to {printable(target, 100)!r}, which is not followed")
    if here.scheme == "https" and there.scheme != "https":
        raise SourceError(f"{shown(here)!r} leads to an unencrypted address, {shown(there)!r}: not followed")
    return new


def shown(url: SplitResult) -> str:
    """A URL as messages show it: without a password, and without a query, which may hold a key."""
    host = url.netloc.rpartition("@")[2]
    return printable(f"{url.scheme}://{host}{unquote(url.path)}{'?…' if url.query else ''}", 500)


# --- one connection ----------------------------------------------------------------------------------


def _send(
    url: SplitResult,
    headers: Mapping[str, str],
    stop: Stop,
    waiting: Waiting,
    held: ExitStack,
    *,
    refuse_private: bool,
) -> tuple[Connection, http.client.HTTPResponse, bool]:
    """A connection on which the request was sent, the head of the answer, and whether the host is public."""
    proxy = _proxy(url)
    target = quote((url.path or "/") + (f"?{url.query}" if url.query else ""), safe=_ALLOWED)
    if proxy is not None and url.scheme == "http":
        target = f"http://{url.netloc.rpartition('@')[2]}{target}"
        headers = {**headers, **_authorization("Proxy-Authorization", proxy)}
    while True:
        kept = _kept(_key(url))
        connection = _connect(url, proxy, waiting) if kept is None else kept
        try:
            held.enter_context(stop.cuts(connection.sock))
            is_public = proxy is None and _is_public(connection)
            if refuse_private and proxy is None and not is_public:
                raise SourceError(f"{shown(url)!r}, to which a public server leads, is at a private address")
            connection.sock.settimeout(waiting.at_most(patience.PATIENCE.answer))
            connection.response_class = functools.partial(_Response, waiting)  # type: ignore[assignment]
            connection.request("GET", target, headers=dict(headers))
            return connection, connection.getresponse(), is_public
        except BaseException as error:
            held.close()
            connection.close()
            # A server may have closed what was kept: that is no failure of this request.
            if kept is None or isinstance(error, TimeoutError) or not isinstance(error, FAILURES):
                raise


def _connect(url: SplitResult, proxy: SplitResult | None, waiting: Waiting) -> Connection:
    host, port = url.hostname or "", url.port
    to = (host, port) if proxy is None else (proxy.hostname or "", proxy.port)
    timeout = waiting.at_most(patience.PATIENCE.connect)
    connection: Connection
    if url.scheme == "https":
        connection = http.client.HTTPSConnection(*to, timeout=timeout, context=_tls())
        if proxy is not None:
            connection.set_tunnel(host, port, _authorization("Proxy-Authorization", proxy))
    else:
        connection = http.client.HTTPConnection(*to, timeout=timeout)
    connection.connect()
    return connection


@functools.cache
def _tls() -> ssl.SSLContext:
    return ssl.create_default_context()


def _proxy(url: SplitResult) -> SplitResult | None:
    host = url.hostname or ""
    found = urllib.request.getproxies().get(url.scheme)
    if not found or urllib.request.proxy_bypass(host):
        return None
    return urlsplit(found if "://" in found else f"http://{found}")


def credentials(url: SplitResult) -> dict[str, str]:
    """The header that says a URL's user and password; empty where it has none."""
    return _authorization("Authorization", url)


def _authorization(header: str, url: SplitResult) -> dict[str, str]:
    if url.username is None:
        return {}
    plain = f"{unquote(url.username)}:{unquote(url.password or '')}".encode()
    return {header: f"Basic {base64.b64encode(plain).decode('ascii')}"}


def _is_public(connection: Connection) -> bool:
    with suppress(OSError, ValueError):
        return ipaddress.ip_address(connection.sock.getpeername()[0].partition("%")[0]).is_global
    return False


# --- connections that wait for the next request ------------------------------------------------------

_Key: TypeAlias = "tuple[Any, ...]"
_idle: dict[_Key, list[tuple[Connection, float]]] = {}
_lock = threading.Lock()


def _key(url: SplitResult) -> _Key:
    return (os.getpid(), url.scheme, url.hostname, url.port, _proxy(url))


def _keep(key: _Key, connection: Connection) -> None:
    with _lock:
        kept = _idle.setdefault(key, [])
        if len(kept) < _IDLE_MOST:
            kept.append((connection, time.monotonic()))
            return
    connection.close()


def _kept(key: _Key) -> Connection | None:
    now = time.monotonic()
    found = None
    stale = []
    with _lock:
        for other in list(_idle):
            fresh = [each for each in _idle[other] if now - each[1] <= _IDLE_SECONDS]
            stale += [each[0] for each in _idle[other] if now - each[1] > _IDLE_SECONDS]
            if other == key and fresh:
                found = fresh.pop()[0]
            if fresh:
                _idle[other] = fresh
            else:
                del _idle[other]
    for connection in stale:
        connection.close()
    return found


@atexit.register
def close_idle() -> None:
    """Nothing; no connection waits any more."""
    with _lock:
        kept = [connection for each in _idle.values() for connection, _ in each]
        _idle.clear()
    for connection in kept:
        connection.close()


# --- an answer in its time ---------------------------------------------------------------------------


class _Response(http.client.HTTPResponse):
    """An answer that is given up where it comes too slowly, or is longer than it may be."""

    def __init__(self, waiting: Waiting, sock: socket.socket, *args: Any, **how: Any) -> None:
        super().__init__(sock, *args, **how)
        self._paced = _Paced(self.fp.detach(), sock, waiting)
        self.fp = io.BufferedReader(self._paced)

    def allow(self, count: int) -> None:
        self._paced.most += 2 * count  # in chunks it is longer


class _Paced(io.RawIOBase):
    """What comes through a socket, while it comes fast enough and is no more than may come."""

    def __init__(self, raw: Any, sock: socket.socket, waiting: Waiting) -> None:
        super().__init__()
        self._raw, self._sock, self._waiting = raw, sock, waiting
        self._begun, self._taken = time.monotonic(), 0
        self.most = _MOST_HEAD

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        deadline = self._begun + patience.PATIENCE.answer + self._taken / patience.PATIENCE.slowest
        if time.monotonic() >= deadline:
            raise TimeoutError("it sends too slowly")
        if self._taken >= self.most:
            raise http.client.HTTPException("it sends more than was asked for")
        self._sock.settimeout(self._waiting.at_most(patience.PATIENCE.answer))
        count: int | None = self._raw.readinto(buffer)
        self._taken += count or 0
        self._waiting.taken += count or 0
        return count

    def close(self) -> None:
        if not self.closed:
            self._raw.close()
        super().close()
