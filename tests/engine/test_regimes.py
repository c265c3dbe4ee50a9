"""Claims about the adaptive policy: it predicts where that pays, and stays in FULL where there is only noise."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from tests.engine.rig import Rig
from trainer_core.spec.commands import SetThreshold
from trainer_core.spec.phases import Phase
from trainer_core.spec.records import PredictionEnded, StepRecord

ADAPTIVE: dict[str, Any] = {
    "policy": "adaptive",
    "min_predict_steps": 4,
    "max_predict_steps": 100,
    "confidence_threshold": 0.85,
}


def noise(model: torch.nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    """The loss of labels that have nothing to do with the inputs: new ones for every batch."""
    inputs, labels = batch
    seed = int(inputs.abs().sum() * 1000) % 2**31
    random = torch.randint(0, 3, labels.shape, generator=torch.Generator().manual_seed(seed))
    return F.cross_entropy(model(inputs), random, reduction="none")


def adam(rate: float) -> Callable[[list[torch.nn.Parameter]], torch.optim.Optimizer]:
    """An optimizer at this rate."""
    return lambda parameters: torch.optim.AdamW(parameters, rate)


def test_in_a_predictable_regime_the_confidence_passes_the_threshold_and_predictions_follow(tmp_path: Path) -> None:
    rig = Rig(tmp_path, steps=1500, optimizer=adam(1e-4), **ADAPTIVE).begin().finish()
    ended = rig.of(PredictionEnded)
    kept = [r for r in ended if r.kept]
    assert all(r.confidence is not None and r.confidence > 0.85 for r in ended)
    assert len(kept) >= 0.85 * len(ended) > 5
    assert rig.engine.backward_passes < 0.3 * 1500


def test_in_noise_the_run_stays_full_and_looks_cost_next_to_nothing(tmp_path: Path) -> None:
    rig = Rig(tmp_path, steps=600, optimizer=adam(1e-2), loss=noise, **ADAPTIVE).begin()
    rig.until(lambda: rig.engine.step_count >= 600, most=700)
    predicted = 600 - rig.engine.backward_passes
    assert predicted < 0.05 * 600
    late = [r for r in rig.of(StepRecord) if r.step > 300]
    assert sum(r.phase is Phase.FULL for r in late) > 0.95 * len(late)
    assert max(r.confidence or 0.0 for r in late) < 0.85
    assert rig.engine.forwards / 3 < 0.03 * rig.engine.backward_passes, "looks, in full steps"


def test_moving_the_threshold_moves_how_much_is_predicted(tmp_path: Path) -> None:
    rig = Rig(tmp_path, steps=100_000, optimizer=adam(1e-4), **(ADAPTIVE | {"confidence_threshold": 1.0}))
    rig.begin().until_step(60)
    assert rig.engine.predictions_entered == 0
    rig.tell(SetThreshold("confidence_threshold", 0.85))
    rig.until(lambda: rig.engine.predictions_kept >= 3)
    rig.tell(SetThreshold("confidence_threshold", 1.0))
    rig.until_phase(Phase.FULL, 2)
    entered, step = rig.engine.predictions_entered, rig.engine.step_count
    rig.until_step(step + 60)
    assert rig.engine.predictions_entered == entered
