"""Whether a checkpoint fits the run that resumes from it: model, optimizer, predictor. Knows no file, moves no weight.

Model and optimizer must be the ones it was written with. A predictor of another kind begins anew. Settings of the
optimizer that were changed between two processes hold, but for those that an operator changed while training ran.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from trainer_core.engine.snapshot import copied
from trainer_core.spec.config import PredictorConfig
from trainer_core.spec.errors import CheckpointError

if TYPE_CHECKING:
    from trainer_core.engine.engine import Engine

_MOST_NAMED = 3
_WORLD_MODEL = ("deterministic_dim", "stochastic_dim", "num_categoricals")
_BY_SCHEDULE = ("params", "lr", "initial_lr")


def made(engine: "Engine", own: bool) -> dict[str, Any]:
    """What this process was given, before a step. ``own``: the predictor is not the configured one."""
    optimizer = engine.optimizer
    predictor = type(engine.predictor).__qualname__ if own else _kind(engine.config.predictor_config)
    groups = [{k: v for k, v in group.items() if k not in _BY_SCHEDULE} for group in optimizer.param_groups]
    return {
        "optimizer": type(optimizer).__name__,
        "groups": copied(groups),
        "predictor": predictor,
        "trainable": engine.parameters.count,
    }


def _kind(config: PredictorConfig) -> str:
    """The predictor in words: what must be equal for its state to be of use."""
    names = {"Linear": (), "MLP": ("ensemble_size",), "RSSM": ("ensemble_size", *_WORLD_MODEL)}[config.type]
    return ", ".join([config.type, f"window {config.window}", *(f"{name} {getattr(config, name)}" for name in names)])


def check(engine: "Engine", weights: Mapping[str, Tensor], saved: Mapping[str, Any]) -> None:
    """Raises CheckpointError in one sentence when model or optimizer are not those of the checkpoint."""
    _check_model(engine.model.state_dict(), weights)
    was, now = saved.get("made"), engine.made
    if was is None:  # written before this was kept
        return
    if was["optimizer"] != now["optimizer"]:
        raise CheckpointError(f"the checkpoint's optimizer is {was['optimizer']}, this run's {now['optimizer']}")
    if len(was["groups"]) != len(now["groups"]):
        had, has = len(was["groups"]), len(now["groups"])
        raise CheckpointError(f"the checkpoint's optimizer has {had} parameter groups, this run's {has}")
    if was["trainable"] != now["trainable"]:
        raise CheckpointError(f"the checkpoint has {was['trainable']} trained weights, this run {now['trainable']}")


def _check_model(now: Mapping[str, Any], weights: Mapping[str, Any]) -> None:
    wrong = [f"{name} is not in it" for name in now if name not in weights]
    wrong += [f"{name} is not in the model" for name in weights if name not in now]
    wrong += [
        f"{name} has shape {_shape(weights[name])} in it and {_shape(value)} in the model"
        for name, value in now.items()
        if name in weights and _shape(weights[name]) != _shape(value)
    ]
    if wrong:
        more = f" and {len(wrong) - _MOST_NAMED} more" if len(wrong) > _MOST_NAMED else ""
        raise CheckpointError(f"the checkpoint's model is another: {'; '.join(wrong[:_MOST_NAMED])}{more}")


def _shape(value: Any) -> tuple[int, ...] | None:
    """None for what is no tensor."""
    return tuple(value.shape) if isinstance(value, Tensor) else None


def anew(engine: "Engine", saved: Mapping[str, Any]) -> str | None:
    """Why the predictor has to begin anew, in a sentence; None when the checkpoint's goes on."""
    was = saved.get("made", engine.made)["predictor"]
    now = engine.made["predictor"]
    return None if was == now else f"the predictor begins anew: it was {was} and is {now}"


def parts(engine: "Engine", saved: Mapping[str, Any], names: tuple[str, ...]) -> tuple[str, ...]:
    """Which parts of the state are taken over: what another predictor had learned, and its residuals, are not."""
    lost = () if anew(engine, saved) is None else ("predictor", "residuals")
    return tuple(name for name in names if name not in lost)


def follow_settings(optimizer: torch.optim.Optimizer, saved: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Let what was changed between two processes hold over what the checkpoint brought back."""
    was = saved.get("made")
    if was is None:
        return
    for group, before, after in zip(optimizer.param_groups, was["groups"], now["groups"], strict=True):
        for name, value in after.items():
            if name in before and before[name] != value and group.get(name) == before[name]:
                group[name] = value
