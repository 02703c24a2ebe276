"""`python -m jaxrnn` prints what README.md says, and its exit status tells how it ended."""

import hashlib
import os
import re
import subprocess
import sys
from importlib import resources
from pathlib import Path

import jax
import numpy as np
import pytest

from jaxrnn import __main__ as demonstration
from tests.helpers import README

PLOT = Path(__file__).parent.parent / "bench" / "results" / "laser.svg"


def test_what_it_prints_and_draws(tmp_path: Path) -> None:
    """In one test, as it takes longest. It compiles as a user's does, whose figures README gives.

    Between versions of JAX, rounding makes the networks' errors differ by a quarter.
    """
    command = [sys.executable, "-m", "jaxrnn", "--plot", str(tmp_path / "laser.svg")]
    environment = os.environ | {"JAX_DISABLE_MOST_OPTIMIZATIONS": "0"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    printed = done.stdout

    digits = "0.79494228 0.81839002 0.83939649 0.85584174"
    assert re.search(rf"notebook +{digits}\n +float64 +{digits}\n", printed)

    progress = re.findall(r"^ +(\d+) +[\d.]+ +[\d.]+$", printed, flags=re.MULTILINE)
    assert [int(n) for n in progress] == list(range(20, 301, 20))

    table = printed.partition("squared error, compared")[2]
    rows = re.findall(r"^  (\w.*?) {2,}(0\.\d+)", table, flags=re.MULTILINE)
    errors = {name: float(error) for name, error in rows}
    persistence, linear, one, ensemble = errors.values()
    assert persistence == pytest.approx(0.9242, abs=1e-4)
    assert linear == pytest.approx(0.1846, abs=1e-4)
    assert ensemble < one < linear / 15
    assert ensemble < linear / 20
    times = re.search(r"1/(\d+) of the linear", printed)
    assert times
    assert int(times[1]) == pytest.approx(linear / ensemble, rel=0.03)

    drawn = (tmp_path / "laser.svg").read_text()
    assert len(drawn) < 60_000
    for word in (*errors, "intensity", f"{linear:.4f}"):
        assert word in drawn
        assert word in PLOT.read_text()

    for name, error in errors.items():
        in_readme = re.search(rf"^    {re.escape(name)} +([\d.]+)", README, flags=re.MULTILINE)
        assert in_readme, name
        assert float(in_readme[1]) == pytest.approx(error, rel=0.25)


def test_a_network_is_better_than_linear_after_a_short_training(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The same seed gives the same network, and another one another."""
    monkeypatch.setattr(demonstration, "UPDATES_PER_LINE", 80)
    laser = demonstration.load_laser()
    values = (laser - laser[demonstration.FITTED].mean()) / laser[demonstration.FITTED].std()

    keys = jax.vmap(jax.random.key)(np.array([3, 3, 4]))
    with jax.numpy_dtype_promotion("standard"):  # as JAX's Adam needs
        _, members = next(demonstration.train_ensemble(keys, values))
    np.testing.assert_array_equal(members[0], members[1])
    linear = demonstration.fit_linear(values, demonstration.FITTED, 64)
    errors = [
        demonstration.nmse(each, values, demonstration.COMPARED) for each in (*members, linear)
    ]
    assert errors[0] != errors[2]
    assert max(errors[:3]) < errors[3] / 5


def test_no_picture_is_drawn_unasked(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(demonstration, "train_ensemble", lambda _, values: [(20, values[None] + 1)])
    demonstration.forecast_laser(seed=1, n_members=1)
    printed = capsys.readouterr().out
    assert "the ensemble's mean" in printed
    assert "picture" not in printed


def test_a_closed_pipe_gives_no_traceback() -> None:
    """As when the output is read by `head -1`."""
    command = [sys.executable, "-m", "jaxrnn", "--members", "1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 1


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        ("--help", 0, ["--members", "--seed"]),
        ("--members 0", 2, ["but is 0"]),
        ("--seed 9223372036854775808", 2, ["but is 9223372036854775808"]),
        ("--members many", 2, ["'many'"]),
        ("--plot laser.csv", 2, ["--plot: must end in", ".png", ".svg", "but is laser.csv"]),
        ("--plot no/laser.svg", 2, ["must be in a folder that exists, but is no/laser.svg"]),
        ("--fast", 2, ["--fast"]),
        ("more", 2, ["more"]),
    ],
)
def test_help_and_wrong_arguments_exit_with_usage(
    arguments: str, status: int, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        demonstration.main(arguments.split())
    assert stopped.value.code == status
    printed = capsys.readouterr()
    for word in ["usage: python -m jaxrnn", *words]:
        assert word in (printed.err if status else printed.out)


def test_arguments_are_passed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[tuple[int, int, Path | None]] = []
    monkeypatch.setattr(demonstration, "forecast_laser", lambda *args: given.append(args))
    assert demonstration.main(["--seed", "3", "--members", "2"]) == 0
    assert demonstration.main(["--plot", "laser.PNG"]) == 0
    assert given == [(3, 2, None), (1, 8, Path("laser.PNG"))]


def test_without_matplotlib_nothing_is_trained(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(SystemExit) as stopped:
        demonstration.main(["--plot", "laser.svg"])
    assert stopped.value.code == 2
    printed = capsys.readouterr()
    assert f"--plot: needs matplotlib: {sys.executable} -m pip install matplotlib" in printed.err
    assert printed.out == ""


def test_a_wrong_worked_example_exits_with_1(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    off_in_the_eighth_digit = np.array([[0.79494229, 0.81839002, 0.83939649, 0.85584174]])
    monkeypatch.setattr(demonstration, "rnn_forward", lambda *_: off_in_the_eighth_digit)
    assert demonstration.main([]) == 1
    printed = capsys.readouterr()
    assert "the worked example is off" in printed.err
    assert "laser" not in printed.out


def test_the_series_and_its_source() -> None:
    laser = demonstration.load_laser()
    assert laser.shape == (10_093,) == (demonstration.COMPARED.stop,)
    np.testing.assert_array_equal(laser[:8], [86, 141, 95, 41, 22, 21, 32, 72])
    assert [laser.min(), laser.max(), laser.sum(), laser[-1]] == [0, 255, 603_880, 100]
    digest = "9785701c78e12e3483e0cf19bf85dff151a51f56cbb2ce476031abbcd3f5bff8"
    assert hashlib.sha256(laser.astype(np.uint8).tobytes()).hexdigest() == digest
    text = resources.files("jaxrnn").joinpath("laser.txt").read_text()
    for words in ("Santa Fe", "competition of 1991", "reservoirpy", "MIT License", "Copyright (c)"):
        assert words in text


def test_the_linear_model_is_least_squares() -> None:
    """It recovers an autoregression exactly, whatever follows the values that it is fitted on."""
    values = np.empty(40)
    values[:2] = 1.0, 2.0
    for t in range(2, 40):
        values[t] = 0.9 * values[t - 1] - 0.5 * values[t - 2] + 0.3
    corrupted = np.where(np.arange(40) < 30, values, 100.0)
    forecasts = demonstration.fit_linear(corrupted, slice(2, 30), 2)
    np.testing.assert_allclose(forecasts[2:31], values[2:31], rtol=0, atol=1e-9)
    assert np.isnan(forecasts[:2]).all()
