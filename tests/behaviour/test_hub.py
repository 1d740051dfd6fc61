"""``hf://``: a Hub written for the test, on the loopback, and the cache of ``huggingface_hub``."""

from __future__ import annotations

import importlib
import json
import pickle
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file
from servers import Request, WebServer, serving

import treeload
from treeload import SourceError
from treeload._files import patience

pytest.importorskip("huggingface_hub")
constants = importlib.import_module("huggingface_hub.constants")

COMMIT, OTHER = "1" * 40, "2" * 40
WEIGHTS = {"a.w": np.arange(6, dtype=np.float32), "b.w": np.ones(3, np.float32)}
TREE = {"a": {"w": np.zeros(6, np.float32)}, "b": {"w": np.zeros(3, np.float32)}}


@pytest.fixture
def endpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[WebServer]:
    """A Hub with one repository, ``org/model``, of two shards and an index at ``main``."""
    snapshot = tmp_path / "served/org/model/resolve" / COMMIT
    snapshot.mkdir(parents=True)
    weight_map = {}
    for number, name in enumerate(WEIGHTS):
        save_file({name: WEIGHTS[name]}, snapshot / f"model-{number}.safetensors")
        weight_map[name] = f"model-{number}.safetensors"
    (snapshot / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    monkeypatch.setattr(patience, "PATIENCE", patience.Patience(connect=1, answer=2, tries=2, pause=0.001))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    with serving(tmp_path / "served") as served:
        served.misbehave = of_the_api
        monkeypatch.setenv("HF_ENDPOINT", served.url)
        yield served


def of_the_api(request: Request, main: str = COMMIT) -> bool:
    """What a Hub says of a revision; and nothing is given to who says no token."""
    if request.headers["Authorization"] != "Bearer hf_secret":
        request.head(401, 0)
        return True
    head = "/api/models/org/model/revision/"
    if not request.path.startswith("/api/"):
        return False
    asked = request.path.partition("?")[0]
    known = {head + "main": main, head + COMMIT: COMMIT, head + "refs%2Fpr%2F1": COMMIT}
    if asked not in known:
        request.head(404, 0, X_Error_Code="RevisionNotFound")
        return True
    folder = request.served.directory / "org/model/resolve" / known[asked]
    files = [{"rfilename": path.name} for path in sorted(folder.iterdir())]
    said = json.dumps({"id": "org/model", "sha": known[asked], "siblings": files}).encode()
    request.head(200, len(said), Content_Type="application/json")
    request.body(said)
    return True


def cached(tmp_path: Path, endpoint: WebServer, *names: str) -> None:
    """Puts files of the repository into the cache as the library does."""
    root = tmp_path / "cache/models--org--model"
    (root / "refs").mkdir(parents=True)
    (root / "refs/main").write_text(COMMIT)
    (root / "snapshots" / COMMIT).mkdir(parents=True)
    (root / "blobs").mkdir()
    for name in names:
        content = (endpoint.directory / "org/model/resolve" / COMMIT / name).read_bytes()
        (root / "blobs" / f"blob-{name}").write_bytes(content)
        (root / "snapshots" / COMMIT / name).symlink_to(f"../../blobs/blob-{name}")


ALL = ("model-0.safetensors", "model-1.safetensors", "model.safetensors.index.json")


def resolved(endpoint: WebServer) -> list[str]:
    return [path for path, _ in endpoint.requests if "/resolve/" in path]


def test_a_repository_is_read_by_ranges_at_one_commit(endpoint: WebServer) -> None:
    source = treeload.open("hf://org/model")
    assert source.label == f"'hf://org/model@{COMMIT}' (safetensors, 2 shards)"
    assert treeload.load(TREE, source)["a"]["w"].tolist() == list(range(6))
    assert all(f"/resolve/{COMMIT}/" in path for path in resolved(endpoint))
    assert len([path for path, _ in endpoint.requests if path.startswith("/api/")]) == 1


@pytest.mark.parametrize("revision", ["@main", f"@{COMMIT}", "@refs/pr/1", "@refs%2Fpr%2F1"])
def test_one_file_of_a_revision_may_be_named(endpoint: WebServer, revision: str) -> None:
    inventory = treeload.inspect(f"hf://org/model{revision}/model-1.safetensors")
    assert f"hf://org/model@{COMMIT}/model-1.safetensors" in str(inventory)


def test_a_branch_that_moves_meanwhile_changes_nothing(endpoint: WebServer) -> None:
    plan = treeload.plan(TREE, "hf://org/model")
    (endpoint.directory / "org/model/resolve" / OTHER).mkdir()
    endpoint.misbehave = lambda request: request.path.startswith("/api/") and request.head(500, 0)
    assert plan.load()["b"]["w"].tolist() == [1, 1, 1]


def test_what_the_cache_has_is_read_there_and_only_the_rest_asked_for(
    endpoint: WebServer, tmp_path: Path
) -> None:
    cached(tmp_path, endpoint, "model-0.safetensors", "model.safetensors.index.json")
    assert treeload.load(TREE, "hf://org/model")["a"]["w"].tolist() == list(range(6))
    assert {path.rpartition("/")[2] for path in resolved(endpoint)} == {"model-1.safetensors"}


@pytest.mark.parametrize("why", ["HF_HUB_OFFLINE", "no Hub"])
def test_offline_the_cache_is_all_there_is(
    endpoint: WebServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, why: str
) -> None:
    cached(tmp_path, endpoint, *ALL)
    if why == "no Hub":
        monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    else:
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    source = treeload.open("hf://org/model")
    assert f"@{COMMIT}" in source.label
    assert treeload.load(TREE, source)["a"]["w"].tolist() == list(range(6))
    assert not endpoint.requests


def test_offline_what_the_cache_has_not_is_said(
    endpoint: WebServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(SourceError, match="not in the cache of this machine, and HF_HUB_OFFLINE is set"):
        treeload.open("hf://org/model")
    cached(tmp_path, endpoint, "model-0.safetensors", "model.safetensors.index.json")
    with pytest.raises(SourceError, match="does not exist"):
        treeload.open("hf://org/model")


def test_what_is_not_there_is_said(endpoint: WebServer, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SourceError, match="does not exist on the Hub, or is private and wants a token"):
        treeload.open("hf://org/model@old")
    with pytest.raises(SourceError, match=r"no.safetensors' does not exist"):
        treeload.open("hf://org/model/no.safetensors")
    for name in ALL:
        (endpoint.directory / "org/model/resolve" / COMMIT / name).unlink()
    with pytest.raises(SourceError, match="opens nothing in; it holds nothing"):
        treeload.open("hf://org/model")
    with pytest.raises(SourceError, match="names no repository"):
        treeload.open("hf://model")
    monkeypatch.setenv("HF_TOKEN", "wrong")
    with pytest.raises(SourceError, match="hf://org/model"):
        treeload.open("hf://org/model")


def test_a_source_is_pickled_with_its_commit(endpoint: WebServer) -> None:
    said = pickle.dumps(treeload.open("hf://org/model"))
    resolve = endpoint.directory / "org/model/resolve"
    (resolve / OTHER).mkdir()
    endpoint.misbehave = lambda request: of_the_api(request, main=OTHER)
    endpoint.forget()
    assert treeload.load(TREE, pickle.loads(said))["b"]["w"].tolist() == [1, 1, 1]
    assert all(f"/{COMMIT}" in path for path, _ in endpoint.requests)


def test_without_the_library_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "huggingface_hub.constants", None)
    with pytest.raises(SourceError, match=r'pip install "treeload\[hub\]"'):
        treeload.open("hf://org/model")
