"""Claims about training settings: precision, loss scale, compilation, early stopping; each does what it says."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.engine.rig import Rig, batch_of, network, per_sample
from trainer_core.engine.compiling import compile_model
from trainer_core.engine.precision import Precision
from trainer_core.spec.config import TrainingConfig
from trainer_core.spec.errors import ConfigError
from trainer_core.spec.loading import resolve
from trainer_core.spec.records import CheckpointSaved, StepRecord, ValidationMeasured

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, torch.float32),
        ({"precision": "fp16"}, torch.float32),
        ({"use_mixed_precision": True}, torch.bfloat16),
        ({"use_mixed_precision": True, "precision": "bf16"}, torch.bfloat16),
        ({"use_mixed_precision": True, "precision": "fp16"}, torch.float16),
    ],
)
def test_the_forward_pass_runs_in_the_type_that_was_asked_for(
    tmp_path: Path, settings: dict[str, Any], expected: torch.dtype
) -> None:
    seen: list[torch.dtype] = []
    model = network()
    model[0].register_forward_hook(lambda module, given, out: seen.append(out.dtype))
    rig = Rig(tmp_path, model=model, steps=30, loss_scale=1024.0, **settings).begin().finish()
    assert set(seen) == {expected}, "training, probes and predicted steps alike"
    assert {p.dtype for p in rig.model.parameters()} == {torch.float32}
    assert len({s.phase for s in rig.of(StepRecord)}) == 4
    assert (rig.engine.precision.state_dict() != {}) == (expected is torch.float16), "a scaler for fp16 alone"


def test_the_loss_scale_is_the_scalers_and_the_gradients_are_free_of_it(tmp_path: Path) -> None:
    half = {"use_mixed_precision": True, "precision": "fp16", "loss_scale": 512.0}
    rig = Rig(tmp_path / "half", **half).begin()
    assert rig.engine.precision.state_dict()["scale"] == 512.0
    plain = Rig(tmp_path / "plain").begin()
    assert rig.step().grad_norm == pytest.approx(plain.step().grad_norm, rel=0.02)


def test_an_overflow_costs_one_step_and_half_the_scale_and_is_no_divergence(tmp_path: Path) -> None:
    half = {"use_mixed_precision": True, "precision": "fp16", "loss_scale": 2.0**24, "full_steps": 1000}
    rig = Rig(tmp_path, steps=40, **half).begin()
    before = rig.weights()
    first = rig.step()
    assert first.grad_norm is not None and not math.isfinite(first.grad_norm) and first.loss is not None
    assert torch.equal(rig.weights(), before) and rig.engine.precision.state_dict()["scale"] == 2.0**23
    rig.finish()
    assert rig.engine.attempt == 0 and rig.engine.recoveries == 0
    assert not torch.equal(rig.weights(), before), "the scale found its place and training went on"


def test_a_resumed_fp16_run_is_the_uninterrupted_one(tmp_path: Path) -> None:
    half: dict[str, Any] = {"use_mixed_precision": True, "precision": "fp16", "loss_scale": 2.0**18, "steps": 30}
    whole = Rig(tmp_path / "whole", **half).begin().finish()
    first = Rig(tmp_path / "cut", **half).begin().until_step(8)
    first.session.save_checkpoint("cut here")
    second = Rig(tmp_path / "cut", **half)
    second.session.resume(0, first.engine.step_count, "resumed")
    assert torch.equal(second.finish().weights(), whole.weights())
    assert second.engine.precision.state_dict() == whole.engine.precision.state_dict()


def test_precision_off_changes_no_bit_whatever_its_type(tmp_path: Path) -> None:
    a = Rig(tmp_path / "a", steps=15, precision="fp16").begin().finish()
    b = Rig(tmp_path / "b", steps=15).begin().finish()
    assert torch.equal(a.weights(), b.weights())


def test_unknown_precision_names_its_choices() -> None:
    with pytest.raises(ConfigError, match="precision = 'fp8': must be one of auto, fp16, bf16"):
        resolve({"training": {"precision": "fp8"}})
    assert isinstance(Precision(TrainingConfig(), CPU), Precision)


def test_a_compiled_model_keeps_its_names_and_its_values() -> None:
    model, plain = network(), network()
    plain.load_state_dict(model.state_dict())
    names = list(model.state_dict())
    compile_model(model, backend="eager")
    assert list(model.state_dict()) == names
    assert torch.equal(model(batch_of(0)[0]), plain(batch_of(0)[0]))


def test_a_compiled_model_trains_through_every_phase_to_the_same_weights(tmp_path: Path) -> None:
    calls: list[int] = []

    def counting(graph: torch.fx.GraphModule, inputs: list[Tensor]) -> Callable[..., Any]:
        calls.append(1)
        return graph.forward

    model, twin = network(), network()
    twin.load_state_dict(model.state_dict())
    rig, plain = Rig(tmp_path / "a", model=model, steps=40), Rig(tmp_path / "b", model=twin, steps=40)
    compile_model(model, backend=counting)
    rig.begin().finish()
    assert calls and len({s.phase for s in rig.of(StepRecord)}) == 4
    assert torch.allclose(rig.weights(), plain.begin().finish().weights(), atol=1e-6)


def test_where_nothing_compiles_it_is_one_sentence() -> None:
    def broken(graph: torch.fx.GraphModule, inputs: list[Tensor]) -> Callable[..., Any]:
        raise OSError("no compiler found\nand a long trace")

    torch.compiler.reset()
    with pytest.raises(ConfigError, match=r"compile = true: torch\.compile does not work here") as refused:
        compile_model(network(), backend=broken)
    assert "\n" not in str(refused.value)


class Validations:
    """A validation that answers from a list, its last value for ever."""

    def __init__(self, *losses: float) -> None:
        self.losses = list(losses)

    def __call__(self) -> tuple[float, float | None]:
        return (self.losses.pop(0) if len(self.losses) > 1 else self.losses[0]), None


def stopping(folder: Path, *losses: float, patience: int = 3, steps: int = 200) -> Rig:
    """A run that validates every 5 steps."""
    settings: dict[str, Any] = {"early_stopping_patience": patience, "validate_every": 5, "full_steps": 1000}
    return Rig(folder, steps=steps, validate=Validations(*losses), **settings).begin().finish()


def test_training_stops_after_as_many_validations_without_a_gain_as_patience_says(tmp_path: Path) -> None:
    rig = stopping(tmp_path, 1.0, 0.9, 0.95, 0.91, 0.9, 0.1)
    said = "early stopping: no better validation loss in 3 validations; best checkpoint: step-000010"
    assert rig.session.ended == ("finished", said)
    assert rig.engine.step_count == 25, "validations 3, 4 and 5 were no better than the second; an equal one is none"
    assert len(rig.of(ValidationMeasured)) == 5 and rig.of(CheckpointSaved)


def test_a_gain_starts_the_count_again(tmp_path: Path) -> None:
    rig = stopping(tmp_path, 1.0, 1.1, 1.1, 0.9, 1.0, 1.0, 0.8, 0.8)
    assert rig.engine.step_count == 50


def test_a_validation_that_is_nan_is_no_gain(tmp_path: Path) -> None:
    rig = stopping(tmp_path, 1.0, math.nan)
    assert rig.engine.step_count == 20


def test_without_patience_training_never_stops_early(tmp_path: Path) -> None:
    rig = stopping(tmp_path, 1.0, 2.0, patience=0, steps=60)
    assert rig.session.ended is not None and "all 60 steps" in rig.session.ended[1]


def test_a_resumed_run_remembers_how_long_it_waited(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"early_stopping_patience": 3, "validate_every": 5, "full_steps": 1000}
    first = Rig(tmp_path, validate=Validations(1.0, 1.1), **settings).begin().until_step(16)
    first.session.save_checkpoint("cut here")
    second = Rig(tmp_path, validate=Validations(1.1), **settings)
    second.session.resume(0, 16, "resumed")
    second.finish()
    assert second.engine.step_count == 20, "two waits before the cut, the third after it"


def test_clipping_off_leaves_the_gradient_alone_and_on_bounds_every_step(tmp_path: Path) -> None:
    sgd: dict[str, Any] = {"optimizer": lambda ps: torch.optim.SGD(ps, 1.0), "full_steps": 1000, "steps": 8}
    free = Rig(tmp_path / "a", **sgd).begin().finish().of(StepRecord)
    bound = Rig(tmp_path / "b", gradient_clip_norm=0.05, **sgd).begin().finish().of(StepRecord)
    assert all(s.update_norm == pytest.approx(s.grad_norm, rel=1e-3) for s in free)
    assert all(s.update_norm == pytest.approx(0.05, rel=1e-3) for s in bound)


def test_dropout_acts_in_training_and_not_in_probes(tmp_path: Path) -> None:
    torch.manual_seed(0)
    rig = Rig(tmp_path, model=nn.Sequential(nn.Linear(8, 16), nn.Dropout(0.5), nn.Linear(16, 3)))
    batch = batch_of(0)
    assert not torch.equal(per_sample(rig.model, batch), per_sample(rig.model, batch))
    assert torch.equal(rig.engine.samples(batch), rig.engine.samples(batch))
