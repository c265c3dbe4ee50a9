"""One trainer a directory, and an honest word for what a run is doing, with its reason."""

import contextlib
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.telemetry.examples import step_record
from tests.telemetry.trainers import REPO, Trainer, TrainerProcess
from tests.telemetry.waiting import until
from trainer_core.spec.errors import RunError
from trainer_core.spec.records import RunStarted, RunState
from trainer_core.telemetry import rundir
from trainer_core.telemetry.journal import JournalReader, JournalWriter
from trainer_core.telemetry.rundir import RunInUse, claim, dated, find_runs


def test_a_second_claim_is_refused_in_one_sentence_and_the_first_goes_on(run_dir: Path) -> None:
    with Trainer(run_dir, serves=False) as trainer:
        with pytest.raises(RunInUse) as refused:
            claim(run_dir)
        assert isinstance(refused.value, RunError)
        assert str(run_dir) in str(refused.value) and "\n" not in str(refused.value)
        words = (
            "import sys, pathlib; from trainer_core.telemetry import rundir as r; r.claim(pathlib.Path(sys.argv[1]))"
        )
        other = subprocess.run(
            [sys.executable, "-c", words, str(run_dir)], cwd=REPO, capture_output=True, text=True, check=False
        )
        assert "RunInUse" in other.stderr
        trainer.steps(3)
    claim(run_dir).close()


def test_a_killed_trainer_leaves_no_claim_behind(run_dir: Path) -> None:
    with TrainerProcess(run_dir, serves=False) as trainer:
        trainer.kill()
    claim(run_dir).close()


def test_working_then_finished_by_the_trainers_own_word(run_dir: Path) -> None:
    trainer = Trainer(run_dir, serves=False)
    trainer.steps(5)
    status = rundir.status(run_dir)
    assert (status.state, status.step, status.trainer_alive, status.agent_alive) == ("working", 5, True, False)
    assert status.because
    trainer.end("finished")
    status = rundir.status(run_dir)
    assert (status.state, status.trainer_alive) == ("finished", False)
    assert "finished by the test" in status.because


@pytest.mark.parametrize("word", ["stopped", "failed"])
def test_the_other_ends_are_the_trainers_words_too(run_dir: Path, word: str) -> None:
    Trainer(run_dir, serves=False).end(word)
    assert rundir.status(run_dir).state == word


def test_paused_is_paused_and_running_is_working_again(run_dir: Path) -> None:
    with Trainer(run_dir, serves=False) as trainer:
        trainer.say(RunState(0, "paused", "an operator said so"))
        trainer.steps(0)
        assert rundir.status(run_dir).state == "paused"
        trainer.say(RunState(0, "running", "goes on"))
        trainer.steps(1)
        assert rundir.status(run_dir).state == "working"


def test_a_trainer_killed_without_a_last_word_has_crashed(run_dir: Path) -> None:
    with TrainerProcess(run_dir, serves=False) as trainer:
        trainer.steps(4)
        trainer.kill()
    status = rundir.status(run_dir)
    assert (status.state, status.step, status.trainer_alive) == ("crashed", 4, False)
    assert status.because


def test_three_lights_agent_trainer_training(run_dir: Path) -> None:
    with Trainer(run_dir):
        until(lambda: rundir.status(run_dir).agent_alive)
        assert rundir.status(run_dir).trainer_alive


def test_runs_are_directories_with_a_journal_whatever_their_state(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    Trainer(runs / "a", serves=False).end("finished")
    Trainer(runs / "b", serves=False).close()
    (runs / "c").mkdir()
    (runs / "d").mkdir()
    (runs / "d" / "journal.db").write_bytes(b"this is no database" * 100)
    found = {run.name: run.status.state for run in find_runs(runs)}
    assert (found["a"], found["b"]) == ("finished", "crashed")
    assert "c" not in found and found["d"] == "unreadable"
    assert find_runs(tmp_path / "nowhere") == []


def test_runs_that_begin_in_the_same_second_have_names_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "strftime", lambda form: "20260101-000000")
    names = {dated("digits") for _ in range(20)}
    assert len(names) > 15 and all(re.fullmatch(r"digits-20260101-000000-[0-9a-f]{4}", name) for name in names)


def test_a_resumed_run_has_as_long_for_its_first_step_as_a_new_one(run_dir: Path) -> None:
    """The pace of the earlier process made it stalled after ten seconds, while torch was still being loaded."""
    started = RunStarted(0, "r", "test", {}, (), 2, None, "cpu", {}, 1)
    writer = JournalWriter(run_dir)
    writer.append([(100.0, 0, started), *((100.0 + i, 0, step_record(i, step_seconds=1.0)) for i in range(1, 21))])
    with contextlib.closing(JournalReader(run_dir)) as reader:

        def state(now: float) -> str:
            return rundir.status_from(reader, True, False, now).state

        assert (state(125.0), state(145.0)) == ("working", "stalled")
        writer.append([(1000.0, 1, started)])
        assert (state(1110.0), state(1130.0)) == ("working", "stalled")
        writer.append([(1010.0, 1, step_record(21, step_seconds=1.0))])
        assert (state(1015.0), state(1035.0)) == ("working", "stalled")
    writer.close()
