"""Commands as a shell gives them, and a directory with something to give them."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

import treeload
from treeload import cli


@dataclass(frozen=True)
class Done:
    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Run = Callable[..., Done]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> Done:
        monkeypatch.setattr(sys, "argv", ["treeload", *arguments])
        monkeypatch.setattr(sys, "path", list(sys.path))
        with pytest.raises(SystemExit) as caught:
            cli.main()
        said = capsys.readouterr()
        return Done(int(caught.value.code or 0), said.out, said.err)

    return run


MODEL = """
import jax.numpy as jnp

def make():
    layer = lambda: {"kernel": jnp.zeros((4, 3)), "bias": jnp.zeros(3)}
    return {"layers": {str(i): layer() for i in range(3)}, "head": jnp.zeros(2)}

ready = make()
nothing = None

def broken():
    raise ValueError("no weights today")
"""


@pytest.fixture
def here(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    layers = {
        str(i): {"weight": rng.normal(size=(3, 4)).astype(np.float32), "bias": np.full(3, i, np.float32)}
        for i in range(3)
    }
    treeload.save(tmp_path / "ckpt", {"net": {"layers": layers}, "head": np.zeros(2, np.float32)})
    flat = {f"net.layers.{i}.{key}": array for i, layer in layers.items() for key, array in layer.items()}
    save_file({**flat, "head": np.zeros(2, np.float32)}, tmp_path / "ckpt.safetensors")
    (tmp_path / "models_of_test.py").write_text(MODEL)
    (tmp_path / "rules.py").write_text(
        "from treeload import Rename, Transpose\n"
        'rules = [Rename("net/layers/{i}/weight", "layers/{i}/kernel", Transpose()),\n'
        '         Rename("net/{*rest}", "{*rest}")]\n'
        "def made():\n    return rules\n"
    )
    (tmp_path / "models_of_te.py").write_text("import models\n")
    (tmp_path / "broken.py").write_text('rules = [Renmae("a", "b")]\n')
    return tmp_path
