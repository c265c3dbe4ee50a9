"""Step records as tables: null is "not measured", NaN is NaN, in Parquet and in a data frame."""

import math
from pathlib import Path

import polars as pl
import pytest

from tests.telemetry.examples import ONE_OF_EACH, step_record
from trainer_core.spec.errors import UserError
from trainer_core.telemetry.codec import STEP_FIELDS
from trainer_core.telemetry.exports import export, frame
from trainer_core.telemetry.journal import JournalWriter


@pytest.fixture
def journal(run_dir: Path) -> Path:
    writer = JournalWriter(run_dir)
    writer.append([(float(i), i % 2, record) for i, record in enumerate(ONE_OF_EACH)])
    writer.append([(99.0, 1, step_record(3, loss=None, grad_norm=math.nan))])
    writer.close()
    return run_dir


def test_a_frame_has_every_step_row_and_every_field(journal: Path) -> None:
    table = frame(journal)
    assert table.columns == ["seq", "time", "attempt", "kind", *STEP_FIELDS]
    assert table["step"].to_list() == [1, 2**40, 2, 3]
    assert table["kind"].unique().to_list() == ["step"]
    assert table["phase"].to_list() == ["FULL"] * 4
    assert table["loss"].is_null().to_list() == [False, False, False, True]
    assert table["loss"].is_nan().to_list() == [False, True, False, None]
    assert math.isnan(table["grad_norm"][-1])


def test_parquet_brings_the_same_back(journal: Path, tmp_path: Path) -> None:
    out = tmp_path / "steps.parquet"
    assert export(journal, out) == 4
    assert pl.read_parquet(out).equals(frame(journal), null_equal=True)


def test_csv_has_a_header_and_a_line_a_step(journal: Path, tmp_path: Path) -> None:
    out = tmp_path / "steps.csv"
    export(journal, out)
    lines = out.read_text().splitlines()
    assert len(lines) == 5 and lines[0].startswith("seq,time,attempt,kind,step,batch,phase")


def test_another_ending_is_refused(journal: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"\.parquet or \.csv"):
        export(journal, tmp_path / "steps.xlsx")


def test_an_empty_journal_is_an_empty_table(run_dir: Path) -> None:
    JournalWriter(run_dir).close()
    assert frame(run_dir).height == 0
