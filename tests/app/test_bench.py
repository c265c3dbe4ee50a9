"""The dashboard's benchmark: what it computes from what it saw. The browser part is run by hand: it takes minutes."""

import json
import mmap
import os
import subprocess
import sys
from pathlib import Path

import msgspec
import psutil
import pytest

from app.bench.browsing import own_memory_mb, shown_after
from app.bench.past import long_run
from app.bench.results import FORMAT, Browser, Figures, FirstPaint, Latency, Server, Soak, Tick, goals, page
from app.bench.ticks import ticks
from app.bench.writer import records
from tests.conftest import Hybrid
from trainer_core.spec.phases import Phase
from trainer_core.spec.records import RunStarted, StepRecord
from trainer_core.telemetry.journal import JournalReader, JournalWriter


def figures(**changes: object) -> Figures:
    found = Figures(
        FORMAT, "a processor", 2, 0.5, 60.0,
        [Latency("strip and lifecycle", 200, 1000, 40.0, 90.0), Latency("charts", 200, 1000, 500.0, 900.0),
         Latency("naive page, charts", 200, 1000, 5000.0, 9000.0)],
        [Browser("Live", 200, 1.5, 300.0, 4.0, 20.0, 40.0), Browser("naive page", 200, 0.3, 900.0, 200.0, 200.0, 80.0)],
        [Server(1, 200, 3.5, 200.0), Server(4, 200, 6.5, 210.0)],
        [Tick(10_000, 0.5, 6.0), Tick(1_000_000, 0.6, 7.0)],
        FirstPaint(1_000_000, 2.5, 6.0), Soak(30.0, 200, 200.0, 205.0, 40.0, 41.0, 1),
    )  # fmt: skip
    return msgspec.structs.replace(found, **changes)


def test_every_goal_is_met_or_missed_by_its_own_figure() -> None:
    assert all(goal.met for goal in goals(figures())) and len(goals(figures())) == 9
    slow = figures(latencies=[Latency("strip and lifecycle", 10, 9, 40.0, 101.0)])
    assert [goal.what for goal in goals(slow) if not goal.met] == [
        "step to pixel, strip and lifecycle, 10 steps/s: p95"
    ]
    assert not any("naive" in goal.what for goal in goals(figures()))
    grown = figures(soak=Soak(30.0, 200, 200.0, 260.0, 40.0, 41.0, 2))
    assert sum(not goal.met for goal in goals(grown)) == 2
    assert "**missed**" in page(grown) and "**missed**" not in page(figures())


def test_a_step_counts_as_shown_when_it_or_a_later_one_is_on_the_screen(tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    run_dir.mkdir()
    writer = JournalWriter(run_dir)
    said = [record for record, _ in zip(records(), range(12), strict=False)]
    writer.append([(100.0 + i, 0, record) for i, record in enumerate(said)])  # step i at 100 + i seconds
    writer.close()
    seen = [[103_500.0, 3], [107_000.0, 6], [109_250.0, 9]]
    assert shown_after(run_dir, seen) == pytest.approx([3000.0, 2000.0, 1000.0, 2250.0, 1250.0, 250.0])


def test_memory_is_the_process_own_and_not_that_of_mapped_files(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(bytes(64 << 20))
    before = own_memory_mb(psutil.Process())
    with (tmp_path / "file").open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        assert sum(mapped[:: mmap.PAGESIZE]) == 0
        assert own_memory_mb(psutil.Process()) - before < 16
        held = bytearray(os.urandom(1 << 20) * 64)
        assert own_memory_mb(psutil.Process()) - before > 48
        assert len(held) == 64 << 20


def test_the_run_that_is_watched_goes_through_all_phases() -> None:
    said = [record for record, _ in zip(records(), range(600), strict=False)]
    assert isinstance(said[0], RunStarted)
    steps = [record for record in said if isinstance(record, StepRecord)]
    assert {record.phase for record in steps} == set(Phase)
    assert [record.step for record in steps] == list(range(1, len(steps) + 1))
    assert steps[-1].backward_passes < len(steps)


def test_a_long_run_is_whole(tmp_path: Path) -> None:
    long_run(tmp_path / "long", 7_000)
    reader = JournalReader(tmp_path / "long")
    assert reader.last_steps(1)[-1].record.step == 7_000
    reader.close()


def test_refreshes_are_measured_on_every_history() -> None:
    found = ticks((500, 2000), times=3)
    assert [tick.steps for tick in found] == [500, 2000]
    assert all(tick.drawings_ms > 0 for tick in found)


def test_recorded_figures_are_shown_again_and_others_refused(tmp_path: Path, hybrid: Hybrid) -> None:
    file = tmp_path / "figures.json"
    file.write_bytes(msgspec.json.encode(figures()))
    shown = hybrid("bench", "dashboard", "--from", str(file), "--write", str(tmp_path / "page.md"))
    assert shown.returncode == 0 and shown.stdout == page(figures())
    assert (tmp_path / "page.md").read_text(encoding="utf-8") == shown.stdout
    asked = [sys.executable, "-m", "app.bench", "--from", str(file), "--json"]
    told = json.loads(subprocess.run(asked, capture_output=True, text=True, check=True, timeout=60).stdout)
    assert {goal["met"] for goal in told["goals"]} == {True}
    file.write_text("{}", encoding="utf-8")
    refused = hybrid("bench", "dashboard", "--from", str(file))
    assert refused.returncode == 2 and "is no JSON of hybrid bench dashboard" in refused.stderr
    assert hybrid("bench", "dashboard", "--quick", "--from", str(file)).returncode == 2
