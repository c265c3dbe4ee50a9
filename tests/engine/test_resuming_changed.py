"""Claims about a run resumed as something else: what may change does, what may not is refused in one sentence."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tests.engine.rig import EAGER, Rig, batch_of, network, per_sample
from trainer_core.hybrid_trainer import HybridTrainer
from trainer_core.spec.commands import SetWeightDecay
from trainer_core.spec.errors import CheckpointError
from trainer_core.spec.phases import Phase
from trainer_core.spec.records import Annotated, StepRecord
from trainer_core.spec.remedies import overfitting

Make = Callable[[list[nn.Parameter]], torch.optim.Optimizer]
PREDICTORS: dict[str, dict[str, Any]] = {
    "Linear": {},
    "MLP": {"predictor_config": {"type": "MLP"}},
    "MLP x 3": {"predictor_config": {"type": "MLP", "ensemble_size": 3}},
    "RSSM": {"predictor_config": {"type": "RSSM", "deterministic_dim": 8, "stochastic_dim": 2, "num_categoricals": 2}},
}


def resumed(folder: Path, first: dict[str, Any], second: dict[str, Any], phase: Phase = Phase.PREDICT) -> Rig:
    """A run cut in ``phase`` and resumed by another process with other settings."""
    rig = Rig(folder, steps=40, **first).begin().until_phase(phase, 1)
    rig.session.save_checkpoint("cut here")
    other = Rig(folder, steps=40, **second)
    other.session.resume(0, rig.engine.step_count, "resumed")
    return other


@pytest.mark.parametrize(
    ("first", "second"),
    [("Linear", "Linear"), ("Linear", "RSSM"), ("RSSM", "Linear"), ("MLP", "MLP x 3"), ("MLP x 3", "MLP x 3")],
)
def test_a_predictor_of_another_kind_begins_anew_and_says_so(tmp_path: Path, first: str, second: str) -> None:
    always = {"predictor_train_every": 1}  # the networks of the learned ones are in the checkpoint as well
    rig = resumed(tmp_path, PREDICTORS[first] | always, PREDICTORS[second] | always)
    assert rig.engine.phase is Phase.PREDICT, "a prediction under way goes on: it is a path, whoever proposed it"
    notes = [n.text for n in rig.of(Annotated)]
    if first == second:
        assert notes == [] and (len(rig.engine.residuals) > 0) == (first == "Linear")
    else:
        assert len(notes) == 1 and notes[0].startswith(f"the predictor begins anew: it was {first.partition(' ')[0]}, ")
        assert len(rig.engine.residuals) == 0, "residuals of another predictor say nothing about this one"
    assert {s.phase for s in rig.finish().of(StepRecord)} >= {Phase.FULL, Phase.PREDICT, Phase.CORRECT}


def test_a_setting_of_the_optimizer_changed_between_two_processes_holds(tmp_path: Path) -> None:
    def decaying(decay: float) -> dict[str, Any]:
        return {"optimizer": lambda ps: torch.optim.AdamW(ps, 3e-3, betas=(0.9, 1 - decay), weight_decay=decay)}

    rig = resumed(tmp_path, decaying(0.01), decaying(0.05))
    group = rig.optimizer.param_groups[0]
    assert (group["weight_decay"], group["betas"]) == (0.05, (0.9, 0.95))
    assert all("exp_avg" in state for state in rig.optimizer.state.values()), "its moments are the checkpoint's"


def test_a_weight_decay_set_in_the_run_outlasts_the_resume_also_for_remedies(tmp_path: Path) -> None:
    first = Rig(tmp_path).begin().until_step(7)
    first.tell(SetWeightDecay(0.2))
    first.session.save_checkpoint("cut here")
    rig = Rig(tmp_path)
    rig.session.resume(0, 7, "resumed")
    assert rig.optimizer.param_groups[0]["weight_decay"] == 0.2
    assert overfitting(rig.engine.config) == (SetWeightDecay(2.0),), "ten times what it is, not what it was"


def smaller() -> nn.Module:
    return nn.Sequential(nn.Linear(8, 4), nn.ReLU(), nn.Linear(4, 3))


def frozen() -> nn.Module:
    model = network()
    model[0].requires_grad_(False)
    return model


def in_groups(ps: list[nn.Parameter]) -> torch.optim.Optimizer:
    return torch.optim.AdamW([{"params": ps[:1]}, {"params": ps[1:]}], 3e-3)


@pytest.mark.parametrize(
    ("model", "optimizer", "words"),
    [
        (network, lambda ps: torch.optim.SGD(ps, 0.1, momentum=0.9), "optimizer is AdamW, this run's SGD"),
        (network, in_groups, "has 1 parameter groups, this run's 2"),
        (smaller, None, r"model is another: 2\.weight is not in it; 2\.bias is not in it; .* and 3 more"),
        (frozen, None, "has 195 trained weights, this run 51"),
    ],
    ids=["optimizer", "groups", "model", "frozen"],
)
def test_another_model_or_optimizer_is_refused_in_one_sentence(
    tmp_path: Path, model: Callable[[], nn.Module], optimizer: Make | None, words: str
) -> None:
    def trainer(model: nn.Module, make: Make | None, resume: bool) -> HybridTrainer:
        made = (make or (lambda ps: torch.optim.AdamW(ps, 3e-3)))(list(model.parameters()))
        return HybridTrainer(model, made, per_sample, EAGER, tmp_path / "run", resume=resume, serve=False)

    with trainer(network(), None, False) as first:
        for index in range(3):
            first.step(batch_of(index))
        first.stop("cut here")
    with pytest.raises(CheckpointError, match="cannot be resumed: .*" + words) as caught:
        trainer(model(), optimizer, True)
    assert "\n" not in str(caught.value)
    with trainer(network(), None, True) as again:
        assert again.step(batch_of(3)).step == 4, "the refusal left the run as it was"
