"""Fixtures for all tests: the command line as a process, run directories, and a check that no process is left."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from hypothesis import settings

settings.register_profile("the same every time", derandomize=True, database=None)
settings.load_profile("the same every time")

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # As a shell starts what runs in the background; every process of a test would inherit it, and Ctrl-C be nothing.
    signal.signal(signal.SIGINT, signal.default_int_handler)

GRACE_S = 5.0
"""How long a process may take to go away after its test."""

Hybrid = Callable[..., subprocess.CompletedProcess[str]]


def _live(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.Error):
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    return False


def _line(process: psutil.Process) -> str:
    with contextlib.suppress(psutil.Error):
        return " ".join(process.cmdline())
    return ""


def _older(process: psutil.Process, before: set[int]) -> bool:
    """Whether it, or a process it descends from, was there before: a browser starts its helpers when it likes."""
    with contextlib.suppress(psutil.Error):
        return not before.isdisjoint({process.pid, *(parent.pid for parent in process.parents())})
    return False


def _left(before: set[int], folder: Path) -> list[psutil.Process]:
    """Processes that were not there before: our children, and orphans that work in the test's folder."""
    ours = psutil.Process().children(recursive=True)
    orphans = [p for p in psutil.process_iter() if str(folder) in _line(p) and p.pid != os.getpid()]
    return [
        p
        for p in {*ours, *orphans}
        if not _older(p, before) and _live(p) and "multiprocessing.resource_tracker" not in _line(p)
    ]


@pytest.fixture(autouse=True)
def no_process_left(tmp_path: Path) -> Iterator[None]:
    """Fail a test that leaves a process behind, and end the process."""
    before = {p.pid for p in psutil.Process().children(recursive=True)}
    yield
    ends = time.monotonic() + GRACE_S
    while (left := _left(before, tmp_path)) and time.monotonic() < ends:
        time.sleep(0.05)
    said = [f"{p.pid}: {_line(p)}" for p in left]
    for process in left:
        with contextlib.suppress(psutil.Error):
            process.kill()
    assert not said, "the test left processes behind:\n" + "\n".join(said)


def end_agents(runs_dir: Path) -> None:
    """End the agents of all runs under ``runs_dir``: by design they outlive their trainers for a while.

    Found by their command line, not by endpoint.json: one that still waits for an earlier agent has no endpoint yet.
    """
    for process in psutil.process_iter():
        line = _line(process)
        if "trainer_core.telemetry.agent" in line and str(runs_dir) in line:
            with contextlib.suppress(psutil.Error):
                process.terminate()


@pytest.fixture
def runs_dir(tmp_path: Path) -> Iterator[Path]:
    """An empty folder for runs; agents that serve runs in it are ended afterwards."""
    folder = tmp_path / "runs"
    folder.mkdir()
    yield folder
    end_agents(folder)


@pytest.fixture(scope="session")
def hybrid() -> Hybrid:
    """Run the command line as a user does; returns its exit code and both outputs."""

    def call(
        *words: str | Path, cwd: Path | None = None, timeout: float = 120, stdin: str | None = None
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "trainer_core", *map(str, words)],
            cwd=cwd,
            input=stdin or "",
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    return call
