"""The Phases page's guards say what the engine's said, and its head says why."""

import msgspec

from app.store import Snapshot, Store
from app.views.lifecycle import lifecycle
from app.views.phases_machine import locked, machine, reasons, standing
from app.views.phases_why import Why, why
from app.views.settings import present_config
from app.views.symptoms import little_saved
from tests.app.rows import Script, cycled
from tests.app.test_own_loops import own_loop
from tests.app.test_views import seen
from trainer_core.spec.commands import CommandState, LockPrediction
from trainer_core.spec.config import Config
from trainer_core.spec.phases import Phase
from trainer_core.spec.records import (
    Explained,
    GuardLine,
    PhaseChanged,
    PredictionProbed,
    ProgressCompared,
    Row,
    RunStarted,
)
from trainer_core.spec.transitions import TRANSITIONS


def probe(step: int, confidence: float, shadow: bool = False) -> PredictionProbed:
    return PredictionProbed(step, 1, 12, 1.0, 0.9, 0.1, 0.05, 2.0, confidence, True, shadow, 0.01)


def head(script: Script, state: str = "working") -> Why:
    snapshot = seen(script)
    config = present_config(snapshot)
    return why(snapshot, state, machine(snapshot, config), config)


def test_the_engines_own_word_of_the_newest_step_is_shown_as_it_is() -> None:
    script = Script().start().steps(5)
    script.say(Explained(5, Phase.WARMUP, (GuardLine(Phase.FULL, "warmup_ran", True, "said by the engine"),)))
    snapshot = seen(script)
    asked = standing(snapshot, Phase.WARMUP, present_config(snapshot))
    assert (asked.live, asked.step, asked.answers["warmup_ran"].detail) == (True, 5, "said by the engine")
    script.steps(1, loss_change=0.5)
    snapshot = seen(script)
    asked = standing(snapshot, Phase.WARMUP, present_config(snapshot))
    assert asked.answers["warmup_ran"].detail == "6 of 100 steps"
    assert asked.answers["loss_stable"].detail == "0.50 is not < 0.25"


def test_what_the_engine_said_of_steps_that_are_gone_is_asked_anew() -> None:
    script = Script().start().steps(40)
    script.say(Explained(40, Phase.WARMUP, (GuardLine(Phase.FULL, "warmup_ran", True, "40 of 100 steps"),)))
    script.roll_back(5)
    script.steps(1)
    asked = standing(seen(script), Phase.WARMUP, Config())
    assert (asked.step, asked.answers["warmup_ran"].detail) == (6, "6 of 100 steps")


def test_a_phase_that_was_left_answers_with_what_took_it_away() -> None:
    script = Script().start().steps(3)
    script.enter(Phase.FULL, 10)
    script.steps(10, budget=10, full_needed=10)
    script.enter(Phase.PREDICT, 12, because=("full_cycle_ran (10 of 10 steps)", "confident (0.91 > 0.85)"))
    script.steps(2, budget=12, predicted_loss=1.0, prediction_error=0.3, loss_deviation=0.4, horizon=12)
    script.enter(Phase.CORRECT, 3, because=("prediction_off (0.3 > 0.2)",))
    script.steps(1, budget=3)
    snapshot = seen(script)
    found = machine(snapshot, present_config(snapshot))
    full, predict = found.standings[Phase.FULL], found.standings[Phase.PREDICT]
    assert (full.live, full.answers["confident"].holds, full.answers["confident"].detail) == (
        False,
        True,
        "0.91 > 0.85",
    )
    assert predict.answers["prediction_off"].holds
    assert predict.answers["loss_deviates"].detail == "0.40 is not > 3"
    assert predict.answers["horizon_reached"].detail == "2 of 12 steps"
    assert found.taken is not None and found.taken.row is not None
    assert TRANSITIONS[found.taken.row].cause == "prediction error"


def test_a_jump_is_asked_only_what_it_can_answer() -> None:
    script = cycled(1)
    snapshot = seen(script)
    assert set(standing(snapshot, Phase.PREDICT, present_config(snapshot)).answers) == {
        "confident"
    }  # what rows.py says
    script.enter(Phase.FULL, 10)
    script.steps(10)
    script.enter(Phase.PREDICT, 12)
    script.stretch(12)
    snapshot = seen(script)
    asked = standing(snapshot, Phase.PREDICT, present_config(snapshot))
    assert {name: answer.detail for name, answer in asked.answers.items()} == {"horizon_reached": "12 of 12 steps"}


def test_reasons_that_are_no_guards_name_no_row() -> None:
    assert reasons(("step 12: NaN or Inf",)) == {}
    script = Script().start().steps(3)
    script.enter(Phase.FULL, 10, because=("not_finite (NaN or Inf)",))
    taken = machine(seen(script), Config()).taken
    assert taken is not None and taken.row is not None and TRANSITIONS[taken.row].cause == "NaN or Inf"


