"""Claims about the phases of a real run: legal, complete, honest about what was measured, and undone bit for bit."""

import hashlib
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.engine.rig import Rig, covered, network, same
from trainer_core.engine.checkpoints import Checkpoints
from trainer_core.engine.engine import Engine
from trainer_core.engine.session import Session
from trainer_core.engine.snapshot import copied
from trainer_core.spec.errors import TrainingFailed
from trainer_core.spec.loading import load
from trainer_core.spec.phases import Phase
from trainer_core.spec.records import (
    AttemptStarted,
    CorrectionApplied,
    Explained,
    PhaseChanged,
    PredictedStretch,
    PredictionEnded,
    PredictionProbed,
    Record,
    RunState,
    StepRecord,
    ValidationMeasured,
)
from trainer_core.spec.transitions import TRANSITIONS
from trainer_core.tasks import make_task, task_defaults

LEGAL = {(r.source, r.target) for r in TRANSITIONS}


def digits(folder: Path, steps: int, **overrides: str) -> tuple[Engine, list[tuple[Record, int]], list[int]]:
    """A whole run on digits; (engine, records, one entry per backward pass)."""
    config = load(None, None, {"max_steps": str(steps)} | overrides, task_defaults("digits")).config
    torch.manual_seed(config.training.seed)
    task = make_task("digits", config, None, torch.device("cpu"))
    model = task.model()
    passes: list[int] = []
    next(model.parameters()).register_hook(lambda grad: passes.append(1))
    records: list[tuple[Record, int]] = []
    optimizer = torch.optim.AdamW(model.parameters(), 1e-4)
    engine = Engine(model, optimizer, task.loss, config, lambda r, a: records.append((r, a)), total_steps=steps)
    session = Session(engine, Checkpoints(folder, 3), validate=lambda: task.validate(model))
    session.begin("training begins")
    while session.ended is None:
        engine.step(task.batch(engine.batches))
        session.after_step()
    session.close()
    return engine, records, passes


@pytest.fixture(scope="module", params=["adaptive", "document"])
def real_run(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Engine, list[tuple[Record, int]], list[int]]:
    """300 steps of digits under each policy."""
    full = {"min_full_steps": "1"}  # else FULL is passed through, where predictions follow one another
    lengths = full if request.param == "adaptive" else {"full_steps": "10", "max_predict_steps": "20"}
    torch.set_num_threads(1)
    return digits(tmp_path_factory.mktemp("run"), 300, policy=request.param, warmup_steps="30", **lengths)


Run = tuple[Engine, list[tuple[Record, int]], list[int]]


def test_every_phase_change_of_a_real_run_is_in_the_table_and_follows_the_one_before(real_run: Run) -> None:
    changes = [r for r, _ in real_run[1] if isinstance(r, PhaseChanged)]
    assert {c.to_phase for c in changes} == {Phase.FULL, Phase.PREDICT, Phase.CORRECT}
    phase = Phase.WARMUP
    for change in changes:
        assert (change.from_phase, change.to_phase) in LEGAL
        assert change.from_phase is phase
        assert change.because and all("(" in line for line in change.because)
        phase = change.to_phase


def test_steps_and_stretches_cover_the_run_without_gap_or_overlap(real_run: Run) -> None:
    assert covered(real_run[1]) == {0: (1, 300)}


def test_a_step_is_recorded_in_the_phase_that_the_changes_say(real_run: Run) -> None:
    phase = Phase.WARMUP
    for record, _ in real_run[1]:
        match record:
            case PhaseChanged(to_phase=target):
                phase = target
            case StepRecord():
                assert record.phase is phase
            case PredictedStretch():
                assert phase is Phase.PREDICT
            case _:
                pass


