"""Claims about the windows and horizons that the adaptive policy learns, and the line search that finds a horizon."""

from pathlib import Path

import pytest
import torch

from tests.engine.rig import Rig, batch_of
from trainer_core.engine import looking
from trainer_core.engine.budget import Budget
from trainer_core.engine.lengths import Lengths
from trainer_core.learning.predictors import Observation, Proposal, TrainingState
from trainer_core.spec.config import Config
from trainer_core.spec.phases import Phase
from trainer_core.spec.records import CalibrationMeasured, PredictionEnded, PredictionProbed

CONFIG = Config()
H = CONFIG.hybrid_trainer_config


def test_a_refusal_shortens_the_horizon_and_the_window_grows_from_the_fourth_on() -> None:
    lengths = Lengths(CONFIG)
    seen = [(lengths.horizon(CONFIG), lengths.full_needed(CONFIG))]
    for _ in range(100):
        lengths.refused(CONFIG, 0.5)
        seen.append((lengths.horizon(CONFIG), lengths.full_needed(CONFIG)))
    assert [window for _, window in seen[:6]] == [0, 0, 0, 0, 1, 2]
    assert [horizon for horizon, _ in seen[:4]] == [20, 13, 9, 6] and seen[-1] == (H.min_predict_steps, H.full_steps)


def test_a_plain_no_doubles_the_window_once_there_is_one() -> None:
    lengths = Lengths(CONFIG)
    windows = []
    for _ in range(8):
        lengths.refused(CONFIG, -3.0)
        windows.append(lengths.full_needed(CONFIG))
    assert windows[:7] == [0, 0, 0, 1, 3, 7, 15] and windows[-1] == 31


def test_a_lower_threshold_forgets_the_refusals() -> None:
    lengths = Lengths(CONFIG)
    for _ in range(20):
        lengths.refused(CONFIG)
    assert lengths.full_needed(CONFIG) > 10
    lengths.look_again(CONFIG)
    assert lengths.refusals == 0 and lengths.full_needed(CONFIG) == 1


def test_a_kept_prediction_shortens_the_window_again_and_lengthens_the_horizon_a_little() -> None:
    lengths = Lengths(CONFIG)
    for _ in range(8):
        lengths.refused(CONFIG)
    long = lengths.full_needed(CONFIG)
    lengths.entered(12)
    lengths.kept(CONFIG)
    assert lengths.full_needed(CONFIG) < long and lengths.horizon(CONFIG) == 13


def slow(parameters: list[torch.nn.Parameter]) -> torch.optim.Optimizer:
    """An optimizer at a rate where predictions pay."""
    return torch.optim.AdamW(parameters, 1e-4)


class Straight:
    """A predictor that proposes one direction, times a factor."""

    def __init__(self, direction_P: torch.Tensor) -> None:
        self.direction_P = direction_P

    def observe(self, delta_P: torch.Tensor, state: TrainingState) -> Observation:
        return Observation(None, None)

    def propose(self, state: TrainingState) -> Proposal:
        return Proposal.along(self.direction_P)

    def state_dict(self) -> dict[str, object]:
        return {}

    def load_state_dict(self, state: dict[str, object]) -> None:
        pass


def steep_batch() -> tuple[torch.Tensor, torch.Tensor]:
    """Labels that have nothing to do with the inputs: its gradient leads far away from where training has come to."""
    generator = torch.Generator().manual_seed(5)
    return torch.randn(64, 8, generator=generator), torch.randint(0, 3, (64,), generator=generator)


def looked(folder: Path, factor: float, **settings: float) -> tuple[Rig, PredictionProbed]:
    """A rig that has just looked along ``factor`` times the steepest descent of the coming batch."""
    lengths = {"max_predict_steps": 200, "min_predict_steps": 1, "min_full_steps": 2, "warmup_steps": 1}
    rig = Rig(folder, policy="adaptive", **lengths, **settings)
    rig.begin().until_phase(Phase.FULL)
    batch = steep_batch()
    rig.engine.loss.mean(rig.model, batch).backward()
    gradient_P = torch.cat([p.grad.flatten() for p in rig.model.parameters() if p.grad is not None])
    rig.engine.predictor = Straight(-factor * gradient_P)
    before = rig.weights()
    looking.look(rig.engine, batch)
    assert torch.equal(rig.weights(), before)
    return rig, rig.of(PredictionProbed)[-1]


def test_a_look_measures_the_horizon_that_was_learned_and_no_other(tmp_path: Path) -> None:
    rig, probe = looked(tmp_path, 0.01, probe_share=1.0)
    assert probe.horizon == rig.engine.lengths.horizon(rig.engine.config) and probe.better and probe.z > 1
    before = rig.engine.forwards
    looking.look(rig.engine, batch_of(77))
    assert rig.engine.forwards - before == 2, "where it is, and where it would be"


def test_a_proposal_that_overshoots_is_refused_until_its_horizon_is_short_enough(tmp_path: Path) -> None:
    rig, far = looked(tmp_path, 0.5, confidence_threshold=0.5)
    assert far.z < -2 and far.confidence < 0.5
    for _ in range(10):
        looking.refused(rig.engine)
        looking.look(rig.engine, steep_batch())
    horizons = [r.horizon for r in rig.of(PredictionProbed) if not r.shadow][-11:]
    assert horizons == sorted(horizons, reverse=True) and horizons[-1] == 1
    assert rig.of(PredictionProbed)[-1].better, "a short step down the gradient lowers the loss"


