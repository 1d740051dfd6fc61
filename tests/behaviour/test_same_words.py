"""What a plan says of one pair of trees is the same in every process, whatever Python's hashes are."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import failing_plans

SEEDS = ("0", "1")  # two orders of a set tell as much as four


def test_a_failing_plan_says_the_same_under_every_hash_seed() -> None:
    root = Path(__file__).parents[2]
    running = [
        subprocess.Popen(
            [sys.executable, failing_plans.__file__],
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(root)},
            stdout=subprocess.PIPE,
            text=True,
        )
        for seed in SEEDS
    ]
    said: list[dict[str, Any]] = [json.loads(process.communicate(timeout=600)[0]) for process in running]
    assert len(said[0]) > 12 and all(texts[0] for texts in said[0].values())
    for other in said[1:]:
        assert [name for name, texts in other.items() if texts != said[0][name]] == []
