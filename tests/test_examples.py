"""The programs of the gallery print what holds, and draw it; `python -m jaxrnn` is one of them."""

import hashlib
import importlib
import os
import re
import runpy
import subprocess
import sys
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import Any, TypeAlias

import jax
import numpy as np
import pytest

import jaxrnn
from jaxrnn.examples import laser, program

pytestmark = pytest.mark.usefixtures("usual_promotion")

FOLDER = Path(program.__file__).parent
PAGE = (FOLDER / "README.md").read_text()
PICTURES = Path(__file__).parent.parent / "bench" / "results"

# Of each program a short form, a number that it prints, between which it must be, and words of its
# picture.
PROGRAMS = {
    "chaos": ("--steps 150", r"mean field theory is at most (.*) off", 0, 0.06, "400 nodes"),
    "decision": ("--updates 100", r"([\d.]+)% are correct", 78, 90, "ideal observer"),
    "flip_flop": ("--updates 300", r"(\d+) memories are stable", 8, 8, "1 unstable direction"),
    "laser": ("--members 2 --updates 120", r"is 1/([\d.]+) of the linear", 10, 100, "intensity"),
    "online": ("--steps 6000", r"at the end to ([\d.]+)", 0, 0.1, "real-time recurrent learning"),
    "policy": ("--updates 150", r"comes to a reward of ([\d.]+)", 0.9, 1, "median of eight seeds"),
    "reservoir": ("--fitted 1500", r"ahead the error is ([\d.]+)", 0, 0.05, "Mackey-Glass"),
    "unequal": ("--updates 300", r"the future reduces it to ([\d.]+)", 0.6, 0.8, "best possible"),
}


