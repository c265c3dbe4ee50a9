"""The document's emergency actions as lists of commands (methodology, "Emergency Actions"). Sends nothing."""

from collections.abc import Callable

from trainer_core.spec.commands import (
    Command,
    Rollback,
    ScaleLearningRate,
    SetGradientClip,
    SetThreshold,
    SetWeightDecay,
)
from trainer_core.spec.config import SETTINGS, Config

Remedy = Callable[[Config], tuple[Command, ...]]


def _twice(name: str, value: float) -> SetThreshold:
    high = SETTINGS[name].high
    return SetThreshold(name, min(2 * value, high if high is not None else 2 * value))


def nan_loss(config: Config) -> tuple[Command, ...]:
    """Back to the last good checkpoint with a tenth of the learning rate."""
    return (Rollback(), ScaleLearningRate(0.1))


def gradient_explosion(config: Config) -> tuple[Command, ...]:
    """Clip to 1.0 and halve the learning rate."""
    return (SetGradientClip(1.0), ScaleLearningRate(0.5))


def divergence_loop(config: Config) -> tuple[Command, ...]:
    """Twice the full steps per cycle."""
    return (_twice("full_steps", config.hybrid_trainer_config.full_steps),)


def low_confidence(config: Config) -> tuple[Command, ...]:
    """Twice the full steps: warmup, which the document doubles, is over once confidence can be low."""
    return (_twice("full_steps", config.hybrid_trainer_config.full_steps),)


def overfitting(config: Config) -> tuple[Command, ...]:
    """Ten times the weight decay."""
    return (SetWeightDecay(10 * config.optimizer.weight_decay),)


REMEDIES: dict[str, Remedy] = {
    f.__name__: f for f in (nan_loss, gradient_explosion, divergence_loop, low_confidence, overfitting)
}
"""By the name that alerts and ``ApplyRemedy`` use."""
