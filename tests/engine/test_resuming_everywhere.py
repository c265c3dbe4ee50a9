"""Claims about stopping anywhere: a run saved after any step, in any phase, goes on bit for bit."""

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.engine.rig import Rig, same
from trainer_core.spec.phases import Phase

TRAINED = {"predictor_train_every": 2}
VARIANTS: dict[str, dict[str, Any]] = {
    "document": {"policy": "document", "full_steps": 3, "max_predict_steps": 4, "min_predict_steps": 4},
    "forward_every": {"policy": "document", "full_steps": 3, "max_predict_steps": 6, "forward_every": 3},
    "adaptive": {"policy": "adaptive", "min_predict_steps": 2, "confidence_threshold": 0.8},
    "aging": {"policy": "adaptive", "min_predict_steps": 2, "confidence_threshold": 0.5, "moment_aging": 1.0},
    "with FULL": {"policy": "adaptive", "min_predict_steps": 2, "confidence_threshold": 0.5, "min_full_steps": 2},
    "refusing": {"policy": "adaptive", "min_predict_steps": 2, "confidence_threshold": 0.99},
    "MLP": {"policy": "adaptive", "confidence_threshold": 0.5, "predictor_config": {"type": "MLP", **TRAINED}},
    "RSSM": {
        "policy": "document", "full_steps": 3, "max_predict_steps": 4, "min_predict_steps": 4,
        "predictor_config": {
            "type": "RSSM", "deterministic_dim": 8, "stochastic_dim": 2, "num_categoricals": 4, **TRAINED,
        },
    },
    "ensemble": {"policy": "adaptive", "predictor_config": {"type": "MLP", "ensemble_size": 3, **TRAINED}},
}  # fmt: skip
BATCHES = 30


def rig(folder: Path, variant: str) -> Rig:
    """A run with dropout: the global generator counts, too. Its clock stands still: seconds are in the state."""
    return Rig(folder, dropout=0.1, steps=10_000, clock=lambda: 0.0, **VARIANTS[variant])


def step(r: Rig) -> tuple[str, int, float]:
    """One batch; what a reader of the journal would see of it."""
    record = r.step()
    return record.phase.value, record.step, record.loss


@pytest.mark.parametrize("variant", VARIANTS)
def test_whatever_the_moment_the_saved_run_goes_on_bit_for_bit(tmp_path: Path, variant: str) -> None:
    whole = rig(tmp_path / "whole", variant).begin()
    expected = []
    names = []
    for _ in range(BATCHES):
        expected.append(step(whole))
        names.append(whole.session.checkpoints.save(whole.model, whole.session.state_dict(), len(names), 0, True).name)
        whole.session.checkpoints._keep_last = BATCHES + 5
    end = whole.session.state_dict()

    seen = set()
    for moment in range(0, BATCHES, 3):
        again = rig(tmp_path / "whole", variant)
        _, weights, state = again.session.checkpoints.load(names[moment], torch.device("cpu"))
        again.model.load_state_dict(weights)
        again.session.load_state_dict(state)
        seen.add(again.engine.phase)
        assert [step(again) for _ in range(moment + 1, BATCHES)] == expected[moment + 1 :], f"from batch {moment}"
        assert torch.equal(again.weights(), whole.weights())
        assert same(again.session.state_dict()["engine"], end["engine"])
    wanted = {"document": set(Phase), "with FULL": {Phase.FULL}, "refusing": {Phase.FULL}}
    assert seen >= wanted.get(variant, {Phase.CORRECT})
