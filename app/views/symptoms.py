"""Whether each symptom of the troubleshooting guide shows now, with the numbers that say so. Pure."""

import math
from collections.abc import Callable

import numpy as np

from app.store import Snapshot
from app.views import words
from app.views.measured import newest
from app.views.needed import needed
from app.views.phases_machine import locked
from trainer_core.spec.config import Config
from trainer_core.spec.ladders import ladders
from trainer_core.spec.phases import Phase
from trainer_core.spec.records import AttemptStarted, PredictionEnded, StepRecord, ValidationMeasured

LAST = 20
"""Predictions that are looked at, as the engine's health does."""
FEWEST = 5
FEW_SAVED = 0.10
"""Backward passes saved below this share are what the guide calls a minimal speedup."""
SUDDEN = 50
"""Steps within which a loss that was finite became NaN."""

Said = tuple[bool | None, str]
"""Whether it shows (None: it cannot be told yet), and the numbers."""


def _above(signal: str, limit: Callable[[Config], float], form: str = "{:.3g}") -> Callable[[Snapshot, Config], Said]:
    """A signal above a limit of the settings."""

    def check(snapshot: Snapshot, config: Config) -> Said:
        value, bound = newest(snapshot, signal).value, limit(config)
        if value is None or math.isnan(value):  # of NaN nobody can say that it is below a limit
            return None, "not measured yet" if value is None else f"NaN, limit {form.format(bound)}"
        return value > bound, f"{form.format(value)}, limit {form.format(bound)}"

    return check


def _ended(snapshot: Snapshot) -> list[PredictionEnded]:
    return snapshot.newest(PredictionEnded, LAST)


def exits_early(snapshot: Snapshot, _config: Config) -> Said:
    """Most of the last predictions were undone or ended before their horizon."""
    last = _ended(snapshot)
    if len(last) < FEWEST:
        return None, f"{len(last)} predictions so far, needs {FEWEST}"
    early = sum(not ended.kept for ended in last)
    return early > len(last) / 2, f"{early} of the last {len(last)} undone"


def little_saved(snapshot: Snapshot, config: Config) -> Said:
    """Hardly any backward pass was saved after warmup."""
    last = snapshot.last
    if last is None or snapshot.phase is Phase.WARMUP or last.step < 2 * config.hybrid_trainer_config.warmup_steps:
        return None, "warmup is not long over"
    if snapshot.own_loop or locked(snapshot):
        return None, "this run predicts nothing"
    saved = max(0.0, 1 - snapshot.backward_passes / last.step) if last.step else 0.0
    return saved < FEW_SAVED, f"{saved:.0%} of backward passes saved"


def exits_to_full(snapshot: Snapshot, _config: Config) -> Said:
    """More predictions leave for FULL than for CORRECT."""
    full = snapshot.edges.get((Phase.PREDICT, Phase.FULL), 0)
    correct = snapshot.edges.get((Phase.PREDICT, Phase.CORRECT), 0)
    if full + correct < FEWEST:
        return None, f"{full + correct} predictions so far, needs {FEWEST}"
    return full > correct, f"{full:,} to FULL, {correct:,} to CORRECT"


def diverged_lately(snapshot: Snapshot, _config: Config) -> Said:
    """A divergence within the last 50 steps."""
    since = newest(snapshot, "since_divergence").value
    if snapshot.last is None:
        return None, "no step yet"
    if since is None:
        return False, "none so far"
    return since <= 50, f"the last one {words.several(round(since), 'step')} ago"


def spikes_in_predict(snapshot: Snapshot, config: Config) -> Said:
    """The measured loss of the last predicted steps left its EMA by more than the warning limit."""
    rows = snapshot.steps
    inside = np.flatnonzero(rows["phase"][-2000:] == list(Phase).index(Phase.PREDICT))
    deviations = rows["loss_deviation"][-2000:][inside]
    deviations = deviations[~np.isnan(deviations)][-200:]
    limit = config.divergence_config.loss_deviation_warning
    if not len(deviations):
        return None, "no predicted step was measured lately"
    return bool(deviations.max() > limit), f"largest {deviations.max():.2g} σ, limit {limit:g} σ"


def training_falls(snapshot: Snapshot, _config: Config) -> Said:
    """The smoothed training loss is lower than at the validation before the last one."""
    last, then = newest(snapshot, "loss_ema").value, _ema_at_best_validation(snapshot)
    if last is None or then is None:
        return None, "needs two validations"
    return last < then, f"smoothed {then:.4g} at the best validation, {last:.4g} now"


def _validations(snapshot: Snapshot) -> list[ValidationMeasured]:
    return [v for v in snapshot.surviving(ValidationMeasured, 50) if math.isfinite(v.loss)]


def _ema_at_best_validation(snapshot: Snapshot) -> float | None:
    found = _validations(snapshot)
    if len(found) < 2:
        return None
    best = min(found, key=lambda v: v.loss)
    ranges = snapshot.steps.window(best.step - 20, best.step)
    if not ranges:
        return None
    values = snapshot.steps["loss_ema"][slice(*ranges[-1])]
    values = values[np.isfinite(values)]
    return float(values[-1]) if len(values) else None


