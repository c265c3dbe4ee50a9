"""Claims about the forward pass that a look and a step share: it changes no bit, and is not shared where it would."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.engine.rig import Rig
from trainer_core.engine import ahead, predicting
from trainer_core.engine.budget import Budget
from trainer_core.spec.records import CorrectionApplied, PredictionEnded

SETTINGS = {"policy": "adaptive", "confidence_threshold": 0.3, "max_predict_steps": 40, "progress_guard": False}


def slow(parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
    """A rate at which predictions pay."""
    return torch.optim.AdamW(parameters, 1e-4)


def run(folder: Path, model: nn.Module | None = None, shares: bool | None = None, batches: int = 60) -> Rig:
    """A rig after so many batches; ``shares``: what it is told beforehand."""
    torch.manual_seed(3)
    rig = Rig(folder, model=model, steps=100_000, optimizer=slow, **SETTINGS).begin()
    rig.engine.shares = shares
    for _ in range(batches):
        rig.step()
    return rig


def net(middle: nn.Module) -> nn.Module:
    """The rig's shapes around a layer of one's own."""
    torch.manual_seed(3)
    return nn.Sequential(nn.Linear(8, 16), middle, nn.Linear(16, 3))


def test_a_shared_pass_changes_no_bit_of_the_run(tmp_path: Path) -> None:
    shared, alone = run(tmp_path / "shared"), run(tmp_path / "alone", shares=False)
    assert shared.engine.shares is True
    assert len([r for r in shared.of(PredictionEnded) if r.kept]) > 10
    assert torch.equal(shared.weights(), alone.weights())
    assert shared.engine.step_count == alone.engine.step_count
    assert shared.engine.forwards < alone.engine.forwards, "it is the step's pass, not one of the look's"


def test_the_weights_may_be_put_back_and_come_again_between_look_and_step(tmp_path: Path) -> None:
    rig = run(tmp_path, batches=30)
    batch = torch.randn(16, 8), torch.randint(0, 3, (16,))
    there = rig.engine.parameters.keep(rig.engine.parameters.empty())
    loss = ahead.arrived(rig.engine, batch).loss
    assert loss is not None
    rig.engine.optimizer.zero_grad()
    rig.engine.parameters.add(torch.randn_like(there))
    rig.engine.parameters.write(there)
    loss.backward()
    shared = [p.grad.clone() for p in rig.engine.parameters.tensors if p.grad is not None]
    rig.engine.optimizer.zero_grad()
    rig.engine.loss.mean(rig.engine.model, batch).backward()
    alone = [p.grad for p in rig.engine.parameters.tensors if p.grad is not None]
    assert all(torch.equal(a, b) for a, b in zip(shared, alone, strict=True)) and len(shared) == len(alone) > 0


@pytest.mark.parametrize("middle", [nn.Dropout(0.2), nn.BatchNorm1d(16), nn.RReLU()], ids=lambda m: type(m).__name__)
def test_layers_that_train_differently_never_share(tmp_path: Path, middle: nn.Module) -> None:
    rig = run(tmp_path, net(middle))
    assert rig.engine.predictions_entered > 3 and rig.engine.shares is None
    assert not ahead.may_share(rig.engine)


class Hidden(nn.Module):
    """Dropout that no list of layers knows."""

    def forward(self, x: Tensor) -> Tensor:
        return F.dropout(torch.tanh(x), 0.1, self.training)


def test_a_loss_that_differs_in_training_is_seen_and_never_shared(tmp_path: Path) -> None:
    rig = run(tmp_path, net(Hidden()))
    assert rig.engine.predictions_entered > 3 and rig.engine.shares is False


def test_a_layer_whose_dropout_is_off_shares(tmp_path: Path) -> None:
    assert run(tmp_path, net(nn.Dropout(0.0))).engine.shares is True


def test_a_corrected_weight_is_not_where_the_look_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shared, alone = run(tmp_path / "shared", batches=30), run(tmp_path / "alone", shares=False, batches=30)
    assert shared.engine.shares is True
    monkeypatch.setattr(predicting, "_CORRECTION_Z", -100.0)
    monkeypatch.setattr(Budget, "correction_due", lambda budget: True)
    before = len(shared.of(CorrectionApplied))
    for rig in (shared, alone):
        for _ in range(10):
            rig.step()
    assert any(r.applied for r in shared.of(CorrectionApplied)[before:])
    assert torch.equal(shared.weights(), alone.weights())
