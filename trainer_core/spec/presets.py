"""The document's recommended settings by name (methodology, "Hyperparameter Guide", "Specialist vs Generalist")."""

from typing import Any

_DOCUMENT = {"policy": "document"}

PRESETS: dict[str, dict[str, dict[str, Any]]] = {
    "small": {
        "hybrid_trainer_config": _DOCUMENT
        | {
            "warmup_steps": 100,
            "full_steps": 20,
            "max_predict_steps": 60,
            "confidence_threshold": 0.85,
            "divergence_threshold": 3.0,
        },
        "predictor_config": {"type": "Linear"},
        "learning_rate": {"initial": 1e-4},
        "learning_rate_schedule": {
            "type": "WarmupStableDecay",
            "warmup_steps": 100,
            "stable_steps": 5000,
        },
    },
    "medium": {
        "hybrid_trainer_config": _DOCUMENT
        | {
            "warmup_steps": 200,
            "full_steps": 30,
            "max_predict_steps": 80,
            "confidence_threshold": 0.87,
            "divergence_threshold": 2.5,
        },
        "predictor_config": {
            "type": "RSSM",
            "deterministic_dim": 256,
            "stochastic_dim": 32,
            "num_categoricals": 32,
            "ensemble_size": 3,
        },
        "learning_rate": {"initial": 5e-5},
        "learning_rate_schedule": {
            "type": "WarmupStableDecay",
            "warmup_steps": 200,
            "stable_steps": 10000,
        },
    },
    "large": {
        "hybrid_trainer_config": _DOCUMENT
        | {
            "warmup_steps": 500,
            "full_steps": 50,
            "max_predict_steps": 100,
            "confidence_threshold": 0.90,
            "divergence_threshold": 2.0,
        },
        "predictor_config": {
            "type": "RSSM",
            "deterministic_dim": 512,
            "stochastic_dim": 64,
            "num_categoricals": 32,
            "ensemble_size": 5,
        },
        "learning_rate": {"initial": 1e-5},
        "learning_rate_schedule": {
            "type": "WarmupStableDecay",
            "warmup_steps": 500,
            "stable_steps": 20000,
        },
        "optimizer": {
            "type": "AdamW",
            "beta1": 0.9,
            "beta2": 0.999,
            "weight_decay": 0.01,
        },
    },
    "specialist": {
        "hybrid_trainer_config": _DOCUMENT
        | {
            "warmup_steps": 100,
            "full_steps": 15,
            "max_predict_steps": 120,
            "confidence_threshold": 0.82,
        },
        "dataset": {"domain": "medical", "num_examples": 50000, "diversity_score": 0.3},
    },
    "generalist": {
        "hybrid_trainer_config": _DOCUMENT
        | {
            "warmup_steps": 500,
            "full_steps": 50,
            "max_predict_steps": 80,
            "confidence_threshold": 0.90,
        },
        "predictor_config": {"type": "RSSM"},
        "dataset": {
            "domain": "general",
            "num_examples": 10000000,
            "diversity_score": 0.9,
        },
    },
}
"""Preset -> section -> key -> value. Everything a preset does not name keeps its default."""
