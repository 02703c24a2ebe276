"""Many hosts, here processes, give the results of one."""

import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np

from tests import on_hosts
from tests.helpers import assert_close


def free_address() -> str:
    """A port of this machine on which nothing listens."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{listener.getsockname()[1]}"


def test_two_hosts_give_what_one_device_gives(tmp_path: Path) -> None:
    """Steps with a shared batch, and the code of the README, which shares parameter sets too.

    Two processes run `on_hosts.py`, each with two devices.
    """
    command = [sys.executable, "-m", "tests.on_hosts", str(tmp_path), free_address(), "2"]
    env = os.environ | {"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": "2"}
    options: Any = {"cwd": Path(__file__).parent.parent, "env": env, "stderr": subprocess.PIPE}
    processes = [subprocess.Popen([*command, i], **options) for i in "01"]
    try:
        args = on_hosts.arguments()
        of_steps = on_hosts.update(*args), on_hosts.gradient_of_layers(*args, on_hosts.LENGTHS)
        expected = jax.tree.leaves((of_steps, on_hosts.results_of_readme()))
        for i, process in enumerate(processes):
            _, errors = process.communicate(timeout=120)
            assert process.returncode == 0, errors.decode()
            with np.load(tmp_path / f"{i}.npz") as arrays:
                assert_close(list(arrays.values()), expected, 1e-6)
    finally:
        for process in processes:
            process.kill()
            process.communicate()
