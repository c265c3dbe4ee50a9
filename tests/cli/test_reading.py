"""``hybrid runs``, ``report`` and ``export`` on real runs."""

import json
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

from tests.cli.conftest import STEPS, Here
from tests.conftest import Hybrid
from tests.telemetry.trainers import TrainerProcess


def test_runs_are_listed_with_state_step_and_why(hybrid: Hybrid, finished: Path) -> None:
    (run,) = json.loads(hybrid("runs", finished.parent, "--json").stdout)
    assert (run["state"], run["step"], run["task"]) == ("finished", STEPS, "digits")
    assert run["because"] and Path(run["run_dir"]) == finished
    said = hybrid("runs", finished.parent)
    assert said.returncode == 0
    assert "done" in said.stdout and "finished" in said.stdout


def test_no_runs_say_what_to_do_next(hybrid: Hybrid, tmp_path: Path) -> None:
    said = hybrid("runs", cwd=tmp_path)
    assert (said.returncode, said.stdout) == (0, "")
    assert "hybrid demo" in said.stderr
    assert json.loads(hybrid("runs", "--json", cwd=tmp_path).stdout) == []
    assert hybrid("runs", tmp_path / "none").returncode == 2


def test_the_text_report_follows_the_documents_format(hybrid: Hybrid, finished: Path) -> None:
    said = hybrid("report", finished)
    assert said.returncode == 0
    lines = said.stdout.splitlines()
    assert lines[0].endswith(": WARMUP") and set(lines[1]) == {"─"}
    assert any(line.startswith("✓ Warmup complete | Loss EMA: ") for line in lines)
    assert f"Final Statistics ({STEPS} steps):" in lines
    assert "Loss gap: not measured (no baseline run)" in lines


def test_the_report_of_a_killed_run_does_not_say_that_it_runs(here: Callable[..., Here], tmp_path: Path) -> None:
    with TrainerProcess(tmp_path / "run", serves=False) as trainer:
        trainer.steps(4)
        trainer.kill()
    assert json.loads(here("report", tmp_path / "run", "--json").stdout)["state"] == "crashed"
    assert "State: crashed" in here("report", tmp_path / "run").stdout.splitlines()


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_an_export_holds_every_step_record(hybrid: Hybrid, finished: Path, tmp_path: Path, ending: str) -> None:
    file = tmp_path / f"steps.{ending}"
    said = hybrid("export", finished, file)
    assert said.returncode == 0, said.stderr
    frame = pl.read_csv(file) if ending == "csv" else pl.read_parquet(file)
    assert {"seq", "time", "attempt", "step", "phase", "loss"} <= set(frame.columns)
    assert frame["seq"].is_sorted() and frame["step"].max() == STEPS


def test_an_export_to_another_format_or_nowhere_is_refused(hybrid: Hybrid, finished: Path, tmp_path: Path) -> None:
    for name in ("steps.xls", "none/steps.csv"):
        said = hybrid("export", finished, tmp_path / name)
        assert said.returncode == 2
        assert len(said.stderr.strip().splitlines()) == 1


@pytest.mark.parametrize("command", ["report", "serve"])
def test_what_is_no_run_is_named(hybrid: Hybrid, tmp_path: Path, command: str) -> None:
    for where, why in ((tmp_path, "journal.db"), (tmp_path / "none", "no such")):
        said = hybrid(command, where)
        assert said.returncode == 2
        assert str(where) in said.stderr and why in said.stderr


def test_a_damaged_journal_is_one_sentence(hybrid: Hybrid, tmp_path: Path) -> None:
    (tmp_path / "journal.db").write_bytes(b"this is no database" * 100)
    said = hybrid("report", tmp_path)
    assert said.returncode not in (0, None)
    assert len(said.stderr.strip().splitlines()) == 1 and "Traceback" not in said.stderr


def test_an_export_in_full_of_one_kind_and_for_tensorboard(
    here: Callable[..., Here], finished: Path, tmp_path: Path
) -> None:
    assert here("export", finished, tmp_path / "all.parquet", "--all").returncode == 0
    everything = pl.read_parquet(tmp_path / "all.parquet")
    assert everything["seq"].to_list() == list(range(1, everything.height + 1))
    assert {"step", "run-started", "phase", "environment", "system", "run-state"} <= set(everything["kind"])
    assert here("export", finished, tmp_path / "phases.csv", "--kind", "phase").returncode == 0
    assert pl.read_csv(tmp_path / "phases.csv").height == everything.filter(pl.col("kind") == "phase").height
    said = here("export", finished, "--tensorboard", tmp_path / "tb")
    assert said.returncode == 0 and "tensorboard --logdir" in said.stdout
    assert list((tmp_path / "tb" / "attempt-0").iterdir())


@pytest.mark.parametrize(
    ("words", "why"),
    [
        ([], "give OUT.parquet"),
        (["a.csv", "--tensorboard", "b"], "give OUT.parquet"),
        (["a.csv", "--all", "--kind", "step"], "give one of the two"),
        (["a.csv", "--kind", "nonsense"], "--kind nonsense: one of step,"),
    ],
)
def test_an_export_that_was_not_said_clearly_is_refused(
    here: Callable[..., Here], finished: Path, words: list[str], why: str
) -> None:
    said = here("export", finished, *words)
    assert said.returncode == 2 and why in said.stderr
