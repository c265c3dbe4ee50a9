"""The ledger and the comparison with a baseline: every figure by hand, from invented rows."""

import msgspec
import pytest

from tests.cli.rows import changed, measured, numbered, one_cycle, started
from trainer_core.spec.errors import UserError
from trainer_core.spec.phases import Phase
from trainer_core.spec.records import (
    AttemptStarted,
    CheckpointSaved,
    CorrectionApplied,
    PredictedStretch,
    PredictionEnded,
    PredictionProbed,
    ProgressCompared,
    Record,
    Row,
    RunStarted,
    RunState,
    ValidationMeasured,
)
from trainer_core.telemetry.comparison import Told, compare, loss_at, notes_on, told
from trainer_core.telemetry.savings import Ledger, LedgerTally

W, F, P, C = Phase.WARMUP, Phase.FULL, Phase.PREDICT, Phase.CORRECT


def rows_of(records: list[Record], attempts: dict[int, int] | None = None) -> list[Row]:
    """Records as rows; ``attempts``: index of a record -> attempt from there on."""
    attempt, said = 0, []
    for i, record in enumerate(records):
        attempt = (attempts or {}).get(i, attempt)
        said.append((float(i), attempt, record))
    return list(numbered(said))


def ledger_of(records: list[Record]) -> Ledger:
    tally = LedgerTally()
    for row in rows_of(records):
        tally.take(row)
    return tally.ledger()


def probed(step: int, seconds: float) -> PredictionProbed:
    return PredictionProbed(step, 1, 4, 2.0, 1.9, 0.1, 0.01, 10.0, 0.99, True, False, seconds)


def moved(first: int, last: int, backward: int, seconds: float) -> PredictedStretch:
    return PredictedStretch(
        last, first, last, first, 1, (1.8, 1.7), (1.7, 1.6), (1.9, 1.8), 0.1, 0.9, seconds, backward
    )


def ended(step: int, steps: int, kept: bool, snapshot: float, seconds: float) -> PredictionEnded:
    return PredictionEnded(step, 1, kept, steps, "x", 2.0, 1.9, 0.9, None, snapshot, seconds)


def cycle(kept: bool) -> list[Record]:
    """Two full steps of 0.10 (0.01 of it watching), a jump of four steps, one correcting step, one more full step.

    The correcting step holds probe 0.03, snapshot 0.02, move 0.01 and correction 0.04, and 0.01 of watching; the last
    full step holds the verdict of 0.05.
    """
    return [
        started(),
        measured(1, F, 2.2, 1, 0.10, predict_seconds=0.01, forward_seconds=0.03),
        measured(2, F, 2.1, 2, 0.10, predict_seconds=0.01, forward_seconds=0.03),
        probed(2, 0.03),
        changed(3, F, P, "confident"),
        moved(3, 6, 2, 0.01),
        changed(7, P, C, "horizon reached"),
        CorrectionApplied(6, 1, 5, 2, (), 0.1, 0.01, True, "better", 0.04),
        measured(7, C, 1.9, 3, 0.22, predict_seconds=0.11),
        ended(7, 4, kept, 0.02, 0.05),
        changed(8, C, F, "corrected"),
        measured(8, F, 1.8, 4, 0.15, predict_seconds=0.06),
    ]


def test_every_second_is_charged_once_and_has_a_name() -> None:
    ledger = ledger_of(cycle(kept=True))
    assert ledger.charged_seconds == pytest.approx(0.10 + 0.10 + 0.22 + 0.15)
    seconds = sum(cost.seconds for cost in ledger.phases.values())
    assert seconds + ledger.prediction.total == pytest.approx(ledger.charged_seconds)
    p = ledger.prediction
    assert (p.probes, p.snapshots, p.moves, p.corrections, p.verdicts) == pytest.approx((0.03, 0.02, 0.01, 0.04, 0.05))
    assert ledger.phases[F].seconds == pytest.approx(0.10 + 0.10 + 0.15 - 0.05)
    assert ledger.phases[F].forward_seconds == pytest.approx(0.06)
    assert (ledger.phases[P].predicted, ledger.phases[P].steps, ledger.phases[C].backward_passes) == (4, 0, 1)