def validation_stuck(snapshot: Snapshot, _config: Config) -> Said:
    """The newest validation is no better than the best before it."""
    found = _validations(snapshot)
    if len(found) < 2:
        return None, "needs two validations"
    best = min(v.loss for v in found[:-1])
    return found[-1].loss >= best, f"{found[-1].loss:.4g} now, best before {best:.4g}"


def loss_high(snapshot: Snapshot, config: Config) -> Said:
    """The smoothed loss is above what the settings call high."""
    return _above("loss_ema", lambda c: c.health.underfitting_loss)(snapshot, config)


def healthy_gradients_no_gain(snapshot: Snapshot, config: Config) -> Said:
    """The gradient norm is in its healthy zone and yet nothing was gained for long."""
    norm, stuck = newest(snapshot, "grad_norm").value, newest(snapshot, "steps_without_gain").value
    if norm is None or stuck is None:
        return None, "not measured yet"
    low, high = ladders(config)["grad_norm"].healthy
    limit = config.health.plateau_steps
    return low <= norm <= high and stuck > limit, f"norm {norm:.3g}, {stuck:,.0f} steps without gain, limit {limit:,}"


def is_nan(snapshot: Snapshot, _config: Config) -> Said:
    """A loss was measured that is no number."""
    found = [n for n in snapshot.not_finite[-100:] if n.signal == "loss"]
    if snapshot.last is None:
        return None, "no step yet"
    return bool(found), f"{words.several(found[-1].count, 'step')} from {found[-1].first_step:,}" if found else "never"


def nan_was_sudden(snapshot: Snapshot, _config: Config) -> Said:
    """The loss was finite shortly before."""
    found = [n for n in snapshot.not_finite[-100:] if n.signal == "loss"]
    if not found:
        return None, "there was none"
    first = found[-1].first_step
    steps, loss = snapshot.steps["step"], snapshot.steps["loss"]
    parts = [slice(*part) for part in snapshot.steps.window(first - SUDDEN, first - 1)]
    finite = {step for part in parts for step in steps[part][np.isfinite(loss[part])]}  # a step may come again
    return bool(finite), f"{words.several(len(finite), 'finite loss', 'finite losses')} in the {SUDDEN} steps before"


def nan_lasts(snapshot: Snapshot, _config: Config) -> Said:
    """The newest loss is still no number."""
    last = snapshot.last
    if not any(n.signal == "loss" for n in snapshot.not_finite[-100:]):
        return None, "there was none"
    loss = last.loss if isinstance(last, StepRecord) else None
    return loss is not None and not math.isfinite(loss), f"newest loss {words.number(loss)}"


# -- signs that it is mended ------------------------------------------------------------------------------------------


def _not(check: Callable[[Snapshot, Config], Said]) -> Callable[[Snapshot, Config], Said]:
    def turned(snapshot: Snapshot, config: Config) -> Said:
        shows, detail = check(snapshot, config)
        return (None if shows is None else not shows), detail

    return turned


def confident(snapshot: Snapshot, config: Config) -> Said:
    """Confidence is above what a prediction needs."""
    return _above("confidence", lambda c: needed(snapshot, c))(snapshot, config)


def gradients_look_right(snapshot: Snapshot, config: Config) -> Said:
    """The gradient norm is in its healthy zone."""
    norm = newest(snapshot, "grad_norm").value
    low, high = ladders(config)["grad_norm"].healthy
    return (None, "not measured yet") if norm is None else (low <= norm <= high, f"{norm:.3g}, {low:g} to {high:g}")


def went_back(snapshot: Snapshot, _config: Config) -> Said:
    """A rollback came after the newest NaN."""
    found = [n for n in snapshot.not_finite[-100:] if n.signal == "loss"]
    if not found:
        return None, "there was none"
    started = snapshot.latest(AttemptStarted)
    back = started is not None and started.attempt > found[-1].attempt
    return back, f"back to step {started.step:,}" if back and started is not None else "not yet"


Checks = tuple[Callable[[Snapshot, Config], Said], ...]
CHECKS: dict[str, tuple[Checks, Checks]] = {
    "low_confidence": (
        (_above("full_share", lambda c: c.health.full_share_limit, "{:.0%}"), exits_early, little_saved),
        (confident, gradients_look_right),
    ),
    "frequent_divergence": (
        (exits_to_full, diverged_lately, spikes_in_predict),
        (_not(_above("divergence_rate", lambda c: c.health.divergence_rate_limit)),),
    ),
    "overfitting": (
        (training_falls, validation_stuck, _above("validation_gap", lambda c: c.health.validation_gap)),
        (_not(validation_stuck), _not(_above("validation_gap", lambda c: c.health.validation_gap))),
    ),
    "underfitting": (
        (
            _above("steps_without_gain", lambda c: c.health.plateau_steps, "{:,.0f}"),
            loss_high,
            healthy_gradients_no_gain,
        ),
        (_not(loss_high),),
    ),
    "nan_loss": ((is_nan, nan_was_sudden, nan_lasts), (_not(nan_lasts), went_back)),
}
"""By issue: what tells each symptom, and each sign that it is mended, in the order of the guide."""
