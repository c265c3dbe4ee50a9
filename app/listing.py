"""The runs under a directory, of which those that are over are read once. Knows neither pages nor feeds."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import msgspec

from trainer_core.telemetry.journal import FILE
from trainer_core.telemetry.rundir import AGENT_LOCK, RunSummary, held, newest_first, run_dirs, summary

File = tuple[int, int, int] | None
"""Which file, its size and when it was last written; None where there is none, or nothing in it: a reader makes one."""


@dataclass(frozen=True)
class _Known:
    """What was read of a run without a trainer, when, and of which files."""

    files: tuple[File, ...]
    at: float
    run: RunSummary


class Listing:
    """Lists runs for any thread. A run whose trainer lives is read anew each time: even its silence says something."""

    def __init__(self, runs_dir: Path, read: Callable[[Path], RunSummary] = summary) -> None:
        self._runs_dir = runs_dir
        self._read = read
        self._known: dict[Path, _Known] = {}
        self._lock = threading.Lock()

    def runs(self) -> list[RunSummary]:
        """Every run there is now, live or finished, newest first."""
        with self._lock:
            before, self._known = self._known, {}
            return newest_first([self._listed(path, before.get(path)) for path in run_dirs(self._runs_dir)])

    def _listed(self, path: Path, known: _Known | None) -> RunSummary:
        if held(path):
            return self._read(path)
        now, files = time.time(), tuple(_file(path / name) for name in (FILE, f"{FILE}-wal"))  # before they are read
        if known is None or known.files != files:
            known = _Known(files, now, self._read(path))
            if known.run.error or known.run.status.trainer_alive:
                return known.run
        self._known[path] = known
        return _aged(known.run, now - known.at, held(path, AGENT_LOCK))


def _aged(run: RunSummary, seconds: float, agent_alive: bool) -> RunSummary:
    """The same run so many seconds later, when nothing has been written."""
    age = run.status.age_s
    later = None if age is None else max(0.0, age + seconds)
    how = msgspec.structs.replace(run.status, age_s=later, agent_alive=agent_alive)
    return msgspec.structs.replace(run, status=how)


def _file(path: Path) -> File:
    try:
        found = path.stat()
    except OSError:
        return None
    return (found.st_ino, found.st_size, found.st_mtime_ns) if found.st_size else None
