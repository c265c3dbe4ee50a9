"""Claims about a predictor of the user's own: it is used, its curve is followed, and a wrong one is refused clearly."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.engine.rig import EAGER, Rig, network, per_sample, same
from trainer_core import LossPath, Observation, Proposal, TrainingState
from trainer_core.engine.engine import Engine
from trainer_core.spec.errors import UserError
from trainer_core.spec.loading import resolve
from trainer_core.spec.phases import Phase
from trainer_core.spec.records import PredictionProbed, StepRecord


class Own:
    """Repeats the last change, shrinking by ``growth`` each step."""

    def __init__(self, growth: float = 0.5, **extra: Any) -> None:
        self.growth, self.extra = growth, extra
        self.last_P: Tensor | None = None
        self.seen: list[TrainingState] = []
        self.asked: list[TrainingState] = []

    def observe(self, delta_P: Tensor, state: TrainingState) -> Observation:
        self.seen.append(state)
        self.last_P = delta_P.clone()
        return Observation(None, None)

    def propose(self, state: TrainingState) -> Proposal | None:
        self.asked.append(state)
        return None if self.last_P is None else Proposal.along(self.last_P, (self.growth,), **self.extra)

    def state_dict(self) -> dict[str, Any]:
        return {"last": self.last_P}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.last_P = state["last"]


def test_the_weights_follow_the_curve_of_a_predictor_of_ones_own(tmp_path: Path) -> None:
    rig = Rig(tmp_path, predictor=Own()).begin().until_phase(Phase.PREDICT, 1)
    assert rig.engine.snapshot is not None and rig.engine.flight is not None
    start, first = rig.engine.snapshot.weights_P.clone(), rig.engine.flight.proposal.step_P.clone()
    rig.until_phase(Phase.PREDICT, 4)
    moved = rig.engine.parameters.read(rig.engine.parameters.empty()) - start
    assert torch.allclose(moved, first * (1 + 0.5 + 0.25 + 0.125), rtol=1e-4, atol=1e-7)
    norms = [r.update_norm for r in rig.of(StepRecord) if r.phase is Phase.PREDICT]
    assert norms == pytest.approx([float(first.norm()) * 0.5**k for k in range(4)], rel=1e-5)


def test_it_sees_the_training_as_the_step_before_left_it(tmp_path: Path) -> None:
    own = Own()
    rig = Rig(tmp_path, predictor=own).begin().until_phase(Phase.PREDICT, 1)
    steps = [r for r in rig.of(StepRecord) if r.phase is not Phase.PREDICT]
    assert own.seen[0].step == 0 and own.seen[0].loss != own.seen[0].loss
    assert [(s.step, s.loss, s.update_norm) for s in own.seen[1:]] == [
        (r.step, r.loss, r.update_norm) for r in steps[:-1]
    ]
    assert (own.asked[0].step, own.asked[0].loss) == (steps[-1].step, steps[-1].loss)


def test_an_expected_loss_path_shapes_the_expectation_and_widens_its_band(tmp_path: Path) -> None:
    path = LossPath((0.9, 0.85, 0.83, 0.82, 0.815, 0.81), (0.5,) * 6)
    straight = Rig(tmp_path / "a", predictor=Own()).begin().until_phase(Phase.PREDICT, 3)
    curved = Rig(tmp_path / "b", predictor=Own(loss_path=path)).begin().until_phase(Phase.PREDICT, 3)
    line, bent = straight.engine.flight, curved.engine.flight
    assert line is not None and bent is not None
    for step in (1, 3, 6):
        (low, expected, high), (low_, expected_, high_) = line.expect(step, 0.0), bent.expect(step, 0.0)
        bend = path.ratio[step - 1] - 1 - (0.81 - 1) * step / 6
        assert expected_ == pytest.approx(expected + bent.base * bend)
        assert high_ - low_ > high - low
    assert bent.expect(6, 0.0)[1] == pytest.approx(line.expect(6, 0.0)[1])


def test_an_uncertain_ensemble_lowers_the_confidence_and_is_recorded(tmp_path: Path) -> None:
    sure = Rig(tmp_path / "a", predictor=Own()).begin().until_phase(Phase.PREDICT, 1).of(PredictionProbed)[0]
    unsure = Rig(tmp_path / "b", predictor=Own(uncertainty=2.0)).begin().until_phase(Phase.PREDICT, 1)
    probe = unsure.of(PredictionProbed)[0]
    assert (sure.uncertainty, probe.uncertainty, probe.z) == (None, 2.0, sure.z)
    odds = lambda p: p / (1 - p)  # noqa: E731
    assert odds(probe.confidence) == pytest.approx(odds(sure.confidence) * 2.718281828**-2)


def test_a_curved_prediction_under_way_is_saved_and_goes_on_bit_for_bit(tmp_path: Path) -> None:
    whole = Rig(tmp_path / "a", predictor=Own(0.7), steps=24).begin().until_phase(Phase.PREDICT, 3)
    whole.session.save_checkpoint("now")
    again = Rig(tmp_path / "a", predictor=Own(0.7), steps=24)
    again.session.resume(0, whole.engine.step_count, "test")
    assert again.engine.flight and again.engine.flight.proposal.growth == (0.7,)
    whole.finish()
    again.finish()
    assert torch.equal(whole.weights(), again.weights())
    assert same(whole.engine.curve.state_dict(), again.engine.curve.state_dict())


class Mute:
    """Has everything but a way to propose and to be restored."""

    def observe(self, delta_P: Tensor, state: TrainingState) -> Observation:
        return Observation(None, None)

    def state_dict(self) -> dict[str, Any]:
        return {}


def test_a_predictor_without_its_methods_is_refused_before_step_0() -> None:
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    with pytest.raises(UserError, match=r"Mute has no propose\(\), no load_state_dict\(\)"):
        Engine(model, optimizer, per_sample, resolve(EAGER).config, print, predictor=Mute())  # type: ignore[arg-type]


def wrong_shape(step_P: Tensor) -> object:
    return Proposal.along(step_P[:-1])


def wrong_dtype(step_P: Tensor) -> object:
    return Proposal.along(step_P.double())


def not_finite(step_P: Tensor) -> object:
    return Proposal.along(step_P / 0.0)


def negative_length(step_P: Tensor) -> object:
    return Proposal(step_P, -1.0)


def wrong_groups(step_P: Tensor) -> object:
    return Proposal.along(step_P, (1.0, 0.9), (5, step_P.numel() - 5)).__replace__(sizes=(5, 5))


def wrong_growth(step_P: Tensor) -> object:
    return Proposal.along(step_P, (0.0,))


def unknown_spread(step_P: Tensor) -> object:
    return Proposal.along(step_P, uncertainty=math.nan)


def negative_spread(step_P: Tensor) -> object:
    return Proposal.along(step_P, uncertainty=-3.0)


def no_proposal(step_P: Tensor) -> object:
    return step_P


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (wrong_shape, r"step_P has shape \(194,\) instead of \(195,\)"),
        (wrong_dtype, "dtype torch.float64 instead of torch.float32"),
        (not_finite, "not finite"),
        (negative_length, "of negative length"),
        (wrong_groups, "group sizes add up to 10 of 195"),
        (wrong_growth, r"growth 0.0..0.0 is outside \]0, 2\]"),
        (unknown_spread, "uncertainty is nan: must be finite, 0 or more"),
        (negative_spread, r"uncertainty is -3\.0: must be finite, 0 or more"),
        (no_proposal, "returned Tensor instead of a Proposal"),
    ],
)
def test_a_proposal_that_cannot_be_followed_is_refused_by_name(tmp_path: Path, make: Any, message: str) -> None:
    own = Own()
    own.propose = lambda state: make(own.last_P)  # type: ignore[method-assign]
    rig = Rig(tmp_path, predictor=own).begin()
    before = rig.weights()
    with pytest.raises(UserError, match=f"predictor Own: .*{message}"):
        rig.until_phase(Phase.PREDICT)
    assert not torch.equal(rig.weights(), before)  # it trained until the proposal was due


def test_an_observation_of_the_wrong_kind_is_refused(tmp_path: Path) -> None:
    own = Own()
    own.observe = lambda delta_P, state: None  # type: ignore[method-assign,assignment,return-value]
    with pytest.raises(UserError, match=r"observe\(\) returned NoneType instead of an Observation"):
        Rig(tmp_path, predictor=own).begin().step()


class Learning(Own):
    """Its answers carry the graph of its own gradients, as those of a network do that forgot ``no_grad``."""

    def __init__(self) -> None:
        super().__init__(1.0)
        self.gain = torch.ones((), requires_grad=True)

    def observe(self, delta_P: Tensor, state: TrainingState) -> Observation:
        super().observe(delta_P, state)
        return Observation((self.gain * 0.5).reshape(1), delta_P * self.gain)

    def propose(self, state: TrainingState) -> Proposal | None:
        assert self.last_P is not None
        return Proposal.along(self.last_P * self.gain)


def test_the_graph_of_a_learning_predictor_is_not_kept(tmp_path: Path) -> None:
    rig = Rig(tmp_path, predictor=Learning(), steps=40).begin().until_phase(Phase.PREDICT, 1)
    assert rig.engine.flight is not None and not rig.engine.flight.proposal.step_P.requires_grad
    assert len(rig.engine.residuals) > 0 and not any(r.requires_grad for r in rig.engine.residuals._residuals)
    assert rig.of(StepRecord)[0].relative_error == pytest.approx(0.5)
    assert rig.finish().engine.step_count == 40


class Answers(Own):
    """Answers every observation with ``observation``, every question with ``proposal``."""

    def __init__(self, observation: Any, proposal: Any = None) -> None:
        super().__init__()
        self.observation, self.proposal = observation, proposal

    def observe(self, delta_P: Tensor, state: TrainingState) -> Observation:
        self.last_P = delta_P.clone()
        return self.observation  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("observation", "message"),
    [
        (Observation(0.5, None), "relative_error is a float instead of a Tensor or None"),  # type: ignore[arg-type]
        (Observation(torch.zeros(2), None), r"relative_error has shape \(2,\) instead of \(\)"),
        (Observation(torch.zeros((), device="meta"), None), "relative_error is on meta instead of cpu"),
        (Observation(None, None, torch.zeros(2)), r"residual_norm has shape \(2,\) instead of \(\)"),
        (Observation(None, torch.zeros(3)), r"residual_P has shape \(3,\) instead of \(195,\)"),
        (Observation(None, torch.zeros(195, device="meta")), "residual_P is on meta instead of cpu"),
        (None, "returned NoneType instead of an Observation"),
    ],
)
def test_an_observation_that_cannot_be_used_is_refused(tmp_path: Path, observation: Any, message: str) -> None:
    rig = Rig(tmp_path, predictor=Answers(observation)).begin()
    with pytest.raises(UserError, match="predictor Answers: .*" + message):
        rig.step()
