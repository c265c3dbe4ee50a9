"""A journal that was set aside: every row that comes out of it is one that went in, and what is lost is told."""

import random
import shutil
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.conftest import Hybrid
from tests.telemetry.examples import ONE_OF_EACH, step_record
from trainer_core import read_run
from trainer_core.spec.errors import UserError
from trainer_core.spec.records import Row
from trainer_core.telemetry.codec import RawRow, checksum
from trainer_core.telemetry.journal import JournalReader, JournalWriter
from trainer_core.telemetry.reporter import Reporter
from trainer_core.telemetry.salvage import opened, set_aside
from trainer_core.telemetry.sealing import seal

ROWS, SEGMENT, KEPT = 700, 200, 100


def everything(reader: JournalReader) -> list[Row]:
    rows: list[Row] = []
    while more := reader.rows(rows[-1].seq if rows else 0, 90):
        rows += more
    return rows


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Row], str]:
    """A run with every kind of record, 600 of its 700 rows sealed; its rows and the journal's id."""
    run_dir = tmp_path_factory.mktemp("whole")
    writer = JournalWriter(run_dir)
    records = [
        ONE_OF_EACH[i % len(ONE_OF_EACH)] if i % 9 == 0 else step_record(i, loss=1 / (i + 1)) for i in range(ROWS)
    ]
    writer.append([(float(i), 0, record) for i, record in enumerate(records)])
    seal(run_dir, SEGMENT, KEPT)
    while writer.compact(KEPT):
        pass
    writer.close()
    with closing(JournalReader(run_dir)) as reader:
        return run_dir, everything(reader), reader.journal_id


@pytest.fixture
def damaged(whole: tuple[Path, list[Row], str], tmp_path: Path) -> Path:
    """A copy whose journal is to be damaged."""
    return Path(shutil.copytree(whole[0], tmp_path / "r"))


def begun_anew(run_dir: Path) -> None:
    """A trainer finds the damage and begins a new journal."""
    writer = JournalWriter(run_dir)
    assert writer.set_aside is not None
    writer.append([(1.0, 0, step_record(5))])
    writer.close()


def test_what_was_sealed_and_what_is_good_of_the_file_is_read_under_the_old_id(
    whole: tuple[Path, list[Row], str], damaged: Path, hybrid: Hybrid
) -> None:
    _, before, journal_id = whole
    file = damaged / "journal.db"
    content = bytearray(file.read_bytes())
    newest = len(content) - 6 * 4096  # what was written last: rows that were never sealed
    content[newest : newest + 8192] = bytes(8192)
    file.write_bytes(content)
    begun_anew(damaged)
    (one,) = set_aside(damaged)
    assert one.name == one.journal_id == journal_id and one.file is not None and one.folder is not None
    with closing(opened(damaged, journal_id)) as reader:
        rows = everything(reader)
        assert set(map(repr, rows)) <= set(map(repr, before)) and [r.seq for r in rows] == sorted(r.seq for r in rows)
        assert [row.seq for row in rows[:600]] == list(range(1, 601)), "all that was sealed"
        assert 600 < len(rows) < ROWS and reader.damaged, "and more of the file, not all; what lacks is told"
    with closing(opened(damaged, one.file.name)) as reader:
        assert repr(everything(reader)) == repr(rows), "the file's name does as well"
    assert read_run(damaged, "all").height == 1, "the run itself is the new journal"
    assert read_run(damaged, "all", journal=journal_id)["seq"].to_list() == [row.seq for row in rows]
    out = damaged / "old.parquet"
    said = hybrid("export", damaged, out, "--journal", journal_id)
    assert said.returncode == 0 and f"note: {journal_id} was set aside: {len(rows)} rows" in said.stderr
    assert pl.read_parquet(out)["seq"].to_list() == read_run(damaged, journal=journal_id)["seq"].to_list()
    report = hybrid("report", damaged)
    assert f"hybrid export {damaged} OUT.parquet --journal {journal_id}" in report.stderr


def test_where_nothing_of_the_file_is_left_its_segments_are_read(
    whole: tuple[Path, list[Row], str], damaged: Path
) -> None:
    _, before, journal_id = whole
    (damaged / "journal.db").write_bytes(b"no database at all " * 5000)
    reporter = Reporter(damaged)
    assert reporter.flush(10)
    reporter.close()
    alert = read_run(damaged, "alert-raised")["message"].to_list()[0]
    ((_, known), (_, file)) = [(one.journal_id, one.name) for one in set_aside(damaged)]
    assert known == journal_id and file.startswith("journal.db.corrupt-")
    assert f"hybrid export {damaged} OUT.parquet --journal {file}" in alert
    with closing(opened(damaged, journal_id)) as reader:
        assert repr(everything(reader)) == repr(before[:600])
    with closing(opened(damaged, file)) as reader:
        assert everything(reader) == []
    with pytest.raises(UserError, match=f"it has {journal_id}, {file}"):
        opened(damaged, "nonsense")


def test_a_run_whose_journal_is_whole_has_none_set_aside(whole: tuple[Path, list[Row], str]) -> None:
    run_dir, _, journal_id = whole
    assert set_aside(run_dir) == []
    with pytest.raises(UserError, match="it has none"):
        opened(run_dir, journal_id)


@pytest.mark.parametrize(
    "changed", [{"attempt": 0.5}, {"seq": None}, {"time": "x"}, {"kind": b"step"}, {"body": "text"}, {"seq": 2**70}]
)
def test_a_row_of_other_types_is_not_intact(changed: dict[str, Any]) -> None:
    """As a page of a damaged file can give them: SQLite's columns take any type."""
    row = RawRow(1, 2.0, 0, "step", b"body", checksum(1, 2.0, 0, "step", b"body"))
    assert row.intact and not msgspec.structs.replace(row, **changed).intact


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32), bytes_=st.integers(1, 400), length=st.integers(1, 3000), segment=st.booleans())
def test_whatever_is_damaged_no_row_comes_out_that_did_not_go_in(
    whole: tuple[Path, list[Row], str], tmp_path_factory: pytest.TempPathFactory, seed: int, bytes_: int, length: int,
    segment: bool,
) -> None:  # fmt: skip
    origin, before, journal_id = whole
    run_dir = Path(shutil.copytree(origin, tmp_path_factory.mktemp("torn") / "r"))
    chance = random.Random(seed)
    files = [run_dir / "journal.db", *(sorted(run_dir.glob("segments-*/*"))[:1] if segment else [])]
    for file in files:
        content = bytearray(file.read_bytes())
        for _ in range(bytes_):
            content[chance.randrange(len(content))] = chance.randrange(256)
        if length < 1500:
            content = content[: len(content) - length]
        file.write_bytes(content)
    (run_dir / "journal.db").rename(run_dir / "journal.db.corrupt-by-the-test")
    JournalWriter(run_dir).close()
    there = {row.seq: repr(row) for row in before}
    for one in set_aside(run_dir):
        with closing(opened(run_dir, one.name)) as reader:
            rows = everything(reader)
            assert all(repr(row) == there[row.seq] for row in rows)
            assert len({row.seq for row in rows}) == len(rows)
            if one.journal_id == journal_id:
                sealed = {row.seq for row in before[200 * segment : 600]}
                assert sealed <= {row.seq for row in rows}, "whole segments are read whole"
    shutil.rmtree(run_dir)