Run: TypeAlias = Callable[[str, str], tuple[Any, str, str]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """A function that runs `python -m module arguments` here. To import the module runs nothing.

    It gives the exit status, what is printed, and what is printed as errors.
    """

    def run(module: str, arguments: str) -> tuple[Any, str, str]:
        importlib.import_module(module)
        monkeypatch.delitem(sys.modules, module)
        monkeypatch.setattr(sys, "argv", [module, *arguments.split()])
        with pytest.raises(SystemExit) as stopped:
            runpy.run_module(module, run_name="__main__", alter_sys=True)
        return stopped.value.code, *capsys.readouterr()

    return run


@pytest.mark.parametrize("name", PROGRAMS)
def test_program(name: str, tmp_path: Path, run: Run) -> None:
    arguments, pattern, least, most, words = PROGRAMS[name]
    drawn = tmp_path / f"{name}.svg"
    status, printed, _ = run(f"jaxrnn.examples.{name}", f"{arguments} --plot {drawn}")
    assert status == 0
    number = re.search(pattern, printed)
    assert number, printed
    assert least <= float(number[1]) <= most
    for path in (drawn, PICTURES / drawn.name):
        assert words in path.read_text()
        assert "<dc:date>" not in path.read_text()
        assert path.stat().st_size < 62_000


def test_every_program_is_short_tested_and_on_the_page() -> None:
    paths = {path.stem: path for path in FOLDER.glob("*.py")}
    assert paths.keys() - {"__init__", "program"} == PROGRAMS.keys()
    for name in PROGRAMS:
        assert len(paths[name].read_text().splitlines()) <= 120
        assert f"python -m jaxrnn.examples.{name} --plot {name}.svg" in PAGE
        assert f"(../../bench/results/{name}.svg)" in PAGE


def test_what_the_demonstration_prints() -> None:
    """It compiles as a user's does, whose figures the page gives.

    Between versions of JAX, rounding makes the networks' errors differ by a quarter.
    """
    environment = os.environ | {"JAX_DISABLE_MOST_OPTIMIZATIONS": "0"}
    command = [sys.executable, "-m", "jaxrnn"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    digits = "0.79494228 0.81839002 0.83939649 0.85584174"
    assert re.search(rf"notebook +{digits}\n +float64 +{digits}\n", done.stdout)
    assert "picture" not in done.stdout
    rows = re.findall(r"^  (\w.*?) {2,}(0\.\d{4})$", done.stdout, flags=re.MULTILINE)
    errors = {name: float(error) for name, error in rows}
    persistence, linear, one, ensemble = errors.values()
    assert persistence == pytest.approx(0.9242, abs=1e-4)
    assert linear == pytest.approx(0.1846, abs=1e-4)
    assert ensemble < one < linear / 15
    assert ensemble < linear / 20
    for name, error in errors.items():
        in_page = re.search(rf"^    {re.escape(name)} +([\d.]+)", PAGE, flags=re.MULTILINE)
        assert in_page, name
        assert float(in_page[1]) == pytest.approx(error, rel=0.25)
        assert name in (PICTURES / "laser.svg").read_text()


def test_what_does_not_hold_exits_with_1(monkeypatch: pytest.MonkeyPatch, run: Run) -> None:
    """As after too short a training. With a wrong worked example, nothing is trained."""
    status, printed, _ = run("jaxrnn.__main__", "--members 1 --updates 1")
    assert status == 1
    assert "DOES NOT HOLD: the error of the ensemble" in printed
    off_in_the_eighth_digit = np.array([[0.79494229, 0.81839002, 0.83939649, 0.85584174]])
    monkeypatch.setattr(jaxrnn, "rnn_forward", lambda *_: off_in_the_eighth_digit)
    status, printed, errors = run("jaxrnn.__main__", "")
    assert status == 1
    assert "the worked example is off" in errors
    assert "laser" not in printed


def test_a_closed_pipe_gives_no_traceback() -> None:
    """As when the output is read by `head -1`."""
    command = [sys.executable, "-m", "jaxrnn", "--members", "1", "--updates", "1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 1


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        ("--help", 0, ["--members", "--seed", "(default: 300)"]),
        ("--members 0", 2, ["but is 0"]),
        ("--seed 9223372036854775808", 2, ["but is 9223372036854775808"]),
        ("--members many", 2, ["'many'"]),
        ("--plot laser.csv", 2, ["--plot: must end in", ".png", ".svg", "but is laser.csv"]),
        ("--plot no/laser.SVG", 2, ["must be in a folder that exists, but is no/laser.SVG"]),
        ("--fast", 2, ["--fast"]),
        ("more", 2, ["more"]),
    ],
)
def test_help_and_wrong_arguments_exit_with_usage(
    arguments: str, status: int, words: list[str], run: Run
) -> None:
    came, *printed = run("jaxrnn.__main__", arguments)
    assert came == status
    assert all(word in printed[status > 0] for word in ["usage: python -m jaxrnn ", *words])


def test_without_matplotlib_nothing_is_trained(monkeypatch: pytest.MonkeyPatch, run: Run) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    needed = f"--plot: needs matplotlib: {sys.executable} -m pip install matplotlib"
    status, printed, errors = run("jaxrnn.__main__", "--plot laser.svg")
    assert (status, printed, needed in errors) == (2, "", True)


def test_the_same_seed_gives_the_same_network_and_another_one_another() -> None:
    values = laser.load_laser() / 100
    keys = jax.vmap(jax.random.key)(np.array([3, 3, 4]))
    one, same, other = laser.train_ensemble(keys, values, 2)
    np.testing.assert_array_equal(one, same)
    assert np.nanmax(np.abs(one - other)) > 0.01


def test_the_series_and_its_source() -> None:
    values = laser.load_laser()
    assert values.shape == (10_093,) == (laser.COMPARED.stop,)
    np.testing.assert_array_equal(values[:8], [86, 141, 95, 41, 22, 21, 32, 72])
    assert [values.min(), values.max(), values.sum(), values[-1]] == [0, 255, 603_880, 100]
    digest = "9785701c78e12e3483e0cf19bf85dff151a51f56cbb2ce476031abbcd3f5bff8"
    assert hashlib.sha256(values.astype(np.uint8).tobytes()).hexdigest() == digest
    text = resources.files("jaxrnn.examples").joinpath("laser.txt").read_text()
    for words in ("Santa Fe", "competition of 1991", "reservoirpy", "MIT License", "Copyright (c)"):
        assert words in text


def test_the_linear_model_is_least_squares() -> None:
    """It recovers an autoregression exactly, whatever follows the values that it is fitted on."""
    values = np.empty(40)
    values[:2] = 1.0, 2.0
    for t in range(2, 40):
        values[t] = 0.9 * values[t - 1] - 0.5 * values[t - 2] + 0.3
    corrupted = np.where(np.arange(40) < 30, values, 100.0)
    forecasts = laser.fit_linear(corrupted, slice(2, 30), 2)
    np.testing.assert_allclose(forecasts[2:31], values[2:31], rtol=0, atol=1e-9)
    assert np.isnan(forecasts[:2]).all()
