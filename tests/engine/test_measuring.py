"""Claims about the losses that tests compare: those of a part of the batch, where that is the same thing."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.engine.rig import Rig, batch_of
from trainer_core.engine import looking
from trainer_core.spec.phases import Phase

SETTINGS: dict[str, Any] = {"policy": "adaptive", "confidence_threshold": 0.3, "max_predict_steps": 40}


def measured(folder: Path, batch: Any, loss: Any = None, **settings: Any) -> tuple[Rig, Tensor, float]:
    """A rig, the losses of the second measurement of ``batch``, and what it took in passes over a whole batch."""
    rig = Rig(folder, loss=loss, **(SETTINGS | settings)) if loss else Rig(folder, **(SETTINGS | settings))
    rig.begin().step()
    rig.engine.samples(batch)
    before = rig.engine.forwards
    losses_N = rig.engine.samples(batch)
    return rig, losses_N, rig.engine.forwards - before


def batch(size: int) -> tuple[Tensor, Tensor]:
    """Samples of the rig's shape."""
    torch.manual_seed(size)
    return torch.randn(size, 8), torch.randint(0, 3, (size,))


@pytest.mark.parametrize(
    ("size", "share", "kept"), [(64, 0.5, 32), (64, 0.25, 16), (20, 0.1, 8), (6, 0.5, 6), (64, 1.0, 64)]
)
def test_the_first_samples_are_measured_and_at_least_eight(tmp_path: Path, size: int, share: float, kept: int) -> None:
    rig, losses_N, cost = measured(tmp_path, batch(size), probe_share=share)
    assert losses_N.shape == (kept,) and cost == pytest.approx(kept / size)
    rig.model.eval()
    x, y = batch(size)
    assert torch.allclose(losses_N, F.cross_entropy(rig.model(x), y, reduction="none")[:kept], atol=1e-6)


def contrastive(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    """Each sample against all others of its batch."""
    features = F.normalize(model(batch[0]))
    return F.cross_entropy(10 * features @ features.T, torch.arange(len(features)), reduction="none")


def test_a_loss_that_compares_samples_with_each_other_keeps_its_batches_whole(tmp_path: Path) -> None:
    rig, losses_N, cost = measured(tmp_path, batch(64), contrastive)
    assert rig.engine.separable is False and losses_N.shape == (64,) and cost == 1


def test_a_mean_is_measured_in_pieces_of_the_whole_batch(tmp_path: Path) -> None:
    rig, losses_N, cost = measured(tmp_path, batch(64), lambda model, b: F.cross_entropy(model(b[0]), b[1]))
    assert rig.engine.separable is None and losses_N.shape == (8,) and cost == 1


def test_measuring_leaves_the_mode_of_every_layer_and_what_a_resumed_run_knows(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16), nn.Dropout(0.3), nn.Linear(16, 3))
    rig = Rig(tmp_path, model=model, **SETTINGS).begin()
    rig.step()
    model[2].eval()
    running = model[1].running_mean.clone()  # type: ignore[union-attr, operator]
    first = rig.engine.samples(batch_of(5))
    assert torch.equal(first, rig.engine.samples(batch_of(5))), "no dropout"
    assert model[1].training and not model[2].training and torch.equal(model[1].running_mean, running)  # type: ignore[arg-type]
    state = rig.engine.state_dict()["counters"]
    assert state["separable"] is True and state["forwards"] == rig.engine.forwards


def test_a_look_sets_the_mode_once_and_moves_the_weights_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """There and back: it begins where the weights are."""
    rig = Rig(tmp_path, dropout=0.1, **SETTINGS).begin().until_step(5)
    engine, calls, model, write = rig.engine, list[str](), rig.model, rig.engine.parameters.write
    eval_ = model.eval
    monkeypatch.setattr(model, "eval", lambda: (calls.append("eval"), eval_())[1])
    monkeypatch.setattr(engine.parameters, "write", lambda w_P: (calls.append("write"), write(w_P))[1])
    before, training = rig.weights(), [m.training for m in model.modules()]
    looking.look(engine, batch_of(99))
    assert engine.proposed is not None and calls == ["eval", "write"]
    assert torch.equal(rig.weights(), before) and [m.training for m in model.modules()] == training and all(training)


@pytest.mark.parametrize("policy", ["document", "adaptive"])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e30])
def test_a_broken_batch_at_the_first_measurement_ends_no_run(tmp_path: Path, value: float, policy: str) -> None:
    rig = Rig(tmp_path, policy=policy, steps=60, checkpoint_every=5).begin()
    rig.until(lambda: rig.engine.phase is Phase.FULL and rig.engine.steps_in_phase >= rig.engine.probe_at)
    rig.engine.separable = None  # as at the first look, whichever batch that is
    rig.scales[rig.engine.batches] = value
    rig.finish()
    assert rig.engine.separable is True and rig.session.ended == ("finished", "all 60 steps taken")
