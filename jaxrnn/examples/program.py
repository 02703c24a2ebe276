"""What the programs of the gallery share: their arguments, claims, and pictures."""

import argparse
import os
import sys
from collections.abc import Callable, Mapping
from functools import wraps
from pathlib import Path
from typing import Any, Concatenate, ParamSpec

P = ParamSpec("P")

BLUE, ORANGE, GREY = "#1f6feb", "#d9822b", "#777777"
STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "jaxrnn",  # so that the same numbers give the same file
    "font.family": "sans-serif",
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "figure.figsize": (8.6, 4.0),
    "figure.constrained_layout.use": True,
}


def run(main: Callable[[argparse.Namespace], int], text: str | None, **counts: int) -> None:
    """Run `main` with what the command line says, and exit with the status that it returns.

    The options are `--seed`, `--plot`, and the counts with these defaults.
    """
    spec = sys.modules["__main__"].__spec__
    prog = f"python -m {spec.name.removesuffix('.__main__')}" if spec else None
    parser = argparse.ArgumentParser(prog=prog, description=text)
    for name, default in {"seed": 1, **counts}.items():
        words = f"a positive integer (default: {default})"
        parser.add_argument(f"--{name}", type=positive_integer, default=default, help=words)
    parser.add_argument("--plot", type=picture, metavar="FILE", help="draw the picture there")
    options = parser.parse_args()
    try:
        status = main(options)
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader has stopped, as `head` does. Python flushes once more at exit, which would fail
        # again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = 1
    sys.exit(status)


def positive_integer(text: str) -> int:
    """Read a count from the command line."""
    number = int(text)
    if not 1 <= number < 2**31:
        raise argparse.ArgumentTypeError(f"must be from 1 to 2**31 - 1, but is {number}")
    return number


def picture(text: str) -> Path:
    """Read the path of a picture from the command line, before anything is trained."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        needs = f"needs matplotlib: {sys.executable} -m pip install matplotlib"
        raise argparse.ArgumentTypeError(needs) from error
    path = Path(text)
    suffixes = [f".{name}" for name in Figure().canvas.get_supported_filetypes()]
    if path.suffix.lower() not in suffixes:
        raise argparse.ArgumentTypeError(f"must end in one of {' '.join(suffixes)}, but is {text}")
    if not path.parent.is_dir():
        raise argparse.ArgumentTypeError(f"must be in a folder that exists, but is {text}")
    return path


def draws(draw: Callable[Concatenate[Any, P], None]) -> Callable[Concatenate[Path | None, P], None]:
    """Make a function that draws on an empty figure one that draws a file, if a path is given."""

    @wraps(draw)
    def drawing(path: Path | None, /, *args: P.args, **kwargs: P.kwargs) -> None:
        if path is None:
            return
        from matplotlib import rc_context
        from matplotlib.figure import Figure

        with rc_context(STYLE):
            figure = Figure()
            draw(figure, *args, **kwargs)
            # Without the date, the same numbers give the same file.
            figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)
        print(f"The picture is in {path}.")

    return drawing


def conclude(claims: Mapping[str, Any]) -> int:
    """Print whether each claim holds; the result is the exit status."""
    for claim, holds in claims.items():
        print(f"{'holds' if holds else 'DOES NOT HOLD'}: {claim}")
    return 0 if all(claims.values()) else 1
