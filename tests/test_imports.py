"""Importing treeload brings in what it depends on, and nothing that a user may not have."""

from __future__ import annotations

import json
import subprocess
import sys

OPTIONAL = ["equinox", "hypothesis", "pytest", "tokenizers", "torch", "typer"]


def test_importing_treeload_imports_no_optional_library() -> None:
    code = f"import json, sys, treeload; print(json.dumps([m for m in {OPTIONAL} if m in sys.modules]))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True
    )
    assert json.loads(done.stdout) == []


def test_importing_treeload_starts_no_backend_and_says_nothing() -> None:
    code = "import treeload; from jax._src import xla_bridge; print(xla_bridge.backends_are_initialized())"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, timeout=120, check=True
    )
    assert (done.stdout, done.stderr) == ("False\n", "")


def test_the_public_names_are_those_that_are_listed() -> None:
    import treeload

    assert sorted(treeload.__all__) == sorted(set(treeload.__all__))
    assert all(hasattr(treeload, name) for name in treeload.__all__)
    assert not any(name.startswith("_") and not name.startswith("__") for name in treeload.__all__)
