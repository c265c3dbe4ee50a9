"""Claims about gradient accumulation: the whole batch's gradient in pieces, and what the pieces say about its noise."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.engine.rig import EAGER, Rig, batch_of, network, per_sample
from trainer_core.engine.engine import Engine
from trainer_core.engine.gradients import gradients
from trainer_core.learning.loss import BatchLoss
from trainer_core.spec.errors import UserError
from trainer_core.spec.loading import resolve
from trainer_core.spec.phases import Phase
from trainer_core.spec.records import StepRecord


def of_dict(model: nn.Module, batch: dict[str, Any]) -> Tensor:
    """A dictionary with a weight per class, which has no entry per sample."""
    return F.cross_entropy(model(batch["x"]), batch["y"], batch["classes"] * 0 + 1)


def as_dict(batch: tuple[Tensor, Tensor]) -> dict[str, Any]:
    """The batch as a dictionary."""
    return {"x": batch[0], "y": batch[1], "classes": torch.ones(3), "name": "a text"}


LOSSES: dict[str, tuple[Any, Callable[..., Any]]] = {
    "per sample": (per_sample, lambda b: b),
    "mean": (lambda model, b: F.cross_entropy(model(b[0]), b[1]), lambda b: b),
    "criterion": (nn.CrossEntropyLoss(), lambda b: b),
    "summing criterion": (nn.CrossEntropyLoss(reduction="sum"), lambda b: b),
    "dictionary": (of_dict, as_dict),
}


def engine(loss: Any = per_sample, **settings: Any) -> Engine:
    """An engine on the usual network, with plain SGD."""
    torch.manual_seed(7)
    model = network(settings.pop("dropout", 0.0))
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    return Engine(model, optimizer, loss, resolve(EAGER | settings).config, lambda record, attempt: None)


@pytest.mark.parametrize("pieces", [2, 5, 32, 100])
@pytest.mark.parametrize("form", LOSSES)
def test_loss_and_gradient_are_those_of_the_whole_batch(form: str, pieces: int) -> None:
    loss, shaped = LOSSES[form]
    batch = shaped(batch_of(0))
    whole, cut = engine(loss), engine(loss, accumulate=pieces)
    expected, found = gradients(whole, batch), gradients(cut, batch)
    assert found.micro_batches == min(pieces, 32), "never more pieces than samples; five of them are unequal"
    assert float(found.loss) == pytest.approx(float(expected.loss), rel=1e-5)
    for p, q in zip(whole.parameters.tensors, cut.parameters.tensors, strict=True):
        assert p.grad is not None and q.grad is not None and torch.allclose(p.grad, q.grad, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("form", LOSSES)
def test_probes_and_predicted_steps_see_the_same_loss_in_pieces(form: str) -> None:
    loss, shaped = LOSSES[form]
    batch, model, of = shaped(batch_of(3)), network(), BatchLoss(loss)
    expected = of.mean(model, batch)
    assert torch.allclose(of.mean(model, batch, 5), expected, rtol=1e-5)
    assert torch.allclose(of.samples(model, batch, 5).mean(), expected, rtol=1e-5)
    assert torch.allclose(of.samples(model, batch).mean(), expected, rtol=1e-5)


def test_no_forward_pass_sees_more_than_its_piece(tmp_path: Path) -> None:
    seen: list[int] = []

    def watched(model: nn.Module, batch: Any) -> Tensor:
        seen.append(len(batch[0]))
        return per_sample(model, batch)

    rig = Rig(tmp_path, loss=watched, accumulate=4, steps=30).begin().finish()
    assert {s.phase for s in rig.of(StepRecord)} == set(Phase)
    assert max(seen) == 8 and set(seen) == {4, 8}, "a quarter of the batch, or of the half that tests compare"


def test_a_run_in_pieces_ends_at_the_weights_of_the_whole_batch(tmp_path: Path) -> None:
    sgd = {
        "optimizer": lambda ps: torch.optim.SGD(ps, 0.05),
        "full_steps": 1000,
        "steps": 20,
        "gradient_clip_norm": 0.3,
    }
    whole = Rig(tmp_path / "a", **sgd).begin().finish()
    cut = Rig(tmp_path / "b", accumulate=5, **sgd).begin().finish()
    assert torch.allclose(whole.weights(), cut.weights(), atol=1e-5)
    one, many = whole.of(StepRecord)[-1], cut.of(StepRecord)[-1]
    assert one.grad_norm == pytest.approx(many.grad_norm, rel=1e-3), "clipping is by the norm of the sum"
    assert (one.micro_batches, many.micro_batches) == (1, 5)
    assert one.micro_grad_variance is None and one.micro_grad_snr is None and one.grad_variance is not None


def test_dropout_is_drawn_for_every_piece() -> None:
    cut = engine(dropout=0.5, accumulate=2)
    x, y = batch_of(0)
    twice = (torch.cat([x[:1], x[:1]]), torch.cat([y[:1], y[:1]]))
    drawn = []
    cut.model.register_forward_hook(lambda module, given, out: drawn.append(out.detach()))
    gradients(cut, twice)
    assert len(drawn) == 2 and not torch.equal(drawn[0], drawn[1])


@pytest.mark.parametrize("pieces", [4, 5])
def test_the_variance_is_the_trace_of_the_gradients_covariance(pieces: int) -> None:
    cut = engine(accumulate=pieces)
    batch = batch_of(0)
    found = gradients(cut, batch)
    mean = torch.cat([p.grad.flatten() for p in cut.parameters.tensors if p.grad is not None])
    spread, samples = 0.0, len(batch[1])
    for piece in cut.loss.pieces(batch, pieces):
        cut.model.zero_grad()
        cut.loss.mean(cut.model, piece.batch).backward()
        own = torch.cat([p.grad.flatten() for p in cut.parameters.tensors if p.grad is not None])
        spread += len(piece.batch[1]) * float((own - mean).square().sum())
    variance = spread / (pieces - 1) / samples
    assert found.noise is not None
    assert float(found.noise) * float(mean.square().sum()) == pytest.approx(variance, rel=1e-3)


def test_the_estimated_variance_is_right_on_average() -> None:
    """Gradients of a linear loss are the inputs: unit normal in 8 dimensions, so the mean of 16 has trace 8 / 16."""
    model = nn.Linear(8, 1, bias=False)
    cut = Engine(
        model,
        torch.optim.SGD(model.parameters(), 0.0),
        lambda m, batch: m(batch[0]).squeeze(1),
        resolve(EAGER | {"accumulate": 4}).config,
        lambda record, attempt: None,
    )
    estimates = []
    for seed in range(300):
        x = torch.randn(16, 8, generator=torch.Generator().manual_seed(seed))
        found = gradients(cut, (x,))
        assert found.noise is not None
        estimates.append(float(found.noise) * float(found.total_norm) ** 2)
    assert sum(estimates) / 300 == pytest.approx(0.5, rel=0.06)


def test_equal_pieces_have_no_variance(tmp_path: Path) -> None:
    rig = Rig(tmp_path, accumulate=4).begin()
    x, y = batch_of(0)
    record = rig.engine.step((x[:1].expand(32, 8).contiguous(), y[:1].expand(32).contiguous()))
    assert record.micro_grad_variance is not None and record.grad_norm is not None and record.micro_grad_snr is not None
    assert record.micro_grad_variance < 1e-5 * record.grad_norm**2 and record.micro_grad_snr > 1e5


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_pieces_and_mixed_precision_go_together(tmp_path: Path, precision: str) -> None:
    scaled = {"use_mixed_precision": True, "precision": precision, "loss_scale": 128.0, "full_steps": 1000}
    rig = Rig(tmp_path, accumulate=4, gradient_clip_norm=0.5, steps=20, **scaled).begin().finish()
    reference = (
        Rig(tmp_path / "plain", accumulate=4, gradient_clip_norm=0.5, steps=20, full_steps=1000).begin().finish()
    )
    ours, plain = rig.of(StepRecord)[0], reference.of(StepRecord)[0]
    assert ours.micro_grad_variance == pytest.approx(plain.micro_grad_variance, rel=0.1), "no loss scale in it"
    assert ours.grad_norm == pytest.approx(plain.grad_norm, rel=0.05)
    assert all(s.loss is not None and math.isfinite(s.loss) for s in rig.of(StepRecord))


def test_an_accumulating_run_resumes_bit_for_bit(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"accumulate": 3, "dropout": 0.2, "steps": 30}
    whole = Rig(tmp_path / "whole", **settings).begin().finish()
    first = Rig(tmp_path / "cut", **settings).begin().until_step(12)
    first.session.save_checkpoint("cut here")
    second = Rig(tmp_path / "cut", **settings)
    second.session.resume(0, first.engine.step_count, "resumed")
    assert torch.equal(second.finish().weights(), whole.weights())


def test_a_batch_that_cannot_be_cut_is_refused_before_a_weight_moves(tmp_path: Path) -> None:
    rig = Rig(tmp_path, loss=lambda model, batch: model(torch.ones(1, 8)).sum(), accumulate=2).begin()
    weights = rig.weights()
    with pytest.raises(UserError, match="accumulate = 2: a str without tensors cannot be cut"):
        rig.engine.step("no tensors")
    assert torch.equal(rig.weights(), weights)
