"""Object stores through ``fsspec``: moto's S3 server on the loopback, and fsspec's own store in memory."""

from __future__ import annotations

import json
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import treeload
from treeload import SaveError, SourceError
from treeload._files import store
from treeload._files.open import look_at, opened
from treeload._files.places import place_of

fsspec = pytest.importorskip("fsspec")

WEIGHTS = {f"layers.{i}.w": np.arange(i, i + 5000, dtype=np.float32) for i in range(20)}
TREE = {"layers": {str(i): {"w": jax.ShapeDtypeStruct((5000,), np.float32)} for i in range(20)}}

# aiohttp and botocore leave connections and loops to the collector.
pytestmark = pytest.mark.filterwarnings(
    "ignore::ResourceWarning", "ignore::DeprecationWarning", "ignore::pytest.PytestUnraisableExceptionWarning"
)


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    """A bucket of moto's server."""
    s3fs, moto = pytest.importorskip("s3fs"), pytest.importorskip("moto.server")
    with pytest.MonkeyPatch.context() as patch:
        server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
        server.start()
        host, port = server.get_host_and_port()
        for name, value in {
            "AWS_ENDPOINT_URL": f"http://{host}:{port}", "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "AWS_DEFAULT_REGION": "us-east-1",
            "no_proxy": "*",
        }.items():  # fmt: skip
            patch.setenv(name, value)
        s3fs.S3FileSystem.clear_instance_cache()
        s3fs.S3FileSystem().mkdir("bucket")
        yield "s3://bucket"
        s3fs.S3FileSystem.clear_instance_cache()
        server.stop()


@pytest.fixture(params=["memory", "s3"])
def root(request: pytest.FixtureRequest) -> str:
    """The URL of a folder in a store, new for each test."""
    store = "memory://" if request.param == "memory" else request.getfixturevalue("s3")
    return f"{store}/{abs(hash(request.node.name))}"


def put(url: str, content: bytes) -> None:
    files, path = fsspec.core.url_to_fs(url)
    files.pipe_file(path, content)


def put_weights(url: str, tmp_path: Path, weights: dict[str, Any] = WEIGHTS) -> None:
    save_file(weights, tmp_path / "w.safetensors")
    put(url, (tmp_path / "w.safetensors").read_bytes())


def test_a_file_is_planned_and_loaded(root: str, tmp_path: Path) -> None:
    put_weights(f"{root}/w.safetensors", tmp_path)
    source = treeload.open(f"{root}/w.safetensors")
    assert "w.safetensors' (safetensors)" in source.label
    for each in (source, pickle.loads(pickle.dumps(source))):
        assert treeload.load(TREE, each)["layers"]["3"]["w"][1] == 4


def test_a_directory_of_shards_is_listed(root: str, tmp_path: Path) -> None:
    for name, array in WEIGHTS.items():
        put_weights(f"{root}/{name}.safetensors", tmp_path, {name: array})
    weight_map = {name: f"{name}.safetensors" for name in WEIGHTS}
    put(f"{root}/model.safetensors.index.json", json.dumps({"weight_map": weight_map}).encode())
    assert treeload.load(TREE, root)["layers"]["19"]["w"][0] == 19


def test_a_plan_reads_the_header_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, root: str) -> None:
    put_weights(f"{root}/w.safetensors", tmp_path)
    files, _ = fsspec.core.url_to_fs(root)
    read, asked = files.cat_file, []

    def counting(path: str, start: int | None = None, end: int | None = None, **how: Any) -> bytes:
        content: bytes = read(path, start=start, end=end, **how)
        asked.append(len(content))
        return content

    monkeypatch.setattr(files, "cat_file", counting)
    plan = treeload.plan(TREE, f"{root}/w.safetensors")
    assert sum(asked) <= 1.01 * int.from_bytes((tmp_path / "w.safetensors").read_bytes()[:8], "little") + 8
    asked.clear()
    plan.load()
    assert sum(asked) == 20 * 20_000


def test_a_file_that_changes_between_plan_and_load_is_noticed(root: str, tmp_path: Path) -> None:
    put_weights(f"{root}/w.safetensors", tmp_path)
    plan = treeload.plan(TREE, f"{root}/w.safetensors")
    put_weights(f"{root}/w.safetensors", tmp_path, {name: array + 1 for name, array in WEIGHTS.items()})
    with pytest.raises(SourceError, match="has changed since it was opened"):
        plan.load()


def test_a_file_that_changes_before_its_header_is_read_is_noticed(root: str, tmp_path: Path) -> None:
    put_weights(f"{root}/w.safetensors", tmp_path)
    file = look_at(place_of(f"{root}/w.safetensors"))
    put_weights(f"{root}/w.safetensors", tmp_path, {name: array + 1 for name, array in WEIGHTS.items()})
    with pytest.raises(SourceError, match="has changed since it was opened"), opened(file):
        pass


