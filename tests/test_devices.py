"""The results on several devices are those on one, with no more communication than needed."""

import os
import subprocess
import sys
from pathlib import Path


def test_on_four_devices() -> None:
    """In a process of its own, as JAX fixes the number of devices when it starts."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    run = subprocess.run(
        [*command, str(Path(__file__).with_name("on_devices.py"))],
        env=os.environ | {"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": "4"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert " passed" in run.stdout
    assert "skipped" not in run.stdout