def test_warmup_says_steps_to_go_and_then_that_the_loss_has_not_settled() -> None:
    assert head(Script().start().steps(30, loss_change=0.5)).answer == "Warming up: 70 steps to go of 100."
    waiting = head(Script().start().steps(120, loss_change=0.5))
    assert waiting.answer == "Warming up: the loss has not settled (0.50 is not < 0.25)."
    assert waiting.more == "WARMUP ends at step 500 at the latest."
    assert [(line.holds, line.detail) for line in waiting.lines[:2]] == [
        (True, "120 of 100 steps"),
        (False, "0.50 is not < 0.25"),
    ]


def in_full(steps: int = 4, needed: int = 10, **fields: object) -> Script:
    script = Script().start().steps(3)
    script.enter(Phase.FULL, needed)
    return script.steps(steps, budget=needed, full_needed=needed, **fields)


def test_full_says_how_many_steps_to_the_next_look_and_what_the_last_one_found() -> None:
    script = in_full(4)
    script.say(probe(7, 0.64))
    shown = head(script)
    assert (shown.title, shown.answer) == (
        "Why not predicting yet?",
        "6 full steps to go before the next look at a prediction.",
    )
    assert shown.more == "Last look at step 7, 12 steps ahead: confidence 0.64, z = 2.00: it was not taken."
    assert [line.holds for line in shown.lines] == [False, False, True, True]
    assert head(in_full(10)).answer == "The window is full: it looks for a prediction before the next step."
    assert head(in_full(12)).answer.startswith("It takes full steps only for a while")


def test_a_divergence_a_lock_and_a_pause_are_said_before_the_window() -> None:
    assert head(in_full(4, since_divergence=2)).answer == (
        "It diverged a short while ago: last divergence 2 steps ago, needs 10."
    )
    script = in_full(4)
    script.say(ProgressCompared(5, 0.1, 0.2, -2.0, 30, 0.1))
    assert (
        head(script).answer == "Predictions pause for 28 full steps: for their cost they were slower than full steps."
    )
    script.command(LockPrediction(locked=True), CommandState.APPLIED)
    assert head(script).answer == "Prediction is locked by an operator: unlock it on the Control page."


def test_a_rollback_ends_a_pause_of_predictions_and_a_resume_does_not() -> None:
    script = in_full(4)
    script.say(ProgressCompared(script.step, 0.1, 0.2, -2.0, 30, 0.1))
    script.roll_back(script.step, "resumed")
    script.steps(1, full_needed=10)
    assert "pause for 29 full steps" in head(script).answer
    script.roll_back(script.step - 1)
    script.steps(1, full_needed=10)
    assert "full steps to go before the next look" in head(script).answer


def test_a_plain_run_is_locked_until_somebody_unlocks_it() -> None:
    script = in_full(4)
    started = script.rows[0].record
    assert isinstance(started, RunStarted)
    script.rows[0] = Row(1, script.rows[0].time, 1, msgspec.structs.replace(started, plain=True))
    assert head(script).answer == "Prediction is locked: a plain run, to compare others with."
    line = next(line for line in head(script).lines if "locked" in line.text)
    assert line.holds is False and line.detail == "locked from the start: a plain run"
    assert lifecycle(seen(script)).verdicts == "A plain run, to compare others with: prediction is locked."
    assert little_saved(seen(script.steps(300)), Config()) == (None, "this run predicts nothing")
    script.command(LockPrediction(locked=False), CommandState.APPLIED)
    assert not locked(seen(script))


def test_the_head_of_predict_and_correct_counts_their_steps() -> None:
    script = in_full(10)
    script.enter(Phase.PREDICT, 12)
    script.stretch(5)
    assert head(script).answer == "Predicting in one jump: step 5 of 12, no backward pass."
    script.enter(Phase.CORRECT, 3)
    assert head(script).answer == "Checking the prediction: its full steps come now."
    script.steps(1, budget=3)
    shown = head(script)
    assert (shown.title, shown.answer) == (
        "What ends this correction?",
        "Checking the prediction: 1 of 3 full steps taken.",
    )


def test_a_run_that_is_over_or_has_no_phases_does_not_ask_why() -> None:
    shown = head(in_full(4), "crashed")
    assert (shown.title, shown.answer[:20]) == ("How it stood", "The run has crashed.")
    assert head(Script()).answer == "No step has been taken yet."
    assert "Monitor" in head(own_loop()).answer and not head(own_loop()).lines
    assert machine(seen(own_loop()), Config()).active is None


def test_the_first_phase_change_is_remembered_however_many_follow() -> None:
    snapshot: Snapshot = seen(cycled(40))
    assert len(snapshot.events[PhaseChanged]) > 100
    assert standing(snapshot, Phase.WARMUP, present_config(snapshot)).step == 20


def test_an_empty_store_asks_nothing() -> None:
    found = machine(Store().snapshot(), None)
    assert found.active is None and found.taken is None
    assert all(not one.answers for one in found.standings.values())
