"""``hybrid train``: what it needs, what it refuses in one sentence, how it ends."""

import json
import os
import pty
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.conftest import STEPS, Here, until
from tests.conftest import Hybrid


def test_a_finished_run_says_so_and_its_report_has_every_figure(hybrid: Hybrid, finished: Path) -> None:
    said = hybrid("report", finished, "--json")
    assert said.returncode == 0
    figures = json.loads(said.stdout)
    assert figures["state"] == "finished"
    assert figures["steps"] == STEPS == sum(figures["steps_per_phase"].values())
    assert set(figures["steps_per_phase"]) == {"WARMUP", "FULL", "PREDICT", "CORRECT"}
    assert figures["attempts"] == 1
    assert 0 < figures["backward_passes"] <= STEPS
    assert figures["backward_reduction"] == pytest.approx(1 - figures["backward_passes"] / STEPS)
    assert figures["wall_seconds"] > 0 and figures["final_loss"] > 0 and figures["validation_loss"] > 0
    assert {"entered", "kept", "undone"} == set(figures["predictions"])
    assert all({"step", "from", "to", "because"} <= set(change) for change in figures["phase_changes"])
    assert figures["commands"] == []
    assert isinstance(figures["alerts"], list)


def test_progress_without_a_terminal_is_plain_lines(hybrid: Hybrid, runs_dir: Path) -> None:
    said = hybrid("train", "digits", "--steps", 20, "--run-dir", runs_dir / "a")
    assert said.returncode == 0
    assert "step 1/20 WARMUP loss " in said.stdout and "it/s ETA" in said.stdout
    assert "\x1b[" not in said.stdout
    assert "finished at step 20" in said.stdout.splitlines()[-1]


def test_progress_on_a_terminal_is_a_bar_with_phase_loss_rate_and_time_left(runs_dir: Path) -> None:
    master, slave = pty.openpty()
    words = ["train", "digits", "--steps", "200", "--run-dir", str(runs_dir / "a")]
    process = subprocess.Popen(
        [sys.executable, "-m", "trainer_core", *words],
        stdout=slave,
        stderr=slave,
        stdin=subprocess.DEVNULL,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "120"},
    )
    os.close(slave)
    shown = _read_all(master, 120)
    assert process.wait(10) == 0, shown
    for word in ("WARMUP", "200/200", "loss ", "it/s", "ETA 0:00"):
        assert word in shown


def _read_all(descriptor: int, patience_s: float) -> str:
    """Everything a terminal shows until its other end is closed."""
    shown, ends = b"", time.monotonic() + patience_s
    while time.monotonic() < ends:
        if select.select([descriptor], [], [], 0.2)[0]:
            try:
                shown += os.read(descriptor, 65536)
            except OSError:  # EIO: nobody has the other end any more
                break
    os.close(descriptor)
    return shown.decode(errors="replace")


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["digit"], ["digit"]),
        (["no_such_module:task"], ["no_such_module"]),
        (["json:no_such_function"], ["no_such_function"]),
        (["code_lm", "--data", "no-such-folder"], ["no-such-folder"]),
        (["digits", "--set", "full_steps"], ["full_steps", "KEY=VALUE"]),
        (["digits", "--set", "full_stepz=3"], ["full_stepz", "full_steps"]),
        (["digits", "--set", "confidence_threshold=7"], ["confidence_threshold", "7", "1"]),
        (["digits", "--preset", "huge"], ["huge", "small"]),
        (["digits", "--config", "no-such.toml"], ["no-such.toml"]),
        (["digits", "--resume"], ["--run-dir"]),
    ],
)
def test_bad_input_is_one_sentence_exit_code_2_and_no_run(
    here: Callable[..., Here],
    runs_dir: Path,
    monkeypatch: pytest.MonkeyPatch,
    words: list[str],
    named: list[str],
) -> None:
    monkeypatch.chdir(runs_dir.parent)
    where = [] if "--resume" in words else ["--run-dir", "runs/x"]
    said = here("train", *words, *where, "--steps", 5)
    assert said.returncode == 2, said.stderr
    assert len(said.stderr.strip().splitlines()) == 1
    assert all(word in said.stderr for word in named), said.stderr
    assert not (runs_dir / "x" / "journal.db").exists()


