"""What every command prints with: JSON for programs, a terminal for people. Knows no command."""

import errno
import importlib.util
import io
import math
import os
import re
import sys
from pathlib import Path
from typing import Any

from rich.console import Console

from trainer_core.spec.errors import UserError
from trainer_core.telemetry.as_json import json_text


def print_json(value: Any) -> None:
    """One JSON document on stdout. NaN and infinities become the strings "NaN", "Infinity", "-Infinity"."""
    print(json_text(value, indent=2))


def json_line(value: Any) -> str:
    """As ``print_json``, on one line of its own."""
    return json_text(value)


def open_streams() -> None:
    """Have three standard streams that take every character: a closed one leads nowhere, so that no file of the run's
    gets its number, and what the terminal's encoding does not have is written as its escape.
    """
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        if getattr(sys, name) is None:
            null = os.open(os.devnull, os.O_RDWR)
            if null != number:
                os.dup2(null, number)
                os.close(null)
            setattr(sys, name, open(number, mode, encoding="utf-8"))  # noqa: SIM115  # as long as the process
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


class _Console(Console):
    """A reader that went away is an error like a full disk, for the command to judge; rich would end the program."""

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError(errno.EPIPE, "Broken pipe")


_UNSEEN = re.compile("[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""Controls, line ends, marks that turn the writing around, halves of characters."""


def visible(text: str) -> str:
    """``text`` on one line as it is: what would end the line, move the cursor or colour the rest is written as its
    escape. Names, notes and reasons are anybody's, and must not look like lines of the program's own.
    """
    return _UNSEEN.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def figure(value: float, form: str, least: float = 0.1) -> str:
    """A measured value in ``form``; three digits below ``least``, where that shows none of it, and from a million."""
    usual = least <= abs(value) < 1e6 or value == 0 or not math.isfinite(value)
    return f"{value:{form if usual else '.3g'}}"


def is_text(given: str) -> bool:
    """Whether what was typed was UTF-8: Python keeps other bytes as halves of characters."""
    return given.isascii() or not re.search("[\ud800-\udfff]", given)


def out() -> Console:
    """Standard output; markup off, because names and messages may hold square brackets.

    Where it is no terminal a line may be as long as it needs to be: a program reads it, or a person in a file.
    """
    return _Console(markup=False, highlight=False, soft_wrap=True, width=None if sys.stdout.isatty() else 10_000)


def err() -> Console:
    """Standard error, for what is not the answer."""
    return Console(stderr=True, markup=False, highlight=False, soft_wrap=True)


def a_run(run_dir: Path) -> Path:
    """``run_dir`` if it is a run. Raises UserError."""
    if not run_dir.is_dir():
        raise UserError(f"{run_dir}: there is no such run directory")
    if not (run_dir / "journal.db").is_file():
        raise UserError(f"{run_dir}: not a run directory (it has no journal.db)")
    return run_dir


def need_extra(extra: str, *modules: str) -> None:
    """Raise UserError when the optional part of the installation that a command needs is missing."""
    missing = [name for name in modules if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(
            f"this needs {', '.join(missing)}, which is not installed: pip install 'hybrid-predictive-trainer[{extra}]'"
        )
