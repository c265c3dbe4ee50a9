"""What the report says of rows: every figure by hand."""

import json

import msgspec
import pytest

from tests.cli.rows import changed, command, measured, numbered, one_cycle, started
from trainer_core.cli.statistics import final_statistics
from trainer_core.spec.commands import CommandState
from trainer_core.spec.phases import Phase
from trainer_core.spec.records import AttemptStarted, CheckpointSaved, PredictionEnded, ValidationMeasured
from trainer_core.telemetry.as_json import strict
from trainer_core.telemetry.report import Predictions, report


def test_steps_of_an_abandoned_attempt_are_taken_back_but_its_backward_passes_are_charged() -> None:
    said = report(one_cycle())
    assert said.steps == 6
    assert said.steps_per_phase == {Phase.WARMUP: 3, Phase.FULL: 3, Phase.PREDICT: 0, Phase.CORRECT: 0}
    assert said.backward_passes == 7
    assert said.backward_reduction == pytest.approx(1 - 7 / 6)
    assert said.attempts == 2


def test_a_stretch_counts_as_predicted_steps_without_backward_passes() -> None:
    said = report(one_cycle()[:16])
    assert said.steps == 10
    assert said.steps_per_phase == {Phase.WARMUP: 3, Phase.FULL: 2, Phase.PREDICT: 4, Phase.CORRECT: 1}
    assert said.backward_reduction == pytest.approx(1 - 6 / 10)


def test_predictions_entered_kept_and_undone_are_counted() -> None:
    verdicts = [
        (1.0, 0, changed(2, Phase.FULL, Phase.PREDICT, "confident")),
        (2.0, 0, PredictionEnded(3, 1, False, 0, "the probe says worse", 1.0, 1.1, 0.9, None)),
        (3.0, 0, changed(4, Phase.FULL, Phase.PREDICT, "confident")),
    ]
    assert report(numbered(verdicts)).predictions == Predictions(entered=2, kept=0, undone=1)
    assert report(one_cycle()).predictions == Predictions(entered=1, kept=1, undone=0)


def test_a_validation_of_the_abandoned_stretch_is_not_the_runs_validation() -> None:
    said = report(one_cycle())
    assert said.validation_loss is None
    assert said.final_loss == 2.3
    assert report(one_cycle()[:16]).validation_loss is None
    assert report(one_cycle()[:18]).validation_loss == 1.7


def test_the_last_state_of_each_command_is_reported_with_why_it_was_refused() -> None:
    force, rollback = report(one_cycle()).commands
    assert (force.kind, force.state, force.step, force.before, force.after) == (
        "force-full",
        CommandState.APPLIED,
        10,
        "CORRECT",
        "FULL",
    )
    assert (rollback.kind, rollback.state, rollback.why) == (
        "rollback",
        CommandState.REJECTED,
        "there is no checkpoint",
    )


def test_time_between_a_crash_and_the_resume_is_not_wall_time() -> None:
    rows = [
        (0.0, 0, started()),
        (5.0, 0, measured(1, Phase.WARMUP, 1.0, 1)),
        (1000.0, 1, started(1)),
        (1002.0, 1, measured(2, Phase.WARMUP, 1.0, 2)),
    ]
    assert report(numbered(rows)).wall_seconds == 7.0


def test_the_baseline_is_an_estimate_from_full_steps_without_the_predictors_share() -> None:
    rows = [
        (0.0, 0, started()),
        (1.0, 0, measured(1, Phase.FULL, 1.0, 1, 0.30, predict_seconds=0.10)),
        (2.0, 0, measured(2, Phase.PREDICT, 1.0, 1, 0.05)),
        (3.0, 0, measured(3, Phase.PREDICT, 1.0, 1, 0.05)),
    ]
    estimate = report(numbered(rows)).estimate
    assert estimate is not None
    assert estimate.baseline_seconds == pytest.approx(0.6)
    assert estimate.speedup == pytest.approx(0.6 / 0.4)
    assert "estimate" in (type(estimate).__doc__ or "") and estimate.full_steps_measured == 1


def test_no_rows_give_no_invented_figures() -> None:
    said = report([])
    assert (said.steps, said.backward_reduction, said.final_loss, said.estimate) == (0, None, None, None)


def test_json_says_nan_and_not_measured_apart() -> None:
    values = strict({"nan": float("nan"), "up": float("inf"), "down": [float("-inf")], "none": None, "x": 1.5})
    assert json.loads(json.dumps(values, allow_nan=False)) == {
        "nan": "NaN",
        "up": "Infinity",
        "down": ["-Infinity"],
        "none": None,
        "x": 1.5,
    }


def test_a_plain_run_is_compared_with_no_estimate_of_itself() -> None:
    said = report(one_cycle())
    text = "\n".join(final_statistics(msgspec.structs.replace(said, plain=True)))
    assert "Plain baseline" in text and "Backward passes: 7\n" in text
    assert not any(word in text for word in ("Speedup", "Time saved", "Loss gap", "Predictions:"))
    assert "Speedup" in "\n".join(final_statistics(said))


