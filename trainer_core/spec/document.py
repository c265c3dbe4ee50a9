"""What the document says in tables and advice beside its numbers: texts that settings, remedies and rules are named in.

Knows no run; the numbers that a run uses are in ``spec.sections`` and ``spec.presets``.
"""

import msgspec

from trainer_core.spec.phases import Phase
from trainer_core.spec.severity import Severity


class Emergency(msgspec.Struct, frozen=True):
    """One row of "Emergency Actions"."""

    problem: str
    fix: str
    """In the document's words."""
    remedy: str
    """Name in ``spec.remedies``."""


EMERGENCIES: tuple[Emergency, ...] = (
    Emergency("NaN loss", "Rollback checkpoint, LR ÷ 10", "nan_loss"),
    Emergency("Gradient explosion", "Clip to 1.0, LR × 0.5", "gradient_explosion"),
    Emergency("Divergence loop", "Increase full_steps × 2", "divergence_loop"),
    Emergency("Low confidence", "Increase warmup_steps × 2 (full_steps × 2 once warmup is over)", "low_confidence"),
    Emergency("Overfitting", "Add weight_decay × 10", "overfitting"),
)


class Expected(msgspec.Struct, frozen=True):
    """The document's "Expected Performance" of one preset."""

    preset: str
    speedup: str
    loss_gap: str
    backward_reduction: str
    """Empty: the document does not say."""


EXPECTED: tuple[Expected, ...] = (
    Expected("small", "4-6x", "<1%", "70-80%"),
    Expected("medium", "6-8x", "<1.5%", "80-85%"),
    Expected("large", "8-10x", "<2%", "85-90%"),
    Expected("specialist", "8-12x", "<1%", ""),
    Expected("generalist", "5-7x", "<2%", ""),
)


class Aspect(msgspec.Struct, frozen=True):
    """One row of "Specialist vs Generalist"; ``setting`` is the one that the run's own value is taken from."""

    aspect: str
    specialist: str
    generalist: str
    setting: str | None = None


ASPECTS: tuple[Aspect, ...] = (
    Aspect("Warmup", "100-200 steps", "300-500 steps", "hybrid_trainer_config.warmup_steps"),
    Aspect("Full Steps", "15-25", "40-60", "hybrid_trainer_config.full_steps"),
    Aspect("Predict Steps", "100-150", "60-100", "hybrid_trainer_config.max_predict_steps"),
    Aspect("Confidence", "0.80-0.85", "0.88-0.92", "hybrid_trainer_config.confidence_threshold"),
    Aspect("Speedup", "8-12x", "5-7x"),
    Aspect("Stability", "More stable", "Less stable"),
    Aspect("Data Diversity", "Low", "High", "dataset.diversity_score"),
    Aspect("Predictor Type", "Linear/MLP OK", "RSSM recommended", "predictor_config.type"),
)


class Advised(msgspec.Struct, frozen=True):
    """One row of "Schedule Selection Guide"; ``type`` is the value of ``learning_rate_schedule.type``."""

    training: str
    schedule: str
    reason: str
    type: str


SCHEDULES: tuple[Advised, ...] = (
    Advised("Pre-training", "WSD (long stable)", "Stable dynamics for prediction", "WarmupStableDecay"),
    Advised("Fine-tuning", "WSD (short stable)", "Quick convergence", "WarmupStableDecay"),
    Advised("Adversarial", "Cyclic (small cycles)", "Escape saddle points", "Cyclic"),
    Advised("Continual", "Constant (low)", "Prevent catastrophic forgetting", "Constant"),
    Advised("Few-shot", "Warmup only", "Limited steps available", "WarmupOnly"),
)


class Zone(msgspec.Struct, frozen=True):
    """One row of "Actions by Zone" of the gradient norm."""

    zone: str
    severity: Severity
    above: bool | None
    """Whether it lies above the healthy range, below it, or (None) on both sides or within."""
    action: str


ZONES: tuple[Zone, ...] = (
    Zone("Healthy", Severity.HEALTHY, None, "Continue"),
    Zone("Explosion", Severity.WARNING, True, "Reduce LR / Clip gradients"),
    Zone("Vanishing", Severity.WARNING, False, "Increase LR / Check init"),
    Zone("Extreme", Severity.CRITICAL, None, "Rollback checkpoint"),
)

PURPOSES: dict[Phase, str] = {
    Phase.WARMUP: "Baseline",
    Phase.FULL: "Train predictor",
    Phase.PREDICT: "Speedup",
    Phase.CORRECT: "Fix errors",
}
"""The last column of "Phase Quick Reference"."""

REFERENCE: tuple[str, ...] = (
    "hybrid_trainer_config.warmup_steps",
    "hybrid_trainer_config.full_steps",
    "hybrid_trainer_config.max_predict_steps",
    "hybrid_trainer_config.confidence_threshold",
    "hybrid_trainer_config.divergence_threshold",
    "learning_rate.initial",
    "predictor_config.type",
    "predictor_config.ensemble_size",
)
"""Rows of the "Hyperparameter Reference Table", by section and name."""


class Trigger(msgspec.Struct, frozen=True):
    """One row of "Divergence Triggers"; ``setting`` holds the limit."""

    signal: str
    field: str
    """Of StepRecord; empty: NaN or Inf anywhere."""
    setting: str | None
    above: bool
    action: str


TRIGGERS: tuple[Trigger, ...] = (
    Trigger("Loss deviation", "loss_deviation", "divergence_threshold", True, "Exit to Full"),
    Trigger("Gradient explosion", "update_ratio", "update_explosion_factor", True, "Exit to Full"),
    Trigger("Gradient vanishing", "update_ratio", "update_vanishing_factor", False, "Exit to Full"),
    Trigger("NaN/Inf values", "", None, True, "Exit to Full"),
    Trigger("Prediction error", "prediction_error", "prediction_error_threshold", True, "Exit to Correct"),
    Trigger("Loss oscillation", "sign_changes", "max_sign_changes", True, "Exit to Correct"),
    Trigger("Confidence drop", "confidence", "confidence_threshold", False, "Exit to Full"),
)
