"""Hybrid predictive training with live telemetry and control. Importing this package does not import torch."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trainer_core.hybrid_trainer import HybridTrainer
    from trainer_core.learning.predictors import LossPath, Observation, Predictor, Proposal, TrainingState
    from trainer_core.monitor import Monitor, RunStopped
    from trainer_core.spec.config import Config
    from trainer_core.spec.errors import UserError
    from trainer_core.spec.loading import load
    from trainer_core.spec.phases import Phase
    from trainer_core.telemetry.tables import read_run

__version__ = "0.1.0"
__all__ = [
    "Config",
    "HybridTrainer",
    "LossPath",
    "Monitor",
    "Observation",
    "Phase",
    "Predictor",
    "Proposal",
    "RunStopped",
    "TrainingState",
    "UserError",
    "load",
    "read_run",
]

_HOMES = {
    "HybridTrainer": "trainer_core.hybrid_trainer",
    "Monitor": "trainer_core.monitor",
    "RunStopped": "trainer_core.monitor",
    "Config": "trainer_core.spec.config",
    "UserError": "trainer_core.spec.errors",
    "load": "trainer_core.spec.loading",
    "LossPath": "trainer_core.learning.predictors",
    "Observation": "trainer_core.learning.predictors",
    "Predictor": "trainer_core.learning.predictors",
    "Proposal": "trainer_core.learning.predictors",
    "TrainingState": "trainer_core.learning.predictors",
    "read_run": "trainer_core.telemetry.tables",
    "Phase": "trainer_core.spec.phases",
}


def __getattr__(name: str) -> Any:
    """Public names are imported when they are first used."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_HOMES[name]), name)