def test_an_empty_data_folder_is_refused(here: Callable[..., Here], runs_dir: Path, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    said = here("train", "code_lm", "--data", empty, "--run-dir", runs_dir / "x")
    assert said.returncode != 0
    assert str(empty) in said.stderr and len(said.stderr.strip().splitlines()) == 1


@pytest.mark.parametrize("where", ["a-file", "a-file/x", "/proc/no/x"])
def test_a_run_directory_that_cannot_be_made_is_one_sentence(
    here: Callable[..., Here], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a-file").touch()
    said = here("train", "digits", "--steps", 5, "--run-dir", where)
    assert said.returncode == 2
    assert len(said.stderr.strip().splitlines()) == 1
    assert where.split("/")[-2 if where.startswith("/") else 0] in said.stderr


def test_a_run_directory_in_use_is_refused_and_the_other_run_goes_on(
    hybrid: Hybrid, live: tuple[Path, subprocess.Popen[str]]
) -> None:
    run_dir, process = live
    for flags in ([], ["--resume"]):
        said = hybrid("train", "digits", "--run-dir", run_dir, *flags)
        assert said.returncode not in (0, None)
        assert len(said.stderr.strip().splitlines()) == 1, said.stderr
        assert str(run_dir) in said.stderr and "Traceback" not in said.stderr
    assert process.poll() is None
    assert hybrid("send", run_dir, "force-full").returncode == 0


def test_a_directory_that_holds_a_run_is_not_overwritten(hybrid: Hybrid, finished: Path) -> None:
    before = hybrid("report", finished, "--json").stdout
    said = hybrid("train", "digits", "--run-dir", finished, "--steps", 5)
    assert said.returncode != 0
    assert "--resume" in said.stderr or "resume" in said.stderr
    assert hybrid("report", finished, "--json").stdout == before


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_with_a_checkpoint_and_the_run_can_be_resumed(
    hybrid: Hybrid, live: tuple[Path, subprocess.Popen[str]], number: signal.Signals
) -> None:
    run_dir, process = live
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert "stopped at step" in out
    reached = json.loads(hybrid("report", run_dir, "--json").stdout)
    assert reached["state"] == "stopped"
    more = reached["steps"] + 30
    said = hybrid("train", "digits", "--run-dir", run_dir, "--resume", "--steps", more)
    assert said.returncode == 0, said.stderr
    figures = json.loads(hybrid("report", run_dir, "--json").stdout)
    assert (figures["state"], figures["steps"], figures["attempts"]) == ("finished", more, 2)


def test_a_task_of_ones_own_is_found_in_the_working_directory(hybrid: Hybrid, runs_dir: Path) -> None:
    (runs_dir.parent / "mine.py").write_text("from trainer_core.tasks.digits import make as task\n")
    said = hybrid("train", "mine:task", "--steps", 5, "--run-dir", runs_dir / "a", cwd=runs_dir.parent)
    assert said.returncode == 0, said.stderr


def test_a_killed_trainer_is_reported_as_crashed_and_resumes(
    hybrid: Hybrid, live: tuple[Path, subprocess.Popen[str]]
) -> None:
    run_dir, process = live
    assert hybrid("send", run_dir, "checkpoint").returncode == 0
    process.kill()
    process.wait(10)

    def state() -> str:
        return str(json.loads(hybrid("runs", run_dir.parent, "--json").stdout)[0]["state"])

    until(lambda: state() == "crashed", "the run is not seen as crashed")
    reached = json.loads(hybrid("report", run_dir, "--json").stdout)["steps"]
    said = hybrid("train", "digits", "--run-dir", run_dir, "--resume", "--steps", reached + 30)
    assert said.returncode == 0, said.stderr


def test_a_resumed_run_reads_the_data_it_was_begun_with_wherever_it_is_resumed(
    hybrid: Hybrid, runs_dir: Path, tmp_path: Path
) -> None:
    """It went on with the standard library's source, and nothing said so."""
    folder, elsewhere = tmp_path / "source", tmp_path / "elsewhere"
    folder.mkdir()
    elsewhere.mkdir()
    (folder / "a.py").write_text("value = 1\n" * 1000)
    words = ("--steps", 3, "--set", "hidden_dim=16", "--set", "batch_size=2")
    said = hybrid("train", "code_lm", "--data", "source", *words, "--run-dir", runs_dir / "a", cwd=tmp_path)
    assert said.returncode == 0, said.stderr
    resume = ("train", "code_lm", "--run-dir", runs_dir / "a", "--resume", "--steps", 5)
    (folder / "a.py").rename(elsewhere / "a.py")
    refused = hybrid(*resume, cwd=elsewhere)
    assert (refused.returncode, str(folder) in refused.stderr) == (2, True), refused.stderr
    moved = hybrid(*resume, "--data", ".", cwd=elsewhere)
    assert moved.returncode == 0, moved.stderr
    assert f'folder = "{elsewhere}"' in (runs_dir / "a" / "config.toml").read_text()


def test_a_configuration_that_was_edited_wrongly_is_named_at_a_resume(hybrid: Hybrid, runs_dir: Path) -> None:
    said = hybrid("train", "digits", "--steps", 3, "--run-dir", runs_dir / "a")
    assert said.returncode == 0, said.stderr
    file = runs_dir / "a" / "config.toml"
    file.write_text(file.read_text().replace("max_predict_steps = 100", 'max_predict_steps = "many"'))
    said = hybrid("train", "digits", "--run-dir", runs_dir / "a", "--resume")
    assert said.returncode == 2
    assert f"{file}: [hybrid_trainer_config] max_predict_steps = 'many': must be a whole number" in said.stderr
