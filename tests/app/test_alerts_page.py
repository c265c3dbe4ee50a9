"""Claims about the Alerts page: every rule with its number, remedies as they would act now, symptoms that are there."""

import json
import math
import time
from typing import Any

import msgspec
import pytest

from app.feed import Connection
from app.screens import alerts as screen
from app.screens.page import Moment
from app.views import alerts, measured, remedy, rules, troubles, words
from app.views.settings import present_config
from tests.app.rows import Script, cycled
from tests.app.test_own_loops import own_loop
from tests.app.test_views import seen
from trainer_core.spec.alerts import RULES, SYSTEM_RULES
from trainer_core.spec.commands import AcknowledgeAlert, CommandState, LockPrediction, SetWeightDecay, SilenceAlert
from trainer_core.spec.config import SETTINGS, Config
from trainer_core.spec.ladders import HEALTH_SIGNALS, ladders
from trainer_core.spec.phases import Phase
from trainer_core.spec.records import (
    AlertRaised,
    AlertResolved,
    CheckpointSaved,
    HealthMeasured,
    PredictionEnded,
    SystemMeasured,
    ValidationMeasured,
)
from trainer_core.spec.remedies import REMEDIES
from trainer_core.spec.severity import Severity
from trainer_core.spec.troubleshooting import ISSUES
from trainer_core.telemetry.rundir import RunStatus

CONFIG = Config()


def raised(step: int, rule: str = "oscillation", **fields: Any) -> AlertRaised:
    said = AlertRaised(step, f"alert-0-{rule}", rule, Severity.WARNING, "sign_changes", 4.0, 3.0, "m", "oscillation",
                       causes="learning rate too high")  # fmt: skip
    return msgspec.structs.replace(said, **fields)


def moment(script: Script, state: str = "working") -> Moment:
    return Moment(seen(script), RunStatus(state, "x"), Connection(), "/runs/my run", time.time())


def line(script: Script, rule: str) -> rules.RuleLine:
    snapshot = seen(script)
    return next(found for found in rules.rule_lines(snapshot, present_config(snapshot)) if found.name == rule)


# -- rules ------------------------------------------------------------------------------------------------------------


def test_every_rule_has_a_line_with_its_limits_and_phases() -> None:
    lines = {found.name: found for found in rules.rule_lines(seen(cycled(1)), CONFIG)}
    assert set(lines) == {rule.name for rule in (*RULES, *SYSTEM_RULES)} | {"not finite"}
    gradient = lines["gradient norm"]
    assert (gradient.live, gradient.caution, gradient.warning, gradient.critical) == ("1", "–", "> 10", "> 100")
    assert (gradient.hold, gradient.phases, gradient.standing) == ("3 / 10 steps", "W F C", "✓ healthy")
    assert lines["gradient vanishing"].warning == "< 0.1"
    assert lines["disk nearly full"].hold == "1 / 2 readings"
    assert lines["not finite"].critical == "NaN or Inf"


def test_a_rung_that_a_rule_never_reaches_is_not_shown() -> None:
    worst = {rule.name: rule.worst for rule in RULES}
    assert worst["confidence"] is Severity.WARNING and ladders(CONFIG)["confidence"].critical_below is not None
    assert line(cycled(1), "confidence").critical == "–"


def test_the_signals_that_no_step_holds_come_from_the_health_record() -> None:
    script = cycled(1)
    assert line(script, "plateau").live == "–" and line(script, "plateau").standing == "not measured yet"
    script.say(HealthMeasured(script.step, dict.fromkeys(HEALTH_SIGNALS, 1.0) | {"steps_without_gain": 612.0}))
    found = line(script, "plateau")
    assert (found.live, found.warning, found.tone) == ("612 steps", "> 500 steps", "warning")
    assert found.standing == "▲ past its warning limit, not held long enough"
    assert line(script, "mostly full steps").live == "100 %"


def test_the_machine_is_measured_in_gib_and_shares() -> None:
    script = cycled(1)
    script.say(SystemMeasured(script.step, memory_used=9, memory_total=10, disk_free=3 << 30))
    assert line(script, "disk nearly full").live == "3 GiB"
    assert line(script, "host memory nearly full").live == "90 %"


