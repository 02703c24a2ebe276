"""Many hosts, as processes of `jax.distributed` on this one.

What a step of training gives there is what it gives in this process, and one that is killed ends
the others.
"""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from bench.scale import free_address
from tests import on_hosts
from tests.comparing import assert_close

Processes = list[subprocess.Popen[bytes]]
Start = Callable[[str, int, int], Processes]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts `on_hosts.py` in so many processes of so many devices; none outlives the test."""
    processes: Processes = []

    def start(program: str, n_processes: int, n_devices: int) -> Processes:
        command = [sys.executable, "-m", "tests.on_hosts", program, str(tmp_path), free_address()]
        for i in range(n_processes):
            with (tmp_path / f"{i}.log").open("wb") as log:
                process = subprocess.Popen(
                    [*command, str(n_processes), str(i)],
                    cwd=Path(__file__).parent.parent,
                    env=os.environ | {"JAX_NUM_CPU_DEVICES": str(n_devices)},
                    stdout=log,
                    stderr=log,
                )
            processes.append(process)
        return processes

    yield start
    for process in processes:
        process.kill()
        process.wait()


def wait_for(condition: Callable[[], bool], seconds: float, folder: Path) -> None:
    """Fail, and say what the processes said, where it takes longer than that."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"not within {seconds} s\n{logs(folder)}"
        time.sleep(0.05)


def has_ended(*processes: subprocess.Popen[bytes]) -> bool:
    return any(each.poll() is not None for each in processes)


def statuses(processes: Processes, seconds: float, folder: Path) -> list[int]:
    """How each ended, which all must do in time."""
    wait_for(lambda: all(map(has_ended, processes)), seconds, folder)
    return [each.returncode for each in processes]


def logs(folder: Path) -> str:
    return "\n".join(f"{path.name}:\n{path.read_text()}" for path in sorted(folder.glob("*.log")))


def assert_kept(folder: Path, processes: Processes, expected: Any) -> None:
    """Every process ends well and has the numbers of the single one."""
    assert statuses(processes, 120, folder) == [0] * len(processes), logs(folder)
    for i in range(len(processes)):
        with np.load(folder / f"{i}.npz") as arrays:
            assert_close(list(arrays.values()), jax.tree.leaves(expected), 1e-6)


@pytest.mark.parametrize(("n_processes", "n_devices"), [(2, 2)])
def test_a_step_is_that_of_one_process(
    start: Start, tmp_path: Path, n_processes: int, n_devices: int
) -> None:
    """With a batch, also one of all lengths, and with parameter sets, shared among all devices."""
    processes = start("step", n_processes, n_devices)
    params, stack, x = on_hosts.arguments()
    of_lengths = on_hosts.gradient_of_layers(params, x, on_hosts.LENGTHS)
    expected = on_hosts.update(params, x), on_hosts.update_sets(stack, x), of_lengths
    assert_kept(tmp_path, processes, expected)


@pytest.mark.parametrize(("n_processes", "n_devices"), [(1, 2), (2, 1)])
def test_the_code_of_the_readme(
    start: Start, tmp_path: Path, n_processes: int, n_devices: int
) -> None:
    """On two devices and on two hosts it does what it does on one."""
    processes = start("readme", n_processes, n_devices)
    expected = on_hosts.kept_of_readme(on_hosts.run_readme())
    assert_kept(tmp_path, processes, expected)


@pytest.mark.parametrize(("victim", "n_processes"), [(0, 2), (1, 2)])
def test_a_killed_process_ends_the_others(
    start: Start, tmp_path: Path, victim: int, n_processes: int
) -> None:
    """Within JAX's own timeouts, the one that coordinates, which is the first, as any other."""
    processes = start("train", n_processes, 1)
    trains = [tmp_path / f"{i}.trains" for i in range(n_processes)]
    wait_for(lambda: has_ended(*processes) or all(map(Path.exists, trains)), 120, tmp_path)
    assert not has_ended(*processes), logs(tmp_path)
    processes[victim].kill()
    others = [each for each in processes if each is not processes[victim]]
    assert 0 not in statuses(others, 30, tmp_path), logs(tmp_path)
    assert "error" in logs(tmp_path).lower()