@pytest.mark.parametrize(("factor", "costs"), [(0.5, 2.0), (0.01, 0.0)])
def test_a_plain_no_costs_credit_and_a_refusal_without_one_does_not(
    tmp_path: Path, factor: float, costs: float
) -> None:
    rig, probe = looked(tmp_path, factor, confidence_threshold=1.0)
    assert (probe.z < -2) == (costs > 0)
    before = rig.engine.budget.credit
    looking.refused(rig.engine)
    assert rig.engine.budget.credit == pytest.approx(before - costs)


def test_looks_live_on_what_kept_predictions_saved() -> None:
    budget = Budget()
    looks = 0
    for _ in range(10_000):
        budget.full_step()
        if not budget.steps_to_next:
            looks += 1
            budget.looked(forwards=3)
    assert looks == pytest.approx(1 + 0.01 * 10_000, abs=2), "a look of three forward passes costs one full step"
    budget.looked(forwards=30)
    assert budget.steps_to_next > 600
    budget.kept(steps=400)
    budget.kept(steps=400)
    assert budget.steps_to_next == 0
    budget.undone()
    assert budget.steps_to_next > 0
    budget.wanted()
    assert budget.steps_to_next == 0


def test_a_correction_that_does_not_help_waits_ever_longer() -> None:
    budget = Budget()
    tried = []
    for prediction in range(130):
        if budget.correction_due():
            tried.append(prediction)
            budget.corrected(helped=False)
    assert tried == [0, 2, 6, 14, 30, 62, 126]
    while not budget.correction_due():
        pass
    budget.corrected(helped=True)
    assert budget.correction_due() and budget.correction_due()


def test_a_prediction_that_nothing_speaks_against_is_kept_without_a_second_test_but_for_every_eighth(
    tmp_path: Path,
) -> None:
    rig = (
        Rig(tmp_path, policy="adaptive", steps=1500, optimizer=slow, min_predict_steps=4, max_predict_steps=50)
        .begin()
        .finish()
    )
    ended = rig.of(PredictionEnded)
    untested = [r for r in ended if r.better is None]
    assert 0 < len(untested) < len(ended)
    for r in untested:
        assert r.kept and r.loss_before is None and "not measured again" in r.because


def test_a_proposal_uphill_is_refused_at_every_horizon(tmp_path: Path) -> None:
    rig, probe = looked(tmp_path, -0.5, confidence_threshold=0.5)
    assert not probe.better and probe.confidence < 0.5
    looking.refused(rig.engine)
    assert rig.engine.lengths.horizon(rig.engine.config) < 20


def test_the_trust_region_bounds_how_far_any_tensor_moves(tmp_path: Path) -> None:
    rig, probe = looked(tmp_path / "bound", 0.01, trust_region=0.02)
    _, free = looked(tmp_path / "free", 0.01)
    assert probe.horizon < free.horizon
    proposal = rig.engine.predictor.propose(rig.engine.state)
    assert proposal is not None
    sizes = rig.engine.parameters.sizes
    moved = proposal.change(0, probe.horizon).split(sizes)
    for part, p in zip(moved, rig.engine.parameters.tensors, strict=True):
        floor = 0.01 * part.numel() ** 0.5
        assert float(part.norm()) <= 0.02 * max(float(p.detach().norm()), floor) * 1.001


def test_a_refused_proposal_is_measured_again_as_a_shadow_and_counted(tmp_path: Path) -> None:
    rig, _ = looked(tmp_path, -0.5, confidence_threshold=0.5)
    looking.refused(rig.engine)
    outcomes = rig.engine.confidence.reliability.outcomes
    before = rig.weights()
    looking.look(rig.engine, (torch.randn(64, 8), torch.randint(0, 3, (64,))))
    assert torch.equal(rig.weights(), before)
    shadows = [r for r in rig.of(PredictionProbed) if r.shadow]
    assert len(shadows) == 1 and rig.engine.confidence.reliability.outcomes == outcomes + 1


def test_the_verdict_says_what_learning_rate_a_prediction_amounted_to(tmp_path: Path) -> None:
    rig = Rig(tmp_path, policy="document", full_steps=4).begin()
    rig.until(lambda: bool(rig.of(PredictionEnded)))
    ended = rig.of(PredictionEnded)[0]
    assert ended.implied_rate == pytest.approx(3e-3 * (1 + 6 / 4)) and ended.better is not None


def test_the_journal_has_the_reliability_of_the_confidence(tmp_path: Path) -> None:
    rig = (
        Rig(tmp_path, policy="adaptive", steps=2500, optimizer=slow, min_predict_steps=4, max_predict_steps=20)
        .begin()
        .finish()
    )
    measured = rig.of(CalibrationMeasured)
    assert len(measured) > 1 and measured[-2].outcomes % 8 == 0
    last = measured[-1]
    outcomes = [(r.confidence, r.better) for r in rig.of(PredictionEnded) if r.better is not None]
    shadows = sum(r.shadow for r in rig.of(PredictionProbed))
    assert last.outcomes == sum(b.outcomes for b in last.bins) == len(outcomes) + shadows
    assert len(last.bins) == 10 and 0 <= last.brier <= 1
    for i, found in enumerate(last.bins):
        if found.stated is not None:
            assert i / 10 <= found.stated <= (i + 1) / 10 and 0 <= found.better <= found.outcomes
