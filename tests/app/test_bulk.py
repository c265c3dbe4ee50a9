"""History in chunks of columns makes the same store as its rows one by one."""

import math
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from app.feed import Feed
from app.store import KINDS, LATEST, Snapshot, Store
from tests.app.conftest import until
from tests.telemetry.examples import ONE_OF_EACH, step_record
from trainer_core.spec.phases import Phase
from trainer_core.spec.records import AlertRaised, AttemptStarted, PhaseChanged, PredictedStretch, Record
from trainer_core.spec.severity import Severity
from trainer_core.telemetry import history
from trainer_core.telemetry.journal import JournalReader, JournalWriter
from trainer_core.telemetry.sealing import seal


def a_wild_run(seed: int, length: int = 1500) -> list[tuple[float, int, Record]]:
    """Phases, rollbacks, stretches, NaN and absent values, also in orders that no run would have."""
    chance, step, attempt, phase, items = random.Random(seed), 0, 0, Phase.WARMUP, list[tuple[float, int, Record]]()

    def say(record: Record) -> None:
        items.append((float(len(items)), attempt, record))

    for _ in range(length):
        roll = chance.random()
        if roll < 0.03:
            entered = chance.choice(list(Phase))
            say(PhaseChanged(step + 1, phase, entered, ("x",), 1, 40))
            phase = entered
        elif roll < 0.035 and step > 20:
            attempt, back = attempt + 1, step - chance.randrange(1, 20)
            say(AttemptStarted(back, attempt, attempt - 1, step, "c", "rollback"))
            step = back
        elif roll < 0.06:
            say(
                PredictedStretch(
                    step + 5, step + 1, step + 5, step, 1, (0.5, 0.4), (0.4, 0.3), (0.6, 0.5), 0.1, None, 0.1, 3
                )
            )
            step += 5
        elif roll < 0.1:
            say(chance.choice(ONE_OF_EACH[7:]))
        else:
            step += 1
            odd = chance.choice([0.5, 0.5, 0.5, math.nan, math.inf, None])
            predicted = chance.choice([None, 0.4])
            norms = chance.choice([None, (0.1 * step, 1.0, odd or 0.0)])
            say(
                step_record(
                    step,
                    layer_grad_norms=norms,
                    loss=odd,
                    phase=phase,
                    predicted_loss=predicted,
                    grad_norm=None,
                    confidence=odd,
                )
            )
    return items


def same(one: Snapshot, other: Snapshot) -> bool:
    tables = [(name, getattr(one, name), getattr(other, name)) for name in ("steps", "path")]
    tables += [("system", one.side.system, other.side.system)]
    assert one.side.metrics.keys() == other.side.metrics.keys() and one.side.newest == other.side.newest
    assert repr((one.side.health, one.side.alerts)) == repr((other.side.health, other.side.alerts))
    tables += [(name, table, other.side.metrics[name]) for name, table in one.side.metrics.items()]
    assert one.side.layers.names == other.side.layers.names and one.side.layers.width == other.side.layers.width
    np.testing.assert_array_equal(one.side.layers.now, other.side.layers.now)
    np.testing.assert_array_equal(one.side.layers.largest, other.side.layers.largest)
    np.testing.assert_array_equal(one.side.layers.steps, other.side.layers.steps)
    np.testing.assert_array_equal(one.side.layers.norms, other.side.layers.norms)
    assert one.side.layers.whole == other.side.layers.whole
    for name, left, right in tables:
        assert left.starts == right.starts and left.length == right.length
        for column in left.columns:
            assert np.array_equal(left[column], right[column], equal_nan=True), (name, column)
        for signal in left.extremes:  # of equal values either may be drawn, so the buckets are compared, not the rows
            held, other_held = (side.extremes[signal].of(side[signal]) for side in (left, right))
            assert (held.rows, held.bucket, len(held.low)) == (other_held.rows, other_held.bucket, len(other_held.low))
    for column in one.spans:
        assert np.array_equal(one.spans[column], other.spans[column])
    plain = [n for n in one.__dataclass_fields__ if n not in ("steps", "path", "spans", "side")]
    for name in plain:
        assert repr(getattr(one, name)) == repr(getattr(other, name)), name
    return True


