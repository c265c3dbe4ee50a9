"""The first record of a run: what was started, where, on what. Starts nothing and writes nothing."""

import hashlib
import os
import platform
from pathlib import Path

import torch

from trainer_core.engine.engine import Engine
from trainer_core.spec.loading import tables_of
from trainer_core.spec.records import RunStarted


def run_started(
    engine: Engine,
    run_dir: Path,
    task: str,
    *,
    resumed_from: str | None,
    plain: bool,
    baseline: str | None,
    world_size: int,
) -> RunStarted:
    """The record of a process that begins to train, or goes on."""
    return RunStarted(
        step=engine.step_count,
        run_id=hashlib.sha256(str(run_dir.resolve()).encode()).hexdigest()[:12],
        task=task,
        config=tables_of(engine.config),
        layers=engine.parameters.layers,
        parameters=engine.parameters.count,
        total_steps=engine.total_steps,
        device=device_name(engine.parameters.device),
        versions={"python": platform.python_version(), "torch": str(torch.__version__)},
        pid=os.getpid(),
        resumed_from=resumed_from,
        plain=plain,
        baseline=baseline,
        world_size=world_size,
    )


def device_name(device: torch.device) -> str:
    """The GPU's name, or "cpu (x86_64)"."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else f"{device.type} ({platform.machine()})"
