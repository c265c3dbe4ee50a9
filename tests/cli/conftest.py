"""A finished run for reading and a live one for steering, both of the real trainer on the digits task."""

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.conftest import Hybrid, end_agents
from trainer_core.cli import main

STEPS = 60
PATIENCE_S = 60.0

Start = Callable[..., subprocess.Popen[str]]


def until(holds: Callable[[], bool], what: str, patience_s: float = PATIENCE_S) -> None:
    """Wait until ``holds``; fail saying ``what`` did not happen."""
    ends = time.monotonic() + patience_s
    while not holds():
        assert time.monotonic() < ends, f"after {patience_s:g} s: {what}"
        time.sleep(0.05)


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory, hybrid: Hybrid) -> Iterator[Path]:
    """The run directory of a finished run; only to be read."""
    runs = tmp_path_factory.mktemp("finished")
    said = hybrid("train", "digits", "--steps", STEPS, "--seed", 3, "--run-dir", runs / "done")
    assert said.returncode == 0, said.stderr
    yield runs / "done"
    end_agents(runs)


class Here(NamedTuple):
    """What a command said that ran inside the test's own process."""

    returncode: int
    stdout: str
    stderr: str


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Here]:
    """Run the command line without a new process: for the many cases that end before anything is trained."""

    def call(*words: str | Path | int) -> Here:
        monkeypatch.setattr(sys, "argv", ["hybrid", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            main()
        said = capsys.readouterr()
        return Here(int(ended.value.code or 0), said.out, said.err)

    return call


@pytest.fixture
def start(runs_dir: Path) -> Iterator[Start]:
    """Start the command line as a process that goes on; whatever still runs afterwards is ended."""
    begun: list[subprocess.Popen[str]] = []

    def call(*words: str | Path | int) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-m", "trainer_core", *map(str, words)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=runs_dir.parent,
        )
        begun.append(process)
        return process

    yield call
    for process in begun:
        if process.poll() is None:
            process.send_signal(signal.SIGCONT)
            process.terminate()
        try:
            process.communicate(timeout=30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            pytest.fail(f"{process.args} did not end within 30 s of SIGTERM")


def train(start: Start, run_dir: Path, *more: str) -> tuple[Path, subprocess.Popen[str]]:
    """Begin a run of ``digits`` that goes on for long, and wait until it can be steered."""
    words = ("--steps", 10_000_000, "--run-dir", run_dir, "--set", "confidence_threshold=0.85", *more)
    process = start("train", "digits", *words)
    until(lambda: process.poll() is not None or (run_dir / "endpoint.json").exists(), "the run has no endpoint.json")
    assert process.poll() is None, process.communicate()
    return run_dir, process


@pytest.fixture
def live(runs_dir: Path, start: Start) -> tuple[Path, subprocess.Popen[str]]:
    """The run directory and the process of a run that is training and can be steered."""
    return train(start, runs_dir / "live")
