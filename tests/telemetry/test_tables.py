"""A run leaves in full: every record in one call, in Parquet and CSV, and its numbers as TensorBoard reads them."""

import json
import math
import sys
from pathlib import Path

import msgspec
import polars as pl
import pytest

from tests.telemetry.examples import ONE_OF_EACH, step_record
from trainer_core import read_run
from trainer_core.spec.errors import UserError
from trainer_core.spec.records import AlertRaised, CommandChanged, MetricsMeasured, SystemMeasured, kind_of
from trainer_core.telemetry.as_json import strict
from trainer_core.telemetry.exports import frame
from trainer_core.telemetry.journal import JournalWriter
from trainer_core.telemetry.tables import KINDS, export_table
from trainer_core.telemetry.tensorboard import export_events, scalars


@pytest.fixture
def journal(run_dir: Path) -> Path:
    writer = JournalWriter(run_dir)
    writer.append([(float(i), i % 2, record) for i, record in enumerate(ONE_OF_EACH)])
    writer.append([(99.0, 1, MetricsMeasured(28, {"accuracy": 0.75, "seq": 1.0}))])
    writer.close()
    return run_dir


def test_no_name_of_a_metric_hides_another(run_dir: Path) -> None:
    writer = JournalWriter(run_dir)
    writer.append([(1.0, 0, MetricsMeasured(1, {"values.seq": 2.0, "seq": 3.0, 'a "b",\nc': 4.0}))])
    writer.close()
    (row,) = read_run(run_dir, "metrics").to_dicts()
    assert (row["seq"], row["values.seq"], row["values.values.seq"], row['a "b",\nc']) == (1, 2.0, 3.0, 4.0)


def test_steps_are_the_default_and_the_same_as_the_frame(journal: Path) -> None:
    assert read_run(journal).equals(frame(journal), null_equal=True)


def test_all_is_every_record_in_order_and_nothing_is_left_out(journal: Path) -> None:
    table = read_run(journal, "all")
    records = (*ONE_OF_EACH, MetricsMeasured(28, {"accuracy": 0.75, "seq": 1.0}))
    assert table["seq"].to_list() == list(range(1, len(records) + 1))
    assert table["kind"].to_list() == [kind_of(record) for record in records]
    for row, record in zip(table.iter_rows(named=True), records, strict=True):
        assert row["step"] == record.step
        if kind_of(record) != "step":
            assert json.loads(row["record"]) == strict(msgspec.to_builtins(record))
        else:
            assert row["record"] is None
    steps = table.filter(pl.col("kind") == "step")
    assert steps.select(frame(journal).columns).equals(frame(journal), null_equal=True)
    assert steps["layer_grad_norms"][1].to_list()[0] == 1.0 and math.isnan(steps["layer_grad_norms"][1][1])


@pytest.mark.parametrize("kind", KINDS)
def test_any_kind_is_a_table_of_its_fields(journal: Path, kind: str) -> None:
    table = read_run(journal, kind)
    assert table.height == sum(kind_of(record) == kind for record in (*ONE_OF_EACH, MetricsMeasured(1, {})))
    assert set(table["kind"].to_list()) <= {kind}
    assert table.columns[:4] == ["seq", "time", "attempt", "kind"]


def test_numbers_words_and_nested_values_keep_their_meaning(journal: Path) -> None:
    alerts = read_run(journal, "alert-raised")
    raised = [record for record in ONE_OF_EACH if isinstance(record, AlertRaised)]
    assert alerts["severity"].to_list() == [record.severity.name for record in raised]
    assert math.isnan(alerts["value"][0]) and alerts["limit"].to_list() == [100.0, 500.0]
    assert json.loads(alerts["commands"][1])[0] == {"kind": "scale-learning-rate", "factor": 2.0}
    commands = read_run(journal, "command")
    told = [record for record in ONE_OF_EACH if isinstance(record, CommandChanged)]
    assert commands["state"].to_list() == [record.state.value for record in told]
    assert commands["refusal"].to_list() == [None] * len(told)


def test_metrics_are_columns_of_their_own_names(journal: Path) -> None:
    metrics = read_run(journal, "metrics")
    assert metrics["accuracy"].to_list() == [0.5, 0.75]
    assert metrics["values.seq"].to_list() == [None, 1.0] and metrics["seq"].is_sorted()
    assert math.isnan(metrics["größe"][0]) and metrics["größe"][1] is None


def test_an_unknown_kind_and_an_empty_run(run_dir: Path) -> None:
    JournalWriter(run_dir).close()
    with pytest.raises(UserError, match="no such kind of record; one of all, step"):
        read_run(run_dir, "nonsense")
    assert read_run(run_dir, "all").height == read_run(run_dir, "metrics").height == 0


def test_parquet_brings_everything_back(journal: Path, tmp_path: Path) -> None:
    assert export_table(journal, tmp_path / "all.parquet", "all") == len(ONE_OF_EACH) + 1
    assert pl.read_parquet(tmp_path / "all.parquet").equals(read_run(journal, "all"), null_equal=True)


def test_csv_holds_everything_a_line_a_record(journal: Path, tmp_path: Path) -> None:
    assert export_table(journal, tmp_path / "all.csv", "all") == len(ONE_OF_EACH) + 1
    back = pl.read_csv(tmp_path / "all.csv", infer_schema=False)
    table = read_run(journal, "all")
    assert back.columns == table.columns and back.height == table.height
    assert back["record"].to_list() == table["record"].to_list()
    strange = back.filter(pl.col("step") == str(2**40)).row(0, named=True)
    assert (strange["loss"], strange["loss_ema"], strange["loss_sigma"]) == ("NaN", None, "inf")
    assert json.loads(strange["layer_grad_norms"]) == [1.0, "NaN", "Infinity", 0.5]


def test_tensorboard_reads_every_value_of_every_attempt(journal: Path, tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    written = export_events(journal, tmp_path / "tb")
    found = 0
    for attempt in (0, 1):
        events = EventAccumulator(str(tmp_path / "tb" / f"attempt-{attempt}"), size_guidance={"scalars": 0})
        events.Reload()
        found += sum(len(events.Scalars(tag)) for tag in events.Tags()["scalars"])
    assert found == written == sum(1 for r in (*ONE_OF_EACH, MetricsMeasured(1, {"a": 1, "b": 2})) for _ in scalars(r))
    (accuracy,) = events.Scalars("metrics/accuracy")[-1:]
    assert (accuracy.step, accuracy.value, accuracy.wall_time) == (28, 0.75, 99.0)
    with pytest.raises(UserError, match="already holds"):
        export_events(journal, tmp_path / "tb")


def test_what_was_not_measured_has_no_point() -> None:
    assert dict(scalars(step_record(3, loss=None))).keys().isdisjoint({"step/loss", "step/step", "step/phase"})
    assert dict(scalars(SystemMeasured(1, rss=5))) == {"system/rss": 5.0}


def test_without_the_package_the_extra_is_named(journal: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorboard.compat.proto.event_pb2", None)
    with pytest.raises(Exception, match=r"pip install 'hybrid-predictive-trainer\[tensorboard\]'"):
        export_events(journal, tmp_path / "tb")
    assert not (tmp_path / "tb").exists()
