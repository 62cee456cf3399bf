"""Runs tests/eight_devices in a process that has eight (simulated) devices.

The number of devices is fixed when JAX starts, and one is what the other tests need: it is what
most people have, and the reductions are chosen by it.
"""

import os
import subprocess
import sys
from pathlib import Path

FOLDER = Path(__file__).parent / "eight_devices"


def test_everything_holds_on_eight_devices():
    environment = os.environ | {"XLA_FLAGS": "--xla_force_host_platform_device_count=8"}
    command = [sys.executable, "-m", "pytest", "-q", "-x", str(FOLDER / "cases.py")]
    run = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    print(run.stdout[-10_000:], run.stderr[-10_000:])
    assert run.returncode == 0
    assert " passed" in run.stdout
