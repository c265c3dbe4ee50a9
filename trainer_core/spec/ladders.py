"""The severity ladders of the document's Critical Thresholds, built from the live settings. No values of its own."""

from trainer_core.spec.config import Config
from trainer_core.spec.severity import Ladder

SIGNALS = (
    "confidence",
    "loss_deviation",
    "grad_norm",
    "prediction_error",
    "update_ratio",
    "grad_param_ratio",
    "grad_variance",
    "sign_changes",
)
"""Ladders whose name is a field of StepRecord."""

HEALTH_SIGNALS = (
    "grad_growth",
    "layer_norm_high",
    "layer_norm_low",
    "dead_layers",
    "loss_rise",
    "steps_without_gain",
    "divergence_rate",
    "divergences_in_a_row",
    "full_share",
    "overfitting",
    "validation_gap",
    "underfitting",
    "implied_rate",
)
"""Ladders of what the engine's health statistics derive from the records."""

SYSTEM_SIGNALS = ("disk_free", "memory_share", "gpu_temperature")
"""Ladders of the machine under the run."""


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
        "sign_changes": Ladder(warning_above=d.max_sign_changes),
        "grad_growth": Ladder(warning_above=d.update_explosion_factor),
        "layer_norm_high": Ladder(warning_above=d.gradient_norm_extreme_high),
        "layer_norm_low": Ladder(caution_below=d.gradient_norm_extreme_low),
        **_health(config),
    }


def _health(config: Config) -> dict[str, Ladder]:
    """Warning signs and troubleshooting symptoms (methodology, "Warning Signs", "Troubleshooting Guide")."""
    c = config.health
    return {
        "grad_param_ratio": Ladder(caution_above=c.grad_param_ratio_high, caution_below=c.grad_param_ratio_low),
        "grad_variance": Ladder(warning_above=c.gradient_variance_high),
        "dead_layers": Ladder(critical_above=c.dead_layers_limit),
        "loss_rise": Ladder(warning_above=c.loss_rise_limit),
        "steps_without_gain": Ladder(warning_above=c.plateau_steps),
        "divergence_rate": Ladder(warning_above=c.divergence_rate_limit),
        "divergences_in_a_row": Ladder(critical_above=c.divergences_in_a_row),
        "full_share": Ladder(caution_above=c.full_share_limit),
        "overfitting": Ladder(warning_above=c.overfitting_validations),
        "validation_gap": Ladder(caution_above=c.validation_gap),
        "underfitting": Ladder(warning_above=c.underfitting_validations),
        "implied_rate": Ladder(warning_above=c.implied_rate_limit),
        "disk_free": Ladder(warning_below=c.disk_free_low, critical_below=c.disk_free_critical),
        "memory_share": Ladder(warning_above=c.memory_high, critical_above=c.memory_critical),
        "gpu_temperature": Ladder(warning_above=c.gpu_temperature_high, critical_above=c.gpu_temperature_critical),
    }