@pytest.mark.parametrize("seed", range(4))
def test_a_store_from_sealed_columns_equals_one_from_rows(tmp_path: Path, seed: int) -> None:
    writer = JournalWriter(tmp_path)
    writer.append(a_wild_run(seed))
    writer.close()
    seal(tmp_path, rows=300, kept=100)
    reader = JournalReader(tmp_path)
    assert len(reader.sealed.all) == 4
    by_row, by_column = Store(), Store()
    by_row.append(reader.rows(limit=10**6))
    for chunk in history.chunks(reader, KINDS, LATEST):
        by_column.extend(chunk)
    assert same(by_row.snapshot(), by_column.snapshot())


def test_a_damaged_segment_costs_its_rows_and_nothing_else(tmp_path: Path) -> None:
    writer = JournalWriter(tmp_path)
    writer.append(a_wild_run(7))
    writer.close()
    damaged = seal(tmp_path, rows=300, kept=100)[1].path
    writer = JournalWriter(tmp_path)
    while writer.compact(kept=100):
        pass
    writer.close()
    damaged.write_bytes(b"PAR1")
    by_row, by_column, one, other = Store(), Store(), JournalReader(tmp_path), JournalReader(tmp_path)
    by_row.append(one.rows(limit=10**6))
    for chunk in history.chunks(other, KINDS, LATEST):
        by_column.extend(chunk)
    assert same(by_row.snapshot(), by_column.snapshot())
    assert one.damaged == other.damaged and 100 < len(one.damaged) <= 300


def a_long_run(run_dir: Path, *early: Record) -> None:
    """12,000 steps, most of them sealed; ``early`` is said before the first one."""
    writer = JournalWriter(run_dir)
    steps = [(float(i), 0, step_record(i)) for i in range(1, 12_001)]
    writer.append([*((0.0, 0, record) for record in early), *steps])
    writer.close()
    seal(run_dir, rows=5000, kept=1000)


def test_a_feed_shows_the_newest_rows_first_and_everything_when_they_have_been_drawn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.feed.DRAWN_WITHIN_S", 1000.0)
    order: list[str] = []

    def noted(*asked: Any) -> Iterator[history.Chunk]:
        order.append("the rest is read")
        return history.chunks(*asked)

    monkeypatch.setattr("app.feed.chunks", noted)
    a_long_run(tmp_path)
    feed = Feed(tmp_path)
    try:
        until(lambda: feed.begun, 10, "something to show")
        newest = feed.snapshot()
        assert newest.last is not None and newest.last.step == 12_000 and newest.steps.length == 2000
        assert not feed.connection.whole and feed.status is not None
        order.append("the newest are drawn")
        feed.read_on()
        lengths: list[int] = []
        until(lambda: lengths.append(feed.snapshot().steps.length) or lengths[-1] == 12_000, 10, "everything")
        assert all(length == 2000 for length in lengths[:-1]), "the newest 2000, never a half-read past"
        until(lambda: feed.connection.whole, 10, "it is said that this is everything")
        assert order == ["the newest are drawn", "the rest is read"]
    finally:
        feed.close()


def test_who_needs_the_whole_run_does_not_wait_until_the_newest_rows_are_drawn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.feed.DRAWN_WITHIN_S", 1000.0)
    a_long_run(tmp_path)
    feed = Feed(tmp_path)
    try:
        assert feed.wait(10) and feed.snapshot().steps.length == 12_000
    finally:
        feed.close()


def test_the_past_of_a_run_that_steps_on_comes_to_an_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writer, stretches = JournalWriter(tmp_path), list[int]()
    writer.append([(float(i), 0, step_record(i)) for i in range(1, 1001)])

    def overtaken(*asked: Any) -> Iterator[history.Chunk]:
        for chunk in history.chunks(*asked):
            writer.append([(1.0, 0, step_record(chunk.last_seq + 1))])
            stretches.append(len(chunk.steps))
            yield chunk

    monkeypatch.setattr("app.feed.chunks", overtaken)
    feed = Feed(tmp_path)
    try:
        assert feed.wait(10), "a row that came meanwhile is never waited for"
        until(lambda: feed.snapshot().steps.length == 1001, 10, "what came meanwhile is there too")
        assert stretches == [1000]
    finally:
        feed.close()
        writer.close()


def test_an_alert_raised_long_ago_is_open_as_soon_as_anything_is_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.feed.DRAWN_WITHIN_S", 1000.0)
    a_long_run(tmp_path, AlertRaised(0, "a1", "nan_loss", Severity.CRITICAL, "loss", math.nan, None, "not a number"))
    feed = Feed(tmp_path)
    try:
        until(lambda: feed.begun, 10, "something to show")
        assert [life.raised.alert_id for life in feed.snapshot().side.alerts.open] == ["a1"]
    finally:
        feed.close()
