"""The journal's file format: what was written comes back, or the reader says that it cannot."""

import contextlib
import json
import math
import sqlite3
import struct
from pathlib import Path
from typing import get_args

import pytest

from tests.telemetry.examples import ONE_OF_EACH, STRANGE_STEP, step_record
from tests.telemetry.trainers import TrainerProcess
from trainer_core.spec.errors import RunError
from trainer_core.spec.phases import Phase
from trainer_core.spec.records import AlertRaised, Annotated, Record, StepRecord, kind_of
from trainer_core.telemetry import codec
from trainer_core.telemetry.exports import frame
from trainer_core.telemetry.journal import JournalError, JournalReader, JournalWriter
from trainer_core.telemetry.reporter import Reporter


def written(run_dir: Path, *records: Record) -> JournalReader:
    writer = JournalWriter(run_dir)
    writer.append([(float(i), 0, record) for i, record in enumerate(records)])
    writer.close()
    return JournalReader(run_dir)


def same(one: object, other: object) -> bool:
    """Equality in which NaN equals NaN and -0.0 differs from 0.0."""
    return repr(one) == repr(other)


def test_every_kind_of_record_comes_back_as_it_was(run_dir: Path) -> None:
    rows = written(run_dir, *ONE_OF_EACH).rows()
    assert {kind_of(record) for record in ONE_OF_EACH} == {str(k.__struct_config__.tag) for k in get_args(Record)}
    for row, record in zip(rows, ONE_OF_EACH, strict=True):
        assert same(row.record, record)


def test_nan_none_and_infinity_are_four_things(run_dir: Path) -> None:
    (row,) = written(run_dir, STRANGE_STEP).rows()
    record = row.record
    assert isinstance(record, StepRecord)
    assert record.loss is not None and math.isnan(record.loss)
    assert record.loss_ema is None
    assert (record.loss_sigma, record.loss_deviation) == (math.inf, -math.inf)
    assert record.grad_norm is not None and math.copysign(1, record.grad_norm) == -1
    assert record.step == 2**40 and isinstance(record.step, int)
    assert isinstance(record.sign_changes, int) and isinstance(record.phase, Phase)


def test_the_bytes_of_a_step_record_are_what_the_protocol_page_says() -> None:
    kind, body = codec.encode(step_record(7, loss=math.nan, layer_grad_norms=(0.5, 1.5)))
    assert kind == "step"
    count = len(codec.STEP_FIELDS)
    (present,) = struct.unpack_from("<Q", body)
    values = dict(zip(codec.STEP_FIELDS, struct.unpack_from(f"<{count}d", body, 8), strict=True))
    assert {f for i, f in enumerate(codec.STEP_FIELDS) if present >> i & 1} == {
        "step", "batch", "phase", "cycle", "step_in_phase", "loss", "backward_passes"
    }  # fmt: skip
    assert (values["step"], values["phase"]) == (7.0, 1.0) and math.isnan(values["loss"])
    assert body[8 + 8 * count :] == struct.pack("<I2f", 2, 0.5, 1.5)


def test_the_first_fields_keep_their_places_for_ever() -> None:
    assert codec.STEP_FIELDS[:7] == ("step", "batch", "phase", "cycle", "step_in_phase", "phase_budget", "loss")
    assert len(codec.STEP_FIELDS) <= 64, "the bitmap has no bit for more"
    assert codec.PHASES == (Phase.WARMUP, Phase.FULL, Phase.PREDICT, Phase.CORRECT)


def test_one_flipped_bit_anywhere_in_a_row_is_noticed(run_dir: Path) -> None:
    written(run_dir, *(step_record(i) for i in range(1, 6)), *ONE_OF_EACH[:2])
    db = sqlite3.connect(run_dir / "journal.db")
    body = bytearray(db.execute("SELECT body FROM rows WHERE seq = 3").fetchone()[0])
    for place in range(len(body)):
        flipped = bytearray(body)
        flipped[place] ^= 1 << place % 8
        db.execute("UPDATE rows SET body = ? WHERE seq = 3", (bytes(flipped),))
        db.commit()
        reader = JournalReader(run_dir)
        assert [row.seq for row in reader.rows()] == [1, 2, 4, 5, 6, 7]
        assert 3 in reader.damaged
    db.execute("UPDATE rows SET body = ?, attempt = attempt + 1 WHERE seq = 3", (bytes(body),))
    db.execute("UPDATE rows SET time = time + 1 WHERE seq = 4")
    db.execute("UPDATE rows SET seq = 99 WHERE seq = 5")
    db.execute("UPDATE rows SET kind = 'note' WHERE seq = 6")
    db.commit()
    db.close()
    assert [row.seq for row in JournalReader(run_dir).rows()] == [1, 2, 7]


def test_seq_and_journal_id_go_on_in_the_next_process(run_dir: Path) -> None:
    first = written(run_dir, step_record(1), step_record(2)).journal_id
    reader = written(run_dir, step_record(3))
    assert reader.journal_id == first
    assert [row.seq for row in reader.rows()] == [1, 2, 3] and reader.last_seq() == 3
    assert [row.seq for row in reader.rows(after_seq=1, limit=1)] == [2]
    assert [row.seq for row in reader.last_rows(2)] == [2, 3]