def test_open_alerts_come_first_silenced_and_locked_rules_say_so() -> None:
    script = cycled(2)
    script.say(raised(40))
    script.command(SilenceAlert("plateau", 500), CommandState.APPLIED)
    script.command(LockPrediction(True), CommandState.APPLIED, "c0000002")
    lines = rules.rule_lines(seen(script), CONFIG)
    assert (lines[0].name, lines[0].standing, lines[0].tone) == ("oscillation", "▲ warning since step 40", "warning")
    assert line(script, "plateau").standing == f"silenced until step {script.step + 500:,}"
    assert line(script, "frequent divergence").standing == "prediction is locked"


def test_a_loop_without_phases_has_no_rules_about_prediction() -> None:
    names = {found.name for found in rules.rule_lines(seen(own_loop()), CONFIG)}
    assert "gradient norm" in names and not names & set(rules.PREDICTION)


def test_a_value_that_was_measured_long_ago_is_not_called_live() -> None:
    script = Script().start().steps(1, grad_norm=5.0)
    script.steps(measured.LOOK_BACK, grad_norm=None)
    assert measured.newest(seen(script), "grad_norm").value is None
    script.steps(1, grad_norm=math.nan)
    found = measured.newest(seen(script), "grad_norm")
    assert found.text == "NaN" and found.step == script.step


@pytest.mark.parametrize(
    ("signal", "value", "low", "high", "tone"),
    [
        ("confidence", 0.9, 2 / 3, 1, "healthy"),
        ("confidence", 0.8, 1 / 3, 2 / 3, "warning"),
        ("confidence", 0.5, 0, 1 / 3, "critical"),
        ("grad_norm", 1.0, 0.4, 0.6, "healthy"),
        ("grad_norm", 0.05, 0.2, 0.4, "warning"),
        ("grad_norm", 1e9, 1, 1, "critical"),
        ("loss_deviation", -5.0, 0, 0, "healthy"),
        ("prediction_error", 0.25, 2 / 3, 1, "critical"),
        ("prediction_error", math.nan, 1, 1, "critical"),
    ],
)
def test_the_needle_stands_in_the_rung_of_its_value(
    signal: str, value: float, low: float, high: float, tone: str
) -> None:
    found = rules.rungs(signal, ladders(CONFIG)[signal], measured.Measured(signal, value))
    assert found.at is not None and low <= found.at <= high and found.tone == tone
    if not math.isnan(value):
        rung = min(int(found.at * len(found.segments)), len(found.segments) - 1)
        assert found.segments[rung].tone == tone, "the needle and the colour agree"


def test_the_ladders_are_those_of_the_document_under_the_present_settings() -> None:
    found = {r.label: [s.text for s in r.segments] for r in rules.threshold_ladders(seen(cycled(1)), CONFIG)}
    assert found["Confidence"] == ["< 0.7", "0.7 – 0.85", "> 0.85"]
    assert found["Gradient norm"] == ["< 0.01", "0.01 – 0.1", "0.1 – 10", "10 – 100", "> 100"]
    assert found["Prediction error"] == ["< 10 %", "10 % – 20 %", "> 20 %"]


# -- remedies ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(REMEDIES))
def test_every_remedy_is_shown_as_it_would_act_now(name: str) -> None:
    script = cycled(1)
    script.steps(1, learning_rate=1e-3)
    found = remedy.plan(seen(script), name)
    assert found is not None and found.lines and all(line_.before != line_.after for line_ in found.lines)
    assert len(found.lines) == len(REMEDIES[name](CONFIG))


def test_a_diff_has_the_values_in_force() -> None:
    script = cycled(1)
    script.steps(1, learning_rate=1e-3)
    found = remedy.plan(seen(script), "oscillation")
    assert found is not None
    assert [line_.text for line_ in found.lines] == [
        "learning_rate 0.001 → 0.0003", "full_steps 40 → 80", "gradient_clip_norm off → 1",
    ]  # fmt: skip
    script.command(SetWeightDecay(0.5), CommandState.APPLIED)
    found = remedy.plan(seen(script), "overfitting")
    assert found is not None and found.lines[0].text == "weight_decay 0.5 → 5"
    script.command(SetWeightDecay(10.0), CommandState.APPLIED, "c0000002")
    at_bound = remedy.plan(seen(script), "overfitting")
    assert at_bound is not None and at_bound.lines == ()


