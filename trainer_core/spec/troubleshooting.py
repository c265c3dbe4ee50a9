"""The document's "Troubleshooting Guide": symptoms, causes, changes of settings and how to see that they helped.

Knows no run: whether a symptom shows is for those who see one to say.
"""

import msgspec


class Change(msgspec.Struct, frozen=True):
    """One line of an issue's settings block. ``setting`` is ``section.name``; None: it is in no section of ours."""

    setting: str | None
    name: str
    value: str
    was: str
    why: str


class Issue(msgspec.Struct, frozen=True):
    """One issue of the guide."""

    key: str
    title: str
    symptoms: tuple[str, ...]
    causes: tuple[str, ...]
    changes: tuple[Change, ...]
    remedy: str
    """Name in ``spec.remedies``: what of it can be done while training runs."""
    rules: tuple[str, ...]
    """Alert rules (``spec.alerts``) that say it."""
    validation: tuple[str, ...]
    """How to see that it helped."""


_H, _P, _O, _M = "hybrid_trainer_config", "predictor_config", "optimizer", "model"

ISSUES: tuple[Issue, ...] = (
    Issue(
        "low_confidence",
        "Low predictor confidence",
        ("More than 90 % of the time in FULL", "PREDICT phases exit early", "Minimal speedup"),
        (
            "Insufficient warmup: the predictor is not trained enough",
            "Training dynamics too chaotic (high variance)",
            "Predictor too simple",
        ),
        (
            Change(f"{_H}.warmup_steps", "warmup_steps", "500", "100", "more warmup"),
            Change(f"{_H}.full_steps", "full_steps", "50", "20", "more full training per cycle"),
            Change(f"{_P}.type", "type", "RSSM", "Linear", "a stronger predictor"),
            Change(f"{_P}.ensemble_size", "ensemble_size", "5", "1", "its uncertainty"),
        ),
        "low_confidence",
        ("confidence", "mostly full steps"),
        (
            "Confidence above its threshold after warmup and 2-3 full cycles",
            "If still low after 1,000 steps: look at gradient health",
        ),
    ),
    Issue(
        "frequent_divergence",
        "Frequent divergence",
        ("PREDICT exits to FULL frequently", "A divergence every 20-50 steps", "Loss spikes during PREDICT"),
        ("Learning rate too high", "Divergence threshold too sensitive", "Batch variance too high"),
        (
            Change(f"{_H}.divergence_threshold", "divergence_threshold", "4.0", "2.0", "less sensitive"),
            Change("learning_rate.initial", "initial", "5e-5", "1e-4", "a lower learning rate"),
            Change("training.batch_size", "batch_size", "64", "32", "a larger batch"),
            Change(f"{_H}.max_predict_steps", "max_predict_steps", "40", "100", "shorter predictions"),
        ),
        "frequent_divergence",
        ("frequent divergence", "divergence loop"),
        ("Fewer than 10 divergences per 100 predicted steps",),
    ),
    Issue(
        "overfitting",
        "Overfitting",
        ("Training loss goes on decreasing", "Validation loss rises or stands still", "Large gap between them (> 0.5)"),
        ("The model learns the training data by heart",),
        (
            Change(f"{_O}.weight_decay", "weight_decay", "0.1", "0.01", "regularization"),
            Change(f"{_M}.dropout_rate", "dropout_rate", "0.2", "0.1", "more dropout"),
            Change("training.early_stopping_patience", "early_stopping_patience", "5", "", "early stopping"),
            Change(f"{_M}.hidden_dim", "hidden_dim", "512", "1024", "less capacity"),
            Change(f"{_M}.num_layers", "num_layers", "12", "24", "less capacity"),
        ),
        "overfitting",
        ("overfitting", "validation gap"),
        ("Validation loss falls again", "Gap below its limit"),
    ),
    Issue(
        "underfitting",
        "Underfitting",
        (
            "Training and validation loss stand still",
            "Loss remains high",
            "Gradient norms healthy, no improvement",
        ),
        ("Too small a model", "Learning rate too low", "Too much regularization", "Too few steps"),
        (
            Change(f"{_M}.hidden_dim", "hidden_dim", "2048", "1024", "more capacity"),
            Change(f"{_M}.num_layers", "num_layers", "24", "12", "more capacity"),
            Change("learning_rate.initial", "initial_lr", "3e-4", "1e-4", "a higher learning rate"),
            Change(f"{_O}.weight_decay", "weight_decay", "0.001", "0.1", "less regularization"),
            Change(f"{_M}.dropout_rate", "dropout_rate", "0.05", "0.2", "less regularization"),
            Change("training.max_steps", "max_steps", "50000", "10000", "train longer"),
        ),
        "underfitting",
        ("underfitting", "plateau"),
        ("The loss falls below its limit",),
    ),
    Issue(
        "nan_loss",
        "NaN or Inf loss",
        ("Loss becomes NaN or Inf", "It came suddenly", "Training has not recovered"),
        ("Learning rate too high", "A broken batch", "Overflow in mixed precision"),
        (
            Change("learning_rate.initial", "initial_lr", "1e-5", "", "a conservative learning rate"),
            Change(f"{_O}.gradient_clip_norm", "gradient_clip_norm", "1.0", "", "gradient clipping"),
            Change("divergence_config.nan_check_enabled", "nan_check_enabled", "true", "", "watch for it"),
            Change("training.use_mixed_precision", "use_mixed_precision", "true", "", "mixed precision (on a GPU)"),
            Change("training.loss_scale", "loss_scale", "128", "", "dynamic loss scaling"),
        ),
        "nan_loss",
        ("not finite",),
        ("Every newer loss is finite", "The run went on from a checkpoint"),
    ),
)
