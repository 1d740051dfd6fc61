"""Checkpoints on a web server: what a plan and a load cost, and what a load does when the server fails."""

from __future__ import annotations

import copy
import json
import pickle
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from safetensors.numpy import save_file
from servers import Request, WebServer, serving

import treeload
from treeload import From, Policy, SaveError, SourceError
from treeload._files import http, patience

WEIGHTS = {f"layers.{i}.w": np.arange(i, i + 5000, dtype=np.float32) for i in range(20)}


def note(seen: list[Any], what: Any) -> bool:
    """Notes a request, and lets the server answer it."""
    seen.append(what)
    return False


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "PATIENCE", patience.Patience(connect=1, answer=1, pause=0.001))
    monkeypatch.setenv("no_proxy", "*")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[WebServer]:
    """A good one, that has the weights."""
    (tmp_path / "served").mkdir()
    save_file(WEIGHTS, tmp_path / "served/w.safetensors")
    with serving(tmp_path / "served") as served:
        yield served


def tree(weights: dict[str, Any] = WEIGHTS) -> dict[str, Any]:
    nested: dict[str, Any] = {}
    for name, array in weights.items():
        node = nested
        *above, last = name.split(".")
        for key in above:
            node = node.setdefault(key, {})
        node[last] = jax.ShapeDtypeStruct(array.shape, array.dtype)
    return nested


def assert_loaded(loaded: Any, weights: dict[str, Any] = WEIGHTS) -> None:
    for name, array in weights.items():
        found = loaded
        for key in name.split("."):
            found = found[key]
        np.testing.assert_array_equal(found, array)


def sparse(path: Path, count: int, size: int) -> int:
    """The bytes of the header of a safetensors file of holes: ``count`` leaves of ``size`` floats."""
    table = {
        f"model.layers.{i}.w": {
            "dtype": "F32",
            "shape": [size],
            "data_offsets": [4 * size * i, 4 * size * (i + 1)],
        }
        for i in range(count)
    }
    header = json.dumps(table).encode()
    with path.open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        file.truncate(8 + len(header) + 4 * size * count)
    return 8 + len(header)


def files_of(server: WebServer) -> set[str]:
    return {path for path, _ in server.requests}


# --- what it costs -----------------------------------------------------------------------------------


def test_a_plan_of_ten_gigabytes_costs_the_header_and_a_load_what_it_loads(server: WebServer) -> None:
    header = sparse(server.directory / "big.safetensors", 1000, 2_500_000)
    one_in_100 = {str(i): {"w": jax.ShapeDtypeStruct((2_500_000,), np.float32)} for i in range(0, 1000, 100)}
    url = f"{server.url}/big.safetensors"
    plan = treeload.plan({"model": {"layers": one_in_100}}, url, policy=Policy(unexpected="ignore"))
    assert server.sent <= 1.01 * header
    assert len(server.requests) == 3  # the size, the header, and whether digests lie beside it
    server.forget()
    plan.load()
    assert server.sent <= 1.05 * 100_000_000
    assert server.most_at_once > 1


def test_small_leaves_that_lie_far_from_each_other_cost_no_more_than_they_have(server: WebServer) -> None:
    sparse(server.directory / "many.safetensors", 3000, 500)
    wanted = {str(i): {"w": jax.ShapeDtypeStruct((500,), np.float32)} for i in range(0, 3000, 100)}
    plan = treeload.plan(
        {"model": {"layers": wanted}}, f"{server.url}/many.safetensors", policy=Policy(unexpected="ignore")
    )
    server.forget()
    plan.load()
    assert server.sent <= 1.05 * 30 * 2000


def test_leaves_that_lie_side_by_side_come_by_one_request_though_a_few_between_are_not_wanted(
    server: WebServer,
) -> None:
    sparse(server.directory / "many.safetensors", 1000, 500)
    wanted = {str(i): {"w": jax.ShapeDtypeStruct((500,), np.float32)} for i in range(1000) if i % 100 != 50}
    plan = treeload.plan(
        {"model": {"layers": wanted}}, f"{server.url}/many.safetensors", policy=Policy(unexpected="ignore")
    )
    server.forget()
    plan.load()
    assert len(server.requests) <= 8
    assert server.sent <= 1.05 * 990 * 2000


def test_the_plan_of_shards_costs_their_index_and_their_headers(server: WebServer) -> None:
    weight_map, cost = {}, 0
    for shard in range(12):
        name = f"model-{shard:05d}-of-00012.safetensors"
        weights = {f"layers.{shard}.{i}.w": np.full(3000, i, np.float32) for i in range(30)}
        save_file(weights, server.directory / name)
        weight_map.update(dict.fromkeys(weights, name))
        cost += 8 + int.from_bytes((server.directory / name).read_bytes()[:8], "little")
    index = server.directory / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    inventory = treeload.inspect(f"{server.url}/{index.name}")
    assert len(inventory.to_dict()["leaves"]) == 360
    assert server.sent <= 1.01 * (cost + index.stat().st_size)


