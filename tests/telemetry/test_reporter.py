"""The training thread's side: it never blocks, never raises, and never lies about what was dropped."""

import os
import sqlite3
import time
from pathlib import Path

from tests.telemetry.examples import step_record
from tests.telemetry.waiting import until
from trainer_core.spec.records import Annotated, Lost, StepRecord
from trainer_core.telemetry.journal import JournalReader
from trainer_core.telemetry.reporter import Reporter


def _locked(run_dir: Path) -> sqlite3.Connection:
    """A stranger that holds the journal's write lock: every commit fails until it lets go."""
    stranger = sqlite3.connect(run_dir / "journal.db", isolation_level=None)
    stranger.execute("BEGIN IMMEDIATE")
    return stranger


def test_what_is_reported_is_on_disk_after_a_flush_with_its_time_and_attempt(run_dir: Path) -> None:
    times = iter([10.0, 11.0])
    reporter = Reporter(run_dir, clock=lambda: next(times, 99.0))
    reporter.report(step_record(1), 0)
    reporter.report(Annotated(1, "hello", "me"), 3)
    assert reporter.flush(10)
    rows = JournalReader(run_dir).rows()
    assert [(row.seq, row.time, row.attempt) for row in rows] == [(1, 10.0, 0), (2, 11.0, 3)]
    assert reporter.next_seq == 3
    reporter.close()


def test_seq_goes_on_without_a_hole_in_the_next_process(run_dir: Path) -> None:
    for _ in range(3):
        reporter = Reporter(run_dir)
        reporter.report(step_record(1), 0)
        reporter.report(step_record(2), 0)
        reporter.close()
    assert [row.seq for row in JournalReader(run_dir).rows()] == [1, 2, 3, 4, 5, 6]


def test_reporting_nonsense_or_after_close_never_raises(run_dir: Path) -> None:
    reporter = Reporter(run_dir)
    reporter.report("not a record", 0)  # type: ignore[arg-type]
    reporter.report(step_record(1), 0)
    assert reporter.flush(10)
    reporter.close()
    reporter.report(step_record(2), 0)
    reporter.close()
    steps = [row.record for row in JournalReader(run_dir).rows() if isinstance(row.record, StepRecord)]
    assert [step.step for step in steps] == [1]


def test_a_full_queue_drops_the_oldest_steps_never_events_and_says_how_many(run_dir: Path) -> None:
    reporter = Reporter(run_dir, capacity=100)
    reporter.report(step_record(0), 0)
    assert reporter.flush(10)
    stranger = _locked(run_dir)
    for step in range(1, 1001):
        reporter.report(step_record(step), 0)
        if step % 100 == 0:
            reporter.report(Annotated(step, f"note {step}", "me"), 0)
    stranger.execute("ROLLBACK")
    stranger.close()
    assert reporter.flush(20)
    reporter.close()
    records = [row.record for row in JournalReader(run_dir).rows()]
    kept = [record.step for record in records if isinstance(record, StepRecord)]
    lost = [record for record in records if isinstance(record, Lost)]
    assert sum(1 for record in records if isinstance(record, Annotated)) == 10
    assert kept[-1] == 1000, "the newest steps are kept"
    assert lost and sum(record.count for record in lost) == 1001 - len(kept) == reporter.lost > 0
    gone = {step for record in lost for step in range(record.first_step, record.last_step + 1)}
    assert set(range(1001)) <= gone | set(kept)


def test_a_disk_that_fails_for_a_while_loses_nothing(run_dir: Path) -> None:
    reporter = Reporter(run_dir)
    assert reporter.flush(10)
    stranger = _locked(run_dir)
    for step in range(1, 51):
        reporter.report(step_record(step), 0)
    assert not reporter.flush(0.3)
    stranger.execute("ROLLBACK")
    stranger.close()
    assert reporter.flush(20)
    reporter.close()
    assert [row.seq for row in JournalReader(run_dir).rows()] == list(range(1, 51))
    assert reporter.lost == 0


def test_close_is_bounded_when_the_disk_never_answers(run_dir: Path) -> None:
    reporter = Reporter(run_dir)
    assert reporter.flush(10)
    stranger = _locked(run_dir)
    reporter.report(step_record(1), 0)
    start = time.monotonic()
    reporter.close(timeout=0.5)
    assert time.monotonic() - start < 4
    stranger.close()


def test_a_report_takes_microseconds_while_the_disk_hangs(run_dir: Path) -> None:
    reporter = Reporter(run_dir)
    assert reporter.flush(10)
    stranger = _locked(run_dir)
    record, taken = step_record(1), []
    for _ in range(2000):
        start = time.perf_counter()
        reporter.report(record, 0)
        taken.append(time.perf_counter() - start)
    stranger.close()
    reporter.close()
    assert sorted(taken)[len(taken) // 2] < 100e-6


def test_a_forked_child_reports_nothing(run_dir: Path) -> None:
    reporter = Reporter(run_dir)
    reporter.report(step_record(1), 0)
    assert reporter.flush(10)
    pid = os.fork()
    if pid == 0:
        reporter.report(step_record(666), 0)
        reporter.flush(1)
        reporter.close()
        os._exit(0)
    assert until(lambda: os.waitpid(pid, os.WNOHANG)[0] == pid)
    reporter.report(step_record(2), 0)
    reporter.close()
    steps = [row.record.step for row in JournalReader(run_dir).rows()]
    assert steps == [1, 2]
