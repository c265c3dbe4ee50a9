"""Claims about residual correction in a run: one that helps is applied, one that harms is taken back bit for bit."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.engine.rig import Batch, Rig, batch_of
from trainer_core import Observation, Proposal, TrainingState
from trainer_core.spec.phases import Phase
from trainer_core.spec.records import CorrectionApplied


class Short:
    """Predicts ``share`` of the mean change so far, and says by how much it was wrong: actual - predicted.

    ``sign`` -1: it says so with the wrong sign, and what it implies leads uphill. ``silent``: it does not say.
    """

    def __init__(self, share: float = 0.5, sign: float = 1.0, silent: bool = False) -> None:
        self.share, self.sign, self.silent = share, sign, silent
        self.sum_P, self.count = torch.zeros(27), 0

    @property
    def _step_P(self) -> Tensor:
        return self.share * self.sum_P / max(1, self.count)

    def observe(self, delta_P: Tensor, state: TrainingState) -> Observation:
        residual_P = self.sign * (delta_P - self._step_P)
        known = self.count > 0 and not self.silent
        self.sum_P, self.count = self.sum_P + delta_P, self.count + 1
        return Observation(residual_P.norm() / delta_P.norm(), residual_P) if known else Observation(None, None)

    def propose(self, state: TrainingState) -> Proposal | None:
        return Proposal.along(self._step_P)

    def state_dict(self) -> dict[str, Any]:
        return {"sum": self.sum_P, "count": self.count}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.sum_P, self.count = state["sum"], state["count"]


def squared(model: nn.Module, batch: Batch) -> Tensor:
    """Squared error of a linear model: far from its minimum, plain descent goes on in nearly the same direction."""
    return F.mse_loss(model(batch[0]), batch[0] @ torch.ones(8, 3), reduction="none").mean(1)


def corrected(folder: Path, predictor: Short) -> tuple[Rig, CorrectionApplied, Tensor, Tensor]:
    """A run up to its first correction, with the weights just before it and just after."""
    rig = Rig(
        folder,
        model=_linear(),
        optimizer=lambda ps: torch.optim.SGD(ps, 3e-4),
        loss=squared,
        predictor=predictor,
        similarity_threshold=0.1,
        top_k=20,
        warmup_steps=12,
    ).begin()
    rig.until_phase(Phase.PREDICT, 6)
    before = rig.weights()
    engine, batch = rig.engine, batch_of(rig.engine.batches)
    engine._boundary(batch)
    return rig, rig.of(CorrectionApplied)[0], before, rig.weights()


def loss(rig: Rig, weights: Tensor) -> float:
    """Mean loss with ``weights`` on data no step has seen."""
    x = batch_of(10_000)[0]
    matrix, bias = weights[:24].reshape(3, 8).float(), weights[24:].float()
    return float(F.mse_loss(x @ matrix.T + bias, x @ torch.ones(8, 3)))


def test_a_correction_that_helps_is_applied_and_the_loss_on_unseen_data_falls(tmp_path: Path) -> None:
    rig, record, before, after = corrected(tmp_path, Short())
    assert record.applied and record.gain is not None and record.gain > 0
    assert float((after - before).norm()) == pytest.approx(record.magnitude, rel=1e-4)
    assert loss(rig, after) < loss(rig, before)


def test_a_correction_brings_the_weights_nearer_to_where_training_would_have_taken_them(tmp_path: Path) -> None:
    rig, _, before, after = corrected(tmp_path, Short())
    plain = Rig(
        tmp_path / "plain",
        model=_linear(),
        optimizer=lambda ps: torch.optim.SGD(ps, 3e-4),
        loss=squared,
        warmup_steps=12,
    )
    plain.engine.locked = True
    actual = plain.begin().until_step(rig.engine.step_count).weights()
    assert float((actual - after).norm()) < 0.8 * float((actual - before).norm())


def _linear() -> nn.Module:
    torch.manual_seed(3)
    return nn.Linear(8, 3)


def test_a_correction_that_harms_is_refused_and_leaves_every_bit_as_it_was(tmp_path: Path) -> None:
    _, record, before, after = corrected(tmp_path, Short(sign=-1.0))
    assert not record.applied and record.gain is not None and record.gain < 0
    assert torch.equal(before, after)
    assert "not above" in record.because and record.magnitude is not None and record.magnitude > 0


def test_one_that_is_not_tried_is_not_computed_and_says_what_it_would_have_been_made_of(tmp_path: Path) -> None:
    rig = Rig(
        tmp_path, model=_linear(), optimizer=lambda ps: torch.optim.SGD(ps, 3e-4), loss=squared, policy="adaptive",
        predictor=Short(sign=-1.0), similarity_threshold=0.1, confidence_threshold=0.0, warmup_steps=12,
    )  # fmt: skip
    rig.begin()
    for i in range(60):
        rig.engine.step(batch_of(i))
    tried, untried = ([r for r in rig.of(CorrectionApplied) if (r.gain is not None) is how] for how in (True, False))
    assert tried and all(r.magnitude is not None and not r.applied for r in tried)
    assert untried and all(r.magnitude is None and r.similar >= len(r.weights) > 0 for r in untried)
    assert all("not tried" in r.because for r in untried)


def test_the_record_has_all_that_the_diagram_of_a_correction_shows(tmp_path: Path) -> None:
    rig, record, _, _ = corrected(tmp_path, Short())
    assert record.history == len(rig.engine.residuals) > 0
    assert 0 < len(record.weights) <= record.similar <= record.history
    assert sum(w.weight for w in record.weights) == pytest.approx(1.0)
    assert all(w.similarity > 0.1 and 0 <= w.residual_id < record.history for w in record.weights)


def test_a_predictor_without_residuals_leaves_nothing_to_correct_with_and_says_so(tmp_path: Path) -> None:
    _, record, before, after = corrected(tmp_path, Short(silent=True))
    assert (record.history, record.applied, record.gain) == (0, False, None)
    assert record.because == "no residuals yet" and torch.equal(before, after)