# --- every verb --------------------------------------------------------------------------------------


def test_every_verb_that_reads_takes_a_url(server: WebServer) -> None:
    url = f"{server.url}/w.safetensors"
    assert str(treeload.open(url).label) == f"{url!r} (safetensors)"
    assert_loaded(treeload.load(tree(), url))
    assert_loaded(treeload.load({"m": tree()}, From(url, into="m"))["m"])
    assert "no difference" in str(treeload.diff(url, server.directory / "w.safetensors"))
    assert treeload.verify(url).unverified
    assert "20 leaves" in str(treeload.inspect(url))
    assert treeload.initializer(url, "layers/0/w")(jax.random.key(0), (5000,), np.float32)[1] == 1


def test_what_would_be_written_to_a_url_is_refused_by_name(server: WebServer, tmp_path: Path) -> None:
    url = f"{server.url}/new.safetensors"
    for refused in (
        lambda: treeload.save("gs://bucket/ck", {"w": np.ones(2)}),
        lambda: treeload.export(url, {"w": np.ones(2)}),
        lambda: treeload.digest(f"{server.url}/w.safetensors"),
    ):
        with pytest.raises(SaveError, match="://"):
            refused()
    with pytest.raises(SourceError, match="resume looks through a directory of this machine"):
        treeload.resume({"w": np.ones(2)}, "gs://bucket/run", otherwise=None)
    assert not Path("gs:").exists()


def test_other_formats_are_read_from_there_too(server: WebServer) -> None:
    import equinox
    from flax import serialization

    (server.directory / "m.msgpack").write_bytes(serialization.msgpack_serialize({"a": np.arange(9.0)}))
    equinox.tree_serialise_leaves(server.directory / "m.eqx", [np.arange(9.0), np.ones(3)])
    assert treeload.load({"a": np.zeros(9)}, f"{server.url}/m.msgpack")["a"][8] == 8
    by_position = From(f"{server.url}/m.eqx", by_position=True)
    assert treeload.load([np.zeros(9), np.zeros(3)], by_position)[0][8] == 8


def test_digests_beside_it_are_read_and_held(server: WebServer) -> None:
    treeload.digest(server.directory / "w.safetensors")
    url = f"{server.url}/w.safetensors"
    assert treeload.verify(url).ok
    content = bytearray((server.directory / "w.safetensors").read_bytes())
    content[-1] ^= 1
    (server.directory / "w.safetensors").write_bytes(content)
    with pytest.raises(SourceError, match="layers/9/w' is damaged"):
        treeload.load(tree(), url)


def test_where_a_server_says_403_of_what_it_has_not_there_are_no_digests(server: WebServer) -> None:
    server.misbehave = lambda request: "digests" in request.path and request.head(403, 0)
    assert_loaded(treeload.load(tree(), f"{server.url}/w.safetensors"))


def test_what_is_not_there_or_not_given_is_said(server: WebServer) -> None:
    with pytest.raises(SourceError, match=r"/no.safetensors' does not exist"):
        treeload.open(f"{server.url}/no.safetensors")
    with pytest.raises(SourceError, match="does not say what is in it"):
        treeload.open(f"{server.url}/models/")
    server.misbehave = lambda request: request.head(401, 0)
    with pytest.raises(SourceError, match="not given to everybody: its server answers 401"):
        treeload.open(f"{server.url}/w.safetensors")
    (server.directory / "page.safetensors").write_text("<!doctype html><html>" + " " * 99)
    server.misbehave = lambda request: False
    with pytest.raises(SourceError, match=r"is a web page"):
        treeload.open(f"{server.url}/page.safetensors")


def test_a_url_that_a_path_has_joined_is_said_to_be_one() -> None:
    with pytest.raises(SourceError, match="'https:/host/w.safetensors' is a URL that a Path has joined"):
        treeload.open(Path("https://host/w.safetensors"))


def test_a_source_at_a_url_may_be_copied_and_pickled(server: WebServer) -> None:
    source = treeload.open(f"{server.url}/w.safetensors")
    assert_loaded(treeload.load(tree(), copy.deepcopy(source)))
    assert_loaded(treeload.load(tree(), pickle.loads(pickle.dumps(source))))