def test_a_rollback_in_a_remedy_says_where_to_and_what_it_costs() -> None:
    script = cycled(1)
    script.say(CheckpointSaved(30, "step-30", 1, True, "every 30 steps", 0.1))
    script.steps(20)
    found = remedy.plan(seen(script), "nan_loss")
    assert found is not None and found.lines[0].text == f"weights step {script.step:,} → step 30"
    assert found.throws_away.startswith(f"{script.step - 30} steps")
    assert remedy.plan(seen(script), "a remedy of tomorrow") is None
    assert remedy.plan(seen(Script()), "nan_loss") is None, "no settings are known"


# -- the feed ---------------------------------------------------------------------------------------------------------


def test_the_feed_is_open_first_worst_first_and_says_each_life() -> None:
    script = cycled(2)
    script.say(raised(10, "plateau", signal="steps_without_gain", value=501.0, limit=500.0))
    script.say(AlertResolved(20, "alert-0-plateau", "plateau", "plateau healthy for 1 steps"))
    script.say(raised(30))
    script.say(raised(35, "gradient norm", severity=Severity.CRITICAL, signal="grad_norm", value=500.0, limit=100.0))
    script.command(AcknowledgeAlert("alert-0-oscillation"), CommandState.APPLIED)
    first, second, last = alerts.feed(seen(script), CONFIG, 10)
    assert [first.rule, second.rule, last.rule] == ["gradient norm", "oscillation", "plateau"]
    assert first.said == "gradient norm: 500, past its critical limit 100"
    assert second.path == f"raised at step 30 → acknowledged at {script.step} by operator → still open"
    assert last.path == "raised at step 10 → resolved at 20 (plateau healthy for 1 steps)"
    assert second.holds == "raised after 20 steps past its limit, resolved after 10 healthy steps"
    assert (first.can_acknowledge, second.can_acknowledge, last.can_acknowledge) == (True, False, False)
    assert last.plan is None, "nothing is offered for what is over"


def test_an_acknowledgement_that_was_only_asked_for_is_not_called_one() -> None:
    script = cycled(1)
    script.say(raised(10))
    script.command(AcknowledgeAlert("alert-0-oscillation"), CommandState.ACCEPTED)
    (found,) = alerts.feed(seen(script), CONFIG, 10)
    assert "acknowledgement accepted" in found.path and not found.can_acknowledge
    script.command(AcknowledgeAlert("alert-0-oscillation"), CommandState.EXPIRED)
    (found,) = alerts.feed(seen(script), CONFIG, 10)
    assert "acknowledgement expired" in found.path and found.can_acknowledge, "it may be asked for again"


def test_buttons_are_offered_only_while_the_run_takes_commands_and_name_no_command() -> None:
    script = cycled(1)
    script.say(raised(script.step))
    (item,) = screen.tables(moment(script))[1]["entries"]
    assert [(p["what"], p["which"]) for p in item["press"]] == [
        ("control", "oscillation"), ("acknowledge", "alert-0-oscillation"), ("silence", "oscillation"),
    ]  # fmt: skip
    assert item["href"] == f"/?run=my+run&from=0&to={script.step + screen.AROUND}"
    for state in ("finished", "crashed", "replay"):
        (item,) = screen.tables(moment(script, state))[1]["entries"]
        assert item["press"] == [] and item["diff"], "what it would do may be read, not sent"


def test_news_is_an_alert_that_became_critical_within_a_minute() -> None:
    script = cycled(1)
    script.say(raised(20))
    assert alerts.critical_news(seen(script), "a", script.time) == ""
    script.say(raised(21, severity=Severity.CRITICAL))
    news = json.loads(alerts.critical_news(seen(script), "a", script.time + 1))
    assert (news["id"], news["step"]) == ("a/alert-0-oscillation", 21)
    assert alerts.critical_news(seen(script), "a", script.time + alerts.NEWS_S + 1) == ""


# -- troubleshooting --------------------------------------------------------------------------------------------------


def trouble(script: Script, key: str) -> troubles.Trouble:
    snapshot = seen(script)
    return next(t for t in troubles.troubles(snapshot, present_config(snapshot)) if t.issue.key == key)