def test_another_protocol_version_is_refused_in_one_sentence_and_left_alone(run_dir: Path) -> None:
    written(run_dir, step_record(1))
    db = sqlite3.connect(run_dir / "journal.db")
    db.execute("UPDATE meta SET value = '999' WHERE key = 'protocol'")
    db.commit()
    db.close()
    before = (run_dir / "journal.db").read_bytes()
    for opened in (JournalReader, JournalWriter, Reporter):
        with pytest.raises(JournalError) as refused:
            opened(run_dir)
        assert "999" in str(refused.value) and "\n" not in str(refused.value)
        assert isinstance(refused.value, RunError)
    assert (run_dir / "journal.db").read_bytes() == before


def test_a_directory_without_a_journal_is_no_run(run_dir: Path) -> None:
    with pytest.raises(JournalError, match=r"is not a run directory: it has no journal\.db"):
        JournalReader(run_dir)


@pytest.mark.parametrize("said", ["{}", "[1]", '["loss"]', '["phase"', None])
def test_a_journal_that_no_longer_says_how_its_rows_are_laid_out_is_refused_and_set_aside(
    run_dir: Path, said: str | None
) -> None:
    written(run_dir, step_record(1)).close()
    with contextlib.closing(sqlite3.connect(run_dir / "journal.db", isolation_level=None)) as db:
        db.execute("UPDATE meta SET value = ? WHERE key = 'step_fields'", (said,)) if said is not None else db.execute(
            "DELETE FROM meta WHERE key = 'journal_id'"
        )
    with pytest.raises(JournalError, match="is damaged: it does not say any more how its rows are laid out"):
        JournalReader(run_dir)
    writer = JournalWriter(run_dir)
    assert writer.set_aside is not None and writer.next_seq == 1
    writer.close()


@pytest.mark.parametrize("damage", ["garbage", "a damaged page", "emptied"])
def test_a_corrupt_journal_is_set_aside_and_an_alert_says_so(run_dir: Path, damage: str) -> None:
    old = written(run_dir, *(step_record(i) for i in range(1, 2000))).journal_id
    file = run_dir / "journal.db"
    spoilt = bytearray(file.read_bytes())
    if damage == "garbage":
        spoilt[:] = b"no database at all " * 5000
    elif damage == "emptied":
        spoilt.clear()
    else:
        spoilt[8192:40960] = bytes(32768)
    file.write_bytes(spoilt)
    reporter = Reporter(run_dir)
    reporter.report(step_record(1), 0)
    assert reporter.flush(10)
    reporter.close()
    reader = JournalReader(run_dir)
    assert reader.journal_id != old
    alert = reader.rows()[0].record
    assert isinstance(alert, AlertRaised) and reporter.open_alerts == {alert.alert_id}, "it can be acknowledged"
    names = [path.name for path in run_dir.iterdir()]
    aside = [name for name in names if "corrupt" in name and not name.endswith(("-wal", "-shm"))]
    assert isinstance(alert, AlertRaised) and any(name in alert.message for name in aside)
    assert (run_dir / aside[0]).read_bytes() == bytes(spoilt)


@pytest.mark.parametrize("cut", [1, 500, 5000, 50_000])
def test_a_torn_write_ahead_log_loses_only_its_tail(run_dir: Path, cut: int) -> None:
    with TrainerProcess(run_dir, serves=False) as trainer:
        for _ in range(5):
            trainer.steps(40)
        trainer.kill()
    log = run_dir / "journal.db-wal"
    log.write_bytes(log.read_bytes()[:-cut])
    seqs = [row.seq for row in JournalReader(run_dir).rows()]
    assert seqs == list(range(1, len(seqs) + 1))
    writer = JournalWriter(run_dir)
    assert writer.next_seq == len(seqs) + 1 and writer.set_aside is None
    writer.close()


def test_the_log_of_a_loop_with_large_batches_does_not_grow_for_ever(run_dir: Path) -> None:
    """Batches alone were counted: at thousands of rows a batch the log had hundreds of megabytes before the first."""
    writer = JournalWriter(run_dir)
    batch = [(0.0, 0, Annotated(step, "x", "program")) for step in range(5000)]
    sizes = []
    for _ in range(16):
        writer.append(batch)
        sizes.append(run_dir.joinpath("journal.db-wal").stat().st_size)
    writer.close()
    assert max(sizes) < 0.5 * run_dir.joinpath("journal.db").stat().st_size


def test_readers_see_committed_rows_while_the_writer_writes(run_dir: Path) -> None:
    writer = JournalWriter(run_dir)
    reader = JournalReader(run_dir)
    for seq in range(1, 50):
        writer.append([(0.0, 0, step_record(seq))])
        assert reader.last_seq() == seq
    writer.close()
    assert len(reader.rows()) == 49


def test_a_journal_of_fewer_fields_is_read_and_continued_in_its_own_layout(tmp_path: Path) -> None:
    writer = JournalWriter(tmp_path)
    writer.close()
    older = [f for f in codec.STEP_FIELDS if f not in ("brier", "horizon")] + ["of_a_later_version"]
    with contextlib.closing(sqlite3.connect(tmp_path / "journal.db", isolation_level=None)) as db:
        db.execute("UPDATE meta SET value = ? WHERE key = 'step_fields'", (json.dumps(older),))
    writer = JournalWriter(tmp_path)
    writer.append([(1.0, 0, step_record(7, loss=math.nan, brier=0.1, horizon=20, grad_norm=2.0))])
    writer.close()
    (row,) = JournalReader(tmp_path).rows()
    assert isinstance(row.record, StepRecord)
    assert row.record.step == 7 and row.record.grad_norm == 2.0 and math.isnan(row.record.loss or 0.0)
    assert row.record.brier is None and row.record.horizon is None
    table = frame(tmp_path)
    assert table["brier"].to_list() == [None] and table["grad_norm"].to_list() == [2.0]
