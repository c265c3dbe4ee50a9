"""The document's transitions written a second time, with bare comparisons: what the table is held against."""

import math
from collections.abc import Callable

from hypothesis import strategies as st

from trainer_core.spec.config import Config
from trainer_core.spec.loading import resolve
from trainer_core.spec.phases import Phase
from trainer_core.spec.signals import Signals

W, F, P, C = Phase.WARMUP, Phase.FULL, Phase.PREDICT, Phase.CORRECT
Rule = tuple[Phase, Phase, str, Callable[[Signals, Config], bool]]

LEGAL = {(W, F), (F, F), (C, F), (P, F), (F, P), (P, C)}
"""Every pair of phases the document and its automatic rollback allow."""


def gt(value: float | None, limit: float) -> bool:
    """Strictly above; nothing for what was not measured, and nothing for NaN."""
    return value is not None and not math.isnan(value) and value > limit


def lt(value: float | None, limit: float) -> bool:
    """Strictly below."""
    return value is not None and not math.isnan(value) and value < limit


def extreme(s: Signals, c: Config) -> bool:
    """Critical, and more than the explosion factor above what is usual for this model."""
    usual = s.grad_norm_baseline
    factor = c.divergence_config.update_explosion_factor
    return gt(s.grad_norm, c.divergence_config.gradient_norm_extreme_high) and (
        usual is None or gt(s.grad_norm, factor * usual)
    )


def trusted_above(s: Signals, c: Config) -> float:
    """The threshold, with a sixth of its odds while predictions pay."""
    p = c.hybrid_trainer_config.confidence_threshold
    if not s.paying or p == 1.0:
        return p
    odds = p / (1.0 - p) / 6.0
    return odds / (1.0 + odds)


def is_calm(s: Signals, c: Config) -> bool:
    """The last divergence is a window or more away."""
    return s.since_divergence is None or s.since_divergence >= c.hybrid_trainer_config.divergence_window


RULES: list[Rule] = [
    *((p, F, "NaN or Inf", lambda s, c: c.divergence_config.nan_check_enabled and not s.finite) for p in Phase),
    *((p, F, "extreme gradient", extreme) for p in (W, F, C)),
    *((p, F, "operator", lambda s, c: s.asked is F) for p in (W, P, C)),
    (F, P, "operator", lambda s, c: s.asked is P and not s.locked and is_calm(s, c)),
    (P, C, "operator", lambda s, c: s.asked is C),
    (
        W,
        F,
        "warmup complete",
        lambda s, c: (
            s.step >= c.hybrid_trainer_config.warmup_steps
            and (
                c.hybrid_trainer_config.warmup_steps == 0 or lt(s.loss_change, c.hybrid_trainer_config.warmup_stability)
            )
        ),
    ),
    (W, F, "loss never settled", lambda s, c: s.step >= 5 * c.hybrid_trainer_config.warmup_steps),
    (
        F,
        P,
        "confident",
        lambda s, c: (
            s.steps_in_phase >= s.full_needed
            and gt(s.confidence, trusted_above(s, c))
            and is_calm(s, c)
            and not s.locked
        ),
    ),
    (P, F, "loss deviation", lambda s, c: gt(s.loss_deviation, c.hybrid_trainer_config.divergence_threshold)),
    (P, F, "update explosion", lambda s, c: gt(s.update_ratio, c.divergence_config.update_explosion_factor)),
    (P, F, "update vanishing", lambda s, c: lt(s.update_ratio, c.divergence_config.update_vanishing_factor)),
    (P, F, "confidence drop", lambda s, c: lt(s.confidence, trusted_above(s, c))),
    (P, C, "prediction error", lambda s, c: gt(s.prediction_error, c.divergence_config.prediction_error_threshold)),
    (P, C, "oscillation", lambda s, c: gt(s.sign_changes, c.divergence_config.max_sign_changes)),
    (P, C, "horizon reached", lambda s, c: s.steps_in_phase >= s.horizon),
    (C, F, "validated", lambda s, c: s.validated_steps >= s.correct_needed and s.corrected),
]


def _around(*limits: float) -> st.SearchStrategy[float | None]:
    """Values at, just beside and far from the limits; not measured; not a number."""
    beside = [
        f(x) for x in limits for f in (float, lambda x: math.nextafter(x, -1e9), lambda x: math.nextafter(x, 1e9))
    ]
    return st.sampled_from([None, math.nan, math.inf, -math.inf, 0.0, *beside]) | st.floats(allow_nan=True)


counts = st.integers(0, 40) | st.sampled_from([99, 100, 101, 499, 500, 501])

configs: st.SearchStrategy[Config] = st.builds(
    lambda warmup, threshold, deviation, window, nan_check: (
        resolve(
            {
                "hybrid_trainer_config": {
                    "warmup_steps": warmup,
                    "confidence_threshold": threshold,
                    "divergence_threshold": deviation,
                    "divergence_window": window,
                },
                "divergence_config": {"nan_check_enabled": nan_check},
            }
        ).config
    ),
    st.sampled_from([0, 1, 20, 100]),
    st.sampled_from([0.0, 0.5, 0.85, 1.0]),
    st.sampled_from([2.0, 3.0]),
    st.sampled_from([0, 10]),
    st.booleans(),
)

signals: st.SearchStrategy[Signals] = st.builds(
    Signals,
    step=counts,
    steps_in_phase=counts,
    loss_change=_around(0.25),
    full_needed=counts,
    confidence=_around(0.14, 0.49, 0.5, 0.85, 1.0),
    paying=st.booleans(),
    since_divergence=st.none() | st.integers(0, 20),
    locked=st.booleans(),
    horizon=counts,
    finite=st.booleans(),
    loss_deviation=_around(2.0, 3.0),
    update_ratio=_around(0.01, 10.0),
    prediction_error=_around(0.1, 0.2),
    sign_changes=st.none() | st.integers(0, 10),
    grad_norm=_around(10.0, 100.0),
    grad_norm_baseline=st.none() | st.sampled_from([0.1, 10.0, 50.0]),
    validated_steps=counts,
    correct_needed=counts,
    corrected=st.booleans(),
    asked=st.none() | st.sampled_from(Phase),
)
