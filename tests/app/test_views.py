"""Views: what a snapshot says, in words and numbers ready to draw."""

from dataclasses import dataclass

import pytest

from app.figures.spec import apart
from app.store import Snapshot, Store
from app.views import commands, settings, words
from app.views.alerts import alerts, open_alerts
from app.views.bands import MOST, bands
from app.views.lifecycle import lifecycle
from app.views.marks import marks
from app.views.series import Window, line
from app.views.strip import strip
from tests.app.rows import Script, cycled
from trainer_core.spec.commands import (
    ApplyRemedy,
    CommandState,
    ForcePhase,
    LockPrediction,
    Refusal,
    Rollback,
    ScaleLearningRate,
    SetGradientClip,
    SetPhaseLength,
    SetThreshold,
)
from trainer_core.spec.phases import Phase
from trainer_core.spec.records import AlertRaised, AlertResolved, CheckpointSaved, PredictionEnded
from trainer_core.spec.severity import Severity


@dataclass(frozen=True)
class Status:
    state: str = "working"
    because: str = "last step 0.1 s ago"


def seen(script: Script) -> Snapshot:
    store = Store()
    store.append(script.rows)
    return store.snapshot()


def test_the_strip_of_an_empty_run_has_dashes_and_no_numbers() -> None:
    shown = strip(Store().snapshot(), Status("stalled", "nothing yet"), "runs/a", 0.0)
    assert (shown.step, shown.total, shown.rate, shown.eta, shown.confidence) == ("0", "–", "–", "–", "–")
    assert shown.phase is None


def test_the_strip_says_speed_and_time_left_from_the_last_ten_seconds() -> None:
    script = Script().start(total=600)
    script.step_seconds = 1.0
    script.steps(100)
    script.step_seconds = 0.1
    script.steps(200)
    shown = strip(seen(script), Status(), "runs/a", script.time + 0.5)
    assert shown.rate == "10 steps/s"
    assert shown.eta == "30 s"
    assert shown.last_step == "now"


def test_a_crashed_run_is_told_how_to_go_on() -> None:
    shown = strip(seen(Script().start().steps(5)), Status("crashed", "its lock is free"), "runs/a", 0.0)
    assert shown.advice == "Go on from the last checkpoint:"
    assert shown.command == "hybrid train digits --run-dir runs/a --resume"
    assert shown.tone == "critical"


def test_the_lifecycle_says_steps_left_counts_and_cause() -> None:
    script = cycled(3)
    script.enter(Phase.FULL, 10, because=("correction applied",))
    script.steps(4, budget=10)
    life = lifecycle(seen(script))
    node = life.nodes[Phase.FULL]
    assert (node.active, node.progress, node.left, node.done) == (True, "step 4 of 10", "6 left", 0.4)
    assert [phase for phase, other in life.nodes.items() if other.active] == [Phase.FULL]
    assert life.entered[Phase.FULL, Phase.PREDICT] == 3
    assert life.cause == "CORRECT → FULL at step 96: correction applied"


def test_a_predicted_stretch_moves_the_diagram_without_a_measured_step() -> None:
    script = Script().start().steps(5)
    script.enter(Phase.PREDICT, 40)
    script.stretch(12)
    node = lifecycle(seen(script)).nodes[Phase.PREDICT]
    assert (node.progress, node.left) == ("step 12 of 40", "28 left")


def test_a_phase_of_no_step_of_its_own_is_drawn_for_the_moment_that_it_is_there() -> None:
    script = Script().start().steps(5)
    script.enter(Phase.FULL, 0)
    node = lifecycle(seen(script)).nodes[Phase.FULL]
    assert node.tally == "no step of its own", "it was entered: 'not yet' is not true"
    assert (node.active, node.progress, node.left, node.done) == (True, "step 0 of 0", "0 left", 1.0)
    node = lifecycle(seen(script.steps(1, budget=0))).nodes[Phase.FULL]
    assert (node.progress, node.tally) == ("step 1", "1 step · 17 %"), "nothing was planned"


def test_the_measured_line_breaks_where_steps_were_predicted() -> None:
    measured = line(seen(cycled(1)), seen(cycled(1)).steps, "loss", Window()).kept.columns["x"]
    assert [i for i, x in enumerate(measured.tolist()) if x != x] == [30]  # after 20 + 10 steps, before CORRECT


