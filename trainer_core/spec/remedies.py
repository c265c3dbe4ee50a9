"""The document's fixes and emergency actions as lists of commands ("Troubleshooting Guide", "Emergency Actions").

A remedy that would change nothing (a setting is at its bound already) is the empty list. Sends nothing.
"""

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
_CLIP = 1.0
_PATIENCE = 5


def _scaled(config: Config, name: str, factor: float) -> tuple[Command, ...]:
    """A live setting times ``factor``, within its bounds; nothing when it is there already."""
    setting = SETTINGS[name]
    now = float(getattr(getattr(config, setting.section), setting.name))
    assert setting.low is not None and setting.high is not None
    value = min(max(now * factor, setting.low), setting.high)
    value = float(round(value)) if setting.type == "int" else value
    return (SetThreshold(name, value),) if value != now else ()


def _clipped(config: Config) -> tuple[Command, ...]:
    """Clip to 1.0; a tighter clip stays."""
    clip = config.optimizer.gradient_clip_norm
    return (SetGradientClip(_CLIP),) if clip == 0 or clip > _CLIP else ()


def _decayed(config: Config, factor: float) -> tuple[Command, ...]:
    """Weight decay times ``factor``; a growing one that is 0 begins at 0.01."""
    now, high = config.optimizer.weight_decay, SETTINGS["weight_decay"].high
    value = now * factor if now or factor < 1 else 0.01
    value = value if high is None else min(value, high)
    return (SetWeightDecay(value),) if value != now else ()


def nan_loss(config: Config) -> tuple[Command, ...]:
    """Back to the last good checkpoint with a tenth of the learning rate and gradients clipped to 1.0."""
    return (Rollback(), ScaleLearningRate(0.1), *_clipped(config))


def extreme_gradient(config: Config) -> tuple[Command, ...]:
    """Back to the last good checkpoint, gradients clipped to 1.0, half the learning rate."""
    return (Rollback(), *_clipped(config), ScaleLearningRate(0.5))


def dead_model(config: Config) -> tuple[Command, ...]:
    """Back to the last good checkpoint with a tenth of the learning rate and gradients clipped to 1.0."""
    return (Rollback(), ScaleLearningRate(0.1), *_clipped(config))


def gradient_explosion(config: Config) -> tuple[Command, ...]:
    """Clip to 1.0 and halve the learning rate."""
    return (*_clipped(config), ScaleLearningRate(0.5))


def gradient_spike(config: Config) -> tuple[Command, ...]:
    """Half the learning rate, and predictions that end at two thirds of the loss deviation."""
    return (ScaleLearningRate(0.5), *_scaled(config, "divergence_threshold", 2 / 3))


def lower_learning_rate(config: Config) -> tuple[Command, ...]:
    """Half the learning rate."""
    return (ScaleLearningRate(0.5),)


def raise_learning_rate(config: Config) -> tuple[Command, ...]:
    """Twice the learning rate."""
    return (ScaleLearningRate(2.0),)


def divergence_loop(config: Config) -> tuple[Command, ...]:
    """Twice the full steps per cycle."""
    return _scaled(config, "full_steps", 2)


def frequent_divergence(config: Config) -> tuple[Command, ...]:
    """Half the learning rate, horizons of at most 40 % of the present, twice the tolerance for loss deviations."""
    return (
        ScaleLearningRate(0.5),
        *_scaled(config, "max_predict_steps", 0.4),
        *_scaled(config, "divergence_threshold", 2),
    )


def low_confidence(config: Config) -> tuple[Command, ...]:
    """Twice the full steps: warmup, which the document doubles, is over once confidence can be low."""
    return _scaled(config, "full_steps", 2)


def loss_plateau(config: Config) -> tuple[Command, ...]:
    """Twice the learning rate."""
    return (ScaleLearningRate(2.0),)


def oscillation(config: Config) -> tuple[Command, ...]:
    """Three tenths of the learning rate, twice the full steps, gradients clipped to 1.0."""
    return (ScaleLearningRate(0.3), *_scaled(config, "full_steps", 2), *_clipped(config))


def overfitting(config: Config) -> tuple[Command, ...]:
    """Ten times the weight decay."""
    return _decayed(config, 10)


def early_stopping(config: Config) -> tuple[Command, ...]:
    """Stop after five validations without improvement."""
    patience = config.training.early_stopping_patience
    return (SetThreshold("early_stopping_patience", _PATIENCE),) if patience == 0 or patience > _PATIENCE else ()


def underfitting(config: Config) -> tuple[Command, ...]:
    """Three times the learning rate, a hundredth of the weight decay."""
    return (ScaleLearningRate(3.0), *_decayed(config, 0.01))


REMEDIES: dict[str, Remedy] = {
    f.__name__: f
    for f in (
        nan_loss,
        extreme_gradient,
        dead_model,
        gradient_explosion,
        gradient_spike,
        lower_learning_rate,
        raise_learning_rate,
        divergence_loop,
        frequent_divergence,
        low_confidence,
        loss_plateau,
        oscillation,
        overfitting,
        early_stopping,
        underfitting,
    )
}
"""By the name that alerts and ``ApplyRemedy`` use."""
