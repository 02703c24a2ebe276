"""Many hosts, here processes, give the results of one, and one that dies ends the others."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from tests import on_hosts
from tests.helpers import IS_LONG, assert_close


def free_address() -> str:
    """A port of this machine on which nothing listens."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{listener.getsockname()[1]}"


@pytest.fixture
def processes(tmp_path: Path) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Two that run `on_hosts.py`, each with two devices. They are killed after the test."""
    command = [sys.executable, "-m", "tests.on_hosts", str(tmp_path), free_address(), "2"]
    env = os.environ | {"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": "2"}
    options: Any = {"cwd": Path(__file__).parent.parent, "env": env}
    processes = []
    for i in range(2):
        with (tmp_path / f"{i}.log").open("wb") as log:
            processes.append(
                subprocess.Popen([*command, str(i)], stdout=log, stderr=log, **options)
            )
    yield processes
    for process in processes:
        process.kill()
        process.wait()


def wait_for(condition: Callable[[], bool], seconds: float, folder: Path) -> None:
    """Fail with the output of the processes if the condition takes longer than that."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"not within {seconds} s\n{logs(folder)}"
        time.sleep(0.05)


def has_ended(*processes: subprocess.Popen[bytes]) -> bool:
    return any(each.poll() is not None for each in processes)


def logs(folder: Path) -> str:
    return "\n".join(f"{path.name}:\n{path.read_text()}" for path in sorted(folder.glob("*.log")))


# The first is killed with HYPOTHESIS_PROFILE=long.
@pytest.mark.parametrize("victim", [0 if IS_LONG else 1])
def test_two_hosts_give_what_one_device_gives_until_one_is_killed(
    processes: list[subprocess.Popen[bytes]], tmp_path: Path, victim: int
) -> None:
    """Steps with a shared batch, and the code of the README, which shares parameter sets too.

    The other process then ends within JAX's timeouts, also if the first is killed, which
    coordinates.
    """
    args = on_hosts.arguments()
    of_steps = on_hosts.update(*args), on_hosts.gradient_of_layers(*args, on_hosts.LENGTHS)
    expected = jax.tree.leaves((of_steps, on_hosts.results_of_readme()))
    trains = [tmp_path / f"{i}.trains" for i in range(2)]
    wait_for(lambda: has_ended(*processes) or all(map(Path.exists, trains)), 120, tmp_path)
    assert not has_ended(*processes), logs(tmp_path)
    for i in range(2):
        with np.load(tmp_path / f"{i}.npz") as arrays:
            assert_close(list(arrays.values()), expected, 1e-6)
    processes[victim].kill()
    # What the other then prints differs: how it ends tells.
    other = processes[1 - victim]
    wait_for(lambda: has_ended(other), 30, tmp_path)
    assert other.returncode != 0, logs(tmp_path)
