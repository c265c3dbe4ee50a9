"""Which signal raises an alert, after how long, in which phases, and what it suggests. Evaluates nothing."""

import msgspec

from trainer_core.spec.phases import Phase
from trainer_core.spec.severity import Severity

_W, _F, _P, _C = Phase.WARMUP, Phase.FULL, Phase.PREDICT, Phase.CORRECT
_GRADIENT = (_W, _F, _C)
_AFTER_WARMUP = (_F, _P, _C)
_ALL = tuple(Phase)
_CAUTION, _WARNING, _CRITICAL = Severity.CAUTION, Severity.WARNING, Severity.CRITICAL


class AlertRule(msgspec.Struct, frozen=True):
    """One row. The limits are the signal's ladder (``spec.ladders``)."""

    name: str
    signal: str
    """A field of StepRecord, or one of ``ladders.HEALTH_SIGNALS``."""
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
    """Name in ``spec.remedies``; None: nothing that can be done while training runs."""
    advice: str = ""
    """The document's settings changes that no command can make now, in words."""
    above: bool = True
    """Whether the upper limits of the ladder count, or the lower ones."""
    critical_remedy: str | None = None
    """What to do instead when the alert is CRITICAL."""
    cooldown: int | None = None
    """Steps after it was resolved in which it is not raised again; None: the setting ``alert_cooldown``."""


RULES: tuple[AlertRule, ...] = (
    AlertRule(
        "gradient norm", "grad_norm", _GRADIENT, 3, 10, _CRITICAL,
        "learning rate too high; check the initialization", "gradient_explosion",
        critical_remedy="extreme_gradient",
    ),
    AlertRule(
        "gradient explosion", "grad_growth", _AFTER_WARMUP, 2, 10, _WARNING,
        "learning rate too high, or divergence", "gradient_spike",
    ),
    AlertRule(
        "gradient vanishing", "grad_norm", _GRADIENT, 20, 10, _CRITICAL,
        "learning rate too low, or a poor initialization", "raise_learning_rate",
        "use_residual = true, normalization = \"LayerNorm\", weight_init = \"xavier_uniform\"", above=False,
    ),
    AlertRule(
        "layer gradient explosion", "layer_norm_high", _GRADIENT, 3, 10, _WARNING,
        "one layer's gradient explodes: learning rate too high, or its initialization", "gradient_explosion",
    ),
    AlertRule(
        "layer gradient vanishing", "layer_norm_low", _GRADIENT, 100, 20, _CAUTION,
        "one layer hardly learns: depth without residual connections, its normalization or initialization", None,
        "use_residual = true, normalization = \"LayerNorm\", weight_init = \"xavier_uniform\"", above=False,
    ),
    AlertRule(
        "dead layers", "dead_layers", _GRADIENT, 10, 10, _CRITICAL,
        "layers that learned have no gradient left, and the loss does not fall: an explosion or a learning rate too "
        "high switched their units off, and no step brings them back", "dead_model",
        "a lower initial or a learning rate warmup (learning_rate_schedule)",
    ),
    AlertRule(
        "gradient/parameter ratio high", "grad_param_ratio", _AFTER_WARMUP, 100, 20, _CAUTION,
        "gradients too large for the weights", "lower_learning_rate",
    ),
    AlertRule(
        "gradient/parameter ratio low", "grad_param_ratio", _AFTER_WARMUP, 100, 20, _CAUTION,
        "gradients too small for the weights", "raise_learning_rate", above=False,
    ),
    AlertRule(
        "gradient variance", "grad_variance", _AFTER_WARMUP, 20, 20, _WARNING,
        "noisy gradients: batches too small, or learning rate too high", "lower_learning_rate",
        "a batch_size twice as large",
    ),
    AlertRule(
        "loss deviation", "loss_deviation", _AFTER_WARMUP, 3, 10, _CRITICAL,
        "learning rate too high, or batch variance too high", "lower_learning_rate", "a batch_size twice as large",
    ),
    AlertRule(
        "prediction error", "prediction_error", (_P,), 2, 5, _CRITICAL,
        "the predictor lost track: more full steps, or a higher confidence threshold", "divergence_loop",
    ),
    AlertRule(
        "confidence", "confidence", (_F,), 100, 10, _WARNING,
        "too little warmup, chaotic dynamics, or a predictor too simple", "low_confidence",
        "twice the warmup_steps, type = \"RSSM\", ensemble_size = 5", above=False,
    ),
    AlertRule(
        "mostly full steps", "full_share", (_F,), 500, 20, _CAUTION,
        "too little warmup, chaotic dynamics, or a predictor too simple: hardly anything is predicted",
        "low_confidence", "twice the warmup_steps, type = \"RSSM\", ensemble_size = 5",
    ),
    AlertRule(
        "frequent divergence", "divergence_rate", _AFTER_WARMUP, 1, 1, _WARNING,
        "learning rate too high, divergence threshold too sensitive, or batch variance too high",
        "frequent_divergence", "a batch_size twice as large",
    ),
    AlertRule(
        "divergence loop", "divergences_in_a_row", _AFTER_WARMUP, 1, 1, _CRITICAL,
        "predictions diverge one after the other: learning rate too high, or too few full steps between them",
        "divergence_loop",
    ),
    AlertRule(
        "loss above its start", "loss_rise", _AFTER_WARMUP, 50, 10, _WARNING,
        "learning rate too high: what the model knew at the start is gone; a rollback brings it back",
        "lower_learning_rate", "a lower initial or a learning rate warmup (learning_rate_schedule)",
    ),
    AlertRule(
        "plateau", "steps_without_gain", _AFTER_WARMUP, 1, 1, _WARNING,
        "learning rate too low, or a local minimum; check that gradients do not vanish", "loss_plateau",
        "a learning rate warmup (learning_rate_schedule)",
    ),
    AlertRule(
        "oscillation", "sign_changes", _AFTER_WARMUP, 20, 10, _WARNING,
        "learning rate too high", "oscillation",
    ),
    AlertRule(
        "overfitting", "overfitting", _ALL, 1, 1, _WARNING,
        "the model learns the training data by heart", "overfitting",
        "dropout_rate = 0.2, half the hidden_dim and num_layers",
    ),
    AlertRule(
        "validation gap", "validation_gap", _ALL, 1, 1, _CAUTION,
        "held-out data is much harder than training data: overfitting begins", "early_stopping",
        "dropout_rate = 0.2, half the hidden_dim and num_layers",
    ),
    AlertRule(
        "underfitting", "underfitting", _ALL, 1, 1, _WARNING,
        "too small a model, a learning rate too low, or too much regularization", "underfitting",
        "twice the hidden_dim and num_layers, a quarter of the dropout_rate, five times the max_steps",
    ),
    AlertRule(
        "learning rate too low", "implied_rate", _AFTER_WARMUP, 1, 1, _WARNING,
        "predictions kept at long horizons do what a higher learning rate would do at less cost",
        "raise_learning_rate",
    ),
)  # fmt: skip

