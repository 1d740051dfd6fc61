"""Archives behind a web server: a plan costs their directory and their headers, a load what it loads."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch_files
from servers import WebServer, serving

import treeload
from treeload import Policy

ARRAYS: dict[str, Any] = {f"layer{i}.w": np.full((50, 1000), i, np.float32) for i in range(100)}
FIRST = 512  # bytes that are looked at to tell what a file is


@pytest.fixture
def server(tmp_path: Path) -> Iterator[WebServer]:
    with serving(tmp_path) as server:
        yield server


def load_one(server: WebServer, name: str) -> None:
    wanted = {"layer7": {"w": np.zeros((50, 1000), np.float32)}}
    plan = treeload.plan(wanted, f"{server.url}/{name}", policy=Policy(unexpected="ignore"))
    planned = server.sent
    loaded = plan.load()
    np.testing.assert_array_equal(loaded["layer7"]["w"], ARRAYS["layer7.w"])
    assert server.sent - planned <= 1.05 * ARRAYS["layer7.w"].nbytes


def directory(path: Path) -> tuple[int, zipfile.ZipFile]:
    with zipfile.ZipFile(path) as archive:
        return path.stat().st_size - archive.start_dir, archive


def test_pytorchs_archive(server: WebServer) -> None:
    path = torch_files.write_zip(server.directory / "x.pt", ARRAYS)
    size, archive = directory(path)
    load_one(server, "x.pt")
    server.forget()
    treeload.open(f"{server.url}/x.pt")
    assert server.sent <= 1.01 * (size + archive.getinfo("archive/data.pkl").file_size) + FIRST
    assert len(server.requests) <= 10


def test_pytorchs_older_file(server: WebServer) -> None:
    torch_files.write_legacy(server.directory / "x.pth", ARRAYS)
    load_one(server, "x.pth")


def test_numpys_archive(server: WebServer) -> None:
    path = server.directory / "x.npz"
    leaves = {name.replace(".", "/"): array for name, array in ARRAYS.items()}
    np.savez(path, **leaves)  # type: ignore[arg-type]  # newer stubs know allow_pickle
    size, archive = directory(path)
    load_one(server, "x.npz")
    server.forget()
    treeload.open(f"{server.url}/x.npz")
    headers = sum(30 + len(info.filename) + 20 + 128 for info in archive.infolist())
    assert server.sent <= 1.01 * (size + headers) + FIRST
    assert server.most_at_once > 1