def test_only_backward_passes_that_ran_are_counted_and_only_they_have_gradients(real_run: Run) -> None:
    engine, records, passes = real_run
    assert engine.backward_passes == len(passes)
    steps = [r for r, _ in records if isinstance(r, StepRecord)]
    assert steps[-1].backward_passes <= len(passes) < 300
    counted = 0
    for s in steps:
        counted += s.phase is not Phase.PREDICT
        assert s.backward_passes == counted
        measured = [s.grad_norm, s.layer_grad_norms, s.grad_param_ratio, s.backward_seconds, s.optimizer_seconds]
        assert all((m is None) == (s.phase is Phase.PREDICT) for m in measured)
        assert (s.predicted_loss is not None) == (s.phase is Phase.PREDICT)
        if s.predicted_loss is not None and s.predicted_low is not None and s.predicted_high is not None:
            assert s.predicted_low < s.predicted_loss < s.predicted_high
            assert s.prediction_error is not None and s.confidence is not None


def test_every_prediction_is_probed_before_and_judged_after(real_run: Run) -> None:
    engine, records, _ = real_run
    ended = [r for r, _ in records if isinstance(r, PredictionEnded)]
    corrections = [r for r, _ in records if isinstance(r, CorrectionApplied)]
    probes = [r for r, _ in records if isinstance(r, PredictionProbed)]
    assert engine.predictions_entered == len(ended) == engine.predictions_kept + engine.predictions_undone
    assert engine.predictions_kept == sum(e.kept for e in ended) > 0
    assert len(probes) >= len(ended) and len(corrections) <= len(ended)
    assert all(abs(p.gain - (p.loss_before - p.loss_after)) < 1e-5 for p in probes)
    for e in ended:
        if e.loss_before is None or e.loss_after is None:
            assert e.kept and e.better is None and e.confidence is not None and e.confidence > 0.9
        else:
            assert e.better is not None and (e.kept or e.loss_after > e.loss_before)
    assert any(e.better is not None for e in ended), "none was measured again"
    for c in corrections:
        assert not c.weights or abs(sum(w.weight for w in c.weights) - 1) < 1e-9
        assert all(w.similarity > 0.7 for w in c.weights)


def test_the_checklist_and_the_validation_are_recorded(real_run: Run) -> None:
    explained = [r for r, _ in real_run[1] if isinstance(r, Explained)]
    assert {e.phase for e in explained} >= {Phase.WARMUP, Phase.FULL}
    validations = [r for r, _ in real_run[1] if isinstance(r, ValidationMeasured)]
    assert validations[-1].step == 300
    assert validations[-1].loss < validations[0].loss
    assert isinstance(real_run[1][-1][0], RunState) and real_run[1][-1][0].state == "finished"


def test_a_seeded_run_has_the_same_digest_every_time(tmp_path: Path) -> None:
    def digest(folder: Path) -> str:
        engine, records, _ = digits(folder, 120, warmup_steps="20", validate_every="0")
        weights = torch.cat([p.detach().flatten() for p in engine.model.parameters()])
        losses = [r.loss for r, _ in records if isinstance(r, StepRecord)]
        return hashlib.sha256(weights.numpy().tobytes() + repr(losses).encode()).hexdigest()

    assert digest(tmp_path / "a") == digest(tmp_path / "b")


def test_a_prediction_that_made_the_loss_worse_is_undone_bit_for_bit(tmp_path: Path) -> None:
    rig = Rig(tmp_path).begin().until_phase(Phase.FULL, 4)
    before, moments = rig.weights(), copied(rig.optimizer.state_dict())
    rig.step()
    assert rig.engine.phase is Phase.PREDICT and rig.engine.flight is not None
    rig.engine.flight.proposal.step_P.mul_(-5.0)  # the path now leads uphill
    rig.until(lambda: rig.engine.phase is Phase.PREDICT and rig.engine.steps_in_phase == 6)
    assert not torch.equal(rig.weights(), before)
    rig.step()
    rig.step()
    assert rig.engine.phase is Phase.CORRECT
    snapshot = rig.engine.snapshot
    assert snapshot is not None
    assert torch.equal(snapshot.weights_P.double(), before)
    assert not same(rig.optimizer.state_dict()["state"], moments["state"]), "the steps of CORRECT moved them"
    undoing = rig.engine.predictions_undone
    seen: list[torch.Tensor] = []
    seen_moments: list[dict[str, Any]] = []
    say = rig.engine.recorder._sink

    def look(record: Record, attempt: int) -> None:
        if isinstance(record, PredictionEnded):
            seen.append(rig.weights())
            seen_moments.append(copied(rig.optimizer.state_dict()["state"]))
        say(record, attempt)

    rig.engine.recorder._sink = look
    rig.engine.parameters.add(torch.full((rig.engine.parameters.count,), 50.0))  # the validation fails beyond doubt
    rig.step()
    assert rig.engine.predictions_undone == undoing + 1
    assert torch.equal(seen[0], before)
    assert same(seen_moments[0], moments["state"])