def test_digests_beside_it_are_held(root: str, tmp_path: Path) -> None:
    put_weights(f"{root}/w.safetensors", tmp_path)
    put(
        f"{root}/w.safetensors.digests.json",
        treeload.digest(tmp_path / "w.safetensors").read_bytes(),
    )
    assert treeload.verify(f"{root}/w.safetensors").ok


def test_what_is_not_there_is_said(root: str) -> None:
    with pytest.raises(SourceError, match="does not exist"):
        treeload.open(f"{root}/none.safetensors")


def test_an_export_is_there_as_a_whole_and_replaces_nothing(root: str, tmp_path: Path) -> None:
    url = f"{root}/new.safetensors"
    treeload.export(url, {"a": np.ones(3, np.float32)})
    files, path = fsspec.core.url_to_fs(url)
    files.get_file(path, str(tmp_path / "got.safetensors"))
    assert load_file(tmp_path / "got.safetensors")["a"].tolist() == [1, 1, 1]
    with pytest.raises(SaveError, match="exists; an export replaces nothing"):
        treeload.export(url, {"a": np.zeros(3, np.float32)})
    with pytest.raises(SaveError, match=r"end it in '\.safetensors'"):
        treeload.export(f"{root}/orbax", {"a": np.zeros(3, np.float32)})
    assert treeload.load({"a": np.zeros(3, np.float32)}, url)["a"].tolist() == [1, 1, 1]


def test_an_export_that_fails_leaves_nothing_there(root: str) -> None:
    url = f"{root}/failed.safetensors"
    with pytest.raises(SaveError):
        treeload.export(url, {"a": jax.ShapeDtypeStruct((3,), np.float32)})
    with pytest.raises(SourceError, match="does not exist"):
        treeload.open(url)


def put_orbax(url: str, tmp_path: Path, tree: Any) -> None:
    treeload.save(tmp_path / "ck", tree, overwrite=True)
    for file in (tmp_path / "ck").rglob("*"):
        if file.is_file():
            put(f"{url}/{file.relative_to(tmp_path / 'ck').as_posix()}", file.read_bytes())


ORBAX = {"a": {"w": np.arange(2_000_000, dtype=np.float32)}, "n": 3}


def test_an_orbax_checkpoint_in_a_bucket_is_read_by_tensorstore(s3: str, tmp_path: Path) -> None:
    for step in (9, 10):
        put_orbax(f"{s3}/run/{step}", tmp_path, {**ORBAX, "n": step})
    source = treeload.open(f"{s3}/run")
    assert source.label == f"'{s3}/run' (Orbax, step 10)"
    dst = {"a": {"w": np.zeros(2_000_000, np.float32)}, "n": 0}
    loaded = treeload.load(dst, source)
    assert loaded["n"] == 10 and loaded["a"]["w"][-1] == 1_999_999
    assert treeload.verify(f"{s3}/run/9").ok


def test_an_orbax_checkpoint_that_changes_between_plan_and_load_is_noticed(s3: str, tmp_path: Path) -> None:
    put_orbax(f"{s3}/moving", tmp_path, ORBAX)
    source = treeload.open(f"{s3}/moving")
    requests = source.specs()
    put_orbax(f"{s3}/moving", tmp_path, {**ORBAX, "n": 4})
    with pytest.raises(SourceError, match="changed while it was read"):
        list(source.read(requests))


def test_where_tensorstore_has_no_way_an_orbax_checkpoint_is_refused_with_what_to_do(tmp_path: Path) -> None:
    put_orbax("memory://ck", tmp_path, ORBAX)
    with pytest.raises(SourceError, match="at s3:// and at gs:// only: copy or mount it"):
        treeload.open("memory://ck")


def test_tensorstore_is_told_the_bucket_and_the_path() -> None:
    class Files:
        endpoint_url = None

    def spec(scheme: str) -> Any:
        return store.Store(Files(), scheme).kvstore("bucket/run/7")

    assert spec("gs") == {"driver": "gcs", "bucket": "bucket", "path": "run/7/"}
    assert spec("s3")["bucket"] == "bucket" and spec("s3")["path"] == "run/7/"
    assert spec("sftp") is None


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("gs://bucket/w.safetensors", r"treeload\[gcs\]"),
        ("abfs://bucket/w.safetensors", r"treeload\[remote\]"),
        ("nosuch://bucket/w.safetensors", "no kind that treeload can read"),
        ("file://host/w.safetensors", "another machine"),
        ("http:///w.safetensors", "no address"),
        ("http://a:b:c/w.safetensors", "no address"),
    ],
)
def test_what_cannot_be_asked_is_said_with_the_extra_that_is_lacking(
    url: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for library in ("gcsfs", "adlfs"):
        monkeypatch.setitem(__import__("sys").modules, library, None)
    with pytest.raises(SourceError, match=said):
        treeload.open(url)


def test_a_file_url_is_a_path(tmp_path: Path) -> None:
    save_file(WEIGHTS, tmp_path / "a b.safetensors")
    assert treeload.load(TREE, (tmp_path / "a b.safetensors").as_uri())["layers"]["0"]["w"][2] == 2