def test_the_snapshot_is_named_at_the_verdict_and_charged_once() -> None:
    """It was taken inside the correcting step, whose own seconds say so; the record comes one step later."""
    before, after = ledger_of(cycle(kept=True)[:9]), ledger_of(cycle(kept=True)[:10])
    assert (before.prediction.snapshots, after.prediction.snapshots) == (0.0, 0.02)
    assert before.charged_seconds == pytest.approx(0.42)
    assert after.charged_seconds == pytest.approx(0.42 + 0.05)
    assert before.phases[C].observing_seconds - after.phases[C].observing_seconds == pytest.approx(0.02)


def test_time_saved_is_net_of_everything_and_says_that_it_is_an_estimate() -> None:
    ledger = ledger_of(cycle(kept=True))
    saved = ledger.saved
    assert saved is not None and saved.basis == "estimate"
    assert ledger.backward_skipped == 4
    each = saved.plain_step_seconds
    assert each == pytest.approx(0.09)
    assert saved.gross_seconds == pytest.approx(4 * each)
    assert saved.net_seconds == pytest.approx(8 * each - ledger.charged_seconds)
    assert saved.net_seconds == pytest.approx(saved.gross_seconds - saved.costs_seconds)
    assert saved.speedup == pytest.approx(8 * each / ledger.charged_seconds)


def test_an_undone_prediction_is_shown_with_its_steps_and_its_time() -> None:
    kept, undone = ledger_of(cycle(kept=True)), ledger_of(cycle(kept=False))
    assert (kept.undone.predictions, kept.undone.steps, kept.undone.seconds) == (0, 0, 0.0)
    assert (undone.undone.predictions, undone.undone.steps, undone.undone.backward_passes) == (1, 4, 1)
    assert undone.undone.seconds == pytest.approx(0.22 - 0.03 + 0.05)
    assert undone.charged_seconds == kept.charged_seconds


def test_what_an_operators_command_took_between_two_steps_is_charged_too() -> None:
    asked = [measured(1, F, 2.0, 1, 0.1, predict_seconds=0.01), probed(1, 0.5), measured(2, F, 2.0, 2, 0.1)]
    assert ledger_of(asked).charged_seconds == pytest.approx(0.7)


def test_abandoned_work_is_charged_and_shown_by_itself() -> None:
    records: list[Record] = [
        *(measured(s, F, 2.0, s, 0.1) for s in (1, 2, 3, 4)),
        AttemptStarted(2, 1, 0, 4, "step-2", "nan", 0.3),
        *(measured(s, F, 2.0, s + 2, 0.2) for s in (3, 4, 5)),
    ]
    ledger = ledger_of(records)
    assert (ledger.nominal_steps, ledger.backward_passes, ledger.backward_skipped) == (5, 7, -2)
    assert (ledger.abandoned.steps, ledger.abandoned.backward_passes) == (2, 2)
    assert ledger.abandoned.seconds == pytest.approx(0.2)
    assert ledger.prediction.rollbacks == pytest.approx(0.3)
    assert ledger.charged_seconds == pytest.approx(0.4 + 0.3 + 0.6)
    first, second = ledger.attempts
    assert (first.from_step, first.to_step, first.abandoned_steps, first.backward_passes) == (0, 4, 2, 4)
    assert (second.from_step, second.to_step, second.abandoned_steps, second.backward_passes) == (2, 5, 0, 3)
    assert second.seconds == pytest.approx(0.9)


