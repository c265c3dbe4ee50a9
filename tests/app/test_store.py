"""The store: rows in, immutable snapshots out."""

import math
import time

import numpy as np
import pytest

from app.store import Store
from app.table import Extremes
from app.views.series import Window, line
from tests.app.rows import Script, cycled
from trainer_core.spec.phases import Phase
from trainer_core.spec.records import StepRecord


def test_a_repeated_batch_changes_nothing() -> None:
    store, rows = Store(), cycled().rows
    store.append(rows)
    once = store.snapshot()
    store.append(rows)
    assert store.snapshot() is once


def test_a_snapshot_stays_as_it_was_when_rows_arrive() -> None:
    store, script = Store(), Script().start().steps(1000)
    store.append(script.rows)
    before = store.snapshot()
    loss = before.steps["loss"].copy()
    known = len(script.rows)
    script.steps(5000)
    script.roll_back(500)
    store.append(script.rows[known:])
    assert before.steps.length == 1000
    assert np.array_equal(before.steps["loss"], loss)
    assert before.cuts == {}
    assert store.snapshot().steps.length == 6000


def test_snapshots_cannot_be_written() -> None:
    store = Store()
    store.append(cycled().rows)
    assert not store.snapshot().steps["loss"].flags.writeable


def test_a_spike_among_a_million_steps_is_drawn() -> None:
    values = np.full(1_000_000, 1.0)
    values[123_457], values[900_001] = 50.0, -3.0
    extremes = Extremes(budget=1000)
    for end in range(10_000, 1_000_001, 10_000):
        extremes.of(values[:end])
    drawn = extremes.of(values).indices()
    assert {123_457, 900_001, 999_999} <= set(drawn.tolist())
    assert len(drawn) <= 2001


def test_buckets_grown_row_by_row_equal_buckets_of_the_whole() -> None:
    values = np.random.default_rng(0).normal(size=5003)
    values[[7, 4000]] = np.nan
    grown, whole = Extremes(budget=100), Extremes(budget=100)
    for end in range(1, len(values) + 1, 13):
        grown.of(values[:end])
    assert np.array_equal(grown.of(values).indices(), whole.of(values).indices())


@pytest.mark.parametrize("length", [1, 63, 64, 65, 1003, 4999])
def test_an_older_look_at_a_column_has_the_extremes_it_had(length: int) -> None:
    values = np.random.default_rng(0).normal(size=5003)
    extremes = Extremes(budget=100)
    now, then = extremes.of(values), extremes.of(values[:length])
    assert then.rows == length and then.bucket == now.bucket == 64
    for i in range(-(-length // 64)):
        inside = values[i * 64 : min(length, (i + 1) * 64)]
        assert (values[then.low[i]], values[then.high[i]]) == (inside.min(), inside.max())
    assert len(then.low) == len(then.high) == -(-length // 64)
    assert np.array_equal(extremes.of(values).low, now.low), "looking back changes nothing"


def test_nan_is_measured_and_none_is_not() -> None:
    script = Script().start()
    script.steps(3)
    script.steps(2, loss=math.nan)
    script.steps(1, grad_norm=None)
    store = Store()
    store.append(script.rows)
    found = store.snapshot().not_finite
    assert [(n.signal, n.first_step, n.last_step, n.count) for n in found] == [("loss", 4, 5, 2)]


def test_rollback_marks_what_came_after_its_step_and_nothing_else() -> None:
    script = Script().start().steps(100)
    script.roll_back(60)
    script.steps(10)
    store = Store()
    store.append(script.rows)
    snapshot = store.snapshot()
    gone = snapshot.abandoned(snapshot.steps, np.arange(snapshot.steps.length))
    assert snapshot.steps["step"][gone].tolist() == list(range(61, 101))
    assert snapshot.steps["attempt"][gone].max() == 1


def test_abandoned_steps_are_never_joined_to_the_new_attempt() -> None:
    script = Script().start().steps(100)
    script.roll_back(60)
    script.steps(30)
    store = Store()
    store.append(script.rows)
    seen = line(store.snapshot(), store.snapshot().steps, "loss", Window())
    assert seen.abandoned.columns["x"].tolist() == list(range(61, 101))
    kept = seen.kept.columns["x"]
    assert np.flatnonzero(np.isnan(kept)).tolist() == [60]  # one break, between step 60 of either attempt
    assert kept[61:].tolist() == list(range(61, 91))


def test_phase_bands_follow_the_surviving_line() -> None:
    script = cycled(2)
    script.roll_back(25)
    script.phase = Phase.FULL
    script.steps(5)
    store = Store()
    store.append(script.rows)
    assert store.snapshot().spans["start"].tolist() == [1.0, 21.0]


def test_steps_predicted_without_a_forward_pass_are_counted_as_predict() -> None:
    store = Store()
    store.append(cycled(4).rows)
    tallies = store.snapshot().tallies
    assert tallies[Phase.PREDICT].steps == 48
    assert tallies[Phase.PREDICT].entered == 4
    assert tallies[Phase.FULL].steps == 40


def test_a_tick_costs_no_more_after_two_hundred_thousand_steps() -> None:
    def tick(history: int) -> float:
        store, script = Store(), Script().start()
        script.steps(history)
        store.append(script.rows)
        took = []
        for _ in range(15):
            known = len(script.rows)
            script.steps(20)
            began = time.perf_counter()
            store.append(script.rows[known:])
            snapshot = store.snapshot()
            line(snapshot, snapshot.steps, "loss", Window(last=1000))
            line(snapshot, snapshot.steps, "loss", Window())
            took.append(time.perf_counter() - began)
        return sorted(took)[len(took) // 2]

    short, long = tick(5_000), tick(200_000)
    assert long < 2.5 * short + 0.002, f"{short * 1e3:.2f} ms at 5k steps, {long * 1e3:.2f} ms at 200k"


def test_reset_forgets_the_journal_before() -> None:
    store = Store()
    store.append(cycled().rows)
    store.reset()
    assert store.snapshot().empty
    store.append(Script().start().steps(2).rows)
    last = store.snapshot().last
    assert isinstance(last, StepRecord)
    assert last.step == 2
