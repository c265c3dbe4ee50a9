"""Sealed segments: what was sealed is read as if it had never moved, and no crash on the way leaves a hole."""

import math
from collections.abc import Sequence
from pathlib import Path

import polars as pl
import pytest

from tests.telemetry.examples import ONE_OF_EACH, step_record
from tests.telemetry.waiting import until
from trainer_core.spec.records import AlertRaised, Annotated, Record, Row
from trainer_core.telemetry import segments
from trainer_core.telemetry.codec import RawRow, checksum
from trainer_core.telemetry.exports import frame
from trainer_core.telemetry.follower import Follower
from trainer_core.telemetry.journal import JournalReader, JournalWriter
from trainer_core.telemetry.reporter import Reporter
from trainer_core.telemetry.sealing import seal

ROWS, KEPT = 40, 10


def write(run_dir: Path, records: Sequence[Record]) -> None:
    writer = JournalWriter(run_dir)
    writer.append([(float(i), i % 3, record) for i, record in enumerate(records)])
    writer.close()


def a_run(run_dir: Path, steps: int = 200) -> list[Row]:
    """A journal of every kind of record among ``steps`` steps with odd values; its rows before anything is sealed."""
    plain = [
        step_record(i, loss=math.nan if i % 7 == 0 else 1 / i, layer_grad_norms=(0.1,) * (i % 4))
        for i in range(1, steps)
    ]
    write(run_dir, [*ONE_OF_EACH, *plain[: steps // 2], *ONE_OF_EACH, *plain[steps // 2 :]])
    return all_rows(run_dir)


def all_rows(run_dir: Path, page: int = 17) -> list[Row]:
    reader, rows = JournalReader(run_dir), list[Row]()
    while more := reader.rows(rows[-1].seq if rows else 0, page):
        rows += more
    reader.close()
    return rows


def compacted(run_dir: Path) -> None:
    """Seal and delete all there is to seal and delete."""
    seal(run_dir, ROWS, KEPT)
    writer = JournalWriter(run_dir)
    while writer.compact(KEPT, most=13):
        pass
    writer.close()


def same(one: list[Row], other: list[Row]) -> bool:
    return repr(one) == repr(other)


def test_a_sealed_journal_reads_as_before_in_pages_in_ranges_by_kind_and_as_a_table(run_dir: Path) -> None:
    before, table = a_run(run_dir), frame(run_dir)
    reader = JournalReader(run_dir)
    raw = reader.raw_rows(0, 10**6)
    kinds = {row.kind for row in raw}
    events = {kind: reader.events(kind) for kind in kinds - {"step", "stretch"}}
    compacted(run_dir)
    stored = JournalReader(run_dir).stored_rows(0, 10**6)
    assert len(stored) < len(before) / 2, "the bulk has left journal.db"
    assert {row.kind for row in stored} >= kinds - set(segments.BULK), "rare kinds have not"
    assert same(all_rows(run_dir), before)
    for opened in (reader, JournalReader(run_dir)):  # one opened before the rows moved, one after
        assert opened.raw_rows(0, 10**6) == raw, "every byte, every checksum"
        assert opened.raw_rows(33, 5, 36) == raw[33:36]
        assert same(opened.last_rows(120), before[-120:])
        assert opened.last_seq() == len(before) and not opened.damaged
        assert {kind: repr(opened.events(kind)) for kind in events} == {k: repr(rows) for k, rows in events.items()}
        assert [r.seq for r in opened.last_steps(60)] == [r.seq for r in raw if r.kind in ("step", "stretch")][-60:]
    assert frame(run_dir).equals(table, null_equal=True)


def test_the_next_process_goes_on_with_the_next_seq_and_seals_on(run_dir: Path) -> None:
    before = a_run(run_dir)
    compacted(run_dir)
    write(run_dir, [step_record(i) for i in range(100)])
    compacted(run_dir)
    rows = all_rows(run_dir)
    assert [row.seq for row in rows] == list(range(1, len(before) + 101))
    ranges = [(s.first, s.last) for s in JournalReader(run_dir).sealed.all]
    assert ranges == [(first, first + ROWS - 1) for first in range(1, len(rows) - KEPT - ROWS + 2, ROWS)]


def test_anybody_reads_a_segment_with_polars(run_dir: Path) -> None:
    a_run(run_dir)
    compacted(run_dir)
    table = pl.read_parquet(run_dir / "segments-*" / "*.parquet").filter(pl.col("kind") == "step")
    assert table["loss"].is_nan().any() and table["grad_norm"].is_null().any() and table["step"].max() >= 2**40


@pytest.mark.parametrize("moment", ["unfinished file", "sealed, nothing deleted", "half deleted"])
def test_a_crash_at_any_moment_leaves_every_row_once(run_dir: Path, moment: str) -> None:
    before = a_run(run_dir)
    if moment == "unfinished file":
        folder = segments.folder_of(run_dir, JournalReader(run_dir).journal_id)
        folder.mkdir()
        (folder / ".unfinished-1").write_bytes(b"PAR1 half of")
    else:
        seal(run_dir, ROWS, KEPT)
    if moment == "half deleted":
        writer = JournalWriter(run_dir)
        assert writer.compact(KEPT, most=25)
        writer.close()
    assert same(all_rows(run_dir), before)
    compacted(run_dir)
    assert same(all_rows(run_dir), before)


@pytest.mark.parametrize("damage", ["a flipped bit", "half of it", "gone"])
def test_a_damaged_segment_is_reported_with_its_range_and_the_rest_is_read(run_dir: Path, damage: str) -> None:
    before = a_run(run_dir)
    compacted(run_dir)
    file = JournalReader(run_dir).sealed.all[1].path
    content = bytearray(file.read_bytes())
    if damage == "a flipped bit":
        content[len(content) // 2] ^= 4
        file.write_bytes(content)
    elif damage == "half of it":
        file.write_bytes(content[: len(content) // 2])
    else:
        file.unlink()
    bulk = {row.seq for row in JournalReader(run_dir).raw_rows() if row.kind in segments.BULK and 41 <= row.seq <= 80}
    reader = JournalReader(run_dir)
    lost = set(range(41, 81)) - {row.seq for row in reader.stored_rows(0, 10**6)}
    assert not bulk & lost and lost
    assert same(reader.rows(0, 10**6), [row for row in before if row.seq not in lost])
    assert reader.damaged == lost
    assert frame(run_dir)["seq"].to_list() == [
        row.seq for row in before if row.seq not in lost and type(row.record).__name__ == "StepRecord"
    ]
    with Follower(run_dir) as follower:
        seqs: list[int] = []
        until(lambda: seqs.extend(row.seq for row in follower.poll(0.0)) or seqs[-1:] == [len(before)])
    assert seqs == [row.seq for row in before if row.seq not in lost] and follower.damaged == lost
    reporter = Reporter(run_dir)
    assert reporter.flush(10)
    reporter.close()
    last = JournalReader(run_dir).last_rows(1)[0]
    assert last.seq == len(before) + 1
    assert isinstance(last.record, AlertRaised) and "rows 41 to 80" in last.record.message
    aside = [path.name for path in file.parent.iterdir() if path.name.endswith(".damaged")]
    assert aside == ([] if damage == "gone" else [f"{file.name}.damaged"])
    if damage != "gone":
        writer = JournalWriter(run_dir)
        assert not writer.losses, "told once"
        writer.close()


def test_rows_that_cannot_be_told_from_their_columns_are_kept_as_bytes(run_dir: Path) -> None:
    """A row that was damaged before it was sealed stays damaged; a block with garbage in an absent field keeps it."""
    a_run(run_dir)
    reader = JournalReader(run_dir)
    rows = reader.raw_rows(30, 40)
    flipped = RawRow(rows[3].seq, rows[3].time, rows[3].attempt, "step", rows[3].body[:-1] + b"\x81", rows[3].crc)
    odd = bytearray(rows[4].body)
    odd[8 + 8 * reader.layout.fields.index("grad_norm")] = 9
    crc = checksum(rows[4].seq, rows[4].time, rows[4].attempt, "step", bytes(odd))
    rows[3:5] = [flipped, RawRow(rows[4].seq, rows[4].time, rows[4].attempt, "step", bytes(odd), crc)]
    sealed = segments.publish(run_dir / "segments-x", rows, reader.layout)
    back = segments.raw_rows(sealed.frame(), reader.layout)
    assert back == rows and not back[3].intact and back[4].intact


def test_nothing_is_deleted_for_a_segment_that_is_damaged(run_dir: Path) -> None:
    before = a_run(run_dir)
    sealed = seal(run_dir, ROWS, KEPT)
    writer = JournalWriter(run_dir)
    sealed[0].path.write_bytes(b"PAR1")
    assert not writer.compact(KEPT)
    writer.close()
    assert same(all_rows(run_dir), before)


def test_a_trainer_seals_by_itself_in_another_process_and_an_open_follower_misses_nothing(run_dir: Path) -> None:
    reporter = Reporter(run_dir, segment_rows=200, kept_rows=50)
    reader, follower = JournalReader(run_dir), Follower(run_dir)
    seqs: list[int] = []
    for step in range(1, 501):
        reporter.report(Annotated(step, "n", "me") if step % 100 == 0 else step_record(step), 0)
    assert reporter.flush(10)
    until(lambda: len(reader.stored_rows(0, 10**6)) <= 500 - 400 + 4, within=30)
    until(lambda: seqs.extend(row.seq for row in follower.poll(0.0)) or seqs[-1:] == [500])
    reporter.close()
    follower.close()
    assert seqs == list(range(1, 501)) and not follower.damaged
    assert [(s.first, s.last) for s in JournalReader(run_dir).sealed.all] == [(1, 200), (201, 400)]