def test_a_second_rollback_behind_the_first_abandons_steps_of_both_attempts() -> None:
    records: list[Record] = [
        *(measured(s, F, 2.0, s, 0.1) for s in (1, 2, 3, 4)),
        AttemptStarted(3, 1, 0, 4, "step-3", "nan"),
        measured(4, F, 2.0, 5, 0.1),
        AttemptStarted(1, 2, 1, 4, "step-1", "operator"),
        measured(2, F, 2.0, 6, 0.1),
    ]
    ledger = ledger_of(records)
    assert [a.abandoned_steps for a in ledger.attempts] == [3, 1, 0]
    assert (ledger.abandoned.steps, ledger.abandoned.backward_passes, ledger.nominal_steps) == (4, 4, 2)


def test_who_rolled_back_too_far_and_goes_forward_again_has_given_up_only_the_rest() -> None:
    """Steps 3 and 4 were given up at first; the checkpoint of step 4 brings them back, and 5 and the new 3 are gone."""
    records: list[Record] = [
        *(measured(s, F, 2.0, s, 0.1, loss_ema=10.0 - s) for s in (1, 2)),
        CheckpointSaved(2, "step-000002", 10, True, "x", 0.0),
        *(measured(s, F, 2.0, s, 0.1, loss_ema=10.0 - s) for s in (3, 4)),
        ValidationMeasured(4, 6.5, None, 0.0),
        CheckpointSaved(4, "step-000004", 10, True, "x", 0.0),
        measured(5, F, 2.0, 5, 0.1),
        AttemptStarted(2, 1, 0, 5, "step-000002", "operator"),
        measured(3, F, 2.0, 6, 0.1, loss_ema=1.0),
        ValidationMeasured(3, 1.5, None, 0.0),
        AttemptStarted(4, 2, 1, 3, "step-000004", "operator"),
        measured(5, F, 2.0, 7, 0.1, loss_ema=5.0),
    ]
    ledger = ledger_of(records)
    assert [a.abandoned_steps for a in ledger.attempts] == [1, 1, 0]
    assert (ledger.nominal_steps, ledger.backward_passes, ledger.backward_skipped) == (5, 7, -2)
    assert (ledger.abandoned.steps, ledger.abandoned.backward_passes) == (2, 2)
    assert ledger.abandoned.seconds == pytest.approx(0.2)
    curve = told("x", rows_of(records)).curve
    assert (list(curve.steps), list(curve.backward)) == ([1, 2, 3, 4, 5], [1, 2, 3, 4, 7])
    assert list(curve.ema) == [9.0, 8.0, 7.0, 6.0, 5.0] and curve.validations == ((4, 6.5),)


def test_validation_and_checkpoints_are_told_but_not_charged() -> None:
    ledger = ledger_of(
        [
            measured(1, F, 2.0, 1, 0.1),
            ValidationMeasured(1, 2.0, None, 3.0),
            CheckpointSaved(1, "step-1", 10, True, "x", 5.0),
        ]
    )
    assert (ledger.validation_seconds, ledger.checkpoint_seconds) == (3.0, 5.0)
    assert ledger.charged_seconds == pytest.approx(0.1)


def test_records_of_an_older_version_lack_seconds_and_invent_none() -> None:
    ledger = ledger_of([row.record for row in one_cycle()])
    assert (ledger.prediction.snapshots, ledger.prediction.verdicts, ledger.prediction.corrections) == (0.0, 0.0, 0.0)
    assert ledger.attempts[0].abandoned_steps == 5 and ledger.abandoned.steps == 5


def test_training_a_learned_predictor_is_part_of_its_watching() -> None:
    cost = ledger_of([measured(1, F, 2.0, 1, 0.1, predict_seconds=0.03, predictor_train_seconds=0.02)]).phases[F]
    assert (cost.seconds, cost.observing_seconds, cost.training_seconds) == (0.1, 0.03, 0.02)