SYSTEM_RULES: tuple[AlertRule, ...] = (
    AlertRule(
        "disk nearly full", "disk_free", _ALL, 1, 2, _CRITICAL,
        "checkpoints, records or other programs fill the disk of the run directory: make room, or keep fewer", None,
        "a smaller keep_last, or a run directory on another disk", above=False, cooldown=0,
    ),
    AlertRule(
        "host memory nearly full", "memory_share", _ALL, 2, 2, _CRITICAL,
        "data loaders, caches or other programs fill the host's memory: the system may kill this process", None,
        "fewer data loader workers, a smaller residual_memory_mb", cooldown=0,
    ),
    AlertRule(
        "GPU temperature", "gpu_temperature", _ALL, 2, 3, _CRITICAL,
        "too little cooling: look at fans, dust and airflow; a GPU that is too hot slows down by itself", None,
        cooldown=0,
    ),
)  # fmt: skip
"""Rules of the machine: hold and recovery count its readings, not steps."""

LIMIT_SECTIONS = ("divergence_config", "health")
"""Sections of the configuration that hold the alerts' limits: all that means something to a loop without phases."""

NOT_FINITE = AlertRule(
    "not finite", "loss", _ALL, 1, 10, _CRITICAL,
    "a learning rate too high, a broken batch, or overflow in mixed precision", "nan_loss",
    "a lower initial (1e-5), gradient_clip_norm = 1.0, use_mixed_precision with loss_scale = 128", cooldown=0,
)  # fmt: skip
"""NaN or Inf in loss, gradient or update: raised at once, whatever the ladders say."""
