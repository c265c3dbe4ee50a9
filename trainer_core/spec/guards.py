"""One function per question the transition table asks; each answers with the numbers it compared. Decides nothing."""

import math
from collections.abc import Callable

import msgspec

from trainer_core.spec.config import Config
from trainer_core.spec.phases import Phase
from trainer_core.spec.signals import Signals


class Answer(msgspec.Struct, frozen=True):
    """Whether the guard holds, and the comparison in words, which are put together when somebody reads them."""

    holds: bool
    words: str | Callable[[], str]

    @property
    def detail(self) -> str:
        """The comparison in words."""
        return self.words if isinstance(self.words, str) else self.words()


Guard = Callable[[Signals, Config], Answer]

_PAYING_ODDS = 6.0
"""Predictions that pay as a whole need not be sure one by one: the odds of the threshold are divided by so much."""


def above(value: float | None, limit: float) -> Answer:
    """``value > limit``, strictly; an unmeasured or NaN value is not above anything."""
    if value is None:
        return Answer(False, lambda: f"not measured yet, needs > {limit:g}")
    holds = value > limit
    return Answer(holds, lambda: f"{_shown(value, limit)} {'>' if holds else 'is not >'} {limit:g}")


def below(value: float | None, limit: float) -> Answer:
    """``value < limit``, strictly."""
    if value is None:
        return Answer(False, lambda: f"not measured yet, needs < {limit:g}")
    holds = value < limit
    return Answer(holds, lambda: f"{_shown(value, limit)} {'<' if holds else 'is not <'} {limit:g}")


def at_least(value: int, limit: int) -> Answer:
    """``value >= limit`` for counts of steps."""
    return Answer(value >= limit, lambda: f"{value} of {limit} steps")


def _shown(value: float, limit: float) -> str:
    """Enough digits that the comparison can be checked by eye."""
    for digits in (2, 4, 6):
        text = f"{value:.{digits}g}" if value and abs(value) < 0.01 else f"{value:.{digits}f}"
        if not math.isfinite(value) or value == limit or float(text) != limit:
            return text
    return repr(value)


def warmup_ran(s: Signals, c: Config) -> Answer:
    """WARMUP has run its steps."""
    return at_least(s.step, c.hybrid_trainer_config.warmup_steps)


def loss_stable(s: Signals, c: Config) -> Answer:
    """The loss EMA moves slowly enough to be a baseline."""
    if c.hybrid_trainer_config.warmup_steps == 0:
        return Answer(True, "no warmup asked for")
    return below(s.loss_change, c.hybrid_trainer_config.warmup_stability)


def warmup_waited(s: Signals, c: Config) -> Answer:
    """The loss never settled: go on after five times the warmup steps."""
    return at_least(s.step, 5 * c.hybrid_trainer_config.warmup_steps)


def full_cycle_ran(s: Signals, c: Config) -> Answer:
    """FULL has run the steps this cycle asks for."""
    return at_least(s.steps_in_phase, s.full_needed)


def confident(s: Signals, c: Config) -> Answer:
    """The proposal at hand is trusted."""
    return above(s.confidence, confidence_needed(s, c))


def confidence_needed(s: Signals, c: Config) -> float:
    """The threshold; where predictions have been seen to pay, a lower one: 0.85 becomes 0.49, 0 and 1 stay."""
    threshold = c.hybrid_trainer_config.confidence_threshold
    return threshold / (threshold + _PAYING_ODDS * (1.0 - threshold)) if s.paying else threshold


def calm(s: Signals, c: Config) -> Answer:
    """No divergence in the recent window."""
    window = c.hybrid_trainer_config.divergence_window
    if s.since_divergence is None:
        return Answer(True, "no divergence so far")
    return Answer(
        s.since_divergence >= window,
        lambda: f"last divergence {s.since_divergence} steps ago, needs {window}",
    )


def unlocked(s: Signals, c: Config) -> Answer:
    """No operator has locked prediction."""
    return Answer(not s.locked, "locked by an operator" if s.locked else "not locked")


def not_finite(s: Signals, c: Config) -> Answer:
    """NaN or Inf in the loss, the gradient or the update."""
    if not c.divergence_config.nan_check_enabled:
        return Answer(False, "the check is switched off")
    return Answer(not s.finite, "all finite" if s.finite else "NaN or Inf")


def loss_deviates(s: Signals, c: Config) -> Answer:
    """The loss is far above its EMA, in standard deviations."""
    return above(s.loss_deviation, c.hybrid_trainer_config.divergence_threshold)


def update_exploded(s: Signals, c: Config) -> Answer:
    """The update norm is far above its baseline (in PREDICT there is no gradient to judge)."""
    return above(s.update_ratio, c.divergence_config.update_explosion_factor)


def update_vanished(s: Signals, c: Config) -> Answer:
    """The update norm is far below its baseline."""
    return below(s.update_ratio, c.divergence_config.update_vanishing_factor)


def confidence_dropped(s: Signals, c: Config) -> Answer:
    """What the phase has measured no longer supports its prediction."""
    return below(s.confidence, confidence_needed(s, c))


def horizon_reached(s: Signals, c: Config) -> Answer:
    """The prediction has run its course."""
    return at_least(s.steps_in_phase, s.horizon)


def prediction_off(s: Signals, c: Config) -> Answer:
    """The loss is not what was predicted."""
    return above(s.prediction_error, c.divergence_config.prediction_error_threshold)


def oscillates(s: Signals, c: Config) -> Answer:
    """The loss goes up and down."""
    return above(s.sign_changes, c.divergence_config.max_sign_changes)


def validation_complete(s: Signals, c: Config) -> Answer:
    """CORRECT has taken its validating steps."""
    return at_least(s.validated_steps, s.correct_needed)


def correction_applied(s: Signals, c: Config) -> Answer:
    """The residual correction was applied, or judged and declined."""
    return Answer(s.corrected, "done" if s.corrected else "not yet")


def gradient_extreme(s: Signals, c: Config) -> Answer:
    """The gradient norm is critical and far above its own baseline."""
    limit = c.divergence_config.gradient_norm_extreme_high
    baseline = s.grad_norm_baseline
    if baseline is not None:
        limit = max(limit, c.divergence_config.update_explosion_factor * baseline)
    return above(s.grad_norm, limit)


def asked_for(phase: Phase) -> Guard:
    """An operator asked for ``phase``."""

    def asked(s: Signals, c: Config) -> Answer:
        """An operator asked for it."""
        return Answer(
            s.asked is phase,
            "asked for by an operator" if s.asked is phase else "not asked for",
        )

    return asked
