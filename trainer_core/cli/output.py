"""What every command prints with: JSON for programs, a terminal for people. Knows no command."""

import importlib.util
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


def out() -> Console:
    """Standard output; markup off, because names and messages may hold square brackets.

    Where it is no terminal a line may be as long as it needs to be: a program reads it, or a person in a file.
    """
    return Console(markup=False, highlight=False, soft_wrap=True, width=None if sys.stdout.isatty() else 10_000)


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
