"""``hybrid watch``: everything a run says, as it says it, until it ends; with an agent, without one, and afterwards."""

import json
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.cli.conftest import Start, until
from tests.cli.rows import started
from tests.conftest import Hybrid
from tests.telemetry.examples import ONE_OF_EACH, step_record
from tests.telemetry.trainers import Trainer
from trainer_core.cli.feeding import as_lines
from trainer_core.cli.lines import line
from trainer_core.spec.commands import CommandRequest, Pause
from trainer_core.spec.phases import Phase
from trainer_core.spec.records import AlertRaised, Annotated, MetricsMeasured, PhaseChanged, Row, StepRecord
from trainer_core.spec.severity import Severity
from trainer_core.telemetry.client import Client
from trainer_core.telemetry.journal import JournalReader, JournalWriter


def heard(process: "subprocess.Popen[str]") -> Iterator[str]:
    """The lines of a process, one by one, as they come."""
    assert process.stdout is not None
    return iter(process.stdout.readline, "")


def test_a_live_run_is_printed_as_it_goes_until_it_says_how_it_ended(runs_dir: Path, start: Start) -> None:
    with Trainer(runs_dir / "r") as trainer:
        trainer.steps(2)
        watching = start("watch", runs_dir / "r", "--every", "2")
        lines = heard(watching)
        assert any("step 2  FULL" in text and "loss 0.5" in text for text in lines)
        trainer.say(
            PhaseChanged(3, Phase.FULL, Phase.PREDICT, ("confident (0.91 > 0.85)",), 1, 40),
            AlertRaised(3, "a1", "plateau", Severity.WARNING, "x", 1.0, 0.5, "it is flat"),
        )
        assert any("step 3: FULL -> PREDICT (confident (0.91 > 0.85))" in text for text in lines)
        assert any("WARNING: it is flat" in text for text in lines)
        until(lambda: (runs_dir / "r" / "endpoint.json").exists(), "there is no agent")
        with Client(runs_dir / "r") as client:
            client.send(CommandRequest("pause-it-now", Pause()))
        states = [next(text for text in lines if f"pause {state}" in text) for state in ("accepted", "applied")]
        assert all("by operator" in text for text in states)
        trainer.end()
    rest, err = watching.communicate(timeout=30)
    assert rest.splitlines()[-1] == "== finished at step 2: finished by the test"
    assert (watching.returncode, err) == (0, "")


def test_json_lines_are_every_record_of_the_run_and_its_state(hybrid: Hybrid, runs_dir: Path) -> None:
    (runs_dir / "r").mkdir()
    writer = JournalWriter(runs_dir / "r")
    writer.append([(float(i), 0, record) for i, record in enumerate(ONE_OF_EACH)])
    writer.close()
    said = hybrid("watch", runs_dir / "r", "--json")
    records: list[dict[str, Any]] = [json.loads(text) for text in said.stdout.splitlines()]
    assert [r["seq"] for r in records[:-1]] == list(range(1, len(ONE_OF_EACH) + 1))
    assert [r["kind"] for r in records[:-1]] == [str(r.__struct_config__.tag) for r in ONE_OF_EACH]
    assert records[-1]["kind"] == "status" and records[-1]["state"] == "crashed"
    assert said.returncode == 1
    strange = next(r for r in records if r["kind"] == "step" and r["step"] == 2**40)
    assert (strange["loss"], strange["loss_ema"], strange["loss_sigma"]) == ("NaN", None, "Infinity")


def test_without_an_agent_the_journal_is_read_and_last_begins_near_the_end(runs_dir: Path, start: Start) -> None:
    with Trainer(runs_dir / "r", serves=False) as trainer:
        trainer.steps(30)
        watching = start("watch", runs_dir / "r", "--last", "5", "--every", "1")
        lines = heard(watching)
        assert next(lines).startswith("== working at step 30")
        assert "step 26 " in next(lines)
        trainer.say(Annotated(30, "written without an agent", "operator"))
        assert any("note by operator: written without an agent" in text for text in lines)
        trainer.end("stopped")
    assert "== stopped at step 30: stopped by the test" in watching.communicate(timeout=30)[0]
    assert watching.returncode == 0


def test_a_run_whose_trainer_vanished_ends_the_watching_with_1(hybrid: Hybrid, runs_dir: Path) -> None:
    with Trainer(runs_dir / "r", serves=False) as trainer:
        trainer.steps(3)
    said = hybrid("watch", runs_dir / "r")
    assert said.returncode == 1
    assert said.stdout.splitlines()[-1].startswith("== crashed at step 3: the trainer is gone")


@pytest.mark.parametrize("as_json", [False, True])
def test_ctrl_c_ends_the_watching_and_not_the_run(runs_dir: Path, start: Start, as_json: bool) -> None:
    with Trainer(runs_dir / "r", serves=False) as trainer:
        trainer.steps(1)
        watching = start("watch", runs_dir / "r", *(["--json"] if as_json else []))
        assert next(heard(watching))
        watching.send_signal(signal.SIGINT)
        _, err = watching.communicate(timeout=30)
        assert (watching.returncode, err) == (0, "")
        trainer.steps(1)
    reader = JournalReader(runs_dir / "r")
    assert reader.last_steps(1)[0].record == StepRecord(2, 2, Phase.FULL, 0, 2, None, 0.5, backward_passes=2)
    reader.close()


def test_a_reader_that_goes_away_is_no_error(runs_dir: Path, start: Start) -> None:
    with Trainer(runs_dir / "r", serves=False) as trainer:
        trainer.steps(1)
        watching = start("watch", runs_dir / "r", "--every", "1")
        assert watching.stdout is not None and watching.stderr is not None
        assert watching.stdout.readline()
        watching.stdout.close()
        trainer.steps(2)
        trainer.steps(2000)
        assert watching.wait(30) == 0
        assert watching.stderr.read() == ""
        watching.stdout = None


def test_what_is_no_run_is_refused_with_2(hybrid: Hybrid, tmp_path: Path) -> None:
    said = hybrid("watch", tmp_path / "none")
    assert said.returncode == 2 and "there is no such run directory" in said.stderr


def test_every_kind_of_record_has_a_line_or_is_left_to_programs() -> None:
    texts = [line(record) for record in ONE_OF_EACH]
    assert all(text is None or (text and "\n" not in text and "None" not in text) for text in texts)
    assert sum(text is not None for text in texts) >= 16


def test_a_loop_that_tells_of_every_tenth_step_is_seen_whichever_they_are() -> None:
    """1, 11, 21 are divisible by nothing: not one of its steps was shown."""
    lines = as_lines(10, phases=False)
    records = [r for step in range(1, 60, 10) for r in (step_record(step), MetricsMeasured(step, {"speed": 1.0}))]
    shown = [text.split()[2] for record in records for text in lines(Row(1, 0.0, 0, record))]
    assert shown == ["11", "11", "21", "21", "31", "31", "41", "41", "51", "51"]
    each = as_lines(3)
    assert [s for s in range(1, 13) if list(each(Row(1, 0.0, 0, step_record(s))))] == [3, 6, 9, 12]


def test_whether_a_run_has_phases_is_what_its_start_says() -> None:
    lines = as_lines(1)
    rows = [Row(1, 0.0, 0, msgspec.structs.replace(started(), own_loop=True)), Row(2, 0.0, 0, step_record(1))]
    assert "FULL" not in "".join(text for row in rows for text in lines(row))
