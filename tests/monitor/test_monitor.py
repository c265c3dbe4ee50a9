"""``Monitor``: five lines around any loop give it a journal, an agent and commands, and a way to go on."""

import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.conftest import end_agents
from tests.telemetry.waiting import until
from trainer_core import HybridTrainer, Monitor, RunStopped, UserError
from trainer_core.cli.statistics import final_statistics
from trainer_core.spec.commands import CommandRequest, CommandState, ScaleLearningRate, SetKnob, Stop
from trainer_core.spec.errors import ConfigError, RunError
from trainer_core.spec.records import (
    AlertRaised,
    AttemptStarted,
    CheckpointSaved,
    KnobDeclared,
    MetricsMeasured,
    Record,
    Row,
    RunEnvironment,
    RunStarted,
    RunState,
    StepRecord,
    SystemMeasured,
)
from trainer_core.telemetry.client import Client
from trainer_core.telemetry.journal import JournalReader
from trainer_core.telemetry.report import report
from trainer_core.telemetry.rundir import status


@pytest.fixture
def run_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("HYBRID_AGENT_LINGER_S", "2")
    yield tmp_path / "runs" / "mine"
    end_agents(tmp_path)


def journal(run_dir: Path) -> list[Row]:
    reader = JournalReader(run_dir)
    try:
        return reader.rows(limit=100_000)
    finally:
        reader.close()


def records(run_dir: Path, kind: type) -> list[Any]:
    return [row.record for row in journal(run_dir) if isinstance(row.record, kind)]


