"""Claims about models and losses that draw random numbers or write buffers in a forward pass."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.engine.rig import Batch, Rig, batch_of, network, per_sample
from trainer_core.spec.phases import Phase
from trainer_core.spec.records import PredictionProbed, StepRecord


def denoising(model: nn.Module, batch: Batch) -> Tensor:
    """As a diffusion model has it: the loss of another noise at every call, in evaluation mode too."""
    return per_sample(model, (batch[0] + 2.0 * torch.randn_like(batch[0]), batch[1]))


def mean_of_noise(model: nn.Module, batch: Batch) -> Tensor:
    return denoising(model, batch).mean()


@pytest.mark.parametrize("loss", [denoising, mean_of_noise])
def test_both_sides_of_a_test_draw_the_same_numbers(tmp_path: Path, loss: nn.Module) -> None:
    rig = Rig(tmp_path, loss=loss).begin().until_step(6)
    batch = batch_of(50)
    first = rig.engine.samples(batch)
    assert torch.equal(rig.engine.samples(batch), first), "the same weights on the same batch"
    rig.step()
    assert not torch.equal(rig.engine.samples(batch), first), "other numbers for the next batch"


@pytest.mark.parametrize("policy", ["document", "adaptive"])
def test_a_test_leaves_the_numbers_that_training_draws_alone(tmp_path: Path, policy: str) -> None:
    refusing: dict[str, Any] = {"confidence_threshold": 1.0, "steps": 40, "policy": policy}
    looked = Rig(tmp_path / "looked", loss=denoising, **refusing).begin().finish()
    plain = Rig(tmp_path / "plain", loss=denoising, **refusing).begin()
    plain.engine.locked = True
    plain.finish()
    assert looked.of(PredictionProbed) and not plain.of(PredictionProbed)
    assert torch.equal(looked.weights(), plain.weights())


def test_a_run_of_such_a_loss_resumes_bit_for_bit(tmp_path: Path) -> None:
    whole = Rig(tmp_path / "whole", loss=denoising, steps=40, policy="adaptive").begin().finish()
    first = Rig(tmp_path / "cut", loss=denoising, steps=40, policy="adaptive").begin().until_step(15)
    first.session.save_checkpoint("cut here")
    second = Rig(tmp_path / "cut", loss=denoising, steps=40, policy="adaptive")
    second.session.resume(0, first.engine.step_count, "resumed")
    assert torch.equal(second.finish().weights(), whole.weights())


class Watching(nn.Module):
    """A model whose loss is the same in training, where it also counts, or draws a number that it does not use."""

    def __init__(self, draws: bool) -> None:
        super().__init__()
        self.body, self.draws, self.batches = network(), draws, 0
        self.seen: Tensor
        self.register_buffer("seen", torch.zeros(8))

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.batches += 1
            if self.draws:
                torch.rand(1)
            else:
                self.seen += x.detach().mean(0)
        return self.body(x)  # type: ignore[no-any-return]


@pytest.mark.parametrize("draws", [True, False])
def test_a_look_is_no_step_where_a_step_does_more_than_its_loss(tmp_path: Path, draws: bool) -> None:
    model = Watching(draws)
    rig = Rig(tmp_path, model=model, policy="adaptive", min_predict_steps=2, confidence_threshold=0.3, steps=60)
    rig.begin().finish()
    assert rig.engine.predictions_kept > 2 and rig.engine.shares is False
    assert model.batches == len(rig.of(StepRecord)), "each measured step had its own forward pass"


def test_a_model_that_the_user_compiled_shares_no_pass(tmp_path: Path) -> None:
    model = network()
    model.compile(backend="eager")
    rig = Rig(tmp_path, model=model, policy="adaptive", min_predict_steps=2, confidence_threshold=0.3, steps=40)
    rig.begin().until_phase(Phase.CORRECT, 1)
    assert rig.engine.shares is None