def test_an_undone_prediction_keeps_the_step_counter_going(tmp_path: Path) -> None:
    rig = Rig(tmp_path, scales={11: float("nan")}).begin()
    rig.until(lambda: bool(rig.of(PredictionEnded)))
    ended = rig.of(PredictionEnded)[0]
    assert not ended.kept and ended.step == 12
    rig.step()
    assert covered(rig.records) == {0: (1, rig.engine.step_count)}


def test_a_document_prediction_may_measure_every_third_step_only(tmp_path: Path) -> None:
    rig = Rig(tmp_path, forward_every=3).begin().until_phase(Phase.CORRECT)
    in_flight = [r for r in rig.of(StepRecord) if r.phase is Phase.PREDICT]
    stretches = rig.of(PredictedStretch)
    assert [(s.first_step, s.last_step) for s in stretches] == [(10, 11), (13, 14)]
    assert [r.step for r in in_flight] == [12, 15]
    covered(rig.records)


@pytest.mark.parametrize(("poisoned", "phase"), [(3, Phase.WARMUP), (7, Phase.FULL), (16, Phase.CORRECT)])
def test_nan_outside_predict_rolls_back_with_a_tenth_of_the_rate_and_clipping(
    tmp_path: Path, poisoned: int, phase: Phase
) -> None:
    rig = Rig(tmp_path, scales={poisoned: float("nan")}).begin()
    good = rig.weights()
    rig.until(lambda: rig.engine.batches == poisoned + 1)
    broken = rig.of(StepRecord)[-1]
    assert broken.phase is phase and broken.loss != broken.loss
    record = rig.step()
    attempt = rig.of(AttemptStarted)[0]
    assert (attempt.attempt, attempt.parent, attempt.step, attempt.abandoned_step) == (1, 0, 0, poisoned + 1)
    assert "NaN or Inf" in attempt.because
    assert record.phase is Phase.FULL and record.step == 1 and record.batch == poisoned + 2
    assert record.learning_rate == pytest.approx(3e-4)
    assert rig.engine.config.optimizer.gradient_clip_norm == 1.0
    assert (rig.weights() - good).abs().max() <= 3.1e-4, "one clipped step of a tenth of the rate from the checkpoint"
    ended = rig.of(PredictionEnded)
    assert rig.engine.predictions_entered == len(ended), "a rollback closes the prediction it interrupts"
    assert all((c.from_phase, c.to_phase) in LEGAL for c in rig.of(PhaseChanged))
    rig.until_step(30)
    covered(rig.records)


def test_nan_in_predict_goes_back_to_the_snapshot_and_stays_in_the_attempt(tmp_path: Path) -> None:
    rig = Rig(tmp_path, scales={11: float("nan")}).begin().until_phase(Phase.FULL, 4)
    before = rig.weights()
    rig.until(lambda: rig.engine.batches == 12)
    assert rig.engine.phase is Phase.PREDICT
    rig.until_phase(Phase.FULL)
    assert not rig.of(AttemptStarted)
    change = rig.of(PhaseChanged)[-1]
    assert (change.from_phase, change.to_phase) == (Phase.PREDICT, Phase.FULL)
    assert change.because == ("not_finite (NaN or Inf)",)
    assert (rig.weights() - before).abs().max() < 0.01, "one ordinary step from the snapshot"
    assert rig.of(PredictionEnded)[-1].kept is False


