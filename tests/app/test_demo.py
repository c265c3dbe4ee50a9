"""``hybrid demo`` killed with SIGKILL: what it started ends by itself, and the run is whole."""

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from tests.app.conftest import ROOT, Process, free_port, until
from tests.app.test_browser import records
from trainer_core.spec.records import CheckpointSaved
from trainer_core.telemetry.journal import JournalError
from trainer_core.telemetry.rundir import RunSummary, find_runs

DASHBOARD, TRAINER, AGENT = "-m app ", "trainer_core train code_lm", "trainer_core.telemetry.agent"


def lives(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def stepping(runs_dir: Path) -> RunSummary | None:
    """The run of the demo, once it has taken a step and has an agent."""
    try:
        return next((run for run in find_runs(runs_dir) if run.status.step > 0 and run.status.agent_alive), None)
    except JournalError:
        return None


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the kernel tells no child of its parent's death")
def test_a_killed_demo_leaves_nobody_behind_and_a_whole_run(
    runs_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HYBRID_AGENT_LINGER_S", "1")
    words = [sys.executable, "-m", "trainer_core", "demo", "--no-browser", "--runs-dir", str(runs_dir)]
    words += ["--port", str(free_port())]
    demo = Process(words, tmp_path / "demo.log", ROOT)
    children: list[psutil.Process] = []
    try:
        until(lambda: "Ctrl-C ends both." in demo.output or demo.child.poll() is not None, 60, "the demo is up")
        assert demo.child.poll() is None, demo.output
        run = until(lambda: stepping(runs_dir), 120, "its run takes steps")
        assert run is not None
        children = psutil.Process(demo.child.pid).children(recursive=True)
        lines = [" ".join(child.cmdline()) for child in children]
        for wanted in (DASHBOARD, TRAINER, AGENT):
            assert any(wanted in line for line in lines), f"{wanted}: not among {lines}"
        os.kill(demo.child.pid, signal.SIGKILL)
        assert demo.child.wait(10) == -signal.SIGKILL
        gone: Callable[[], bool] = lambda: not any(lives(child) for child in children)  # noqa: E731
        until(gone, 60, "dashboard, trainer and agent end")
    finally:
        demo.end()
        for child in filter(lives, children):
            child.kill()
    (left,) = find_runs(runs_dir)
    assert (left.status.state, left.status.trainer_alive) == ("stopped", False), left.status
    saved = [record for record in records(run.path) if isinstance(record, CheckpointSaved)]
    assert saved and saved[-1].step == left.status.step, "the trainer saved where it stopped"
