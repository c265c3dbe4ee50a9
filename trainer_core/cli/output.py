"""What every command prints with: JSON for programs, a terminal for people. Knows no command."""

import importlib.util
import json
import math
import sys
from pathlib import Path
from typing import Any

import msgspec
from rich.console import Console

from trainer_core.spec.errors import UserError

Builtins = dict[str, "Builtins"] | list["Builtins"] | str | int | float | bool | None


def print_json(value: Any) -> None:
    """One JSON document on stdout. NaN and infinities become the strings "NaN", "Infinity", "-Infinity".

    JSON has no such numbers, and null already means "not measured".
    """
    print(json.dumps(strict(msgspec.to_builtins(value)), indent=2, ensure_ascii=False))


def json_line(value: Any) -> str:
    """As ``print_json``, on one line of its own."""
    return json.dumps(strict(msgspec.to_builtins(value)), ensure_ascii=False)


def strict(value: Any) -> Builtins:
    """``value`` with every number that JSON cannot hold written as a string."""
    match value:
        case dict():
            return {key: strict(item) for key, item in value.items()}
        case list() | tuple():
            return [strict(item) for item in value]
        case float() if not math.isfinite(value):
            return "NaN" if math.isnan(value) else ("Infinity" if value > 0 else "-Infinity")
        case str() | int() | float() | None:
            return value
    raise TypeError(f"{type(value).__name__} has no JSON form")


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
