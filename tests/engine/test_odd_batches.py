"""Claims about batches and losses of unusual form: whatever loss_fn makes of a batch, tests compare like with like."""

from collections import UserDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.engine.rig import Rig, batch_of, per_sample
from trainer_core.engine import predicting
from trainer_core.spec.errors import UserError
from trainer_core.spec.phases import Phase
from trainer_core.spec.records import PredictionEnded, PredictionProbed, StepRecord


class Pair:
    """A batch of a type of its own, in which nobody looks for tensors."""

    def __init__(self, index: int) -> None:
        self.x, self.y = batch_of(index)


class Named(dict[str, Tensor]):
    """A dict whose entries are attributes too."""

    def __getattr__(self, name: str) -> Tensor:
        return self[name]


class Tokens(UserDict[str, Tensor]):
    """A mapping that is no dict, as tokenizers give."""

    def __getattr__(self, name: str) -> Tensor:
        try:
            return self.data[name]  # type: ignore[no-any-return]
        except KeyError:
            raise AttributeError(name) from None


def per_piece(size: int) -> Callable[..., Tensor]:
    """A loss with ``size`` values for 32 samples, each the mean of as many samples as come together."""
    return lambda model, batch: per_sample(model, batch).reshape(size, -1).mean(1)


def per_output(model: nn.Module, batch: Any) -> Tensor:
    """Three values for every sample."""
    return F.binary_cross_entropy_with_logits(
        model(batch[0]), F.one_hot(batch[1], 3).float(), reduction="none"
    ).flatten()


def labelled(model: nn.Module, batch: Any) -> Tensor:
    """A value for every sample that has a label."""
    return per_sample(model, batch)[batch[2]]


def one_value(model: nn.Module, batch: Any) -> Tensor:
    """The mean, with a dimension to spare."""
    return per_sample(model, batch).mean().reshape(1)


def of_task(model: nn.Module, batch: Any) -> Tensor:
    """One mean for each of three tasks, all alike: those of half a batch are close to those of the whole."""
    return 30.0 + per_sample(model, batch).mean().expand(3)


CASES: dict[str, tuple[Callable[..., Tensor], Callable[[int], Any]]] = {
    "its number": (lambda model, index: per_sample(model, batch_of(index)), lambda i: i),
    "a type of its own": (lambda model, b: per_sample(model, (b.x, b.y)), Pair),
    "numpy arrays": (
        lambda model, b: per_sample(model, tuple(map(torch.from_numpy, b))),
        lambda i: tuple(t.numpy() for t in batch_of(i)),
    ),
    "a dict with attributes": (
        lambda model, b: per_sample(model, (b.x, b.y)),
        lambda i: Named(zip("xy", batch_of(i), strict=True)),
    ),
    "a mapping": (
        lambda model, b: per_sample(model, (b.x, b.y)),
        lambda i: Tokens(zip("xy", batch_of(i), strict=True)),
    ),
    "several values a sample": (per_output, batch_of),
    "fewer values than samples": (per_piece(4), batch_of),
    "a mean of one dimension": (one_value, batch_of),
    "a mean of each task": (of_task, batch_of),
    "samples without a label": (labelled, lambda i: (*batch_of(i), torch.arange(32) % 3 < (3 if i < 12 else 1))),
}


@pytest.mark.parametrize("policy", ["document", "adaptive"])
@pytest.mark.parametrize("case", CASES)
def test_it_goes_through_every_phase(tmp_path: Path, case: str, policy: str) -> None:
    loss, make = CASES[case]
    rig = Rig(tmp_path, loss=loss, policy=policy, probe_share=0.5, steps=60).begin()
    while rig.session.ended is None:
        rig.engine.step(make(rig.engine.batches))
        rig.session.after_step()
    rig.session.close()
    seen = {s.phase for s in rig.of(StepRecord)} | ({Phase.PREDICT} if policy == "adaptive" else set())
    assert seen >= {Phase.WARMUP, Phase.FULL, Phase.PREDICT, Phase.CORRECT}
    assert rig.of(PredictionProbed) and rig.of(PredictionEnded)


@pytest.mark.parametrize("case", ["a dict with attributes", "a mapping"])
def test_a_mapping_of_its_own_kind_is_cut_like_a_dict(tmp_path: Path, case: str) -> None:
    loss, make = CASES[case]
    rig = Rig(tmp_path, loss=loss).begin()
    rig.engine.step(make(0))
    assert rig.engine.samples(make(1)).shape == rig.engine.samples(make(1)).shape == (16,)
    assert rig.engine.separable is True


@pytest.mark.parametrize("loss", [one_value, of_task])
def test_a_loss_without_a_value_for_each_sample_keeps_its_batches_whole(
    tmp_path: Path, loss: Callable[..., Tensor]
) -> None:
    rig = Rig(tmp_path, loss=loss).begin()
    rig.step()
    rig.engine.samples(batch_of(1))
    assert rig.engine.separable is False


def test_a_verdict_waits_for_a_batch_with_labels_where_the_samples_left_out_have_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(predicting, "_AUDIT_EVERY", 1)  # every prediction is tested
    rig = Rig(tmp_path, loss=labelled, policy="adaptive").begin()
    while rig.engine.predictions_kept < 3:
        rig.engine.step((*batch_of(rig.engine.batches), torch.arange(32) < (32 if rig.engine.cycle < 2 else 16)))
        rig.session.after_step()
    assert rig.engine.separable is True and all(p.kept for p in rig.of(PredictionEnded))


def test_no_batch_at_all_is_refused_before_a_weight_moves(tmp_path: Path) -> None:
    rig = Rig(tmp_path, loss=lambda model, _: per_sample(model, batch_of(0))).begin()
    before = rig.weights()
    with pytest.raises(UserError, match="the batch is None: give what loss_fn trains on"):
        rig.engine.step(None)
    assert torch.equal(rig.weights(), before) and rig.engine.step_count == 0


def penalised(model: nn.Module, batch: Any) -> Tensor:
    """A loss that takes gradients itself: how steep it is in the inputs counts too."""
    x = batch[0].clone().requires_grad_()
    losses = per_sample(model, (x, batch[1]))
    (slope,) = torch.autograd.grad(losses.sum(), x, create_graph=torch.is_grad_enabled())
    return losses + slope.square().sum(1)


@pytest.mark.parametrize("policy", ["document", "adaptive"])
def test_a_loss_that_takes_gradients_itself_goes_through_every_phase(tmp_path: Path, policy: str) -> None:
    rig = Rig(tmp_path, loss=penalised, policy=policy, steps=60).begin().until_phase(Phase.FULL, 1)
    rig.model.eval()
    expected = penalised(rig.model, batch_of(9)).detach()
    rig.model.train()
    losses_N = rig.engine.samples(batch_of(9))
    assert torch.equal(losses_N, expected[: len(losses_N)]) and not losses_N.requires_grad
    assert rig.finish().of(PredictionEnded)


def test_a_loss_that_fails_otherwise_without_gradients_says_so_itself(tmp_path: Path) -> None:
    def fails(model: nn.Module, batch: Any) -> Tensor:
        if not torch.is_grad_enabled():
            raise RuntimeError("out of luck")
        return per_sample(model, batch)

    with pytest.raises(RuntimeError, match="out of luck"):
        Rig(tmp_path, loss=fails).begin().finish()
