"""The Phases page's content: warmup, costs, predictions, corrections, trust; its diagram and its charts."""

import json
import re
from typing import Any

import numpy as np
import pytest
from plotly import graph_objects as go

from app.figures import machine as machine_figure
from app.figures import phases_charts as charts
from app.figures.phases_charts import MOST_BARS, binned_maxima
from app.figures.spec import Figure
from app.store import Snapshot, Store
from app.views.lifecycle import lifecycle
from app.views.phases_all import phases
from app.views.phases_correct import correct
from app.views.phases_cost import cost_of
from app.views.phases_full import compute, full, rows_of
from app.views.phases_machine import machine
from app.views.phases_predict import flight, predict
from app.views.phases_trust import trust, wilson
from app.views.phases_warmup import rows_of_warmup, warmup
from app.views.series import Look, Window
from app.views.settings import present_config
from tests.app.rows import Script, cycled
from tests.app.test_figures import plain
from tests.app.test_own_loops import own_loop
from tests.app.test_phases_guards import probe
from tests.app.test_views import seen
from trainer_core.spec.config import Config
from trainer_core.spec.phases import Phase
from trainer_core.spec.records import (
    CalibrationMeasured,
    Checklist,
    ChecklistItem,
    CorrectionApplied,
    PredictionEnded,
    ReliabilityBin,
    ResidualWeight,
)
from trainer_core.spec.transitions import TRANSITIONS, guard_name

NO_BIN = ReliabilityBin(0, 0, None)


def full_cycle(kept: bool = True, measured: bool = True) -> Script:
    """WARMUP, FULL at 3.1 ms, a prediction of 10 steps, CORRECT, its verdict, and FULL again."""
    cost = {"forward_seconds": 0.001, "backward_seconds": 0.002, "optimizer_seconds": 0.0001, "predict_seconds": 0.0002}
    script = Script().start().steps(5, step_seconds=0.0033, **cost)
    script.enter(Phase.FULL, 10)
    script.steps(10, budget=10, full_needed=10, relative_error=0.5, step_seconds=0.0033, **cost)
    script.say(probe(script.step, 0.9))
    script.enter(Phase.PREDICT, 10)
    if measured:
        expected = {"predicted_loss": 1.9, "predicted_low": 1.8, "predicted_high": 2.0}
        spent = {"forward_seconds": 0.001, "predict_seconds": 0.00001, "step_seconds": 0.00101}
        script.steps(10, budget=10, **expected, **spent)
    else:
        script.stretch(10)
    weights = (ResidualWeight(7, 0.9, 0.6), ResidualWeight(3, 0.6, 0.4))
    script.say(CorrectionApplied(script.step, 1, 40, 12, weights, 0.25, 0.01, True, "paired z = 1.50, above 1", 0.001))
    script.enter(Phase.CORRECT, 2)
    script.steps(2, budget=2, step_seconds=0.0033, **cost)
    script.say(PredictionEnded(script.step, 1, kept, 10, "tested", 1.5, 1.4 if kept else 1.6, 0.9, 0.05))
    script.enter(Phase.FULL, 10 if kept else 20)
    return script.steps(3, budget=10, full_needed=10, step_seconds=0.0033, **cost)


def calibrated(*bins: ReliabilityBin) -> Snapshot:
    script = Script().start().steps(1)
    outcomes = sum(b.outcomes for b in bins)
    script.say(CalibrationMeasured(1, outcomes, 0.2, (*[NO_BIN] * (10 - len(bins)), *bins)))
    return seen(script)


# -- warmup ---------------------------------------------------------------------------------------------------------


def test_warmup_collects_the_statistics_of_its_own_steps_only() -> None:
    script = Script().start()
    for loss, norm in ((4.0, 1.0), (2.0, 3.0), (3.0, 2.0), (1.0, 6.0)):
        script.steps(1, loss=loss, grad_norm=norm, learning_rate=0.01 * script.step)
    script.enter(Phase.FULL, 10)
    script.steps(5, loss=100.0, grad_norm=100.0)
    found = warmup(seen(script), Config())
    assert found.facts["loss_mean"] == "2.5" and found.facts["loss_var"] == "1.25"
    assert (found.facts["norm_min"], found.facts["norm_max"], found.facts["norm_mean"]) == ("1", "6", "3")
    assert found.facts["turns"] == "100 % of steps"  # down, up, down
    assert found.progress == "over: it took 4 steps of 100 asked for"
    assert found.whole and len(found.rows) == 4


def test_a_warmup_that_was_run_twice_counts_once() -> None:
    script = Script().start().steps(10, loss=9.0)
    script.roll_back(4)
    script.steps(6, loss=1.0)
    snapshot = seen(script)
    rows, _ = rows_of_warmup(snapshot)
    assert snapshot.steps["loss"][rows].tolist() == [9.0] * 4 + [1.0] * 6


def test_warmup_checks_are_live_until_the_run_has_said_them_itself() -> None:
    script = Script().start().steps(1, grad_norm_baseline=None)
    assert [line.holds for line in warmup(seen(script), Config()).checks] == [None, False, None]
    script.steps(30, loss_change=0.1, grad_norm_baseline=0.63, relative_error=0.9)
    live = warmup(seen(script), Config()).checks
    assert [line.holds for line in live] == [True, True, True] and live[1].detail == "0.63"
    script.say(Checklist(31, "warmup", (ChecklistItem("loss EMA established", False, "0.3, healthy 0 to 0.25"),)))
    script.enter(Phase.FULL, 10)
    said = warmup(seen(script), Config()).checks
    assert [(line.holds, line.detail) for line in said] == [(False, "0.3, healthy 0 to 0.25")]


def test_bars_of_a_long_warmup_keep_its_spike() -> None:
    x, norms = np.arange(1.0, 1001.0), np.ones(1000)
    norms[617], norms[40:50] = 77.0, np.nan
    where, bars, wide = binned_maxima(x, norms)
    assert (len(where), wide, bars.max()) == (112, 9, 77.0) and len(where) <= MOST_BARS
    assert abs(where[int(bars.argmax())] - 618) <= wide
    assert np.isfinite(bars).all()  # ten NaN never fill a bin of nine that is not theirs alone
    assert binned_maxima(x[:5], norms[:5])[2] == 1


# -- full -----------------------------------------------------------------------------------------------------------


def test_the_parts_of_a_full_step_are_shares_of_the_whole_step() -> None:
    snapshot = seen(full_cycle())
    parts = {part.label: part for part in compute(snapshot, rows_of(snapshot, Phase.FULL))}
    assert parts["backward"].seconds == pytest.approx(0.002) and parts["backward"].share == pytest.approx(2 / 3.3)
    assert parts["predictor training"].seconds is None
    assert sum(part.share for part in parts.values()) == pytest.approx(1.0)


def test_looks_say_what_came_of_them() -> None:
    script = full_cycle()
    script.say(probe(script.step, 0.3))
    script.say(probe(script.step, 0.3, shadow=True))
    outcomes = [look[-1] for look in full(seen(script)).looks]
    assert outcomes == ["second look at a refused one: it would have helped", "refused", "taken"]


# -- predict --------------------------------------------------------------------------------------------------------


def test_a_predicted_step_with_its_forward_pass_is_compared_as_the_document_does() -> None:
    cost = cost_of(seen(full_cycle()))
    assert cost.alone == pytest.approx(3.1 / 1.01, rel=1e-3)
    assert [part.skipped for part in cost.predicted] == [False, True, False]
    assert cost.kept == 1 and not cost.jumps
    direct = {part.label: part.seconds for part in cost.predicted}["looks, copies, verdicts"]
    assert direct == pytest.approx((0.01 + 0.001) / 10)  # one look, one correction, over ten steps
    spent = 15 * 0.0033 + 10 * 0.00101  # whole steps: 10 FULL before, 2 of CORRECT, 3 FULL after; and those of PREDICT
    assert cost.charged == pytest.approx(25 * 0.0031 / spent, rel=1e-3)


def test_a_jump_has_no_forward_pass_and_an_undone_one_earns_nothing() -> None:
    jump = cost_of(seen(full_cycle(measured=False)))
    assert jump.jumps and jump.alone is None and jump.predicted[0].seconds is None
    assert jump.charged == pytest.approx(25 * 0.0031 / (15 * 0.0033), rel=1e-3)
    assert "A jump takes no pass at all" in jump.said and "All in all 1.57x" in jump.said
    undone = cost_of(seen(full_cycle(kept=False)))
    assert (undone.charged, undone.predicted) == (None, [])


def test_the_newest_prediction_knows_its_steps_its_way_and_its_verdict() -> None:
    found = flight(seen(full_cycle()))
    assert found is not None and found.ended is not None
    assert (found.first, found.last, found.horizon, found.jump, found.confidence) == (16, 25, 10, False, 0.9)
    jump = flight(seen(full_cycle(kept=False, measured=False)))
    assert jump is not None and jump.jump and jump.ended is not None and not jump.ended.kept
    assert flight(seen(Script().start().steps(3))) is None


def test_verdicts_are_said_in_words_with_a_sign() -> None:
    snapshot = seen(full_cycle(kept=False))
    shown = predict(snapshot, machine(snapshot, Config()).standings[Phase.PREDICT])
    assert (shown.verdict, shown.verdict_tone) == ("✕ Undone: tested", "caution")
    assert shown.table[0][0][:6] == ("27", "10", "0.9", "1.5 → 1.6", "5.0%", "✕ undone")
    assert (shown.facts["kept"], shown.facts["undone"]) == ("0", "1")
    assert (
        len(shown.exits) == len({guard_name(g) for r in TRANSITIONS if r.source is Phase.PREDICT for g in r.guards}) - 1
    )


def test_without_a_prediction_nothing_is_said_of_one() -> None:
    snapshot = seen(Script().start().steps(3))
    shown = predict(snapshot, machine(snapshot, Config()).standings[Phase.PREDICT])
    assert shown.verdict == "No prediction has been tried yet." and not shown.exits and not shown.table
    assert shown.cost.said == "No prediction has been kept lately: nothing to compare."


# -- correct --------------------------------------------------------------------------------------------------------


def test_the_weights_the_formula_and_the_result_of_the_newest_correction() -> None:
    shown = correct(seen(full_cycle()), Config())
    assert [(w.label, w.share, w.value) for w in shown.weights] == [
        ("residual 7", 1.0, "w = 0.600 · cosine 0.900"),
        ("residual 3", pytest.approx(2 / 3), "w = 0.400 · cosine 0.600"),
    ]
    assert shown.sums == "for residual 7: w = 0.900 / 1.500 = 0.600 · norm of the sum 0.25"
    assert shown.result == "✓ Applied: loss lower by 0.01 on the same batch (paired z = 1.50, above 1)"
    assert shown.validation == (
        "Validation: prediction kept, loss 1.5 → 1.4 on the same batch. The next FULL window stays at 10 steps."
    )


def test_an_undone_prediction_says_that_the_full_window_grew() -> None:
    assert correct(seen(full_cycle(kept=False)), Config()).validation.endswith(
        "The next FULL window is longer: 10 → 20 steps."
    )


def test_no_correction_yet_is_said_plainly() -> None:
    shown = correct(seen(Script().start().steps(3)), Config())
    assert shown.said.startswith("No correction yet") and shown.result == "No correction yet."
    assert not shown.weights and not shown.table and set(shown.facts.values()) >= {"–"}


# -- trust ----------------------------------------------------------------------------------------------------------


def test_the_interval_of_a_share_is_wilsons() -> None:
    low, high = wilson(8, 10)
    assert (low, high) == (pytest.approx(0.490, abs=1e-3), pytest.approx(0.943, abs=1e-3))
    assert wilson(0, 4)[0] == 0.0 and wilson(4, 4)[1] == 1.0


def test_confidence_is_called_honest_or_too_sure_only_with_enough_outcomes() -> None:
    assert "too few" in trust(calibrated(ReliabilityBin(8, 1, 0.95))).said
    assert "Honest" in trust(calibrated(ReliabilityBin(30, 27, 0.9))).said
    sure = trust(calibrated(ReliabilityBin(30, 15, 0.9))).said
    assert sure.endswith("Too sure around 0.90: there it was right 15 of 30 times.")
    assert "Too careful around 0.40" in trust(calibrated(ReliabilityBin(30, 28, 0.4))).said
    assert trust(Store().snapshot()).said.startswith("Nothing to judge yet")


# -- the diagram ----------------------------------------------------------------------------------------------------


def test_the_diagram_shows_every_row_and_every_guard_of_the_transition_table() -> None:
    drawn = machine_figure.svg()
    for index, row in enumerate(TRANSITIONS):
        if row.cause == "operator":
            assert f'data-on="pm.row{index}.on"' in drawn
        elif row.effect is not row.effect.ROLLBACK:
            for guard in row.guards:
                assert f'data-bind="pm.row{index}.{guard_name(guard)}.detail"' in drawn, row.cause
    assert set(machine_figure.rescues()) == {row.cause for row in TRANSITIONS if row.effect is row.effect.ROLLBACK}
    assert len(machine_figure.edges()) == len({(r.source, r.target) for r in TRANSITIONS if r.source is not r.target})


def test_no_two_texts_of_the_diagram_share_a_place_and_all_are_inside() -> None:
    drawn = re.sub(r"<g class=\"hy-node\".*?</g>", "", machine_figure.svg())
    places = re.findall(r'<text class="[^"]*" x="(\d+)" y="(\d+)"', drawn)
    assert len(places) == len(set(places)) > 60
    assert all(int(x) < machine_figure.WIDTH and int(y) < machine_figure.HEIGHT for x, y in places)


def test_the_edge_and_the_row_taken_last_are_lit_and_only_they() -> None:
    script = full_cycle()
    script.enter(Phase.PREDICT, 12, because=("full_cycle_ran (10 of 10 steps)", "confident (0.9 > 0.8)",
                                             "calm (no divergence so far)", "unlocked (not locked)"))  # fmt: skip
    snapshot = seen(script)
    values = machine_figure.binds(machine(snapshot, present_config(snapshot)), lifecycle(snapshot))
    lit = {key for key, value in values.items() if value is True and key.count(".") == 2 and key.endswith(".on")}
    (row,) = [i for i, r in enumerate(TRANSITIONS) if r.cause == "confident"]
    assert lit >= {f"pm.row{row}.on", "pm.FULL-PREDICT.on", "pm.PREDICT.on"}
    assert not {key for key in lit if key.startswith(("pm.row", "pm.FULL-", "pm.CORRECT-"))} - {
        f"pm.row{row}.on", "pm.FULL-PREDICT.on"
    }  # fmt: skip
    assert values["pm.FULL-PREDICT.count"] == "2×"
    assert values[f"pm.row{row}.confident.mark"] == "✓"


def test_rollbacks_are_watched_in_the_present_phase_only() -> None:
    script = Script().start().steps(3)
    snapshot = seen(script)
    first = machine_figure.rescues()["NaN or Inf"][0][0]
    key = f"pm.row{first}.not_finite.detail"
    assert machine_figure.binds(machine(snapshot, Config()), lifecycle(snapshot))[key] == "all finite"
    script.enter(Phase.FULL, 5)
    script.enter(Phase.PREDICT, 5)
    snapshot = seen(script)
    values = machine_figure.binds(machine(snapshot, Config()), lifecycle(snapshot))
    assert values[key] == "not watched in this phase"


# -- charts ---------------------------------------------------------------------------------------------------------

SCRIPTS = {
    "empty": Script,
    "started": lambda: Script().start(),
    "warmup": lambda: Script().start().steps(7),
    "jumps": lambda: cycled(3),
    "document": full_cycle,
    "undone": lambda: full_cycle(kept=False, measured=False),
    "own loop": own_loop,
}


def all_charts(snapshot: Snapshot) -> list[Figure]:
    shown = phases(snapshot)
    return [
        charts.warmup_loss(snapshot, shown.warmup),
        charts.warmup_gradient(snapshot, shown.warmup),
        charts.residual_error(snapshot, Look(Window())),
        charts.prediction(snapshot, shown.predict.flight),
        charts.prediction_confidence(snapshot, shown),
        charts.reliability(shown.trust),
    ]


@pytest.mark.parametrize("name", sorted(SCRIPTS))
def test_plotly_accepts_every_chart_on_every_kind_of_run(name: str) -> None:
    for figure in all_charts(seen(SCRIPTS[name]())):
        go.Figure(data=plain(figure.traces), layout=plain(figure.layout))
        named = {trace["series"] for trace in figure.traces}
        named |= {shape["band"] for shape in figure.layout.get("shapes", []) if "band" in shape}
        assert named == set(figure.columns), figure.name
        for series in figure.columns.values():
            assert len({len(column) for column in series.columns.values()}) == 1


def column(figure: Figure, name: str) -> list[list[float]]:
    return np.column_stack([figure.columns[name].columns[axis] for axis in ("x", "y")]).tolist()


def test_the_prediction_chart_shows_expected_and_measured_and_nothing_invented() -> None:
    snapshot = seen(full_cycle())
    drawn = charts.prediction(snapshot, flight(snapshot))
    assert [x for x, _ in column(drawn, "PREDICT")] == [float(step) for step in range(16, 26)]
    assert {y for _, y in column(drawn, "predicted")} == {1.9}
    assert "± error" in drawn.caption
    jump = seen(full_cycle(measured=False))
    drawn = charts.prediction(jump, flight(jump))
    assert column(drawn, "PREDICT") == [] and "nothing is measured inside a jump" in drawn.caption
    assert [x for x, _ in column(drawn, "predicted")] == [16.0, 25.0]


def test_residual_errors_are_told_apart_by_phase_and_colour_is_only_by_token() -> None:
    drawn = charts.residual_error(seen(full_cycle()), Look(Window()))
    assert [x for x, _ in column(drawn, "FULL")] == [float(step) for step in range(6, 16)]
    assert column(drawn, "CORRECT") == []
    symbols = [trace["marker"]["symbol"] for trace in drawn.traces]
    assert len(set(symbols)) == len(Phase)
    assert not re.search(r"#[0-9a-fA-F]{6}", json.dumps([drawn.traces, drawn.layout]))


def test_the_residual_chart_looks_at_a_bounded_stretch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(charts, "MOST_STEPS", 6)
    drawn = charts.residual_error(seen(full_cycle()), Look(Window(span=(1.0, 15.0))))
    assert [x for x, _ in column(drawn, "FULL")] == [9.0, 10.0, 11.0, 12.0, 13.0, 14.0, 15.0]
    assert "the newest 6 steps in view" in drawn.caption


def test_reliability_draws_a_point_a_tenth_with_its_counts() -> None:
    drawn = charts.reliability(trust(calibrated(ReliabilityBin(10, 5, 0.55), ReliabilityBin(10, 9, 0.9))))
    assert column(drawn, "tenths") == [[0.55, 0.5], [0.9, 0.9]]
    assert drawn.columns["tenths"].texts == ("5 of 10", "9 of 10")
    assert len(column(drawn, "interval")) == 6


def test_the_content_of_a_snapshot_is_computed_once() -> None:
    snapshot: Any = seen(full_cycle())
    assert phases(snapshot) is phases(snapshot)
