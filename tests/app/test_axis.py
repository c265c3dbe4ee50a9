"""The shared x axis: steps, time since the start, the clock; and what a chart shows as a file."""

import math
from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from app.figures import loss
from app.figures.axis import Axis
from app.ranges import BadRange, rows
from app.store import Snapshot, Store
from app.views.series import Look, Window
from tests.app.rows import BEGAN, Script, cycled
from trainer_core.spec.phases import Phase


def seen(script: Script) -> Snapshot:
    store = Store()
    store.append(script.rows)
    return store.snapshot()


def drawn(snapshot: Snapshot, look: Look, zone: int = 0) -> loss.Figure:
    axis = Axis(snapshot, look, zone)
    return axis.placed(loss.figure(loss.view(snapshot, axis.wanted())))


def test_points_stand_at_the_time_their_step_was_said() -> None:
    snapshot = seen(Script().start().steps(50))
    figure = drawn(snapshot, Look(Window(), x="relative"))
    np.testing.assert_allclose(figure.columns["measured"].columns["x"], snapshot.steps["time"] - BEGAN - 0.1, atol=1e-5)
    assert figure.layout["xaxis"]["title"]["text"] == "time since the start (s)"
    clock = drawn(snapshot, Look(Window(), x="wall"), zone=60)
    first = clock.columns["measured"].columns["x"][0]
    assert first == (BEGAN + 0.1 + 3600) * 1000
    assert clock.layout["xaxis"]["type"] == "date"


def test_an_abandoned_stretch_stands_before_what_replaced_it() -> None:
    script = Script().start().steps(40)
    script.roll_back(20)
    script.steps(40)
    columns = drawn(seen(script), Look(Window(), x="relative")).columns
    gone, kept = columns["abandoned"].columns["x"], columns["measured"].columns["x"]
    assert np.nanmax(gone) < np.nanmin(kept[kept > 2.0])
    assert len(gone) == 20


def test_a_span_of_time_shows_the_steps_taken_then() -> None:
    snapshot = seen(Script().start().steps(100))
    figure = drawn(snapshot, Look(Window(span=(2.0, 3.0)), x="relative"))
    inside = figure.columns["measured"].columns["x"]
    assert figure.layout["xaxis"]["range"] == [2.0, 3.0]
    assert inside[0] <= 2.0 and inside[-1] >= 3.0 and len(inside) < 16


def test_a_span_of_time_is_found_although_the_clock_was_set_back() -> None:
    script = Script().start().steps(50)
    script.time -= 30.0
    snapshot = seen(script.steps(50))
    late = (BEGAN + 4.5) * 1000, (BEGAN + 4.9) * 1000  # before it was set back
    figure = drawn(snapshot, Look(Window(span=late), x="wall"))
    times = figure.columns["measured"].columns["x"]
    assert ((times >= late[0]) & (times <= late[1])).sum() == 5


def test_bands_and_marks_move_along(  # one per phase change, each where its step was
) -> None:
    snapshot = seen(cycled(3))
    steps, times = (drawn(snapshot, Look(Window(), x=x)) for x in ("step", "relative"))
    for phase in Phase:
        band = f"band_{phase.value}"
        assert steps.columns[band].length == times.columns[band].length
        x = times.columns[band].columns
        assert (x["x"] <= x["y"]).all()
    assert all(part["yref"] == "paper" for part in times.layout["annotations"])


@pytest.mark.parametrize("boundary", [False, True])
def test_no_phase_lasts_the_night_between_two_processes(boundary: bool) -> None:
    script = Script(phase=Phase.FULL).start().steps(100)
    night = script.time
    script.time += 30_000.0
    if boundary:
        script.enter(Phase.CORRECT)
    script.steps(100)
    bands = [drawn(seen(script), Look(Window(), x="relative")).columns[f"band_{phase}"].columns for phase in Phase]
    found = sorted((x, y) for band in bands for x, y in zip(band["x"].tolist(), band["y"].tolist(), strict=True))
    assert [round(60 * (high - low) * 60) for low, high in found] == [10, 10], "seconds, of hours"
    assert found[0][1] * 3600 == pytest.approx(night - BEGAN - 0.1) and found[1][0] > 8


def test_steps_on_a_logarithmic_axis() -> None:
    figure = drawn(seen(cycled(3)), Look(Window(), log_x=True))
    high = cycled(3).step
    assert figure.layout["xaxis"]["range"] == [0.0, math.log10(high)]
    assert min(figure.columns["band_WARMUP"].columns["x"]) >= 0.5


def test_a_rollback_to_the_start_has_its_line_on_a_logarithmic_axis() -> None:
    script = Script().start().steps(20)
    script.roll_back(0)
    figure = drawn(seen(script.steps(5)), Look(Window(), log_x=True))
    lines = [part for part in figure.layout["shapes"] if part["type"] == "line"]
    assert [(part["x0"], part["x1"]) for part in lines] == [(1.0, 1.0)]


def test_an_empty_run_has_every_axis() -> None:
    for look in (Look(Window()), Look(Window(), x="relative"), Look(Window(), x="wall"), Look(Window(), log_x=True)):
        assert drawn(Store().snapshot(), look).columns["measured"].length == 0
        assert drawn(Store().snapshot(), replace(look, window=Window(span=(1.0, 2.0)))).name == "loss"


def test_smoothing_leaves_what_was_measured_and_is_the_same_in_a_zoom() -> None:
    snapshot = seen(cycled(20))
    whole = drawn(snapshot, Look(Window(), smooth=0.9)).columns["ema"].columns
    zoomed = drawn(snapshot, Look(Window(span=(200.0, 260.0)), smooth=0.9)).columns["ema"].columns
    found = dict(zip(whole["x"].tolist(), whole["y"].tolist(), strict=True))
    for x, y in zip(zoomed["x"].tolist(), zoomed["y"].tolist(), strict=True):
        if x == x:
            assert y == found[x]


# ---- files ----


def test_a_file_holds_every_step_of_the_range_and_tells_nan_from_nothing() -> None:
    script = Script().start().steps(10)
    script.steps(1, loss=math.nan)
    script.enter(Phase.PREDICT)
    script.steps(3)
    script.roll_back(12)
    script.steps(2)
    table = rows(seen(script), ["loss", "grad_norm"], 9, None)
    assert table["step"].to_list() == [9, 10, 11, 12, 13, 14, 13, 14]
    assert table["abandoned"].to_list() == [False] * 4 + [True, True, False, False]
    assert math.isnan(table["loss"][2]) and table["loss"].null_count() == 0
    assert table.filter(pl.col("phase") == "PREDICT")["grad_norm"].null_count() == 5


def test_what_was_nan_in_one_attempt_was_not_measured_in_another() -> None:
    script = Script(phase=Phase.FULL).start().steps(5)
    script.steps(1, grad_norm=math.nan)
    script.roll_back(4)
    script.steps(1)
    script.enter(Phase.PREDICT)
    script.steps(2)
    table = rows(seen(script), ["grad_norm"], 6, 6)
    assert table["abandoned"].to_list() == [True, False]
    assert math.isnan(table["grad_norm"][0]) and table["grad_norm"][1] is None


@pytest.mark.parametrize(
    ("signals", "low", "high", "said"),
    [(["nothing"], None, None, "signals = nothing: must be of step, batch"), (["loss"], 9, 3, "from = 9 lies after")],
)
def test_a_range_that_is_none_is_refused(signals: list[str], low: float | None, high: float | None, said: str) -> None:
    with pytest.raises(BadRange, match=said):
        rows(seen(cycled(1)), signals, low, high)
