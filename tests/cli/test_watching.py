"""``hybrid dashboard`` and ``hybrid demo``: they answer, they refuse a port in use, and they leave nothing behind."""

import json
import os
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import psutil
import pytest

from tests.cli.conftest import Start, until
from tests.conftest import Hybrid
from trainer_core.telemetry.rundir import held, holder_of


@pytest.fixture
def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port


def _answers(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=2) as reply:
            return bool(reply.status == 200)
    except OSError:
        return False


@pytest.mark.parametrize("command", ["dashboard", "demo"])
def test_a_port_in_use_is_one_sentence_and_nothing_is_started(hybrid: Hybrid, tmp_path: Path, command: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        said = hybrid(command, "--port", port, "--no-browser", cwd=tmp_path)
    assert said.returncode == 2
    assert str(port) in said.stderr and len(said.stderr.strip().splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_the_dashboard_answers_and_ends_at_a_signal(runs_dir: Path, start: Start, free_port: int) -> None:
    process = start("dashboard", runs_dir, "--port", free_port, "--no-browser")
    until(lambda: process.poll() is not None or _answers(free_port), "the dashboard does not answer")
    assert process.poll() is None, process.communicate()
    process.send_signal(signal.SIGTERM)
    assert process.wait(15) in (0, -signal.SIGTERM, 128 + signal.SIGTERM)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_demo_trains_shows_it_and_leaves_no_process(
    hybrid: Hybrid, runs_dir: Path, start: Start, free_port: int, number: signal.Signals
) -> None:
    process = start("demo", "--port", free_port, "--no-browser", "--runs-dir", runs_dir)
    until(lambda: process.poll() is not None or _answers(free_port), "the dashboard does not answer")
    assert process.poll() is None, process.communicate()

    def steps() -> int:
        said = hybrid("runs", runs_dir, "--json")
        return int(json.loads(said.stdout)[0]["step"]) if said.stdout.strip() not in ("", "[]") else 0

    until(lambda: steps() > 0, "the run has no steps")
    children = psutil.Process(process.pid).children(recursive=True)
    assert len(children) >= 2
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert f"http://127.0.0.1:{free_port}/?run=demo-" in out
    assert not [child for child in children if child.is_running() and child.status() != psutil.STATUS_ZOMBIE]
    (run,) = json.loads(hybrid("runs", runs_dir, "--json").stdout)
    assert run["state"] == "stopped" and not run["agent_alive"]


def test_the_dashboard_of_a_demo_outlives_the_training(runs_dir: Path, start: Start, free_port: int) -> None:
    process = start("demo", "--port", free_port, "--no-browser", "--runs-dir", runs_dir, "--steps", 20)
    assert process.stdout is not None
    for line in process.stdout:
        if "The training has finished" in line:
            break
    assert process.poll() is None and _answers(free_port)
    process.send_signal(signal.SIGINT)
    assert process.wait(30) == 0


def test_a_demo_whose_training_was_killed_ends_with_exit_code_1(runs_dir: Path, start: Start, free_port: int) -> None:
    """It was 247, which is no exit code that the command has."""
    process = start("demo", "--port", free_port, "--no-browser", "--runs-dir", runs_dir)
    until(lambda: any(held(lock.parent) for lock in runs_dir.glob("demo-*/run.lock")), "there is no trainer")
    pid = holder_of(next(runs_dir.glob("demo-*")))["pid"]
    assert isinstance(pid, int)
    os.kill(pid, signal.SIGKILL)
    assert process.stdout is not None
    assert any("The training has ended with exit code -9" in line for line in process.stdout)
    process.send_signal(signal.SIGINT)
    assert process.wait(30) == 1


def test_children_are_killed_when_they_do_not_end(tmp_path: Path) -> None:
    from trainer_core.cli.children import Child

    deaf = tmp_path / "deaf"
    child = Child(["bash", "-c", f"trap '' TERM; touch '{deaf}'; while :; do read -t 1 < /dev/zero || :; done"])
    until(deaf.exists, "the child does not begin")
    child.end(patience_s=0.5)
    assert child.code == -signal.SIGKILL


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child that its parent was killed")
def test_children_end_when_their_parent_is_killed(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    child = f"echo $$ > '{pid_file}.new'; mv '{pid_file}.new' '{pid_file}'; exec sleep 1000"
    words = (
        f"import time; from trainer_core.cli.children import Child; Child(['bash', '-c', {child!r}]); time.sleep(1000)"
    )
    parent = subprocess.Popen([sys.executable, "-c", words])
    try:
        until(pid_file.exists, "the child does not begin")
        orphan = psutil.Process(int(pid_file.read_text(encoding="ascii")))
    finally:
        parent.kill()
        parent.wait()
    until(lambda: not orphan.is_running() or orphan.status() == psutil.STATUS_ZOMBIE, "the child lives on", 10)


def test_subprocess_is_the_module_not_a_folder_of_the_same_name(hybrid: Hybrid, tmp_path: Path, free_port: int) -> None:
    (tmp_path / "app.py").write_text("raise SystemExit('the wrong app')\n")
    process = subprocess.Popen(
        [str(Path(sys.executable).with_name("hybrid")), "dashboard", "--port", str(free_port), "--no-browser"],
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    )
    try:
        until(lambda: process.poll() is not None or _answers(free_port), "the dashboard does not answer")
        assert process.poll() is None
    finally:
        process.terminate()
        _, err = process.communicate(timeout=15)
    assert "the wrong app" not in err
