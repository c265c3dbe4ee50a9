"""A trainer and its agent: what keeps an agent from serving is an alert in the journal, and training goes on."""

import os
import signal
from pathlib import Path

import psutil

from tests.conftest import Hybrid
from tests.telemetry.trainers import Trainer
from tests.telemetry.waiting import until
from tests.telemetry.wires import endpoint
from trainer_core.spec.commands import CommandRequest, CommandState, Pause
from trainer_core.spec.records import AlertRaised, AlertResolved
from trainer_core.telemetry.client import Client
from trainer_core.telemetry.journal import JournalReader
from trainer_core.telemetry.keys import create, revoke


def alerts(run_dir: Path, rule: str) -> list[AlertRaised | AlertResolved]:
    """What the journal says of a rule, oldest first."""
    reader = JournalReader(run_dir)
    rows = sorted([*reader.events("alert-raised"), *reader.events("alert-resolved")], key=lambda row: row.seq)
    reader.close()
    said = [row.record for row in rows if isinstance(row.record, AlertRaised | AlertResolved)]
    return [record for record in said if record.rule == rule]


def answering(run_dir: Path, other_than: int = 0) -> int:
    """The process id of the agent that answers here; 0 when none does, or it is ``other_than``."""
    with Client(run_dir, role="viewer") as client:
        pid = int(endpoint(run_dir)["pid"]) if client.hello() is not None else 0
    return pid if pid != other_than else 0


def addresses(pid: int) -> set[str]:
    """Where a process listens."""
    return {found.laddr.ip for found in psutil.Process(pid).net_connections("tcp") if found.status == "LISTEN"}


def test_when_every_named_key_is_revoked_it_is_an_alert_and_a_new_agent_serves_this_machine(
    run_dir: Path, hybrid: Hybrid
) -> None:
    create(run_dir, "ann", "viewer")
    with Trainer(run_dir, listen="0.0.0.0") as trainer:
        trainer.steps(3)
        first = until(lambda: (run_dir / "endpoint.json").exists() and answering(run_dir))
        assert addresses(first) == {"0.0.0.0"} and "note" not in hybrid("keys", "list", run_dir).stderr
        said = hybrid("keys", "revoke", run_dir, "ann")
        assert said.returncode == 0 and "that was the last named key" in said.stderr
        (raised,) = until(lambda: alerts(run_dir, "access"))
        assert isinstance(raised, AlertRaised) and raised.step == 3
        assert "--listen 0.0.0.0: every named key was revoked, so nobody on another machine" in raised.message
        assert f"note: {raised.message}" in hybrid("keys", "list", run_dir).stderr
        os.kill(first, signal.SIGKILL)
        second = until(lambda: answering(run_dir, first))
        assert addresses(second) == {"127.0.0.1"}, "nobody elsewhere would be let in"
        with Client(run_dir) as client:
            client.send(CommandRequest("pause-it-now", Pause()))
            assert client.wait("pause-it-now", 10).state is CommandState.APPLIED, "who is here steers on"
        create(run_dir, "bob", "operator")
        third = until(lambda: answering(run_dir, second))
        assert addresses(third) == {"0.0.0.0"}
        until(lambda: len(alerts(run_dir, "access")) == 2)
        assert isinstance(alerts(run_dir, "access")[1], AlertResolved)
        assert "note" not in hybrid("keys", "list", run_dir).stderr
        revoke(run_dir, "bob")
        until(lambda: len(alerts(run_dir, "access")) == 3)
    assert "note" not in hybrid("keys", "list", run_dir).stderr, "a run that has ended lets nobody in anyway"


def test_an_agent_that_cannot_start_is_an_alert_with_its_own_words_and_resolved_when_it_can(run_dir: Path) -> None:
    with Trainer(run_dir) as trainer:
        pid = until(lambda: (run_dir / "endpoint.json").exists() and answering(run_dir))
        key = run_dir / "keys" / "operator.key"
        key.chmod(0o644)
        (run_dir / "keys").chmod(0o755)
        os.kill(pid, signal.SIGKILL)
        (raised,) = until(lambda: alerts(run_dir, "agent"), within=60)
        assert isinstance(raised, AlertRaised) and "does not start, so nobody can steer" in raised.message
        assert "mode 755" in raised.message, "what the agent itself said"
        trainer.steps(5)
        key.chmod(0o600)
        (run_dir / "keys").chmod(0o700)
        until(lambda: len(alerts(run_dir, "agent")) == 2, within=60)
        assert isinstance(alerts(run_dir, "agent")[1], AlertResolved) and answering(run_dir)