def test_costs_below_zero_are_said_in_words() -> None:
    said = report(one_cycle())
    assert said.ledger.saved is not None
    saved = msgspec.structs.replace(said.ledger.saved, gross_seconds=0.0, costs_seconds=-0.59, net_seconds=0.59)
    ledger = msgspec.structs.replace(said.ledger, saved=saved)
    text = "\n".join(final_statistics(msgspec.structs.replace(said, ledger=ledger)))
    assert "0.00 s of skipped backward passes + 0.59 s by which the other steps were faster" in text


def test_a_validation_of_an_earlier_step_says_which() -> None:
    said = report(one_cycle()[:18])
    assert said.validation_loss == 1.7 and said.validated_at is not None
    later = msgspec.structs.replace(said, steps=said.validated_at + 640)
    text = next(line for line in final_statistics(later) if line.startswith("Validation loss: 1.700"))
    assert text.endswith(f" (of step {said.validated_at})")
    same = msgspec.structs.replace(said, steps=said.validated_at)
    assert "(of step" not in "\n".join(final_statistics(same))


def test_what_a_resume_says_before_its_first_word_is_not_time_that_it_lived() -> None:
    """What it was told meanwhile, and what it goes on from, come before the record that says it began."""
    rows = [
        (0.0, 0, started()),
        (5.0, 0, measured(1, Phase.WARMUP, 1.0, 1)),
        (1000.0, 0, command(CommandState.ACCEPTED, 1)),
        (1001.0, 1, AttemptStarted(1, 1, 0, 1, "step-000001", "resumed")),
        (1002.0, 1, started(1)),
        (1004.0, 1, measured(2, Phase.WARMUP, 1.0, 2)),
        (1009.0, 2, AttemptStarted(1, 2, 1, 2, "step-000001", "rolled back by ann")),
        (1010.0, 2, measured(2, Phase.WARMUP, 1.0, 2)),
    ]
    assert report(numbered(rows)).wall_seconds == pytest.approx(5.0 + 2.0 + 2.0 + 5.0 + 1.0)


def test_losses_and_validations_from_before_a_rollback_are_the_runs_again() -> None:
    rows = [
        (0.0, 0, measured(1, Phase.FULL, 3.0, 1)),
        (1.0, 0, measured(2, Phase.FULL, 2.5, 2)),
        (1.0, 0, ValidationMeasured(2, 2.6, 0.5, 0.1)),
        (2.0, 0, measured(3, Phase.FULL, 2.0, 3)),
        (3.0, 0, measured(4, Phase.FULL, 1.5, 4)),
        (3.0, 0, ValidationMeasured(4, 1.6, 0.7, 0.1)),
        (4.0, 1, AttemptStarted(2, 1, 0, 4, "step-000002", "rolled back by ann")),
    ]
    said = report(numbered(rows))
    assert (said.final_loss, said.validation_loss, said.validation_accuracy, said.validated_at) == (2.5, 2.6, 0.5, 2)
    again = report(numbered([*rows, (5.0, 1, AttemptStarted(0, 2, 1, 2, "step-000000", "rolled back by ann"))]))
    assert (again.final_loss, again.validation_loss, again.steps) == (None, None, 0)


def test_a_prediction_that_goes_on_after_a_resume_was_entered() -> None:
    """It ended once in the attempt that was given up, and once more: two verdicts are not two of one prediction."""
    rows = [
        (1.0, 0, changed(2, Phase.FULL, Phase.PREDICT, "confident")),
        (2.0, 0, PredictionEnded(3, 1, True, 2, "kept", 1.0, 0.9, 0.9, None)),
        (3.0, 1, AttemptStarted(2, 1, 0, 3, "step-000002", "resumed")),
        (4.0, 1, PredictionEnded(3, 1, True, 2, "kept", 1.0, 0.9, 0.9, None)),
    ]
    assert report(numbered(rows)).predictions == Predictions(entered=2, kept=2, undone=0)


def test_steps_that_a_rollback_gave_up_and_another_brought_back_are_the_runs() -> None:
    rows = [
        *((float(s), 0, measured(s, Phase.WARMUP if s < 3 else Phase.FULL, 9.0 - s, s)) for s in (1, 2, 3, 4)),
        (4.0, 0, ValidationMeasured(4, 5.5, None, 0.1)),
        (4.0, 0, CheckpointSaved(4, "step-000004", 10, True, "x", 0.1)),
        (5.0, 0, measured(5, Phase.FULL, 4.0, 5)),
        (6.0, 1, AttemptStarted(1, 1, 0, 5, "step-000001", "rolled back by ann")),
        (7.0, 1, measured(2, Phase.FULL, 7.0, 6)),
        (8.0, 2, AttemptStarted(4, 2, 1, 2, "step-000004", "rolled back by ann")),
    ]
    said = report(numbered(rows))
    assert (said.steps, said.final_loss, said.validation_loss, said.validated_at) == (4, 5.0, 5.5, 4)
    assert (said.steps_per_phase[Phase.WARMUP], said.steps_per_phase[Phase.FULL]) == (2, 2)
    again = report(numbered([*rows, (9.0, 2, measured(5, Phase.FULL, 3.5, 7))]))
    assert (again.steps, again.ledger.nominal_steps, again.final_loss) == (5, 5, 3.5)
