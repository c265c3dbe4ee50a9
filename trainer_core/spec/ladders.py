"""The severity ladders of the document's Critical Thresholds, built from the live settings. No values of its own."""

from trainer_core.spec.config import Config
from trainer_core.spec.severity import Ladder

SIGNALS = (
    "confidence",
    "loss_deviation",
    "grad_norm",
    "prediction_error",
    "update_ratio",
)
"""Names of the ladders, which are also the field names of StepRecord where they have one."""


def ladders(config: Config) -> dict[str, Ladder]:
    """Ladder by signal (methodology, "Critical Thresholds" and "Divergence Triggers")."""
    h, d = config.hybrid_trainer_config, config.divergence_config
    return {
        "confidence": Ladder(
            warning_below=h.confidence_threshold,
            critical_below=min(d.confidence_critical, h.confidence_threshold),
        ),
        "loss_deviation": Ladder(
            warning_above=d.loss_deviation_warning,
            critical_above=h.divergence_threshold,
        ),
        "grad_norm": Ladder(
            warning_above=d.gradient_norm_high,
            critical_above=d.gradient_norm_extreme_high,
            warning_below=d.gradient_norm_low,
            critical_below=d.gradient_norm_extreme_low,
        ),
        "prediction_error": Ladder(
            warning_above=d.prediction_error_warning,
            critical_above=d.prediction_error_threshold,
        ),
        "update_ratio": Ladder(
            critical_above=d.update_explosion_factor,
            critical_below=d.update_vanishing_factor,
        ),
    }