def test_passwords_and_keys_are_sent_and_shown_to_nobody(server: WebServer) -> None:
    seen: list[Any] = []
    server.misbehave = lambda request: note(seen, (request.path, request.headers["Authorization"]))
    url = server.url.replace("http://", "http://me:secret@") + "/w.safetensors?key=hidden"
    source = treeload.open(url)
    assert ("/w.safetensors?key=hidden", "Basic bWU6c2VjcmV0") in seen
    assert "secret" not in source.label and "hidden" not in source.label
    with pytest.raises(SourceError) as error:
        treeload.open(url.replace("/w.", "/no."))
    assert "secret" not in str(error.value) and "hidden" not in str(error.value)


# --- without ranges ----------------------------------------------------------------------------------


def test_a_server_without_ranges_is_refused_with_what_it_would_take(server: WebServer) -> None:
    server.ranges = False
    sparse(server.directory / "big.safetensors", 1000, 2_500_000)
    size = (server.directory / "big.safetensors").stat().st_size
    with pytest.raises(SourceError, match=rf"would have to be downloaded, {size:,} bytes.*whole=True"):
        treeload.open(f"{server.url}/big.safetensors")
    assert server.sent < 100 << 20  # what fits the buffers on the way, before it is noticed here


def test_whole_downloads_once_and_leaves_nothing(
    server: WebServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    server.ranges = False
    size = (server.directory / "w.safetensors").stat().st_size
    part = From(f"{server.url}/w.safetensors", whole=True)
    plan = treeload.plan(tree(), part)
    assert size <= server.sent <= 3 * size  # what is on its way when it is seen that there are no ranges
    server.forget()
    assert_loaded(plan.load())
    assert_loaded(plan.load())
    assert server.sent == 0  # the header took all of it
    assert not list((tmp_path / "tmp").iterdir())


def test_whole_asks_for_parts_where_they_can_be_had(server: WebServer) -> None:
    header = sparse(server.directory / "big.safetensors", 1000, 2_500_000)
    treeload.open(From(f"{server.url}/big.safetensors", whole=True).src)
    treeload.inspect(From(f"{server.url}/big.safetensors", whole=True).src)
    assert server.sent <= 2.02 * header


def test_whole_begins_again_where_a_download_broke_off(server: WebServer) -> None:
    server.ranges = False
    full: list[Any] = []

    def cut_once(request: Request) -> bool:
        if request.headers["Range"] or "digests" in request.path or full:
            return False
        full.append(request.path)
        request.head(200, request.file.stat().st_size, ETag=server.tag)
        request.send(0, 1000)
        request.cut()
        return True

    server.misbehave = cut_once
    assert_loaded(treeload.load(tree(), From(f"{server.url}/w.safetensors", whole=True)))
    assert full


def test_whole_is_for_urls() -> None:
    with pytest.raises(treeload.RuleError, match="whole=True"):
        treeload.load({"w": np.ones(2)}, From({"w": np.ones(2)}, whole=True))


def test_whole_is_refused_where_the_disk_is_too_small(
    server: WebServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.ranges = False
    sparse(server.directory / "big.safetensors", 1000, 2_500_000)
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": 1000}))
    with pytest.raises(SourceError, match="has 1,000 left"):
        treeload.load(tree(), From(f"{server.url}/big.safetensors", whole=True))


# --- what fails --------------------------------------------------------------------------------------


def broken_off(request: Request, every: list[int]) -> bool:
    """Every other answer to a larger request breaks off in its middle."""
    wanted = request.range() if request.file.is_file() else None
    if wanted is None or wanted[1] - wanted[0] < 4000:
        return False
    start, stop, size = wanted
    every.append(start)
    if len(every) % 2:
        request.head(206, stop - start, Content_Range=f"bytes {start}-{stop - 1}/{size}", ETag='"one"')
        request.send(start, (start + stop) // 2)
        request.cut()
        return True
    return False


def test_an_answer_that_breaks_off_goes_on_where_it_broke_off(server: WebServer) -> None:
    plan = treeload.plan(tree(), f"{server.url}/w.safetensors")
    every: list[int] = []
    server.misbehave = lambda request: broken_off(request, every)
    server.forget()
    assert_loaded(plan.load())
    assert len(every) > 1
    assert server.sent == 20 * 20_000  # nothing twice


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_server_that_is_busy_is_asked_again(server: WebServer, status: int) -> None:
    asked: list[str] = []

    def busy(request: Request) -> bool:
        asked.append(request.path)
        return len(asked) % 3 != 0 and request.head(status, 0)

    server.misbehave = busy
    assert_loaded(treeload.load(tree(), f"{server.url}/w.safetensors"))


def test_a_server_that_stays_busy_is_given_up(server: WebServer) -> None:
    server.misbehave = lambda request: request.head(503, 0)
    with pytest.raises(SourceError, match="it answers 503, after 6 tries"):
        treeload.open(f"{server.url}/w.safetensors")
    assert len(server.requests) == 6


def test_a_server_that_is_not_there_is_said_soon() -> None:
    with pytest.raises(SourceError, match="refused, after 2 tries"):
        treeload.open("http://127.0.0.1:9/w.safetensors")


@pytest.mark.parametrize("change", ["tag", "size"])
def test_a_file_that_changes_between_plan_and_load_is_noticed(server: WebServer, change: str) -> None:
    plan = treeload.plan(tree(), f"{server.url}/w.safetensors")
    if change == "tag":
        server.tag = '"two"'
    else:
        save_file({"x": np.ones(3)}, server.directory / "w.safetensors")
    with pytest.raises(SourceError, match="has changed since it was opened") as error:
        plan.load()
    assert error.value.changed


def test_a_file_that_goes_or_loses_its_ranges_between_plan_and_load_is_said(server: WebServer) -> None:
    plan = treeload.plan(tree(), f"{server.url}/w.safetensors")
    server.ranges = False
    with pytest.raises(SourceError, match="by now gives none"):
        plan.load()
    (server.directory / "w.safetensors").unlink()
    with pytest.raises(SourceError, match="has changed since it was opened"):
        plan.load()


def test_whoever_stops_reading_does_not_wait_for_a_server_that_hangs(
    server: WebServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = treeload.open(f"{server.url}/w.safetensors")
    monkeypatch.setattr(patience, "PATIENCE", patience.Patience(answer=60))
    let_go = threading.Event()
    server.misbehave = lambda request: let_go.wait(30) and False

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, 0.3)
    begun = time.monotonic()
    try:
        with pytest.raises(KeyboardInterrupt):
            next(iter(source.read(source.specs())))
    finally:
        signal.signal(signal.SIGALRM, before)
        let_go.set()
    assert time.monotonic() - begun < 10


# --- redirects ---------------------------------------------------------------------------------------


def test_a_redirect_is_followed_and_remembered_and_keys_stay_behind(
    tmp_path: Path, server: WebServer
) -> None:
    seen: list[str | None] = []
    server.misbehave = lambda request: note(seen, request.headers["Authorization"])
    with serving(tmp_path) as front:
        front.misbehave = lambda request: (
            "digests" not in request.path and request.head(302, 0, Location=f"{server.url}{request.path}")
        )
        url = front.url.replace("http://", "http://me:secret@")
        assert_loaded(treeload.load(tree(), f"{url}/w.safetensors"))
    assert set(seen) == {None}
    assert len([path for path, _ in front.requests if "digests" not in path]) == 1


def test_where_a_redirect_led_to_is_asked_anew_once_it_holds_no_more(
    tmp_path: Path, server: WebServer
) -> None:
    valid = ["1"]
    server.misbehave = lambda request: not request.path.endswith(valid[0]) and request.head(403, 0)
    with serving(tmp_path) as front:
        front.misbehave = lambda request: (
            "digests" not in request.path
            and request.head(302, 0, Location=f"{server.url}{request.path}?{valid[0]}")
        )
        plan = treeload.plan(tree(), f"{front.url}/w.safetensors")
        valid[0] = "2"
        assert_loaded(plan.load())


_ELSEWHERE: dict[str, Callable[[WebServer], str]] = {
    "a-file": lambda server: "file:///etc/passwd",
    "ftp": lambda server: "ftp://example.org/x",
    "itself": lambda server: f"{server.url}/w.safetensors",
    "nowhere": lambda server: "",
    "no-port": lambda server: "http://127.0.0.1:99999999/x",
    "no-address": lambda server: "http://[::1/x",
}


@pytest.mark.parametrize("where", list(_ELSEWHERE))
def test_a_redirect_elsewhere_is_not_followed(server: WebServer, where: str) -> None:
    server.misbehave = lambda request: request.head(302, 0, Location=_ELSEWHERE[where](server))
    with pytest.raises(SourceError, match=r"not followed|more than 5 times"):
        treeload.open(f"{server.url}/w.safetensors")


def test_a_public_server_does_not_lead_to_a_private_one(
    server: WebServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(tmp_path) as front:
        front.misbehave = lambda request: request.head(302, 0, Location=f"{server.url}{request.path}")
        port = int(front.url.rpartition(":")[2])
        monkeypatch.setattr(http, "_is_public", lambda connection: connection.port == port)
        with pytest.raises(SourceError, match="is at a private address"):
            treeload.open(f"{front.url}/w.safetensors")
    assert not server.requests


def test_an_encrypted_server_does_not_lead_to_an_unencrypted_one() -> None:
    with pytest.raises(SourceError, match="unencrypted"):
        http._redirected("https://a.example/x", "http://a.example/x")