def test_the_predicted_path_is_a_series_of_its_own_one_piece_a_cycle() -> None:
    snapshot = seen(cycled(2))
    predicted = line(snapshot, snapshot.path, "loss", Window(), ("low", "high"), piece="cycle").kept.columns
    assert predicted["x"].tolist()[:2] == [31.0, 42.0]
    assert sum(x != x for x in predicted["x"].tolist()) == 1
    assert predicted["low"][0] == pytest.approx(predicted["y"][0] - 0.1)


def test_the_strip_says_what_is_critical_and_names_its_remedy_while_the_run_takes_one() -> None:
    script = Script().start().steps(10)
    explodes = ("grad_norm", 120.0, 100.0, "it explodes", "gradient_explosion", (ScaleLearningRate(0.5),))
    script.say(AlertRaised(10, "a", "gradient norm", Severity.WARNING, *explodes))
    shown = strip(seen(script), Status(), "runs/a", script.time)
    assert (shown.worst, shown.remedy, shown.tone) == ("", "", "healthy"), "a warning is only counted"
    script.say(AlertRaised(10, "a", "gradient norm", Severity.CRITICAL, *explodes))
    shown = strip(seen(script), Status(), "runs/a", script.time)
    assert shown.worst == "✖ gradient norm: 120, past its critical limit 100 · since step 10"
    assert (shown.remedy, shown.tone) == ("gradient_explosion", "healthy"), "the state is one thing, the alert another"
    assert strip(seen(script), Status("finished", "done"), "runs/a", script.time).remedy == ""


def test_bands_are_drawn_one_by_one_until_there_are_too_many() -> None:
    few = bands(seen(cycled(5)), 0, 200)
    assert not few.merged
    assert sum(len(edges) for edges in few.edges.values()) == 16
    assert [list(edge) for edge in few.edges[Phase.WARMUP]] == [[0.5, 20.5]]
    many_script = cycled(400)
    many = bands(seen(many_script), 0, many_script.step)
    assert many.merged
    assert sum(len(edges) for edges in many.edges.values()) <= MOST


def test_open_alerts_come_first_and_the_worst_of_them_on_top() -> None:
    script = Script().start().steps(10)
    for alert_id, severity in (("a", Severity.WARNING), ("b", Severity.CRITICAL), ("c", Severity.WARNING)):
        script.say(AlertRaised(script.step, alert_id, "rule", severity, "grad_norm", 12.0, 10.0, f"alert {alert_id}"))
    script.say(AlertResolved(20, "c", "rule", "recovered"))
    found = alerts(seen(script))
    assert [alert.alert_id for alert in found] == ["b", "a", "c"]
    assert found[0].said == "rule: 12, past its critical limit 10"
    assert found[2].standing == "resolved at step 20"
    assert len(open_alerts(seen(script))) == 2


@pytest.mark.parametrize(
    ("percent", "said"), [(-0.004, "±0 %"), (0.0, "±0 %"), (-0.44, "-0.4 %"), (9.96, "+10.0 %"), (-41.7, "-42 %")]
)
def test_a_change_is_never_the_minus_of_a_zero(percent: float, said: str) -> None:
    assert words.change(percent) == said


def test_an_alert_says_what_its_remedy_would_send() -> None:
    script = Script().start().steps(10)
    commands = (SetGradientClip(1.0), ScaleLearningRate(0.5))
    raised = AlertRaised(
        10, "a", "rule", Severity.WARNING, "grad_norm", 12.0, 10.0, "it explodes", "gradient_explosion", commands
    )
    script.say(raised)
    said = "remedy: set gradient clip to 1, scale learning rate by 0.5"
    assert alerts(seen(script))[0].detail == said


def test_the_threshold_in_force_is_the_applied_one_not_the_queued_one() -> None:
    script = Script().start().steps(5)
    script.command(
        SetThreshold("confidence_threshold", 0.9), CommandState.APPLIED, "one", 1, before="0.85", after="0.9"
    )
    script.command(SetThreshold("confidence_threshold", 0.5), CommandState.ACCEPTED, "two", 1)
    config = settings.present_config(seen(script))
    assert config is not None
    assert config.hybrid_trainer_config.confidence_threshold == 0.9
    assert {live.setting.name: live.value for live in settings.live_settings(seen(script))}[
        "confidence_threshold"
    ] == 0.9


def test_a_resumed_run_says_its_configuration_anew() -> None:
    script = Script().start().steps(5)
    script.command(
        SetThreshold("confidence_threshold", 0.9), CommandState.APPLIED, "one", 1, before="0.85", after="0.9"
    )
    script.start()
    assert {s.setting.name: s.value for s in settings.live_settings(seen(script))}["confidence_threshold"] == 0.85
    script.command(SetPhaseLength(Phase.FULL, 70), CommandState.APPLIED, "two", 2)
    script.command(ApplyRemedy("divergence_loop"), CommandState.APPLIED, "three", 3)
    assert {s.setting.name: s.value for s in settings.live_settings(seen(script))}["full_steps"] == 140


