"""The number fields of Control: what changed a setting last, and what a press of the browser is worth."""

import pytest

from app.field import Pressed, said
from app.store import Store
from app.views.changes import RATE, Change, applied, last_change, rate_now
from tests.app.rows import Script
from tests.app.test_steering_views import ANN, snapshot
from trainer_core.spec.commands import (
    Annotate,
    ApplyRemedy,
    CommandState,
    ScaleLearningRate,
    SetGradientClip,
    SetLearningRate,
    SetPhaseLength,
    SetThreshold,
    SetWeightDecay,
)
from trainer_core.spec.phases import Phase

APPLIED = CommandState.APPLIED
ID = "0123456789abcdef0123456789abcdef"


def test_the_last_change_of_a_setting_says_who_when_and_what() -> None:
    script = Script().start()
    script.steps(3)
    script.command(SetWeightDecay(0.02), APPLIED, "one", on_behalf_of=ANN, before="0.01", after="0.02")
    script.command(SetWeightDecay(0.02), APPLIED, "the same again", before="0.02", after="0.02")
    script.command(Annotate("hello"), APPLIED, "note")
    script.command(SetWeightDecay(0.5), CommandState.REJECTED, "refused")
    found = last_change(snapshot(script), "weight_decay")
    assert found.command_id == "one"
    assert found.said == f"Set weight decay to 0.02 at step 3, 22:13:20 UTC, by operator for {ANN}."
    assert last_change(snapshot(script), "full_steps").command_id == "", "nobody has changed it"


@pytest.mark.parametrize(
    ("name", "moves", "others"),
    [
        ("gradient_clip_norm", SetGradientClip(2.0), SetWeightDecay(0.3)),
        ("full_steps", SetPhaseLength(Phase.FULL, 35), SetPhaseLength(Phase.CORRECT, 3)),
        ("full_steps", SetThreshold("full_steps", 36), SetThreshold("correct_steps", 3)),
        (RATE, SetLearningRate(0.1), SetGradientClip(3.0)),
        (RATE, ScaleLearningRate(0.1), SetThreshold("confidence_threshold", 0.9)),
        (RATE, ApplyRemedy("gradient_explosion"), ApplyRemedy("low_confidence")),
        ("gradient_clip_norm", ApplyRemedy("gradient_explosion"), ApplyRemedy("low_confidence")),
    ],
)
def test_a_setting_is_changed_by_its_own_command_by_a_threshold_and_by_a_remedy(
    name: str, moves: object, others: object
) -> None:
    script = Script().start()
    script.command(moves, APPLIED, "moves", rev=1)  # type: ignore[arg-type]
    script.command(others, APPLIED, "others", rev=2)  # type: ignore[arg-type]
    assert last_change(snapshot(script), name).command_id == "moves"


def test_a_resumed_run_began_anew_with_the_value_that_it_has() -> None:
    assert last_change(Store().snapshot(), "weight_decay") == Change()
    script = Script().start()
    first = last_change(snapshot(script), "weight_decay")
    script.command(SetWeightDecay(0.02), APPLIED)
    script.start()
    again = last_change(snapshot(script), "weight_decay")
    assert (first.command_id, again.command_id) == ("", "") and again.seq > first.seq > 0
    assert again.said == "The run began anew at step 0."


def test_the_learning_rate_is_that_of_the_newest_step_or_what_a_command_has_set_since() -> None:
    script = Script().start()
    assert rate_now(snapshot(script)) is None
    script.steps(3, learning_rate=1e-3)
    script.command(SetLearningRate(5e-4), APPLIED, before="0.001", after="0.0005")
    assert rate_now(snapshot(script)) == 5e-4, "the run may be paused: no step has measured it"
    script.steps(1, learning_rate=4.9e-4)
    assert rate_now(snapshot(script)) == 4.9e-4, "the schedule goes on"
    script.command(ApplyRemedy("gradient_explosion"), APPLIED, "remedy", before="", after="learning_rate 0.0002; ...")
    assert rate_now(snapshot(script)) == 4.9e-4


def test_a_command_was_applied_when_the_run_says_so() -> None:
    script = Script().start()
    script.command(SetWeightDecay(0.02), APPLIED, "one", before="0.01", after="0.02")
    script.command(SetWeightDecay(0.5), CommandState.REJECTED, "refused")
    assert [applied(snapshot(script), name) for name in ("one", "refused", "")] == [True, False, False]


@pytest.mark.parametrize(
    ("heard", "pressed"),
    [
        ({"value": 2, "id": ID, "rev": 3}, Pressed(2.0, ID, 3)),
        ({"value": 10, "id": ID, "rev": 3}, Pressed(10.0, ID, 3)),
        ({"value": 1, "id": ID, "rev": 3}, Pressed(1.0, ID, 3)),
        ({"value": 0, "id": ID, "rev": 3}, None),
        ({"value": 11, "id": ID, "rev": 3}, None),
        ({"value": 2.5, "id": ID, "rev": 3}, None),
        ({"value": None, "id": ID, "rev": 3}, None),
        ({"value": True, "id": ID, "rev": 3}, None),
        ({"value": float("nan"), "id": ID, "rev": 3}, None),
        ({"value": 2, "id": "../x", "rev": 3}, None),
        ({"value": 2, "id": f"{ID}/x", "rev": 3}, None),
        ({"value": 2, "id": ID, "rev": True}, None),
        ({"value": 2, "id": ID, "rev": "3"}, None),
        ({"value": 2, "id": ID}, None),
        (None, None),
    ],
)
def test_a_press_is_worth_a_number_within_the_bounds_under_an_id_from_a_revision(
    heard: object, pressed: Pressed | None
) -> None:
    assert said(heard, (1.0, 10.0), True) == pressed
