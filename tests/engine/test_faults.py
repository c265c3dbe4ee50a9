"""Claims about the seven divergence triggers: a fault put into a real run is named with its numbers and answered."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

from tests.engine.rig import Rig, batch_of
from trainer_core import Observation, Proposal, TrainingState
from trainer_core.spec.commands import (
    CommandState,
    SaveCheckpoint,
    ScaleLearningRate,
    SetGradientClip,
    SetThreshold,
)
from trainer_core.spec.phases import Phase
from trainer_core.spec.records import (
    AlertRaised,
    AttemptStarted,
    CommandChanged,
    PhaseChanged,
    PredictionEnded,
    PredictionProbed,
    StepRecord,
)
from trainer_core.spec.severity import Severity

NAN = float("nan")


class Repeats:
    """Proposes the last change again, ``size`` times as large, growing by ``growth`` each step."""

    def __init__(self, growth: float = 1.0, size: float = 1.0) -> None:
        self.growth, self.size = growth, size
        self.last_P: Tensor | None = None

    def observe(self, delta_P: Tensor, state: TrainingState) -> Observation:
        self.last_P = delta_P.clone()
        return Observation(None, None)

    def propose(self, state: TrainingState) -> Proposal | None:
        return None if self.last_P is None else Proposal.along(self.last_P * self.size, (self.growth,))

    def state_dict(self) -> dict[str, Any]:
        return {"last": self.last_P}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.last_P = state["last"]


def spoil(*scales: float) -> Callable[[Rig], None]:
    """The coming batches have their inputs multiplied by ``scales``, over and over."""

    def inject(rig: Rig) -> None:
        coming = range(rig.engine.batches, rig.engine.batches + 40)
        rig.scales.update({index: scales[n % len(scales)] for n, index in enumerate(coming)})

    return inject


def lie(growth: float, size: float) -> Callable[[Rig], None]:
    """The predictor proposes steps of another size, growing by ``growth``."""

    def inject(rig: Rig) -> None:
        predictor = rig.engine.predictor
        assert isinstance(predictor, Repeats)
        predictor.growth, predictor.size = growth, size

    return inject


def starve(rig: Rig) -> None:
    """The learning rate all but vanishes."""
    rig.tell(ScaleLearningRate(1e-4))


class Fault(NamedTuple):
    """One fault: when it strikes, which guard must name it, and the setting that lets it pass."""

    guard: str
    inject: Callable[[Rig], None]
    strikes: Phase
    """FULL: before the prediction is entered; PREDICT: after its first step."""
    target: Phase
    threshold: str
    strict: float
    lax: float
    horizon: int = 6


FAULTS = [
    Fault("not_finite", spoil(NAN), Phase.PREDICT, Phase.FULL, "nan_check_enabled", 1, 0),
    Fault("loss_deviates", spoil(-5.0), Phase.PREDICT, Phase.FULL, "divergence_threshold", 3.0, 100.0),
    Fault("update_exploded", lie(2.0, 1.0), Phase.FULL, Phase.FULL, "update_explosion_factor", 10.0, 1e9),
    Fault("update_vanished", starve, Phase.FULL, Phase.FULL, "update_vanishing_factor", 0.01, 0.0),
    Fault("confidence_dropped", spoil(-1.0), Phase.PREDICT, Phase.FULL, "confidence_threshold", 0.3, 0.0),
    Fault("prediction_off", lie(0.3, -60.0), Phase.FULL, Phase.CORRECT, "prediction_error_threshold", 0.2, 100.0),
    Fault("oscillates", spoil(0.2, 4.0), Phase.PREDICT, Phase.CORRECT, "max_sign_changes", 3, 10, horizon=20),
]
faults = pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.guard)


def a_run(folder: Path, fault: Fault, **settings: Any) -> Rig:
    """A run that is about to predict; every trigger but the one of ``fault`` is lax."""
    chosen: dict[str, Any] = {
        "max_predict_steps": fault.horizon,
        "min_predict_steps": fault.horizon,
        "update_explosion_factor": 1e9,
        "gradient_norm_extreme_high": 1e8,
    }
    value = bool(fault.strict) if fault.threshold == "nan_check_enabled" else fault.strict
    rig = Rig(folder, predictor=Repeats(), **chosen | {fault.threshold: value} | settings).begin()
    return rig.until(lambda: rig.engine.phase is Phase.FULL and rig.engine.steps_in_phase == 3)


def strike(rig: Rig, fault: Fault) -> None:
    if fault.strikes is Phase.PREDICT:
        rig.until_phase(Phase.PREDICT, 1)
    fault.inject(rig)


def left(rig: Rig) -> PhaseChanged:
    """How the first prediction was left."""
    rig.until(lambda: any(c.from_phase is Phase.PREDICT for c in rig.of(PhaseChanged)))
    return next(c for c in rig.of(PhaseChanged) if c.from_phase is Phase.PREDICT)


@faults
def test_a_fault_ends_the_prediction_and_is_named_with_its_numbers(tmp_path: Path, fault: Fault) -> None:
    rig = a_run(tmp_path, fault)
    strike(rig, fault)
    change = left(rig)
    assert (change.from_phase, change.to_phase) == (Phase.PREDICT, fault.target)
    named, _, numbers = change.because[0].partition(" ")
    assert named == fault.guard
    assert numbers == "(NaN or Inf)" or re.fullmatch(r"\(-?[\d.e+-]+ [<>] [\d.e+-]+\)", numbers)
    counts = fault.target is Phase.FULL and fault.guard != "confidence_dropped"
    assert (rig.engine.last_divergence is not None) == counts, "a divergence keeps the next prediction away"


@faults
def test_without_the_fault_the_prediction_runs_its_course(tmp_path: Path, fault: Fault) -> None:
    assert left(a_run(tmp_path, fault)).because[0].startswith("horizon_reached")


@faults
def test_the_threshold_moved_live_lets_the_same_fault_pass(tmp_path: Path, fault: Fault) -> None:
    rig = a_run(tmp_path, fault)
    assert rig.tell(SetThreshold(fault.threshold, fault.lax)).state is CommandState.APPLIED
    strike(rig, fault)
    assert left(rig).because[0].startswith("horizon_reached")


def test_nan_inside_a_prediction_is_undone_to_the_last_bit(tmp_path: Path) -> None:
    rig = a_run(tmp_path, FAULTS[0]).until_phase(Phase.PREDICT, 1)
    assert rig.engine.snapshot is not None
    before = rig.engine.snapshot.weights_P.clone()
    spoil(NAN)(rig)
    rig.step()
    rig.scales.clear()
    batch = batch_of(rig.engine.batches)
    rig.engine._boundary(batch)
    assert torch.equal(rig.engine.parameters.read(rig.engine.parameters.empty()), before)
    ended = rig.of(PredictionEnded)
    assert [(e.kept, e.steps) for e in ended] == [(False, 2)] and "NaN or Inf" in ended[0].because
    assert rig.engine.phase is Phase.FULL and rig.engine.attempt == 0, "no rollback: the snapshot is whole"


@faults
def test_a_prediction_that_a_fault_ended_is_undone_where_the_same_batch_says_that_it_did_harm(
    tmp_path: Path, fault: Fault
) -> None:
    rig = a_run(tmp_path, fault)
    strike(rig, fault)
    left(rig)
    rig.scales.clear()
    rig.until(lambda: bool(rig.of(PredictionEnded)))
    ended = rig.of(PredictionEnded)[0]
    tested = re.search(r"\(z = (-?[\d.]+)\)", ended.because)
    if tested is None:
        assert fault.guard == "not_finite" and not ended.kept and ended.loss_after is None
    else:
        assert ended.kept == (float(tested[1]) > -1.0)


@pytest.mark.parametrize("scale", [NAN, 1e5], ids=["NaN batch", "exploding gradient"])
def test_a_broken_batch_outside_a_prediction_rolls_back_with_a_tenth_of_the_rate_and_a_clip(
    tmp_path: Path, scale: float
) -> None:
    rig = Rig(tmp_path, scales={8: scale}, gradient_norm_extreme_high=100.0).begin().until_step(8)
    saved = rig.weights()
    rig.tell(SaveCheckpoint())
    rig.step()
    rig.step()
    started = rig.of(AttemptStarted)
    assert [(a.step, a.abandoned_step, a.attempt) for a in started] == [(8, 9, 1)]
    assert re.search(r"NaN or Inf|gradient_extreme \([\d.e+]+ > [\d.e+]+\)", started[0].because)
    applied = [c for c in rig.of(CommandChanged) if c.actor == "trainer" and c.state is CommandState.APPLIED]
    assert [c.command for c in applied] == [ScaleLearningRate(0.1), SetGradientClip(1.0)]
    assert [(c.before, c.after) for c in applied] == [("0.003", "0.0003"), ("0", "1")]
    record = rig.of(StepRecord)[-1]
    assert (record.step, record.batch) == (9, 10), "the broken batch does not come again"
    assert record.learning_rate == pytest.approx(3e-4)
    assert not torch.equal(rig.weights(), saved) and bool(torch.isfinite(rig.weights()).all())


def test_a_gradient_threshold_moved_live_lets_the_exploding_batch_pass(tmp_path: Path) -> None:
    rig = Rig(tmp_path, scales={8: 1e5}, gradient_norm_extreme_high=100.0).begin().until_step(8)
    rig.tell(SetThreshold("gradient_norm_extreme_high", 1e9))
    rig.step()
    rig.step()
    assert rig.of(AttemptStarted) == []


def test_a_healthy_run_of_the_same_length_has_no_rollback_and_no_nan_alert(tmp_path: Path) -> None:
    rig = Rig(tmp_path, gradient_norm_extreme_high=100.0).begin().until_step(60)
    assert rig.of(AttemptStarted) == []
    assert [a for a in rig.of(AlertRaised) if a.severity is Severity.CRITICAL] == []


def test_a_predictor_that_lies_about_the_direction_is_never_entered_at_the_default_threshold(tmp_path: Path) -> None:
    own = Repeats(size=-20.0)
    settings = {"policy": "adaptive", "confidence_threshold": 0.85}
    rig = Rig(tmp_path, predictor=own, **settings).begin().until_step(60)
    probes = rig.of(PredictionProbed)
    assert probes and not any(p.better for p in probes)
    assert rig.of(PredictionEnded) == []
