"""Claims about waiting for the device: a step reads numbers from it once, and only where it must.

On a CPU nothing waits, but the operation that would is the same, and is counted: every ``item()``, ``float(tensor)``
and ``bool(tensor)`` is one call of ``aten::_local_scalar_dense``; ``tolist()`` is none here and one wait on a GPU.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from tests.engine.rig import NEEDS_MUON, Rig, batch_of, network, same
from trainer_core.engine.snapshot import copied, load_optimizer
from trainer_core.learning.optimizers import make_optimizer
from trainer_core.spec.loading import resolve
from trainer_core.spec.phases import Phase

Make = Callable[[list[nn.Parameter]], torch.optim.Optimizer]


class Waits(TorchDispatchMode):
    """Counts the reads of single numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += func is torch.ops.aten._local_scalar_dense.default
        return func(*args, **(kwargs or {}))


OPTIMIZERS: dict[str, Make] = {
    "fused AdamW": lambda ps: torch.optim.AdamW(ps, 1e-3, fused=True),
    "SGD": lambda ps: torch.optim.SGD(ps, 0.01, momentum=0.9),
}
SETTINGS: dict[str, dict[str, Any]] = {
    "plain": {},
    "clipped": {"gradient_clip_norm": 0.1},
    "accumulated": {"accumulate": 4, "gradient_clip_norm": 0.1},
    "bf16": {"use_mixed_precision": True},
}


def test_the_counter_counts_what_would_wait() -> None:
    with Waits() as waits:
        x = torch.ones(2)
        float(x[0])
        bool(x[0])
        x[1].item()
    assert waits.count == 3


def waits_of_a_full_step(rig: Rig) -> int:
    """Reads of single numbers in one step, after a few that warm up."""
    rig.begin().until_step(5)
    with Waits() as waits:
        rig.engine.step(batch_of(5))
    return waits.count


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("settings", SETTINGS)
def test_a_full_step_reads_no_number_beside_the_one_list(tmp_path: Path, name: str, settings: str) -> None:
    rig = Rig(tmp_path, optimizer=OPTIMIZERS[name], full_steps=1000, **SETTINGS[settings])
    assert waits_of_a_full_step(rig) == 0


def test_a_fused_optimizer_is_told_of_an_overflow_without_a_read(tmp_path: Path) -> None:
    half: dict[str, Any] = {"use_mixed_precision": True, "precision": "fp16", "loss_scale": 256.0, "full_steps": 1000}
    assert waits_of_a_full_step(Rig(tmp_path / "a", optimizer=OPTIMIZERS["fused AdamW"], **half)) == 0
    others = waits_of_a_full_step(Rig(tmp_path / "b", optimizer=OPTIMIZERS["SGD"], **half))
    assert others == 1, "for other optimizers torch's scaler reads it, once"


@NEEDS_MUON
@pytest.mark.parametrize("every", [1, 2])
def test_muon_and_its_prediction_read_nothing(tmp_path: Path, every: int) -> None:
    muon = {"type": "Muon", "orthogonaliser_every": every, "orthogonaliser_confidence": 0.0}
    config = resolve({"optimizer": muon, "initial_lr": 1e-3}).config
    model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 3))
    rig = Rig(tmp_path, model=model, optimizer=lambda _: make_optimizer(config, model), full_steps=1000)
    assert waits_of_a_full_step(rig) == 0
    assert rig.engine.muon is None if every == 1 else rig.engine.muon is not None


def test_a_predicted_step_reads_no_number_beside_its_list(tmp_path: Path) -> None:
    rig = Rig(tmp_path, max_predict_steps=20, min_predict_steps=20).begin().until_phase(Phase.PREDICT, 2)
    with Waits() as waits:
        rig.engine.step(batch_of(rig.engine.batches))
    assert rig.engine.phase is Phase.PREDICT and waits.count == 0


def test_moving_all_weights_takes_no_operation_per_weight() -> None:
    """One foreach call each for reading, writing and adding, whatever the number of parameters."""
    from trainer_core.learning.parameters import Parameters

    class Calls(TorchDispatchMode):
        def __init__(self) -> None:
            super().__init__()
            self.names: list[str] = []

        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            self.names.append(func.__name__)
            return func(*args, **(kwargs or {}))

    parameters = Parameters(network())
    vector_P = parameters.empty()
    with Calls() as calls:
        parameters.read(vector_P)
        parameters.write(vector_P)
        parameters.add(vector_P, 2.0)
    moving = [name for name in calls.names if not name.startswith(("split", "view", "_unsafe_view", "alias"))]
    assert [name.partition(".")[0] for name in moving] == ["_foreach_copy_", "_foreach_copy_", "_foreach_add_"]


def test_a_snapshot_leaves_on_the_host_what_the_optimizer_keeps_there() -> None:
    """Step counts of an optimizer that is not fused: on a device, each would be waited for at every later step."""
    state = {"state": {0: {"step": torch.tensor(3.0), "exp_avg": torch.ones(2, device="meta")}}}
    kept = copied(state, torch.device("meta"))["state"][0]
    assert kept["step"].device.type == "cpu" and kept["exp_avg"].device.type == "meta"
    assert kept["step"] is not state["state"][0]["step"]


@pytest.mark.parametrize("fused", [False, True])
def test_a_loaded_optimizer_has_every_entry_of_the_saved_one(fused: bool) -> None:
    first, second = (nn.Linear(3, 2) for _ in range(2))
    saved, loaded = (torch.optim.AdamW(m.parameters(), 1e-3, fused=fused, weight_decay=0.1) for m in (first, second))
    for _ in range(3):
        saved.zero_grad()
        first(torch.ones(4, 3)).sum().backward()
        saved.step()
    load_optimizer(loaded, saved.state_dict())
    assert same(loaded.state_dict(), saved.state_dict()) and len(loaded.state) == 2
