"""The newest value of every signal that rules and tables speak of, with its unit. Pure; judges nothing."""

import math
from dataclasses import dataclass

import numpy as np

from app.store import MEASURED, Snapshot
from app.views import words
from trainer_core.spec.ladders import SYSTEM_SIGNALS

LOOK_BACK = 2000
"""Measured steps that are searched for the newest value of a signal; so the cost does not grow with the run."""
GIB = float(1 << 30)
LABELS = {
    "confidence": "Confidence",
    "loss_deviation": "Loss deviation",
    "grad_norm": "Gradient norm",
    "prediction_error": "Prediction error",
    "grad_growth": "Gradient norm / baseline",
    "update_ratio": "Update norm / baseline",
    "layer_norm_high": "Largest layer norm",
    "layer_norm_low": "Smallest layer norm",
    "grad_param_ratio": "Gradient / parameter norm",
    "grad_variance": "Gradient variance",
    "dead_layers": "Layers without a gradient",
    "loss_rise": "Loss above the first",
    "full_share": "Steps in FULL",
    "divergence_rate": "Divergences per 100 predicted steps",
    "divergences_in_a_row": "Divergences in a row",
    "steps_without_gain": "Steps without gain",
    "sign_changes": "Sign changes in 10 steps",
    "overfitting": "Validations that say overfitting",
    "validation_gap": "Validation minus training loss",
    "underfitting": "Validations that say underfitting",
    "implied_rate": "Implied / set learning rate",
    "disk_free": "Free disk",
    "memory_share": "Host memory in use",
    "gpu_temperature": "Hottest GPU",
    "loss": "Loss",
}
UNITS = {
    "loss_deviation": "σ", "grad_growth": "×", "update_ratio": "×", "implied_rate": "×", "disk_free": "GiB",
    "gpu_temperature": "°C", "steps_without_gain": "steps",
}  # fmt: skip
PERCENT = ("prediction_error", "dead_layers", "loss_rise", "full_share", "memory_share")


@dataclass(frozen=True)
class Measured:
    """One value and the step it was measured at; None: it was not, or not lately."""

    signal: str
    value: float | None
    step: int | None = None

    @property
    def text(self) -> str:
        """The value with its unit."""
        return shown(self.signal, self.value)


def newest(snapshot: Snapshot, signal: str) -> Measured:
    """The newest value of a field of StepRecord, of a health signal or of the machine."""
    if signal in SYSTEM_SIGNALS:
        return _of_the_machine(snapshot, signal)
    health = snapshot.side.health
    if signal not in MEASURED:
        if health is None or signal not in health.values:
            return Measured(signal, None)
        return Measured(signal, health.values[signal], health.step)
    last = snapshot.last
    value = getattr(last, signal, None)
    if last is not None and value is not None:  # NaN among them: the table cannot tell it from "not measured"
        return Measured(signal, float(value), last.step)
    column = snapshot.steps[signal][-LOOK_BACK:]
    known = np.flatnonzero(~np.isnan(column))
    if not len(known):
        return Measured(signal, None)
    at = known[-1] - len(column)
    return Measured(signal, float(column[at]), int(snapshot.steps["step"][at]))


def _of_the_machine(snapshot: Snapshot, signal: str) -> Measured:
    table = snapshot.side.system
    if not table.length or math.isnan(table.last(signal)):
        return Measured(signal, None)
    value = table.last(signal)
    return Measured(signal, value / GIB if signal == "disk_free" else value, int(table.last("step")))


def shown(signal: str, value: float | None) -> str:
    """A value or a limit of a signal, with its unit."""
    if value is None or not math.isfinite(value):
        return words.number(value)
    if signal in PERCENT:
        return "below 0.05 %" if 0 < 100 * value < 0.05 else f"{100 * value:.3g} %"
    unit = UNITS.get(signal, "")
    return f"{words.number(value)} {unit}".rstrip()