class Training:
    """A small model that learns something."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.model = torch.nn.Linear(4, 1)
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.1)
        self.inputs = torch.randn(32, 4)
        self.dropout = 0.1

    def train(self) -> tuple[torch.Tensor, torch.Tensor]:
        loss = (self.model(self.inputs) - self.inputs.sum(1, keepdim=True)).square().mean()
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        norm = torch.nn.utils.get_total_norm(p.grad for p in self.model.parameters() if p.grad is not None)
        self.optimizer.step()
        return loss, norm

    def declare(self, monitor: Monitor) -> None:
        monitor.knob("dropout", lambda: self.dropout, self.turn, low=0, high=0.5, unit="share", meaning="Of the head.")

    def turn(self, value: float) -> None:
        self.dropout = value


def test_five_lines_give_a_loop_its_journal(run_dir: Path) -> None:
    work = Training()
    with Monitor(run_dir, work.model, work.optimizer, serve=False) as monitor:
        for _ in range(20):
            loss, norm = work.train()
            monitor.step(loss=loss, grad_norm=norm, spread=work.inputs.std())
    (started,), steps = records(run_dir, RunStarted), records(run_dir, StepRecord)
    assert (started.own_loop, started.parameters, started.device) == (True, 5, "cpu")
    assert [step.step for step in steps] == list(range(1, 21))
    assert steps[-1].loss < steps[0].loss and steps[0].grad_norm > 0
    assert steps[0].learning_rate == 0.1 and steps[0].step_seconds is None and steps[1].step_seconds > 0
    assert len(records(run_dir, MetricsMeasured)) == 20
    assert [r.state for r in records(run_dir, RunState)] == ["running", "finished"]
    assert [row.seq for row in journal(run_dir)] == list(range(1, len(journal(run_dir)) + 1))


def test_the_loop_trains_to_the_same_bits_with_and_without_its_monitor(run_dir: Path) -> None:
    alone, watched = Training(), Training()
    for _ in range(10):
        alone.train()
    with Monitor(run_dir, watched.model, watched.optimizer, serve=False) as monitor:
        for _ in range(10):
            loss, norm = watched.train()
            monitor.step(loss=loss, grad_norm=norm)
    assert torch.equal(alone.model.weight, watched.model.weight)


def _told(run_dir: Path, command: Any, confirm: bool = False) -> str:
    with Client(run_dir) as client:
        request = CommandRequest(uuid.uuid4().hex, command)
        return str(client.send(request, confirm=confirm).state)


def test_commands_reach_it_through_its_agent_and_a_stop_ends_the_with_block(run_dir: Path) -> None:
    work, saved = Training(), list[int]()
    with Monitor(run_dir, work.model, work.optimizer, save=saved.append, step=None) as monitor:
        work.declare(monitor)
        until(lambda: (run_dir / "endpoint.json").exists())
        assert _told(run_dir, SetKnob("dropout", 0.4)) == "accepted"
        until(lambda: monitor.step(loss=1.0) or work.dropout == 0.4)
        assert _told(run_dir, ScaleLearningRate(0.5)) == "accepted"
        until(lambda: monitor.step(loss=1.0) or work.optimizer.param_groups[0]["lr"] == 0.05)
        assert _told(run_dir, Stop(), confirm=True) == "accepted"
        until(lambda: monitor.step(loss=1.0))
        pytest.fail("it was not stopped")
    assert monitor.outcome == ("stopped", "stopped by operator") and saved == [monitor.step_count]
    assert (status(run_dir).state, status(run_dir).phase) == ("stopped", None)
    assert [(c.name, c.step) for c in records(run_dir, CheckpointSaved)] == [(f"step-{saved[0]:06d}", saved[0])]
    with pytest.raises(RunError, match="has ended"):
        monitor.step(loss=1.0)


def test_it_goes_on_as_a_new_attempt_with_the_settings_it_had_been_given(run_dir: Path) -> None:
    work = Training()
    with Monitor(run_dir, work.model, work.optimizer) as monitor:
        work.declare(monitor)
        until(lambda: (run_dir / "endpoint.json").exists())
        _told(run_dir, SetKnob("dropout", 0.3))
        _told(run_dir, ScaleLearningRate(0.5))
        until(lambda: monitor.step(loss=1.0) or work.optimizer.param_groups[0]["lr"] == 0.05)
        monitor.annotate("half way")
    ended_at = monitor.step_count
    anew = Training()
    with Monitor(run_dir, anew.model, anew.optimizer, resume=True, step=max(0, ended_at - 1), serve=False) as monitor:
        anew.declare(monitor)
        assert anew.dropout == 0.3
        monitor.step(loss=1.0)
        assert anew.optimizer.param_groups[0]["lr"] == 0.05
    assert monitor.step_count == max(0, ended_at - 1) + 1
    (attempt,) = records(run_dir, AttemptStarted)
    assert (attempt.attempt, attempt.abandoned_step) == (1, ended_at)
    assert [knob.value for knob in records(run_dir, KnobDeclared)] == [0.1, 0.3]


def test_a_loop_that_raises_has_failed_and_one_that_is_interrupted_was_stopped(run_dir: Path, tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), Monitor(run_dir, serve=False) as monitor:
        monitor.step(loss=1 / 0)
    assert status(run_dir).state == "failed" and "ZeroDivisionError" in status(run_dir).because
    with pytest.raises(KeyboardInterrupt), Monitor(tmp_path / "b", serve=False):
        raise KeyboardInterrupt
    assert status(tmp_path / "b").state == "stopped"


def test_without_a_with_block_a_stop_is_an_exception_of_its_own(run_dir: Path) -> None:
    monitor = Monitor(run_dir)
    until(lambda: (run_dir / "endpoint.json").exists())
    _told(run_dir, Stop(), confirm=True)
    with pytest.raises(RunStopped, match="stopped by operator"):
        until(lambda: monitor.step(loss=1.0))
    monitor.close()
    assert monitor.stopped and status(run_dir).state == "stopped"


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda d: Monitor(d, optimizer=object(), serve=False), "no param_groups"),  # type: ignore[arg-type]
        (lambda d: Monitor(d, resume=True, serve=False), "holds no run to resume"),
        (lambda d: Monitor(d, step=5, serve=False), "only with resume=True"),
        (lambda d: Monitor(d, total_steps=0, serve=False), "total_steps = 0: must be a whole number from 1"),
        (lambda d: Monitor(d, total_steps=1.5, serve=False), "total_steps = 1.5: must be a whole number from 1"),  # type: ignore[arg-type]
        (lambda d: Monitor(d, step=-1, resume=True, serve=False), "step = -1: must be a whole number from 0"),
        (lambda d: Monitor(d, config={"health": {"plateau_steps": -1}}, serve=False), "plateau_steps"),
    ],
)
def test_what_cannot_be_watched_is_refused_before_anything_is_written(run_dir: Path, make: Any, why: str) -> None:
    with pytest.raises(UserError, match=why):
        make(run_dir)
    assert not run_dir.exists()


def test_a_directory_with_another_run_is_left_alone(run_dir: Path) -> None:
    with Monitor(run_dir, serve=False) as monitor:
        monitor.step(loss=1.0)
    before = journal(run_dir)
    with pytest.raises(RunError, match="already holds a run"):
        Monitor(run_dir, serve=False)
    assert journal(run_dir) == before


def test_what_is_no_number_is_named_and_not_recorded(run_dir: Path) -> None:
    with Monitor(run_dir, serve=False) as monitor:
        with pytest.raises(
            ConfigError, match=r"step\(loss=...\): must be a number or a one-element tensor, not Tensor of"
        ):
            monitor.step(loss=torch.zeros(3))
        with pytest.raises(ConfigError, match="accuracy"):
            monitor.step(loss=1.0, accuracy="high")
        monitor.step(loss=None, grad_norm=None, accuracy=None)
    (only,) = records(run_dir, StepRecord)
    assert (only.step, only.loss) == (1, None) and records(run_dir, MetricsMeasured) == []


@pytest.mark.parametrize("step", [True, 3.5, "3", -1, 2**53 + 1, float("nan"), torch.tensor(3.5)])
def test_a_step_that_is_no_number_of_steps_is_named_and_harms_no_later_record(run_dir: Path, step: Any) -> None:
    with Monitor(run_dir, serve=False) as monitor:
        with pytest.raises(ConfigError, match=r"^step = .*: must be a whole number from 0 to 2\*\*53"):
            monitor.step(loss=1.0, step=step)
        monitor.step(loss=1.0)
    assert [r.step for r in records(run_dir, StepRecord)] == [1] and status(run_dir).state == "finished"


def test_steps_of_other_integer_types_are_numbers_to_every_record(run_dir: Path) -> None:
    """A tensor was kept as it came: every later record with the step in it was lost, the run's last word too."""
    with Monitor(run_dir, serve=False) as monitor:
        monitor.step(loss=1.0, step=np.int64(5), accuracy=np.float16(0.5))
        monitor.step(loss=1.0, step=torch.tensor(9), seen=np.uint8(3))
    assert [m.step for m in records(run_dir, MetricsMeasured)] == [5, 9]
    assert status(run_dir).state == "finished" and not records(run_dir, AlertRaised)