def test_every_issue_names_settings_rules_and_remedies_that_there_are() -> None:
    for issue in ISSUES:
        assert issue.remedy in REMEDIES and set(issue.rules) <= set(rules.BY_NAME), issue.key
        assert all(change.setting is None or change.setting in SETTINGS for change in issue.changes), issue.key


@pytest.mark.parametrize("key", [issue.key for issue in ISSUES])
def test_on_a_run_that_has_just_begun_no_symptom_is_claimed(key: str) -> None:
    found = trouble(Script().start(), key)
    assert found.showing == 0 and not found.alerting and found.tone == "muted"


def test_low_confidence_is_seen_in_the_share_of_full_steps_undone_predictions_and_nothing_saved() -> None:
    script = Script().start()
    script.enter(Phase.FULL)
    script.steps(300, confidence=0.4)
    script.say(HealthMeasured(script.step, {"full_share": 0.97}))
    for number in range(6):
        script.say(PredictionEnded(script.step, number, False, 3, "loss rose", 1.0, 1.1, 0.9, None))
    found = trouble(script, "low_confidence")
    assert [s.shows for s in found.symptoms] == [True, True, True], [s.detail for s in found.symptoms]
    assert found.mended[0].shows is False and found.tone == "caution"
    script.say(raised(script.step, "confidence", signal="confidence"))
    assert trouble(script, "low_confidence").headline == "▲ alert open · 3 of 3 symptoms"


def test_frequent_divergence_is_seen_in_ways_out_and_spikes() -> None:
    script = Script().start().steps(5)
    for _ in range(6):
        script.enter(Phase.FULL)
        script.steps(2, since_divergence=2)
        script.enter(Phase.PREDICT)
        script.steps(3, loss_deviation=4.5)
    script.enter(Phase.FULL)
    script.steps(1, since_divergence=1)
    assert [s.shows for s in trouble(script, "frequent_divergence").symptoms] == [True, True, True]


def test_overfitting_is_seen_when_training_falls_and_validation_does_not() -> None:
    script = Script().start().steps(50)
    script.say(ValidationMeasured(50, 1.0, None, 0.1))
    script.steps(100)
    script.say(ValidationMeasured(150, 1.2, None, 0.1))
    script.say(HealthMeasured(150, {"validation_gap": 0.7}))
    found = trouble(script, "overfitting")
    assert [s.shows for s in found.symptoms] == [True, True, True]
    assert [m.shows for m in found.mended] == [False, False]
    assert [c.when for c in found.changes] == [
        "now, by the remedy",
        "next run",
        "now, on Control",
        "next run",
        "next run",
    ]


def test_underfitting_is_seen_when_the_loss_stays_high_and_gradients_look_healthy() -> None:
    script = Script().start().steps(50, loss=3.0)
    script.say(HealthMeasured(50, {"steps_without_gain": 900.0}))
    assert [s.shows for s in trouble(script, "underfitting").symptoms] == [True, True, True]
    script.steps(5, loss=0.1)
    assert [s.shows for s in trouble(script, "underfitting").symptoms] == [True, False, True]


def test_nan_is_seen_and_mended_by_going_back() -> None:
    script = Script().start().steps(50)
    script.steps(3, loss=math.nan)
    found = trouble(script, "nan_loss")
    assert [s.shows for s in found.symptoms] == [True, True, True] and [m.shows for m in found.mended] == [False, False]
    script.roll_back(40)
    script.steps(5)
    found = trouble(script, "nan_loss")
    assert [s.shows for s in found.symptoms] == [True, True, False] and [m.shows for m in found.mended] == [True, True]
    script.steps(8)
    assert trouble(script, "nan_loss").symptoms[1].detail == "50 finite losses in the 50 steps before", "each step once"


def test_before_the_run_has_told_its_settings_no_guide_is_shown() -> None:
    bound, lists = screen.tables(moment(Script()))
    assert lists["rules"] == [] and bound["issue.nan_loss.can"] is False
    assert set(lists) >= {f"symptoms.{issue.key}" for issue in ISSUES}


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (1.0, "now"),
        (59.0, "59 s ago"),
        (61.0, "1 min ago"),
        (3599.0, "59 min ago"),
        (7300.0, "2 h ago"),
        (96e6, "1,111 d ago"),
    ],
)
def test_an_age_is_short_enough_for_its_cell(seconds: float, said: str) -> None:
    assert words.age(seconds) == said
