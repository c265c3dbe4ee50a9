"""Which signal raises an alert, after how long, in which phases, and what it suggests. Evaluates nothing."""

import msgspec

from trainer_core.spec.phases import Phase
from trainer_core.spec.severity import Severity

_GRADIENT_PHASES = (Phase.WARMUP, Phase.FULL, Phase.CORRECT)


class AlertRule(msgspec.Struct, frozen=True):
    """One row. The limits are the signal's ladder (``spec.ladders``); ``signal`` is a field of StepRecord."""

    name: str
    signal: str
    phases: tuple[Phase, ...]
    hold: int
    """Consecutive measured steps at a rung before it is raised."""
    recovery: int
    """Consecutive healthy steps before it is resolved."""
    worst: Severity
    """The rule raises nothing worse than this."""
    causes: str
    """What the document says is behind it."""
    remedy: str | None
    """Name in ``spec.remedies``."""


RULES: tuple[AlertRule, ...] = (
    AlertRule(
        "gradient norm", "grad_norm", _GRADIENT_PHASES, 3, 10, Severity.CRITICAL,
        "learning rate too high, or (below the range) too low; check the initialization", "gradient_explosion",
    ),
    AlertRule(
        "loss deviation", "loss_deviation", tuple(Phase), 2, 10, Severity.CRITICAL,
        "learning rate too high, or batch variance too high", "divergence_loop",
    ),
    AlertRule(
        "prediction error", "prediction_error", (Phase.PREDICT,), 2, 5, Severity.CRITICAL,
        "the predictor lost track: more full steps, or a higher confidence threshold", "divergence_loop",
    ),
    AlertRule(
        "confidence", "confidence", (Phase.FULL,), 100, 10, Severity.WARNING,
        "too little warmup, chaotic dynamics, or a predictor too simple", "low_confidence",
    ),
)  # fmt: skip

NOT_FINITE = AlertRule(
    "not finite", "loss", tuple(Phase), 1, 10, Severity.CRITICAL,
    "a learning rate too high, a broken batch, or overflow in mixed precision", "nan_loss",
)  # fmt: skip
"""NaN or Inf in loss, gradient or update: raised at once, whatever the ladders say."""
