"""Claims about moment_aging: after kept predictions Adam counts nominal steps, after others what it took itself."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.engine.rig import Rig
from trainer_core.spec.phases import Phase
from trainer_core.spec.records import PredictionEnded

ADAPTIVE: dict[str, Any] = {"policy": "adaptive", "min_predict_steps": 2, "confidence_threshold": 0.5, "steps": 10_000}


def counts(rig: Rig) -> set[float]:
    """Steps that Adam thinks it has taken."""
    return {round(float(state["step"]), 3) for state in rig.optimizer.state.values()}


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_adam_counts_that_share_of_the_steps_predicted(tmp_path: Path, share: float) -> None:
    rig = Rig(tmp_path, moment_aging=share, max_predict_steps=30, **ADAPTIVE).begin()
    rig.until(lambda: rig.engine.predictions_kept >= 4)
    rig.step()
    kept = [ended for ended in rig.of(PredictionEnded) if ended.kept]
    aged = sum(round(share * ended.steps) for ended in kept) - rig.engine.unaged
    assert counts(rig) == {rig.engine.backward_passes + aged}
    assert (aged > 0) == (share > 0)


def test_a_prediction_that_is_taken_back_ages_nothing(tmp_path: Path) -> None:
    rig = Rig(tmp_path, moment_aging=1.0, steps=10_000).begin().until_phase(Phase.PREDICT, 2)
    with torch.no_grad():
        next(rig.model.parameters()).add_(1e3)  # a prediction that leads nowhere
    rig.until(lambda: rig.engine.predictions_undone >= 1)
    rig.step()
    assert rig.engine.predictions_kept == 0
    assert counts(rig) == {rig.engine.backward_passes}


def test_an_overflow_of_the_loss_scale_ages_nothing(tmp_path: Path) -> None:
    half: dict[str, Any] = {"use_mixed_precision": True, "precision": "fp16", "loss_scale": 2.0**24}
    rig = Rig(tmp_path, moment_aging=1.0, steps=40, full_steps=1000, **half).begin()
    rig.engine.unaged = 7
    record = rig.step()
    assert record.grad_norm is not None and not math.isfinite(record.grad_norm)
    assert rig.engine.unaged == 7 and not rig.optimizer.state, "the step was skipped, and so is the aging"
    rig.until(lambda: rig.engine.unaged == 0)
    assert all(torch.isfinite(state["exp_avg_sq"]).all() for state in rig.optimizer.state.values())