def test_a_number_too_large_for_a_float_is_refused_by_name(run_dir: Path) -> None:
    with Monitor(run_dir, serve=False) as monitor, pytest.raises(ConfigError, match=r"step\(tokens=...\).*1.8e308"):
        monitor.step(loss=1.0, tokens=10**400)


@pytest.mark.parametrize(
    ("code", "state", "because"),
    [(None, "stopped", "exit code 0"), (0, "stopped", "exit code 0"), (3, "failed", "SystemExit: 3")],
)
def test_a_program_that_ends_itself_has_failed_only_if_it_says_so(
    run_dir: Path, code: int | None, state: str, because: str
) -> None:
    with pytest.raises(SystemExit), Monitor(run_dir, serve=False):
        sys.exit(code)
    assert status(run_dir).state == state and because in status(run_dir).because


def test_a_path_that_no_record_could_hold_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"run.xff: its path is not UTF-8"):
        Monitor(os.fsdecode(os.fsencode(tmp_path / "run") + b"\xff"), serve=False)
    assert not any(tmp_path.iterdir())


def test_it_hands_every_record_to_the_program_too(run_dir: Path) -> None:
    heard: list[Record] = []
    with Monitor(run_dir, serve=False, on_record=lambda record, attempt: heard.append(record)) as monitor:
        monitor.step(loss=1.0)
        monitor.validated(0.5, accuracy=0.9)
    written = [row.record for row in journal(run_dir)]
    assert {type(record) for record in heard} >= {RunEnvironment, SystemMeasured}
    assert sorted(map(str, heard)) == sorted(map(str, written))  # another thread's come in between
    assert heard[-1] == written[-1]


def test_watching_a_loop_that_uses_no_torch_loads_none(tmp_path: Path) -> None:
    script = (
        "import sys; from trainer_core import Monitor\n"
        "with Monitor('r', serve=False) as monitor: monitor.step(loss=1.0, anything=2)\n"
        "assert 'torch' not in sys.modules and 'numpy' not in sys.modules"
    )
    said = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert said.returncode == 0, said.stderr
    assert status(tmp_path / "r").state == "finished"


def test_the_applied_state_is_what_the_operator_reads_back(run_dir: Path) -> None:
    work = Training()
    with Monitor(run_dir, work.model, work.optimizer) as monitor:
        work.declare(monitor)
        until(lambda: (run_dir / "endpoint.json").exists())
        with Client(run_dir) as client:
            client.send(CommandRequest("turn-it-up", SetKnob("dropout", 0.5)))
            until(lambda: monitor.step(loss=1.0) or client.status("turn-it-up").state is CommandState.APPLIED)
            answer = client.status("turn-it-up")
    assert (answer.before, answer.after, answer.phase) == ("0.1", "0.5", None)


