"""The benchmarks as tests: each script says itself whether its targets are met."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
MANY_DEVICES = ("JAX_NUM_CPU_DEVICES", "XLA_FLAGS")

SCRIPTS = {
    "plan.py": ["--samples", "5"],
    "wrong_names.py": ["--samples", "3"],
    "update.py": ["--samples", "11"],
    "digests.py": ["--samples", "5", "--megabytes", "1024"],
    "load_pytorch.py": ["--samples", "7"],
    "load_safetensors.py": ["--samples", "3", "--megabytes", "1024"],
}


@pytest.mark.slow
@pytest.mark.parametrize("script", SCRIPTS)
def test_the_targets_are_met(script: str) -> None:
    # One device, as users have: the eight that the tests share cores between would slow down everybody.
    environment = {key: value for key, value in os.environ.items() if key not in MANY_DEVICES}
    environment["PYTHONPATH"] = str(HERE.parents[1])
    command = [sys.executable, str(HERE / script), *SCRIPTS[script]]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=900, check=False)
    print(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr
