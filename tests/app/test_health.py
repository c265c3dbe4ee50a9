"""The Health page: signs that light up, zones, layers, the learning rate, losses, checklists, machine, metrics."""

import dataclasses
import json
import math
import re
from typing import Any

import msgspec
import numpy as np
import pytest
from plotly import graph_objects as go

from app.feed import Connection
from app.figures import health_layers as layer_figures
from app.figures.health_losses import validations
from app.figures.health_rate import figure as rate_figure
from app.figures.health_signs import vanishing
from app.live import chosen_metrics
from app.screens.health import METRICS, PAGE, binds, lists
from app.screens.page import Moment
from app.store import Snapshot, Store
from app.theme import tokens
from app.views import health_checks, health_curve, health_layers, health_rate
from app.views.alerts import alerts
from app.views.health_flags import flag, lives
from app.views.health_machine import facts
from app.views.health_signs import SIGNS, signs
from app.views.series import Look, Window
from app.views.settings import present_config
from app.wire import figure_change
from tests.app.rows import Script, cycled
from trainer_core.spec.commands import CommandState, ScaleLearningRate
from trainer_core.spec.config import Config, LearningRateSchedule
from trainer_core.spec.phases import Phase
from trainer_core.spec.records import (
    AlertRaised,
    AlertResolved,
    Checklist,
    ChecklistItem,
    HealthMeasured,
    MetricsMeasured,
    RunEnvironment,
    SystemMeasured,
    ValidationMeasured,
)
from trainer_core.spec.schedules import corners, learning_rate_at, peak_of
from trainer_core.spec.severity import Severity
from trainer_core.spec.surroundings import GpuMeasured
from trainer_core.telemetry.rundir import RunStatus

WSD = LearningRateSchedule(
    type="WarmupStableDecay", warmup_steps=500, warmup_init=1e-6, warmup_target=1e-4, stable_steps=10000,
    stable_rate=1e-4, decay_steps=5000, decay_min=1e-6,
)  # fmt: skip
CYCLIC = LearningRateSchedule(type="Cyclic", base_lr=1e-5, max_lr=1e-4, cycle_length=1000)


def seen(script: Script) -> Snapshot:
    store = Store()
    store.append(script.rows)
    return store.snapshot()


def moment(snapshot: Snapshot) -> Moment:
    return Moment(snapshot, RunStatus("working", "steps are coming"), Connection(), "runs/a", 1_700_000_000.0)


def everything() -> Script:
    """A run in which everything that the page shows has been measured, good and bad."""
    script = cycled(3)
    script.enter(Phase.FULL, 10)
    measured = {"grad_norm_baseline": 1.0, "grad_param_ratio": 1e-3, "grad_variance": 0.5, "micro_grad_snr": 2.0,
                "learning_rate": 1e-3, "loss_deviation": 0.5, "prediction_error": 0.02,
                "layer_grad_norms": (0.5, 0.004)}  # fmt: skip
    script.steps(60, **measured)
    script.steps(2, loss=math.nan, **{**measured, "layer_grad_norms": (math.nan, 0.5), "grad_norm": math.nan})
    script.say(ValidationMeasured(script.step, 0.8, 0.9, 0.1))
    gpu = GpuMeasured(0, "H", 0.5, 10, 20, 60.0, 200.0)
    script.say(SystemMeasured(script.step, 1.5, 0.25, 2**30, 50, 100, 7 * 2**30, 9 * 2**30, (gpu,)))
    script.say(MetricsMeasured(script.step, {"f1": 0.5, "broken": math.nan}))
    script.say(HealthMeasured(script.step, {"steps_without_gain": 30.0, "grad_growth": 1.2}))
    script.say(Checklist(script.step, "during training", (ChecklistItem("stable", False, "3, healthy 0.5 to 2"),)))
    script.say(
        RunEnvironment(0, ("hybrid", "train"), "/w", "host", "Linux", "3.11", "cpu", {"torch": "2"}, 2, "ab" * 20)
    )
    return script


def test_what_was_not_read_of_the_processor_is_not_said() -> None:
    script = Script().start().steps(1)
    script.say(SystemMeasured(1, cpu_machine=0.25))
    assert facts(seen(script))["cpu"] == "machine 25 %"
    script.say(SystemMeasured(1, cpu=1.5, cpu_machine=0.25))
    assert facts(seen(script))["cpu"] == "1.5 cores, machine 25 %"


def plain(value: Any) -> Any:
    """Tokens to a colour and our own keys away, so that plotly can check the rest."""
    if isinstance(value, str):
        return re.sub(r"^\$[a-z_0-9]+(@[\d.]+)?$", "#123456", value)
    if isinstance(value, list):
        return [plain(item) for item in value]
    if isinstance(value, dict):
        own = ("series", "outline", "height", "band", "yspan", "categories", "rows")
        kept = {k: plain(v) for k, v in value.items() if k not in own}
        return {**kept, "path": "M0,0"} if "band" in value else kept
    return value


RUNS = {
    "empty": Script,
    "started": lambda: Script().start(),
    "cycled": lambda: cycled(3),
    "everything": everything,
}


@pytest.mark.parametrize("log", [False, True])
@pytest.mark.parametrize("kind", RUNS)
def test_every_figure_is_one_that_plotly_takes_and_names_its_columns(kind: str, log: bool) -> None:
    at = moment(seen(RUNS[kind]()))
    for name, build in PAGE.figures.items():
        figure = build(at, Look(Window(), log=log, smooth=0.5))
        go.Figure(data=plain(figure.traces), layout=plain(figure.layout))
        assert figure.name == name
        assert {trace["series"] for trace in figure.traces} <= figure.columns.keys(), name
        assert {s["band"] for s in figure.layout.get("shapes", []) if "band" in s} <= figure.columns.keys(), name
        for trace in figure.traces:
            assert set(trace.get("rows", ())) <= figure.columns[trace["series"]].columns.keys(), name
        used = set(re.findall(r'"\$([a-z_0-9]+)', json.dumps([figure.traces, figure.layout])))
        assert used <= tokens()["light"].keys() and used <= tokens()["dark"].keys()
        assert json.dumps(figure_change(None, figure), allow_nan=False)


# ---- signs and flags ----


def raised(step: int, rule: str, signal: str, severity: Severity = Severity.WARNING, **more: Any) -> AlertRaised:
    return AlertRaised(step, f"id-{rule}", rule, severity, signal, 501.0, 500.0, "message", **more)


@pytest.mark.parametrize("sign", SIGNS, ids=lambda sign: sign.key)
def test_a_sign_is_quiet_then_lit_then_over(sign: Any) -> None:
    script = Script().start().steps(10)
    standing = next(s for s in signs(seen(script), Config()) if s.sign is sign)
    assert (standing.lit, standing.tone, standing.icon) == (False, "muted", "✓") and "not seen" in standing.line
    for rule in sign.rules:
        script.say(raised(10, rule, "x", commands=(ScaleLearningRate(0.5),)))
        standing = next(s for s in signs(seen(script), Config()) if s.sign is sign)
        assert standing.lit and standing.tone == "warning" and standing.line.startswith("since step 10")
        assert rule in standing.line and "501" in standing.line and "500" in standing.line
        assert "scale learning rate" in standing.fix
        script.say(AlertResolved(12, f"id-{rule}", rule, "gone"))
    standing = next(s for s in signs(seen(script), Config()) if s.sign is sign)
    assert not standing.lit and "seen at step 10, over at 12" in standing.line


def test_a_sign_that_a_rollback_ended_says_so_and_is_not_over_before_it_was_seen() -> None:
    script = Script().start().steps(100)
    script.say(raised(100, "plateau", "steps_without_gain"))
    script.steps(806)
    script.say(raised(906, "not finite", "loss", Severity.CRITICAL))
    script.roll_back(800)
    script.steps(10)
    script.say(AlertResolved(810, "id-not finite", "not finite", "not finite healthy for 10 steps"))
    line = next(s for s in signs(seen(script), Config()) if s.sign.key == "nan").line
    assert line.startswith("seen at step 906, over at 810, after going back to 800")
    script.steps(200)
    script.roll_back(700)
    again = next(s for s in signs(seen(script), Config()) if s.sign.key == "nan").line
    assert again.startswith("seen at step 906, over at 810, after going back to 800"), "later rollbacks do not matter"
    found = {alert.alert_id: alert for alert in alerts(seen(script))}
    assert found["id-not finite"].standing == "resolved at step 810, after going back to 800"
    assert found["id-plateau"].went_back is None, "the step it was raised at was not thrown away"


def test_a_spike_does_not_flatten_the_rest_of_the_curve() -> None:
    script = Script().start().steps(300, loss=1.0)
    quiet = PAGE.figures["curve"](moment(seen(script)), Look(Window()))
    assert quiet.layout["yaxis"]["type"] == "linear" and "log axis" not in quiet.caption
    script.steps(20, loss=5000.0).steps(300, loss=1.0)
    spiked = PAGE.figures["curve"](moment(seen(script)), Look(Window()))
    assert spiked.layout["yaxis"]["type"] == "log" and "log axis" in spiked.caption
    script.steps(1, loss=0.0).steps(300, loss=0.0)
    assert PAGE.figures["curve"](moment(seen(script)), Look(Window())).layout["yaxis"]["type"] == "linear"


def test_every_alert_rule_named_by_the_page_exists_and_tells_causes() -> None:
    assert all(sign.causes and sign.remedy and sign.symptoms for sign in SIGNS)
    assert {s.key for s in SIGNS} == {name.removeprefix("sign_") for name in PAGE.figures if name.startswith("sign_")}


def test_a_quiet_sign_says_how_near_it_is() -> None:
    lines = {s.sign.key: s.line for s in signs(seen(everything()), Config())}
    assert lines["plateau"] == "not seen · 30 steps without a gain, limit 500"
    assert lines["explosion"] == "not seen · 1.2 times its baseline, limit 10"
    assert "once so far, last at step" in lines["nan"], "loss and gradient of the same steps are one"


def test_the_worst_open_alert_stands_beside_its_chart() -> None:
    script = Script().start().steps(5)
    assert flag(lives(seen(script)), ("a", "b")).text == "✓ no alert"
    script.say(raised(3, "gradient norm", "grad_norm"))
    script.say(raised(4, "gradient explosion", "grad_growth", Severity.CRITICAL))
    shown = flag(lives(seen(script)), ("gradient norm", "gradient explosion"))
    assert (shown.text, shown.tone) == ("✖ gradient explosion since step 4", "critical")
    assert flag(lives(seen(script)), ("gradient variance",)).tone == "muted"


# ---- zones and checklists ----


@pytest.mark.parametrize(
    ("norm", "zone"),
    [(1.0, "Healthy"), (20.0, "Explosion"), (0.05, "Vanishing"), (200.0, "Extreme"), (0.001, "Extreme"),
     (math.nan, "Extreme"), (10.0, "Healthy")],
)  # fmt: skip
def test_the_live_zone_is_the_document_s(norm: float, zone: str) -> None:
    snapshot = seen(Script().start().steps(3, grad_norm=norm))
    found = health_checks.zones(snapshot, present_config(snapshot))
    assert [z.name for z in found if z.here] == [zone]
    assert [z.range_ for z in found] == ["0.1 - 10", ">10", "<0.1", ">100 or <0.01"]


def test_all_four_zones_are_in_the_picture_whatever_the_norms() -> None:
    figure = PAGE.figures["gradient"](moment(seen(Script().start().steps(5))), Look(Window()))
    labels = [note["text"] for note in figure.layout["annotations"]]
    assert [text.split()[-1] for text in labels] == ["0.01", "0.1", "10", "100"]
    low, high = figure.layout["yaxis"]["range"]
    assert low < -2 and high > 2


def test_no_zone_is_live_before_the_first_norm() -> None:
    assert not any(zone.here for zone in health_checks.zones(seen(Script().start()), None))


def test_only_the_newest_checklist_is_failing() -> None:
    script = Script().start().steps(1)
    script.say(
        Checklist(1, "before training", (ChecklistItem("ratio", False, "0.1"), ChecklistItem("norm", True, "1")))
    )
    assert health_checks.failing(seen(script)) == ["ratio"]
    script.say(Checklist(100, "during training", (ChecklistItem("stable", True, "1"),)))
    assert health_checks.failing(seen(script)) == []
    for step in range(200, 30_000, 100):
        script.say(Checklist(step, "during training", (ChecklistItem("stable", None, ""),)))
    first = health_checks.newest(seen(script), "before training")
    assert first is not None and first.step == 1, "found also in a long run"


# ---- layers ----


def layered(count: int, norms: list[float] | None = None) -> Snapshot:
    script = Script().start()
    values = tuple(norms or [0.5 + i for i in range(count)])
    script.rows[0] = script.rows[0].__class__(1, script.time, 1, started_with(script, count))
    return seen(script.steps(20, layer_grad_norms=values))


def started_with(script: Script, count: int) -> Any:
    return msgspec.structs.replace(script.rows[0].record, layers=tuple(f"layer_{i}" for i in range(count)))


def test_the_document_s_vanishing_layers_are_marked() -> None:
    shown = health_layers.view(layered(4, [5.2, 0.5, 0.005, 200.0]), Config())
    figure = layer_figures.bars(shown)
    texts = {key: figure.columns[key].texts for key in ("healthy", "low", "high")}
    assert texts["healthy"] == ("5.2", "0.5", "", "")
    assert texts["low"] == ("", "", "0.005 ← vanishing", "")
    assert texts["high"] == ("", "", "", "200 ← explodes")
    assert figure.traces[0]["categories"] == ["layer_0", "layer_1", "layer_2", "layer_3"]


def test_many_layers_share_rows_and_say_so() -> None:
    shown = health_layers.view(layered(300), Config())
    assert len(shown.rows) == 60 and shown.per_row == 5
    assert shown.rows[0] == "layer_0 … layer_4" and shown.now_R[0] == 4.5, "the largest of them"
    assert "300 layers, each row the largest of up to 5" in layer_figures.heatmap(shown).caption


def test_long_names_of_layers_leave_room_for_their_norms() -> None:
    script = Script().start()
    names = tuple(f"model.layers.{i}.self_attn.q_proj.weight" for i in range(100))
    script.rows[0] = script.rows[0].__class__(
        1, script.time, 1, msgspec.structs.replace(script.rows[0].record, layers=names)
    )
    shown = health_layers.view(seen(script.steps(2, layer_grad_norms=(1.0,) * 100)), Config())
    for figure in (layer_figures.bars(shown), layer_figures.heatmap(shown)):
        axis = figure.layout["yaxis"]
        assert axis["ticktext"][0] == "0.self_attn.q_proj.weight …" and len(axis["ticktext"]) == 25
        assert len(set(axis["ticktext"])) == 25, "a name that is told of several rows tells none"
        assert set(axis["tickvals"]) <= set(shown.rows) and figure.traces[0]["categories"] == list(shown.rows)


def test_names_that_differ_in_their_middle_are_told_apart() -> None:
    script = Script().start()
    names = tuple(
        f"encoder.stages_of_the_encoder.{i // 25}.residual_blocks_of_this_stage.{i % 25}.attention_projection.weight"
        for i in range(250)
    )
    script.rows[0] = script.rows[0].__class__(
        1, script.time, 1, msgspec.structs.replace(script.rows[0].record, layers=names)
    )
    shown = health_layers.view(seen(script.steps(2, layer_grad_norms=(1.0,) * 250)), Config())
    told = layer_figures.bars(shown).layout["yaxis"]["ticktext"]
    assert len(set(told)) == len(told) and max(map(len, told)) <= layer_figures.LONGEST


def test_a_run_that_tells_no_norms_by_layer_shows_the_norm_of_all_where_gradients_vanish() -> None:
    script = Script().start().steps(30, grad_norm=0.02)
    figure = vanishing(seen(script), Look(Window()), Config())
    assert figure.title == "Gradient norm" and figure.caption == "of all layers; none is told by itself"
    assert set(figure.columns["weakest"].columns["y"]) == {0.02}
    assert figure.layout["annotations"][0]["y"] == pytest.approx(-1), "the limit of the whole norm"
    nothing = vanishing(seen(Script().start()), Look(Window()), Config())
    assert nothing.caption == "no backward pass yet"


def test_a_layer_s_nan_is_marked_and_what_was_not_measured_is_a_gap() -> None:
    script = Script().start().steps(3, layer_grad_norms=(1.0, 0.1))
    script.steps(2, layer_grad_norms=None)
    script.steps(1, layer_grad_norms=(math.nan, 0.1))
    shown = health_layers.view(seen(script), Config())
    assert [step for step, _ in shown.broken] == [6.0]
    drawn = shown.log_norms_TR[:, 1]
    assert np.array_equal(np.isnan(drawn), [False, False, False, True, True, False])
    assert drawn[0] == -1.0


def test_one_more_step_adds_one_column_to_the_heatmap_s_message() -> None:
    script, store = Script().start().steps(100, layer_grad_norms=tuple([0.5] * 50)), Store()
    store.append(script.rows)
    before = layer_figures.heatmap(health_layers.view(store.snapshot(), Config()))
    script.steps(1, layer_grad_norms=tuple([0.5] * 50))
    store.append(script.rows)
    message = figure_change(before, layer_figures.heatmap(health_layers.view(store.snapshot(), Config())))
    assert message is not None and set(message["columns"]) == {"cells"}
    cells = message["columns"]["cells"]
    assert cells["keep"] == 100 and all(len(values) == 1 for values in cells["add"].values())
    assert len(json.dumps(message)) < 3000


def test_a_window_of_the_newest_steps_is_told_step_by_step_and_the_whole_run_in_stretches() -> None:
    script = Script().start()
    script.steps(3000, layer_grad_norms=(0.1, 0.1))
    script.steps(1, layer_grad_norms=(7.0, 0.1))
    script.steps(99, layer_grad_norms=(0.1, 0.1))
    snapshot = seen(script)
    near = health_layers.view(snapshot, Config(), Window(last=150))
    assert near.width == 1 and near.steps_T.tolist() == list(range(2950, 3101))
    assert near.steps_T[np.nanargmax(near.log_norms_TR[:, 0])] == 3001
    middle = health_layers.view(snapshot, Config(), Window(last=1000))
    assert middle.width == 8 and len(middle.steps_T) <= 200 and np.nanmax(middle.log_norms_TR) == 0.85
    far = health_layers.view(snapshot, Config())
    assert far.width == 16 and abs(far.steps_T[np.nanargmax(far.log_norms_TR[:, 0])] - 3001) <= 8


def test_steps_that_a_rollback_took_back_are_gone_from_the_layers() -> None:
    script = Script().start().steps(60, layer_grad_norms=(0.1, 0.1))
    script.steps(40, layer_grad_norms=(50.0, 0.1))
    before = seen(script).side.layers
    script.roll_back(60)
    script.steps(5, layer_grad_norms=(0.2, 0.1))
    after = seen(script).side.layers
    assert before.steps[-1] == 100 and after.steps[-1] == 65
    assert after.norms.max() == np.float32(0.2) and after.largest[np.isfinite(after.largest)].max() < 1.0


# ---- learning rate ----


@pytest.mark.parametrize("type_", ["Constant", "WarmupOnly", "WarmupStableDecay"])
@pytest.mark.parametrize("step", [1, 7, 99, 100, 4000])
def test_the_peak_is_told_by_a_rate_of_the_schedule(type_: Any, step: int) -> None:
    schedule = LearningRateSchedule(type=type_, warmup_steps=100, warmup_init=1e-6)
    assert peak_of(schedule, step, learning_rate_at(step, schedule, 3e-4)) == pytest.approx(3e-4)


def test_what_a_rate_cannot_tell_is_no_peak() -> None:
    assert peak_of(CYCLIC, 10, 1e-5) is None
    assert peak_of(LearningRateSchedule(type="WarmupOnly", warmup_steps=100), 0, 1e-6) is None
    assert peak_of(WSD, 12_000, 5e-5) is None


def scheduled(
    schedule: LearningRateSchedule, steps: int = 30, initial: float | None = 1e-4, total: int = 20_000
) -> Script:
    script = Script().start(total)
    config = Config(learning_rate_schedule=schedule)
    sections = {k: v for k, v in msgspec.to_builtins(config).items() if k != "preset"}
    sections["learning_rate"]["initial"] = initial
    record = msgspec.structs.replace(script.rows[0].record, config=sections)
    script.rows[0] = script.rows[0].__class__(1, script.time, 1, record)
    for step in range(1, steps + 1):
        script.steps(1, learning_rate=learning_rate_at(step, schedule, initial or 3e-4))
    return script


def rate_of(script: Script) -> health_rate.RateView:
    snapshot = seen(script)
    return health_rate.view(snapshot, present_config(snapshot))


def test_the_document_s_warmup_stable_decay_is_drawn_whole() -> None:
    shown = rate_of(scheduled(WSD))
    rate = dict(zip(shown.planned.columns["x"].tolist(), shown.planned.columns["y"].tolist(), strict=True))
    assert rate[0] == pytest.approx(1e-6) and rate[500] == rate[10_500] == pytest.approx(1e-4)
    assert rate[15_500] == pytest.approx(1e-6)
    assert [(name, low, high) for name, low, high in shown.stages] == [
        ("Warmup", 0, 500), ("Stable", 500, 10_500), ("Decay", 10_500, 15_500),
    ]  # fmt: skip
    assert shown.factor == pytest.approx(1.0) and "warmup - stable - decay" in shown.said


def test_the_document_s_cycles_are_drawn_with_every_peak() -> None:
    shown = rate_of(scheduled(CYCLIC))
    x, y = shown.planned.columns["x"], shown.planned.columns["y"]
    assert (
        np.flatnonzero(np.isclose(y, 1e-4)).tolist() == np.flatnonzero(np.isin(x, np.arange(500, 9000, 1000))).tolist()
    )
    assert (np.isclose(y, 1e-5) == np.isin(x, np.arange(0, 9000, 1000))).all()
    assert len(corners(CYCLIC)) == 400


def test_what_an_operator_did_shows_in_what_was_applied_and_in_what_is_to_come() -> None:
    script = scheduled(LearningRateSchedule())
    script.command(ScaleLearningRate(0.5), CommandState.APPLIED, before="1e-4", after="5e-5")
    script.steps(5, learning_rate=5e-5)
    shown = rate_of(script)
    assert shown.factor == pytest.approx(0.5) and "0.5 x the plan" in shown.said
    assert (shown.planned.columns["y"] == 1e-4).all() and np.allclose(shown.ahead.columns["y"], 5e-5)
    assert [(mark.step, mark.text) for mark in shown.changes] == [(30, "scale-learning-rate 1e-4 → 5e-5, by operator")]
    assert rate_figure(shown).columns["now"].columns["y"].tolist() == [5e-5]


def test_an_optimizer_s_own_rate_is_the_peak_when_the_settings_name_none() -> None:
    shown = rate_of(scheduled(LearningRateSchedule(), initial=None))
    assert shown.factor == pytest.approx(1.0) and (shown.planned.columns["y"] == 3e-4).all()


def test_the_plan_of_somebody_s_own_loop_is_not_invented() -> None:
    script = scheduled(WSD)
    record = msgspec.structs.replace(script.rows[0].record, own_loop=True)
    script.rows[0] = script.rows[0].__class__(1, script.time, 1, record)
    shown = rate_of(script)
    assert shown.planned.length == 0 and "its plan is not known" in shown.said


# ---- losses ----


def test_a_rollback_takes_the_validations_after_it_away() -> None:
    script = Script().start()
    for loss in (1.0, 0.9, 0.8):
        script.steps(10)
        script.say(ValidationMeasured(script.step, loss, None, 0.1))
    script.roll_back(10)
    script.steps(5)
    script.say(ValidationMeasured(15, 0.7, None, 0.1))
    found = validations(seen(script))
    assert found.columns["x"].tolist() == [10, 15] and found.columns["y"].tolist() == [1.0, 0.7]


def test_the_curve_s_characteristics_are_measured() -> None:
    script = Script().start()
    for step in range(40):
        script.steps(1, loss=4.0 - step / 20, grad_norm_baseline=1.0, loss_deviation=0.1)
    script.enter(Phase.FULL, 10)
    script.steps(100, loss=2.0, grad_norm_baseline=1.0, loss_deviation=0.1, prediction_error=0.02)
    snapshot = seen(script)
    found = health_curve.characteristics(snapshot, present_config(snapshot))
    assert [one.met for one in found] == [True, True, True, True]
    script.steps(100, loss=9.0, grad_norm=5.0, grad_norm_baseline=1.0, loss_deviation=4.0, prediction_error=0.5)
    snapshot = seen(script)
    found = health_curve.characteristics(snapshot, present_config(snapshot))
    assert [one.met for one in found] == [True, True, False, False]
    assert [one.met for one in health_curve.characteristics(seen(Script().start()), None)] == [None] * 4


def test_a_loss_that_was_no_number_is_a_spike() -> None:
    script = Script().start().steps(50, loss_deviation=0.1)
    script.steps(1, loss=math.nan)
    script.steps(5, loss_deviation=0.1)
    calm = health_curve.characteristics(seen(script), Config())[2]
    assert calm.met is False and calm.detail == "0 of 55 steps above 3 sigma, NaN or infinite at step 51"


def test_the_stages_say_what_each_phase_did() -> None:
    texts = [stage.text for stage in health_curve.stages(seen(cycled(2)))]
    assert [text.split(":")[0] for text in texts] == ["Warmup", "Full", "Predict"]
    assert texts[2] == "Predict: 12 steps, not measured inside"
    script = cycled(1)
    script.enter(Phase.PREDICT, 5)
    script.steps(5, loss=1.0, predicted_loss=1.02, prediction_error=0.02)
    script.enter(Phase.FULL, 5)
    script.steps(1)
    assert health_curve.stages(seen(script))[-1].text == "Predict: 5 steps, 2.0% off"


# ---- machine and metrics ----


def test_the_machine_and_where_the_run_comes_from_are_told() -> None:
    at = moment(seen(everything()))
    values, found = binds(at), lists(at)
    assert "1.5 cores, machine 25 %" in str(values["health.reading"]) and "7.0 GiB free" in str(
        values["health.reading"]
    )
    assert values["machine.gpu"] is True
    rows = {item["cells"][0]: item["cells"][1] for item in found["health.environment"]}
    assert rows["Command"] == "hybrid train" and rows["Commit"] == "abababababab" and rows["Packages"] == "torch 2"
    assert PAGE.figures["sys_disk"](at, Look(Window())).columns["disk_free"].columns["y"].tolist() == [7.0]


def test_a_metric_that_is_silent_in_these_steps_says_so() -> None:
    script = Script().start().steps(3)
    script.say(MetricsMeasured(3, {"f1": 0.5}))
    chart = PAGE.figures["metric_0"](moment(seen(script.steps(60))), Look(Window(last=20)))
    assert chart.caption == "newest 0.5 · not reported in these steps"


def test_each_metric_has_a_chart_and_its_nan_is_marked() -> None:
    at = moment(seen(everything()))
    values = binds(at)
    assert [values[f"metric.{i}.on"] for i in range(METRICS)] == [True, True] + [False] * (METRICS - 2)
    first, second = (PAGE.figures[f"metric_{i}"](at, Look(Window())) for i in range(2))
    assert first.title == "f1" and "newest 0.5" in first.caption
    assert second.columns["mark_nan"].texts == (f"broken is NaN or infinite at step {at.snapshot.side.newest.step:,}",)


def test_chosen_metrics_come_first() -> None:
    script = Script().start().steps(1)
    script.say(MetricsMeasured(1, {f"m{i}": float(i) for i in range(40)}))
    at = dataclasses.replace(moment(seen(script)), first=("m33", "unknown", "m2"))
    titles = [PAGE.figures[f"metric_{i}"](at, Look(Window())).title for i in range(4)]
    assert titles == ["m33", "m2", "m0", "m1"]


def test_a_choice_that_is_no_list_of_names_is_none() -> None:
    assert chosen_metrics('["f1", "a,b"]') == ("f1", "a,b")
    assert chosen_metrics("") == chosen_metrics("[1]") == chosen_metrics("{") == ()
    assert len(chosen_metrics(json.dumps([str(i) for i in range(1000)]))) == 24


def test_a_loop_of_somebody_s_own_is_not_shown_what_it_does_not_have() -> None:
    script = Script().start()
    record = msgspec.structs.replace(script.rows[0].record, own_loop=True, layers=())
    script.rows[0] = script.rows[0].__class__(1, script.time, 1, record)
    values = binds(moment(seen(script.steps(5))))
    assert values["health.own_loop"] and not values["health.layers"] and not values["health.checked"]
    assert values["sign.divergence.line"] == "a loop of its own predicts nothing"
    assert binds(moment(seen(Script().start())))["health.checked"]


def test_more_metrics_than_charts_are_counted() -> None:
    script = Script().start().steps(1)
    script.say(MetricsMeasured(1, {f"m{i}": 1.0 for i in range(70)}))
    assert binds(moment(seen(script)))["health.metrics"] == "24 metrics; 46 more: choose below which come first"
