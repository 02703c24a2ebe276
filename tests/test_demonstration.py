"""`python -m jaxrnn` prints what README.md says, and its exit status tells how it ended."""

import re
import subprocess
import sys
from importlib import resources

import numpy as np
import pytest

from jaxrnn import __main__ as demonstration
from tests.helpers import README


@pytest.fixture(scope="module")
def printed() -> str:
    command = [sys.executable, "-m", "jaxrnn"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_worked_example_stands_beside_the_notebooks_numbers(printed: str) -> None:
    digits = "0.79494228 0.81839002 0.83939649 0.85584174"
    assert re.search(rf"notebook +{digits}\n +float64 +{digits}\n", printed)


def test_progress_is_shown(printed: str) -> None:
    progress = re.findall(r"^ +(\d+) +[\d.]+ +[\d.]+$", printed, flags=re.MULTILINE)
    assert [int(n) for n in progress] == list(range(20, 301, 20))


def test_the_ensemble_is_clearly_better_than_persistence(printed: str) -> None:
    errors = dict(re.findall(r"^  (\w.*?)  +([\d.]+)$", printed, flags=re.MULTILINE))
    persistence = float(errors["persistence (the year before)"])
    assert persistence == pytest.approx(31.78, abs=0.01)
    assert float(errors["the ensemble's mean"]) < 0.75 * persistence
    assert float(errors["linear autoregression"]) < 0.75 * persistence


def test_the_readme_gives_the_figures_printed(printed: str) -> None:
    rows = re.findall(r"^    (\w.*?) {2,}([\d.]+)$", README, flags=re.MULTILINE)
    assert len(rows) == 4
    for name, figure in rows:
        found = re.search(rf"^  {re.escape(name)} +([\d.]+)$", printed, flags=re.MULTILINE)
        assert found, name
        assert float(figure) == pytest.approx(float(found[1]), rel=0.01)


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
        ("--seed x", 2, ["'x'"]),
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
    given: list[tuple[int, int]] = []
    monkeypatch.setattr(demonstration, "forecast_sunspots", lambda *args: given.append(args))
    assert demonstration.main(["--seed", "3", "--members", "2"]) == 0
    assert given == [(3, 2)]


def test_a_wrong_worked_example_exits_with_1(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def off_in_the_eighth_digit(*_: object) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
        return np.array([[0.79494229, 0.81839002, 0.83939649, 0.85584174]])

    monkeypatch.setattr(demonstration, "rnn_forward", off_in_the_eighth_digit)
    assert demonstration.main([]) == 1
    printed = capsys.readouterr()
    assert "the worked example is off" in printed.err
    assert "sunspot" not in printed.out


def test_the_series_and_its_source() -> None:
    years, sunspots = demonstration.load_sunspots()
    np.testing.assert_array_equal(years, np.arange(1700, 2009))
    assert [sunspots[0], sunspots.max(), sunspots[-1]] == [5.0, 190.2, 2.9]
    text = resources.files("jaxrnn").joinpath("sunspots.csv").read_text()
    assert "Source: National Geophysical Data Center" in text
    assert "Licence: public domain" in text


def test_the_linear_model_is_least_squares() -> None:
    """It recovers an autoregression exactly, whatever follows the values that it is fitted on."""
    values = np.empty(40)
    values[:2] = 1.0, 2.0
    for t in range(2, 40):
        values[t] = 0.9 * values[t - 1] - 0.5 * values[t - 2] + 0.3
    index = np.arange(40)
    corrupted = np.where(index < 30, values, 100.0)
    forecasts = demonstration.fit_linear(corrupted, (index >= 2) & (index < 30), 2)
    np.testing.assert_allclose(forecasts[2:31], values[2:31], rtol=0, atol=1e-9)
    assert np.isnan(forecasts[:2]).all()