def test_every_state_of_a_command_has_its_own_sentence_and_only_applied_says_applied() -> None:
    sentences = {state: commands.sentence(commands.Outcome(state, 7, Phase.FULL)) for state in (None, *CommandState)}
    assert len(set(sentences.values())) == len(sentences)
    assert [state for state, text in sentences.items() if "applied at" in text] == [CommandState.APPLIED]
    assert "success" not in " ".join(sentences.values())


def test_a_command_is_listed_once_by_its_newest_state() -> None:
    script = Script().start().steps(5)
    script.command(ForcePhase(Phase.FULL), CommandState.ACCEPTED, "one")
    script.refuse(Rollback(), Refusal.PRECONDITION, "there is no checkpoint")
    script.steps(1)
    script.command(ForcePhase(Phase.FULL), CommandState.APPLIED, "one", 1)
    found = {life.command_id: life.sentence for life in commands.lives(seen(script))}
    assert found == {
        "one": "applied at step 6 in WARMUP",
        "c0000001": "refused (precondition): there is no checkpoint",
    }


def test_the_rollback_preview_counts_what_would_be_lost() -> None:
    script = Script().start().steps(100)
    script.say(CheckpointSaved(100, "step-100", 10, True, "every 100 steps", 0.1))
    script.steps(50)
    script.say(PredictionEnded(140, 1, True, 10, "kept", 1.0, 0.9, 0.9, 0.05))
    target = commands.rollback_targets(seen(script))[0]
    assert (target.name, target.steps_lost, round(target.seconds_lost), target.predictions_lost) == (
        "step-100",
        50,
        5,
        1,
    )
    assert target.cost == "50 steps (5 s of training, 1 kept prediction among them)"


def test_checkpoints_of_an_abandoned_stretch_are_not_offered() -> None:
    script = Script().start().steps(100)
    script.say(CheckpointSaved(100, "step-100", 10, True, "x", 0.1))
    script.steps(100)
    script.say(CheckpointSaved(200, "step-200", 10, True, "x", 0.1))
    script.roll_back(100)
    script.steps(150)
    assert [target.name for target in commands.rollback_targets(seen(script))] == ["step-100"]


def test_marks_say_who_did_what() -> None:
    script = Script().start().steps(50)
    script.command(LockPrediction(True), CommandState.APPLIED, "one", 1, before="unlocked", after="locked")
    script.roll_back(30)
    found = marks(seen(script), 0, 100)
    assert [mark.text for mark in found.commands] == ["lock-prediction unlocked → locked, by operator"]
    assert found.attempts[0].step == 30


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (None, "–"),
        (float("nan"), "NaN"),
        (float("inf"), "∞"),
        (0.91234, "0.912"),
        (12345.0, "12,345"),
        (2.0, "2"),
        (-1e300, "-1e+300"),
    ],
)
def test_numbers_are_said_as_they_are(value: float | None, said: str) -> None:
    assert words.number(value) == said


@pytest.mark.parametrize(
    ("share", "said"),
    [(0.9833, "98.3 %"), (float("nan"), "NaN %"), (1e290, "1e+292 %"), (1e308, "∞ %"), (-0.5, "-50.0 %")],
)
def test_a_share_that_is_none_is_said_in_a_few_signs(share: float, said: str) -> None:
    assert words.percent(share) == said


@pytest.mark.parametrize(("seconds", "said"), [(3, "3 s"), (200, "3 min 20 s"), (7500, "2 h 05 min"), (None, "–")])
def test_durations_are_read_at_a_glance(seconds: float | None, said: str) -> None:
    assert words.duration(seconds) == said


def test_a_long_name_keeps_its_ends_and_its_length() -> None:
    assert words.short("a" * 40) == "a" * 40
    assert words.short("lr0.001-" + "x" * 60 + "-seed1") == "lr0.001-xxxxxxxxxxxx…xxxxxxxxxxxxx-seed1"


def test_labels_of_many_close_limits_are_a_line_of_text_apart() -> None:
    labels = [{"y": y} for y in (0.0, 1.0, -1.0, 30.0, -2.0)]
    shifts = {label["y"]: label.get("yshift", 0) for label in apart(labels, 60.0)}
    assert shifts == {-2.0: -21, -1.0: -7, 0.0: 7, 1.0: 21, 30.0: 0}