def test_a_loss_spike_in_predict_ends_it_with_a_paired_verdict(tmp_path: Path) -> None:
    rig = Rig(tmp_path, scales={12: 300.0}, divergence_threshold=3.0).begin()
    rig.until(lambda: bool(rig.of(PredictionEnded)))
    change = next(c for c in rig.of(PhaseChanged) if c.from_phase is Phase.PREDICT)
    assert change.to_phase is Phase.FULL
    assert change.because[0].startswith("loss_deviates (")
    verdict = rig.of(PredictionEnded)[0]
    assert verdict.loss_before is not None and verdict.loss_after is not None
    assert verdict.kept == (verdict.loss_after < verdict.loss_before)


def test_an_extreme_gradient_rolls_back_to_a_checkpoint_from_before_it(tmp_path: Path) -> None:
    rig = Rig(tmp_path, scales={7: 1e4}, checkpoint_every=4).begin()
    rig.until(lambda: bool(rig.of(AttemptStarted)))
    attempt = rig.of(AttemptStarted)[0]
    assert attempt.abandoned_step == 8
    assert (attempt.step, attempt.checkpoint) == (4, "step-000004"), "not the one due at the broken step"
    assert attempt.because.startswith("gradient_extreme (")


def test_nan_that_outlasts_every_rollback_fails_the_run_with_one_sentence(tmp_path: Path) -> None:
    rig = Rig(tmp_path, scales={i: float("nan") for i in range(2, 99)}, max_recoveries=3).begin()
    with pytest.raises(TrainingFailed, match=r"3 automatic rollbacks \(max_recoveries\) did not help"):
        rig.until_step(90)
    assert len(rig.of(AttemptStarted)) == 3


@pytest.mark.parametrize("policy", ["document", "adaptive"])
def test_a_rollback_to_a_checkpoint_saved_within_a_prediction_ends_it(tmp_path: Path, policy: str) -> None:
    """FULL follows; a prediction that nobody judged any more was weighed against far newer weights at the run's end."""
    rig = Rig(tmp_path, policy=policy, correct_steps=3).begin()
    rig.until(lambda: rig.engine.flight is not None)
    assert rig.engine.phase is (Phase.PREDICT if policy == "document" else Phase.CORRECT)
    assert rig.session.save_checkpoint("best validation loss so far").good
    before = rig.engine.snapshot.weights_P.clone() if rig.engine.snapshot else None
    settled = rig.engine.flight is not None and rig.engine.flight.settled
    rig.until(lambda: rig.engine.flight is None)
    rig.scales[rig.engine.batches] = float("nan")
    rig.until(lambda: bool(rig.of(AttemptStarted)))
    e = rig.engine
    assert (e.phase, e.flight, e.snapshot) == (Phase.FULL, None, None)
    assert e.predictions_entered == e.predictions_kept + e.predictions_undone == len(rig.of(PredictionEnded))
    assert rig.of(PredictionEnded)[-1].kept is settled
    if not settled:
        now = torch.cat([p.detach().flatten() for p in rig.model.parameters()])
        assert before is not None and (now - before).abs().max() <= 3.1e-4, "one step from before the prediction"


def test_small_predicted_steps_are_not_rounded_away_in_sixteen_bits(tmp_path: Path) -> None:
    """The probe takes the whole way at once; one step at a time, most of it was lost to rounding."""

    def loss(model: torch.nn.Module, batch: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        return torch.nn.functional.cross_entropy(model(batch[0].bfloat16()).float(), batch[1], reduction="none")

    rig = Rig(
        tmp_path,
        model=network().bfloat16(),
        loss=loss,
        optimizer=lambda ps: torch.optim.AdamW(ps, 1e-4, weight_decay=0.0),
        max_predict_steps=20,
        min_predict_steps=20,
    ).begin()
    rig.until_phase(Phase.PREDICT, 20)
    flight, snapshot = rig.engine.flight, rig.engine.snapshot
    assert flight is not None and snapshot is not None and flight.taken == flight.horizon == 20
    here = rig.engine.parameters.read(rig.engine.parameters.empty())
    rig.engine.parameters.write(snapshot.weights_P)
    flight.proposal.follow(rig.engine.parameters, 0, 20)
    assert torch.equal(here, rig.engine.parameters.read(rig.engine.parameters.empty())), "where the probe was"