def test_its_report_claims_no_saving(run_dir: Path) -> None:
    with Monitor(run_dir, serve=False) as monitor:
        for _ in range(5):
            monitor.step(loss=0.5)
    rows = journal(run_dir)
    text = "\n".join(final_statistics(report(rows)))
    assert "watched by a Monitor" in text and "Final loss: 0.500" in text and "State: finished" in text
    assert not any(word in text for word in ("saved", "Speedup", "Ledger", "Predictions"))


def test_what_is_said_after_the_end_is_refused_and_not_lost(run_dir: Path) -> None:
    with Monitor(run_dir, serve=False) as monitor:
        monitor.step(loss=1.0)
    for late in (
        lambda: monitor.validated(0.5),
        lambda: monitor.annotate("late"),
        lambda: monitor.knob("k", float, print, low=0, high=1),
    ):
        with pytest.raises(RunError, match=r"the monitor is closed \(.*\): nothing more is recorded"):
            late()


def test_a_refusal_names_what_was_called_and_what_came_before(run_dir: Path) -> None:
    with Monitor(run_dir, serve=False) as monitor:
        with pytest.raises(ConfigError, match=r"^validated\(loss=...\): must be a number"):
            monitor.validated("low")
        with pytest.raises(ConfigError, match=r"^step = 0: steps only grow; the first is 1, or a later one$"):
            monitor.step(loss=1.0, step=0)
        monitor.step(loss=1.0, step=7)
        with pytest.raises(ConfigError, match=r"^step = 7: steps only grow; the last one was 7$"):
            monitor.step(loss=1.0, step=7)


@pytest.mark.parametrize(
    ("error", "state", "because"),
    [
        ("KeyboardInterrupt", "stopped", "interrupted from the keyboard"),
        ("ValueError('x')", "failed", "ValueError: x"),
    ],
)
@pytest.mark.parametrize("kind", ["Monitor", "HybridTrainer"])
def test_a_script_without_a_with_block_ends_as_one_with_it(
    run_dir: Path, kind: str, error: str, state: str, because: str
) -> None:
    """Ctrl-C was a failure: "KeyboardInterrupt: "."""
    lines = {
        "Monitor": f"m = trainer_core.Monitor({str(run_dir)!r}, serve=False)\nm.step(loss=1.0)",
        "HybridTrainer": "model = torch.nn.Linear(2, 1)\n"
        "m = trainer_core.HybridTrainer(model, torch.optim.SGD(model.parameters(), 0.1), torch.nn.MSELoss(), "
        f"None, {str(run_dir)!r}, serve=False)\nm.step((torch.ones(8, 2), torch.ones(8, 1)))",
    }
    program = f"import torch, trainer_core\n{lines[kind]}\nraise {error}"
    subprocess.run([sys.executable, "-c", program], capture_output=True, timeout=120, check=False)
    assert (status(run_dir).state, status(run_dir).because) == (state, because)


def test_a_trainer_does_not_go_on_with_a_loop_that_was_watched(run_dir: Path) -> None:
    """It looked for a checkpoint, and left its configuration behind."""
    with Monitor(run_dir, serve=False) as monitor:
        monitor.step(loss=1.0)
    model = torch.nn.Linear(2, 1)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    with pytest.raises(RunError, match="is a loop that a Monitor watches"):
        HybridTrainer(model, optimizer, torch.nn.MSELoss(), None, run_dir, serve=False, resume=True)
    assert not (run_dir / "config.toml").exists()


def test_what_a_program_is_told_of_the_end_is_what_the_journal_says(run_dir: Path, tmp_path: Path) -> None:
    """Of a loop that just ended it was told that the run goes on."""
    with Monitor(run_dir, serve=False) as monitor:
        monitor.step(loss=1.0)
    model = torch.nn.Linear(2, 1)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    with HybridTrainer(model, optimizer, torch.nn.MSELoss(), None, tmp_path / "b", serve=False) as trainer:
        trainer.step((torch.ones(8, 2), torch.ones(8, 1)))
    for run, where in ((monitor, run_dir), (trainer, tmp_path / "b")):
        assert run.stopped and run.outcome == (status(where).state, status(where).because)
    assert trainer.state == "stopped"
