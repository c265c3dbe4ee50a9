"""Claims about a killed trainer: kill -9, resume, and the weights are those of a run nobody interrupted."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.conftest import Hybrid
from tests.engine.rig import EAGER, batch_of, network, per_sample
from trainer_core import HybridTrainer
from trainer_core.spec.errors import RunError
from trainer_core.spec.records import AttemptStarted, CheckpointSaved, PredictedStretch, Record, StepRecord
from trainer_core.telemetry.journal import JournalReader

SETTINGS = {"warmup_steps": 20, "checkpoint_every": 40, "validate_every": 0, "policy": "document", "full_steps": 10}
WORDS = [word for name, value in SETTINGS.items() for word in ("--set", f"{name}={value}")]
STEPS = 240


def train(run_dir: Path, *more: str) -> list[str]:
    """The command line of one digits run."""
    return ["train", "digits", "--steps", str(STEPS), "--seed", "3", "--run-dir", str(run_dir), *more]


def weights(run_dir: Path) -> dict[str, torch.Tensor]:
    """The weights of the last checkpoint."""
    newest = max((run_dir / "checkpoints").glob(f"step-{STEPS:06d}*"))
    return load_file(newest / "model.safetensors")


def wait_for_second_checkpoint(run_dir: Path, process: subprocess.Popen[bytes]) -> None:
    """Until the journal knows two checkpoints and a step after them."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        assert process.poll() is None, "the run ended before it could be killed"
        if (run_dir / "journal.db").exists():
            rows = [row.record for row in JournalReader(run_dir).last_rows(5000)]
            saved = [r.step for r in rows if isinstance(r, CheckpointSaved)]
            if len(saved) >= 2 and any(isinstance(r, StepRecord) and r.step > saved[-1] + 3 for r in rows):
                return
        time.sleep(0.02)
    raise AssertionError("no second checkpoint within 60 s")


def test_a_killed_run_resumes_to_the_weights_of_an_uninterrupted_one(runs_dir: Path, hybrid: Hybrid) -> None:
    whole, killed = runs_dir / "whole", runs_dir / "killed"
    assert hybrid(*train(whole), *WORDS).returncode == 0
    command = [sys.executable, "-m", "trainer_core", *train(killed), *WORDS]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_for_second_checkpoint(killed, process)
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    resumed = hybrid("train", "digits", "--run-dir", killed, "--resume")
    assert resumed.returncode == 0, resumed.stderr

    expected, actual = weights(whole), weights(killed)
    assert expected.keys() == actual.keys()
    assert all(torch.equal(expected[name], actual[name]) for name in expected)

    rows = JournalReader(killed).last_rows(100_000)
    assert [row.seq for row in rows] == list(range(1, len(rows) + 1))
    attempt = next(row.record for row in rows if isinstance(row.record, AttemptStarted))
    assert attempt.attempt == 1 and attempt.abandoned_step >= attempt.step
    steps = [r.record.step for r in rows if r.attempt == 1 and isinstance(r.record, StepRecord | PredictedStretch)]
    assert (steps[0], steps[-1]) == (attempt.step + 1, STEPS)


def test_a_checkpoint_is_not_there_before_the_records_of_its_steps_are(runs_dir: Path) -> None:
    """Whoever is killed right after a checkpoint resumes from it: its steps must be in the journal by then."""
    run_dir = runs_dir / "run"
    known: list[tuple[int, int]] = []
    """(step of a checkpoint, last step in the journal when it was saved)."""

    def note(record: Record, attempt: int) -> None:
        if isinstance(record, CheckpointSaved) and record.step:
            rows = JournalReader(run_dir).last_rows(50)
            known.append((record.step, max(r.record.step for r in rows if isinstance(r.record, StepRecord))))

    model = network()
    optimizer = torch.optim.AdamW(model.parameters(), 3e-3)
    settings = EAGER | {"checkpoint_every": 3, "warmup_steps": 100}
    with HybridTrainer(model, optimizer, per_sample, settings, run_dir, serve=False, on_record=note) as trainer:
        trainer.run((batch_of(i) for i in range(40)), steps=30)
    assert [saved for saved, _ in known[:9]] == list(range(3, 30, 3))
    assert all(last == saved for saved, last in known)


def trained(run_dir: Path, dies_at: str | None = None, resume: bool = False) -> list[torch.Tensor]:
    """The weights after 30 steps, unless it kills itself as soon as the journal holds a record of that kind.

    ``nothing``: before anything is in the journal.
    """
    torch.manual_seed(7)
    model = network()

    def note(record: Record, attempt: int) -> None:
        if dies_at == "nothing":
            os.kill(os.getpid(), signal.SIGKILL)
        while dies_at == type(record).__name__:
            rows = JournalReader(run_dir).last_rows(50)
            if any(type(row.record).__name__ == dies_at for row in rows):
                os.kill(os.getpid(), signal.SIGKILL)

    optimizer = torch.optim.AdamW(model.parameters(), 3e-3)
    with HybridTrainer(
        model, optimizer, per_sample, EAGER, run_dir, serve=False, on_record=note, resume=resume
    ) as trainer:
        trainer.run((batch_of(i) for i in range(40)), steps=30)
    return list(model.parameters())


@pytest.mark.parametrize("dies_at", ["nothing", "RunStarted", "RunState", "CheckpointSaved"])
def test_a_run_that_was_killed_before_its_first_step_can_be_resumed(runs_dir: Path, dies_at: str) -> None:
    whole, run_dir = trained(runs_dir / "whole"), runs_dir / "run"
    code = f"import pathlib, tests.engine.test_crash as t; t.trained(pathlib.Path({str(run_dir)!r}), {dies_at!r})"
    assert subprocess.run([sys.executable, "-c", code], timeout=120, check=False).returncode == -signal.SIGKILL
    assert (run_dir / "config.toml").exists()

    resumed = trained(run_dir, resume=True)
    assert all(torch.equal(a, b) for a, b in zip(whole, resumed, strict=True))
    began = [row.record for row in JournalReader(run_dir).last_rows(5000) if isinstance(row.record, AttemptStarted)]
    if dies_at == "nothing":
        assert not began, "nothing was said: no run was begun"
    else:
        assert [(r.step, r.attempt, r.abandoned_step) for r in began] == [(0, 1, 0)]
    if dies_at == "RunStarted":
        assert began[0].checkpoint is None and "from the beginning" in began[0].because


def test_a_configuration_is_written_whole_or_not_at_all(runs_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_dir = runs_dir / "run"
    trained(run_dir)
    before = (run_dir / "config.toml").read_text()

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("trainer_core.resuming.os.fsync", full)
    with pytest.raises(RunError, match=r"config\.toml cannot be written: No space left"):
        trained(run_dir, resume=True)
    assert (run_dir / "config.toml").read_text() == before
