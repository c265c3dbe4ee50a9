"""Claims that need a CUDA device: one wait a step, fp16 with its scaler, snapshots in host memory, exact resume."""

import math
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tests.engine.rig import Rig, batch_of, network, same
from trainer_core.engine.predicting import undo
from trainer_core.engine.snapshot import Snapshot
from trainer_core.learning.optimizers import make_optimizer
from trainer_core.spec.loading import resolve
from trainer_core.spec.phases import Phase
from trainer_core.spec.records import StepRecord

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device, and this machine has none"),
]


def deep() -> nn.Module:
    """A network with a body for Muon, on the GPU."""
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 3)).cuda()


def gpu_rig(folder: Path, kind: str = "AdamW", **settings: Any) -> Rig:
    """A run on the GPU with an optimizer as the built-in tasks make it."""
    own = {name: settings.pop(name) for name in ("orthogonaliser_every",) if name in settings}
    config = resolve({"optimizer": {"type": kind} | own, "initial_lr": 3e-3}).config
    model = deep()
    return Rig(folder, model=model, optimizer=lambda _: make_optimizer(config, model), **settings)


def waits(rig: Rig, batch: Any) -> int:
    """How often one step waited for the device."""
    torch.cuda.synchronize()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            rig.engine.step(batch)
        finally:
            torch.cuda.set_sync_debug_mode("default")
    return sum("synchronizing CUDA operation" in str(w.message) for w in caught)


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("AdamW", {}),
        ("AdamW", {"gradient_clip_norm": 0.1, "accumulate": 4}),
        ("AdamW", {"use_mixed_precision": True}),
        ("AdamW", {"use_mixed_precision": True, "precision": "bf16"}),
        ("SGD", {}),
        ("Muon", {"orthogonaliser_every": 3}),
    ],
)
def test_a_full_step_waits_for_the_device_once(tmp_path: Path, kind: str, settings: dict[str, Any]) -> None:
    rig = gpu_rig(tmp_path, kind, full_steps=1000, **settings).begin().until_step(6)
    batch = tuple(t.cuda() for t in batch_of(6))
    assert waits(rig, batch) == 1


def test_a_predicted_step_waits_for_the_device_once(tmp_path: Path) -> None:
    rig = gpu_rig(tmp_path, max_predict_steps=20, min_predict_steps=20).begin().until_phase(Phase.PREDICT, 2)
    batch = tuple(t.cuda() for t in batch_of(50))
    assert waits(rig, batch) == 1 and rig.engine.phase is Phase.PREDICT


def test_fp16_finds_its_scale_and_trains_through_every_phase(tmp_path: Path) -> None:
    rig = gpu_rig(tmp_path, use_mixed_precision=True, loss_scale=2.0**24, steps=120).begin().finish()
    assert rig.engine.attempt == 0, "an overflow of the scaler is no divergence"
    assert rig.engine.precision.state_dict()["scale"] < 2.0**24
    steps = rig.of(StepRecord)
    assert {s.phase for s in steps} == set(Phase)
    assert steps[-1].loss is not None and math.isfinite(steps[-1].loss)
    assert steps[-1].loss_ema is not None and steps[0].loss_ema is not None and steps[-1].loss_ema < steps[0].loss_ema


def test_a_snapshot_in_host_memory_is_pinned_and_restores_bit_for_bit(tmp_path: Path) -> None:
    rig = gpu_rig(tmp_path, snapshot_device="cpu").begin().until_phase(Phase.CORRECT, 1)
    snapshot = rig.engine.snapshot
    assert snapshot is not None
    held = snapshot.state_dict()
    assert held["weights"].device.type == "cpu" and held["weights"].is_pinned()
    moments = [t for state in held["optimizer"]["state"].values() for t in state.values() if torch.is_tensor(t)]
    assert moments and all(t.device.type == "cpu" for t in moments)
    beside = Snapshot(rig.engine.parameters, rig.engine.model, "same")
    assert beside.weights_P.is_cuda and not torch.equal(beside.weights_P.cpu(), held["weights"])
    snapshot.restore(rig.engine.parameters, rig.engine.model, rig.engine.optimizer)
    now = rig.engine.parameters.read(rig.engine.parameters.empty())
    assert torch.equal(now.cpu(), held["weights"])
    state = rig.optimizer.state_dict()["state"]
    assert all(t.is_cuda for s in state.values() for name, t in s.items() if name.startswith("exp_avg"))


def test_taking_a_snapshot_to_the_host_does_not_wait(tmp_path: Path) -> None:
    rig = gpu_rig(tmp_path).begin().until_step(5)
    parts = (rig.engine.parameters, rig.engine.model, "cpu")
    Snapshot(*parts).keep_optimizer(rig.engine.optimizer)  # the first one allocates pinned pages
    torch.cuda.synchronize()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            snapshot = Snapshot(*parts)
            snapshot.keep_optimizer(rig.engine.optimizer)
        finally:
            torch.cuda.set_sync_debug_mode("default")
    assert not [w for w in caught if "synchronizing CUDA operation" in str(w.message)]
    assert torch.equal(
        snapshot.state_dict()["weights"], rig.engine.parameters.read(rig.engine.parameters.empty()).cpu()
    )


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("AdamW", {}),
        ("AdamW", {"use_mixed_precision": True, "accumulate": 2}),
        ("AdamW", {"snapshot_device": "cpu"}),
        ("Muon", {"orthogonaliser_every": 3}),
    ],
)
def test_a_resumed_run_is_the_uninterrupted_one(tmp_path: Path, kind: str, settings: dict[str, Any]) -> None:
    whole = gpu_rig(tmp_path / "whole", kind, steps=40, **settings).begin().finish()
    first = gpu_rig(tmp_path / "cut", kind, steps=40, **settings).begin().until_phase(Phase.PREDICT, 2)
    first.session.save_checkpoint("cut here")
    second = gpu_rig(tmp_path / "cut", kind, steps=40, **settings)
    second.session.resume(0, first.engine.step_count, "resumed")
    assert torch.equal(second.finish().weights(), whole.weights())
    assert same(second.engine.schedule.state_dict(), whole.engine.schedule.state_dict())


def test_after_an_undo_and_after_a_resume_a_step_still_waits_once(tmp_path: Path) -> None:
    """An optimizer that is not fused keeps its step counts on the host, and must find them there again."""

    def rig() -> Rig:
        model = deep()
        return Rig(tmp_path, model=model, optimizer=lambda ps: torch.optim.AdamW(ps, 3e-3, fused=False), full_steps=8)

    first = rig().begin().until_phase(Phase.CORRECT, 1)
    first.session.save_checkpoint("cut here")
    undo(first.engine, "the test says so")
    second = rig()
    second.session.resume(0, first.engine.step_count, "resumed")
    for each in (first, second):
        each.until_phase(Phase.FULL, 2)
        assert all(s["step"].device.type == "cpu" for s in each.optimizer.state.values())
        assert waits(each, tuple(t.cuda() for t in batch_of(99))) == 1


def test_the_gpu_trains_to_about_the_loss_of_the_cpu(tmp_path: Path) -> None:
    torch.manual_seed(1)
    model = network()
    twin = network().cuda()
    twin.load_state_dict(model.state_dict())
    cpu = Rig(tmp_path / "cpu", model=model, steps=15, full_steps=1000).begin().finish()
    gpu = Rig(tmp_path / "gpu", model=twin, steps=15, full_steps=1000).begin().finish()
    assert gpu.of(StepRecord)[-1].loss == pytest.approx(cpu.of(StepRecord)[-1].loss, rel=1e-2)
