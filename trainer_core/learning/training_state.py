"""What is known of the training after a step, as plain floats: what learned predictors look at. Knows no tensors."""

import math

import msgspec

from trainer_core.spec.phases import Phase


class TrainingState(msgspec.Struct, frozen=True):
    """After one measured step. NaN: not known (yet), or no backward pass ran. Norms are L2, over all parameters."""

    step: int = 0
    """Nominal steps taken."""
    phase: Phase = Phase.WARMUP
    steps_in_phase: int = 0
    loss: float = math.nan
    """Training loss of the step's batch."""
    loss_ema: float = math.nan
    loss_sigma: float = math.nan
    """Standard deviation of the loss about its EMA."""
    loss_change: float = math.nan
    """Relative change of the loss EMA over the last 20 steps, no sign."""
    grad_norm: float = math.nan
    grad_norm_baseline: float = math.nan
    update_norm: float = math.nan
    update_norm_baseline: float = math.nan
    param_norm: float = math.nan
    learning_rate: float = math.nan
    sign_changes: float = math.nan
    """Of the loss difference in the last 10 steps."""
