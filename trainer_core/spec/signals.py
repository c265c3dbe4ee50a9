"""Signals: all that the policy may see when it decides about the phase. Numbers only; it measures nothing itself."""

import msgspec

from trainer_core.spec.phases import Phase


class Signals(msgspec.Struct, frozen=True, kw_only=True):
    """One moment of training. ``None`` is "not measured" and never satisfies a guard that compares it."""

    step: int = 0
    steps_in_phase: int = 0
    """Nominal steps already taken in the present phase."""
    loss_change: float | None = None
    """Relative change of the loss EMA over the last 20 steps."""
    full_needed: int = 0
    """FULL steps this cycle asks for."""
    confidence: float | None = None
    """Calibrated probability that the proposal at hand lowers the loss (in PREDICT: that it still does)."""
    paying: bool = False
    """The run's last control found that predictions make more progress for their cost than full steps."""
    since_divergence: int | None = None
    """Steps since the last divergence; None: there was none."""
    locked: bool = False
    horizon: int = 0
    """Steps the PREDICT phase may last."""
    finite: bool = True
    """No NaN or Inf in the last loss, gradient norm or update."""
    loss_deviation: float | None = None
    """(loss - EMA) / sigma."""
    update_ratio: float | None = None
    """Update norm per step / its baseline."""
    prediction_error: float | None = None
    """abs(actual - predicted) / abs(actual) loss."""
    sign_changes: int | None = None
    """Of the loss difference in the last 10 measured steps."""
    grad_norm: float | None = None
    grad_norm_baseline: float | None = None
    validated_steps: int = 0
    """Validating full steps taken in CORRECT."""
    correct_needed: int = 0
    corrected: bool = False
    """The correction was applied, or judged and declined."""
    asked: Phase | None = None
    """Phase an operator asked for."""
