"""Claims about the progress guard: it pauses predictions that slow a run, and hardly disturbs one where they pay."""

from pathlib import Path

import pytest
import torch

from tests.engine.rig import Rig, batch_of
from trainer_core.engine.progress import FIRST_JUMPS, JUMPS, Rate, compare, rate_of
from trainer_core.learning.paired import Paired
from trainer_core.learning.predictors import Observation, Proposal, TrainingState
from trainer_core.spec.commands import SetThreshold
from trainer_core.spec.phases import Phase
from trainer_core.spec.records import PredictionProbed, ProgressCompared, StepRecord

LAX = {"policy": "adaptive", "min_predict_steps": 16, "max_predict_steps": 16, "confidence_threshold": 0.0}


def slow(parameters: list[torch.nn.Parameter]) -> torch.optim.Optimizer:
    """An optimizer that makes steady progress for as long as these tests last."""
    return torch.optim.SGD(parameters, 0.003)


class Nudge:
    """A predictor that moves next to nothing: never harmful enough to be undone, never worth its probes."""

    def __init__(self, count: int) -> None:
        self.step_P = torch.full((count,), 1e-9)

    def observe(self, delta_P: torch.Tensor, state: TrainingState) -> Observation:
        return Observation(None, None)

    def propose(self, state: TrainingState) -> Proposal:
        self.step_P = -self.step_P
        return Proposal.along(self.step_P)

    def state_dict(self) -> dict[str, object]:
        return {}

    def load_state_dict(self, state: dict[str, object]) -> None:
        pass


def test_rates_are_gain_for_cost_and_compared_in_standard_errors() -> None:
    fast, slow = rate_of(Paired(2.0, 1.0, 1.0, 0.1, 6.0), 10.0), rate_of(Paired(2.0, 1.9, 0.1, 0.1, 1.0), 10.0)
    assert (fast.value, fast.error) == (pytest.approx(0.1), pytest.approx(0.01))
    near = Rate(0.08, 0.01)
    assert compare(fast, near) == pytest.approx(0.02 / (0.01 * 2**0.5)) == -compare(near, fast)
    assert compare(fast, slow) == 6.0, "0.09 / 0.014, bounded"
    assert compare(Rate(float("-inf"), 1.0), slow) == -6.0


def test_predictions_that_are_not_worth_their_probes_pause_ever_longer(tmp_path: Path) -> None:
    rig = Rig(tmp_path, steps=100_000, optimizer=slow, min_full_steps=1, **LAX).begin()
    rig.engine.predictor = Nudge(rig.engine.parameters.count)
    rig.until(lambda: any(r.paused_steps for r in rig.of(ProgressCompared)), most=2000)
    seen = len(rig.of(ProgressCompared))
    rig.until(lambda: len(rig.of(ProgressCompared)) > seen, most=2000)
    first, second = rig.of(ProgressCompared)[seen - 1 : seen + 1]
    assert first.z < -1 and first.without > first.with_predictions
    assert second.paused_steps >= 2 * first.paused_steps or second.paused_steps == 0
    paused = [r for r in rig.of(StepRecord) if first.step < r.step <= first.step + first.paused_steps]
    assert len(paused) == first.paused_steps and {r.phase for r in paused} == {Phase.FULL}


def test_predictions_that_pay_are_trusted_with_less_until_a_control_says_otherwise(tmp_path: Path) -> None:
    settings = LAX | {"max_predict_steps": 40, "confidence_threshold": 0.85}
    rig = Rig(tmp_path, steps=100_000, optimizer=lambda ps: torch.optim.AdamW(ps, 1e-4), **settings).begin()
    rig.until(lambda: bool(rig.of(ProgressCompared)), most=600)
    compared = rig.of(ProgressCompared)[0]
    assert compared.z >= 1 and rig.engine.predictions_kept == FIRST_JUMPS
    before = [r for r in rig.of(PredictionProbed) if r.step < compared.step]
    assert not any(r.paying for r in before)
    rig.until(lambda: len(rig.of(PredictionProbed)) > len(before) + 2, most=600)
    assert all(r.paying for r in rig.of(PredictionProbed)[len(before) :]) and rig.engine.signals().paying
    rig.engine.predictor = Nudge(rig.engine.parameters.count)
    rig.until(lambda: not rig.engine.progress.paying, most=2000)
    assert rig.of(ProgressCompared)[-1].z < 1 and not rig.engine.signals().paying


def test_a_stretch_of_mostly_plain_training_is_begun_anew(tmp_path: Path) -> None:
    rig = Rig(tmp_path, steps=10_000, **LAX).begin()
    rig.until(lambda: rig.engine.predictions_kept > 0)
    begun = rig.engine.progress.state_dict()["cost"]
    rig.engine.locked = True
    for _ in range(100):
        rig.step()
    rig.engine.progress.check(rig.engine, batch_of(999))
    assert rig.engine.progress.state_dict()["cost"] > begun + 300


def test_a_lower_threshold_ends_the_pause(tmp_path: Path) -> None:
    rig = Rig(tmp_path, steps=100_000, optimizer=slow, **(LAX | {"confidence_threshold": 0.01})).begin()
    rig.engine.predictor = Nudge(rig.engine.parameters.count)
    rig.until(lambda: any(r.paused_steps for r in rig.of(ProgressCompared)), most=2000)
    assert rig.engine.progress.quiet(rig.engine)
    rig.tell(SetThreshold("confidence_threshold", 0.0))
    assert not rig.engine.progress.quiet(rig.engine)


def test_without_the_guard_nothing_is_compared(tmp_path: Path) -> None:
    rig = Rig(tmp_path, steps=10_000, progress_guard=False, **LAX).begin()
    rig.engine.predictor = Nudge(rig.engine.parameters.count)
    rig.until(lambda: rig.engine.predictions_kept > 2 * JUMPS, most=600)
    assert not rig.of(ProgressCompared)


def test_the_guard_leaves_weights_and_their_statistics_alone(tmp_path: Path) -> None:
    rig = Rig(tmp_path, steps=10_000, **LAX).begin()
    rig.until(lambda: rig_ready(rig), most=400)
    before, losses = rig.weights(), rig.engine.curve.state_dict()
    rig.engine.progress.check(rig.engine, batch_of(999))
    assert torch.equal(rig.weights(), before) and rig.engine.curve.state_dict() == losses


def rig_ready(rig: Rig) -> bool:
    """Whether the next check has a stretch to judge."""
    return rig.engine.predictions_kept >= JUMPS