def test_the_progress_guards_tests_are_charged_as_probes() -> None:
    asked = [ProgressCompared(1, 0.1, 0.2, -2.0, 6, 0.4), measured(2, F, 2.0, 2, 0.6, predict_seconds=0.5)]
    ledger = ledger_of(asked)
    assert (ledger.prediction.probes, ledger.charged_seconds) == pytest.approx((0.4, 0.6))


def test_no_rows_have_no_savings() -> None:
    assert ledger_of([]).saved is None and ledger_of([]).nominal_steps == 0


# -- beside a baseline ----------------------------------------------------------------------------------------------


def begun(plain: bool = False, **changes: object) -> RunStarted:
    config = {"training": {"batch_size": 64, "seed": 0}, "model": {"hidden_dim": None}, "dataset": {"domain": "x"}}
    return msgspec.structs.replace(started(), plain=plain, config=config, **changes)


def plain_run(**changes: object) -> Told:
    """Ten steps of 0.1 (and 0.02 of watching), validated at 2, 4, ... 10 with losses 1.8, 1.6, ... 1.0."""
    records: list[Record] = [begun(plain=True, **changes)]
    for s in range(1, 11):
        records.append(measured(s, F, 2.0, s, 0.12, predict_seconds=0.02))
        if s % 2 == 0:
            records.append(ValidationMeasured(s, 2.0 - s / 10, None, 9.0))
    return told("plain", rows_of([*records, RunState(10, "finished", "x")]))


def hybrid_run(final: float = 0.9, **changes: object) -> Told:
    """Two full steps of 0.1, a jump to step 9, a tenth step; validated at 2 (1.8) and 10."""
    records: list[Record] = [
        begun(**changes),
        measured(1, F, 2.0, 1, 0.1),
        measured(2, F, 2.0, 2, 0.1),
        ValidationMeasured(2, 1.8, None, 9.0),
        changed(3, F, P, "confident"),
        moved(3, 9, 2, 0.01),
        measured(10, C, 1.0, 3, 0.11, predict_seconds=0.01),
        ValidationMeasured(10, final, None, 9.0),
    ]
    return told("hybrid", rows_of(records))


def test_the_gap_is_measured_at_equal_steps_passes_and_seconds() -> None:
    c = compare(hybrid_run(), plain_run())
    assert c.measure == "validation loss" and c.notes == ()
    steps, passes, seconds = c.at_equal_steps, c.at_equal_backward_passes, c.at_equal_seconds
    assert steps is not None and passes is not None and seconds is not None
    assert (steps.at, steps.run, steps.baseline) == (10, 0.9, 1.0)
    assert steps.gap == pytest.approx(-0.1)
    assert (passes.at, passes.baseline) == (3, pytest.approx(1.7))
    assert (seconds.at, seconds.baseline) == (pytest.approx(0.31), pytest.approx(1.69))


def test_the_baseline_is_not_charged_for_the_trainers_bookkeeping() -> None:
    c = compare(hybrid_run(), plain_run())
    assert c.baseline_seconds == pytest.approx(1.0)
    assert c.saved is not None and c.saved.basis == "measured"
    assert c.saved.baseline_seconds == pytest.approx(1.0)
    assert c.saved.speedup == pytest.approx(1.0 / 0.31)


def test_cost_to_equal_loss_counts_what_was_paid_when_it_was_reached() -> None:
    equal = compare(hybrid_run(), plain_run()).equal_loss
    assert equal is not None and equal.run is not None
    assert (equal.loss, equal.baseline.backward_passes, equal.run.backward_passes) == (1.0, 10, 3)
    assert equal.backward_reduction == pytest.approx(0.7)
    assert equal.speedup == pytest.approx(1.0 / 0.31)


