"""``hybrid send`` before there is an agent: it waits within bounds, tells the run once, or says that it told nobody."""

import json
import os
import signal
import socket
import sqlite3
import subprocess
from contextlib import closing
from pathlib import Path

import pytest

from tests.cli.conftest import Start, until
from tests.conftest import Hybrid
from tests.telemetry.trainers import Trainer
from tests.telemetry.wires import endpoint
from trainer_core.telemetry.agent_process import start_agent
from trainer_core.telemetry.keys import create
from trainer_core.telemetry.listening import LAST_PORT


def told(process: subprocess.Popen[str]) -> str:
    """The first line on stderr: it waits."""
    assert process.stderr is not None
    line = process.stderr.readline()
    assert "answers yet; it is waited for" in line
    return line


def accepted(run_dir: Path) -> int:
    with closing(sqlite3.connect(run_dir / "commands.db")) as db:
        (count,) = db.execute("SELECT count(*) FROM commands").fetchone()
    return int(count)


def test_a_run_whose_agent_is_not_up_yet_is_waited_for_and_told_once(runs_dir: Path, start: Start) -> None:
    with Trainer(runs_dir / "r", serves=False) as trainer:
        sending = start("send", trainer.run_dir, "pause", "--wait")
        assert "up to 60 s" in told(sending)
        trainer.agent = start_agent(trainer.run_dir)
        out, _ = sending.communicate(timeout=60)
        assert sending.returncode == 0 and "pause: applied" in out
        assert len(trainer.taken) == accepted(trainer.run_dir) == 1


def test_a_run_elsewhere_that_is_not_up_yet_is_waited_for_and_told_once(runs_dir: Path, start: Start) -> None:
    run_dir = runs_dir / "r"
    key = create(run_dir, "bob", "operator", run_dir / "bob.json")
    with socket.create_server(("127.0.0.1", 0)) as probe:
        at = f"127.0.0.1:{min(probe.getsockname()[1], LAST_PORT)}"
    sending = start("send", "--connect", at, "--key", key, "pause", "--wait")
    told(sending)
    with Trainer(run_dir, listen=at) as trainer:
        out, _ = sending.communicate(timeout=60)
        assert sending.returncode == 0 and "pause: applied" in out
        assert [one.actor for one in trainer.taken] == ["bob"] and accepted(run_dir) == 1


@pytest.mark.parametrize("elsewhere", [False, True])
def test_where_no_agent_comes_it_says_that_nothing_was_sent(hybrid: Hybrid, runs_dir: Path, elsewhere: bool) -> None:
    run_dir = runs_dir / "r"
    key = create(run_dir, "bob", "operator", run_dir / "bob.json")
    with Trainer(run_dir, serves=False) as trainer, socket.create_server(("127.0.0.1", 0)) as nobody:
        at = f"127.0.0.1:{min(nobody.getsockname()[1], LAST_PORT)}"
        where = ("--connect", at, "--key", key) if elsewhere else (run_dir,)
        said = hybrid("send", *where, "pause", "--ttl", "1", "--json")
        figures = json.loads(said.stdout)
        assert (said.returncode, figures["state"]) == (3, "rejected"), "known to be unsent, not unknown"
        assert "nothing was sent" in figures["reason"] and not (run_dir / "commands.db").exists()
        if elsewhere:  # an earlier try may have arrived: nobody here can know
            retried = hybrid("send", *where, "pause", "--ttl", "1", "--id", "earlier-try")
            assert retried.returncode == 4 and "unknown" in retried.stdout
        assert trainer.taken == []


def test_a_second_try_with_no_agent_says_what_became_of_the_first(hybrid: Hybrid, runs_dir: Path) -> None:
    with Trainer(runs_dir / "r") as trainer:
        until(lambda: (trainer.run_dir / "endpoint.json").exists(), "there is no agent")
        words = ("send", trainer.run_dir, "pause", "--id", "my-own-id", "--ttl", "30")
        assert hybrid(*words).returncode == 0
        pid = int(endpoint(trainer.run_dir)["pid"])
        assert trainer.agent is not None
        trainer.agent.close()
        os.kill(pid, signal.SIGKILL)
        again = hybrid(*words)
        assert again.returncode == 0 and "pause: applied" in again.stdout
        assert len(trainer.taken) == 1
