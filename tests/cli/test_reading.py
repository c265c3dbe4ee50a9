"""``hybrid runs``, ``report`` and ``export`` on real runs."""

import json
from pathlib import Path

import polars as pl
import pytest

from tests.cli.conftest import STEPS
from tests.conftest import Hybrid


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
