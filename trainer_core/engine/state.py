"""The engine's state as one dict: all that going on bit for bit needs, beside the model's weights. Takes no step."""

from typing import TYPE_CHECKING, Any

import msgspec

from trainer_core.engine import fitting
from trainer_core.engine.flight import Flight
from trainer_core.engine.randomness import random_state, set_random_state
from trainer_core.engine.snapshot import Snapshot, load_optimizer
from trainer_core.learning.training_state import TrainingState
from trainer_core.spec.phases import Phase
from trainer_core.spec.signals import Signals

if TYPE_CHECKING:
    from trainer_core.engine.engine import Engine

_PARTS = (
    "precision",
    "schedule",
    "predictor",
    "pace",
    "residuals",
    "confidence",
    "progress",
    "lengths",
    "budget",
    "curve",
    "grad_baseline",
    "update_baseline",
)
_COUNTERS = (
    "step_count",
    "steps_in_phase",
    "batches",
    "cycle",
    "backward_passes",
    "forwards",
    "shares",
    "separable",
    "draws",
    "probe_at",
    "predictions_entered",
    "predictions_kept",
    "predictions_undone",
    "unaged",
    "last_divergence",
    "locked",
    "corrected",
)


def state_of(engine: "Engine") -> dict[str, Any]:
    """Tensors, numbers, strings, lists and dicts of them."""
    return {
        "optimizer": engine.optimizer.state_dict(),
        **{name: getattr(engine, name).state_dict() for name in _PARTS},
        "flight": engine.flight.state_dict() if engine.flight else None,
        "shadow": engine.shadow.state_dict() if engine.shadow else None,
        "snapshot": engine.snapshot.state_dict() if engine.snapshot else None,
        "counters": {name: getattr(engine, name) for name in _COUNTERS},
        "phase": engine.phase.value,
        "last": msgspec.to_builtins(engine.last),
        "last_state": list(engine.last_state),
        "state": msgspec.to_builtins(engine.state),
        "made": engine.made,
        "recorder": engine.recorder.state_dict(),
        "random": random_state() | {"data": engine.data.state_dict()},
        "ragged": engine.ranks.averaging.ragged if engine.ranks else None,
    }


def restore(engine: "Engine", state: dict[str, Any]) -> None:
    """Put back what ``state_of`` gave."""
    device = engine.parameters.device
    load_optimizer(engine.optimizer, state["optimizer"])
    for name in fitting.parts(engine, state, _PARTS):
        getattr(engine, name).load_state_dict(state[name])
    engine.flight = Flight.from_state(state["flight"], device) if state["flight"] else None
    engine.shadow = Flight.from_state(state["shadow"], device) if state["shadow"] else None
    engine.snapshot = Snapshot.from_state(state["snapshot"], engine.model, device) if state["snapshot"] else None
    for name in _COUNTERS:
        setattr(engine, name, state["counters"].get(name, getattr(engine, name)))  # an earlier version had not all
    engine.phase = Phase(state["phase"])
    engine.last = msgspec.convert(state["last"], Signals)
    engine.last_state = list(state["last_state"])
    engine.state = msgspec.convert(state["state"], TrainingState)
    engine.proposed = None
    engine.recorder.load_state_dict(state["recorder"])
    set_random_state(state["random"])
    if engine.ranks is not None:
        engine.ranks.averaging.ragged = state.get("ragged")