def test_a_loss_never_reached_has_no_speedup() -> None:
    equal = compare(hybrid_run(final=1.1), plain_run()).equal_loss
    assert equal is not None
    assert (equal.run, equal.speedup, equal.backward_reduction) == (None, None, None)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"task": "code_lm"}, ["task", "code_lm", "digits"]),
        ({"parameters": 11}, ["parameters", "11", "10"]),
        ({"layers": ("v",)}, ["layers", "v", "w"]),
        ({"config": {"training": {"batch_size": 32}}}, ["batch_size", "32", "64"]),
        ({"config": {"training": {"batch_size": 64}, "model": {"hidden_dim": 8}}}, ["hidden_dim", "8"]),
    ],
)
def test_another_task_model_or_batch_size_is_refused_with_what_differs(
    changes: dict[str, object], named: list[str]
) -> None:
    base = plain_run()
    assert base.started is not None
    other = msgspec.structs.replace(base, started=msgspec.structs.replace(base.started, **changes))
    with pytest.raises(UserError, match="cannot be the baseline") as refused:
        compare(hybrid_run(), other)
    assert all(word in str(refused.value) for word in named)


def test_a_run_that_predicted_is_no_baseline() -> None:
    with pytest.raises(UserError, match=r"predicted 7 steps.*--plain"):
        compare(plain_run(), hybrid_run())


def test_another_seed_rate_or_device_is_noted() -> None:
    base = plain_run(device="cuda")
    assert base.started is not None
    config = {**base.started.config, "training": {"batch_size": 64, "seed": 1}, "learning_rate": {"initial": 1e-3}}
    other = msgspec.structs.replace(base, started=msgspec.structs.replace(base.started, config=config))
    notes = compare(hybrid_run(), other).notes
    assert any("training.seed differs: 1 there, 0 here" in note for note in notes)
    assert any("learning_rate.initial differs: 0.001 there, None here" in note for note in notes)
    assert any("device differs" in note for note in notes)


def test_without_validations_the_training_loss_is_compared_and_that_is_said() -> None:
    def run(name: str, losses: list[float]) -> Told:
        steps = [measured(s, F, 9.0, s, 0.1, loss_ema=loss) for s, loss in enumerate(losses, start=1)]
        return told(name, rows_of([begun(plain=True), *steps]))

    c = compare(run("a", [2.0, 1.0]), run("b", [2.0, 1.6, 0.8]))
    assert c.measure == "training loss EMA"
    assert c.at_equal_steps is not None and (c.at_equal_steps.run, c.at_equal_steps.baseline) == (1.0, 1.6)
    assert any("has not finished" in note for note in c.notes)


def test_validations_of_an_abandoned_stretch_are_not_compared() -> None:
    records: list[Record] = [
        begun(plain=True),
        measured(1, F, 2.0, 1, 0.1),
        ValidationMeasured(1, 2.0, None, 0.0),
        measured(2, F, 2.0, 2, 0.1),
        ValidationMeasured(2, 0.1, None, 0.0),
        AttemptStarted(1, 1, 0, 2, "step-1", "operator"),
        measured(2, F, 2.0, 3, 0.1),
        ValidationMeasured(2, 1.5, None, 0.0),
    ]
    curve = told("x", rows_of(records)).curve
    assert curve.validations == ((1, 2.0), (2, 1.5))
    assert (list(curve.steps), list(curve.backward)) == ([1, 2], [1, 3])


@pytest.mark.parametrize(
    ("x", "loss"), [(1.0, 4.0), (1.5, 3.0), (2.0, 1.0), (2.5, 0.5), (3.0, 0.0), (0.9, None), (3.1, None)]
)
def test_a_loss_is_interpolated_between_measurements_and_never_beyond(x: float, loss: float | None) -> None:
    assert loss_at([(1.0, 4.0), (2.0, 2.0), (2.0, 1.0), (3.0, 0.0)], x) == loss


def test_a_baseline_whose_data_lay_elsewhere_is_told() -> None:
    config = {**begun().config, "dataset": {"domain": "x", "folder": "/data/a"}}
    run = msgspec.structs.replace(begun(), config=config)
    assert "the data come from other folders (the task there, /data/a here)" in notes_on(run, plain_run())
