"""What every test stands on: eight CPU devices and repeatable examples.

The environment is set before JAX is first imported, and is inherited by the processes that tests start.
"""

from __future__ import annotations

import os
import signal

os.environ.setdefault("JAX_PLATFORMS", "cpu")
if "xla_force_host_platform_device_count" not in os.environ.get("XLA_FLAGS", ""):
    os.environ.setdefault("JAX_NUM_CPU_DEVICES", "8")  # shardings need more than one
os.environ.setdefault("MPLBACKEND", "Agg")  # pictures are drawn, and shown to nobody
os.environ["COLUMNS"] = "80"  # what reports are asked to be readable at

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as a shell leaves it to what runs in the background
    signal.signal(signal.SIGINT, signal.default_int_handler)

import hypothesis

# A timing limit of Hypothesis's own would fail examples that are the first to compile something.
hypothesis.settings.register_profile("here", deadline=None, database=None, max_examples=50)
hypothesis.settings.register_profile("ci", parent=hypothesis.settings.get_profile("here"), derandomize=True)
hypothesis.settings.load_profile("ci" if os.environ.get("CI") else "here")

# Scripts that made what lies there: they import what is not installed here.
collect_ignore_glob = ["data/*"]
