"""What came after a command, beside what was before: predicted steps and the slope of the loss. Pure.

Two stretches of measured steps side by side are no experiment: the words claim no cause.
"""

from dataclasses import dataclass

import numpy as np

from app.store import PHASES, Snapshot
from app.views import words
from trainer_core.spec.phases import Phase

WINDOW = 100
LEAST = 10
"""Measured steps on each side without which nothing is said."""


@dataclass(frozen=True)
class Side:
    """Measured steps on one side of a command."""

    steps: int
    predicted: float | None
    """Predicted steps in 100; None: the loop has no phases."""
    slope: float | None
    """Change of the loss EMA in 100 steps, by least squares; None: not measured."""


@dataclass(frozen=True)
class Effect:
    """Both sides; ``after`` may still be filling."""

    before: Side
    after: Side

    @property
    def text(self) -> str:
        """In one line."""
        so_far = "" if self.after.steps >= WINDOW else f" so far ({self.after.steps} of {WINDOW} steps)"
        shares, slopes = (self.before.predicted, self.after.predicted), (self.before.slope, self.after.slope)
        said = []
        if None not in shares:
            said.append(f"predicted steps in 100: {shares[0]:.0f} → {shares[1]:.0f}")
        if None not in slopes:
            said.append(f"loss in 100 steps: {' → '.join(map(_signed, slopes))}")
        return f"before and after{so_far}: {' · '.join(said) or 'no loss was measured'}"


def _signed(value: float | None) -> str:
    return words.ABSENT if value is None else f"{value:+.2g}"


def effect(snapshot: Snapshot, seq: int, window: int = WINDOW) -> Effect | None:
    """The measured steps around the row ``seq``; None while there are too few on one side."""
    steps = snapshot.steps
    at = int(np.searchsorted(steps["seq"], seq))
    before = _side(snapshot, max(0, at - window), at, "end")
    after = _side(snapshot, at, min(steps.length, at + window), "start")
    if before is None or after is None or min(before.steps, after.steps) < LEAST:
        return None
    return Effect(before, after)


def _side(snapshot: Snapshot, start: int, stop: int, nearest: str) -> Side | None:
    """The steps of one attempt in these rows: that of the row nearest to the command."""
    steps = snapshot.steps
    if stop <= start:
        return None
    attempts = steps["attempt"][start:stop]
    mine = attempts == (attempts[-1] if nearest == "end" else attempts[0])
    step, phase = steps["step"][start:stop][mine], steps["phase"][start:stop][mine]
    measured = phase != PHASES.index(Phase.PREDICT)
    span = float(step[-1] - step[0] + 1)
    loss = steps["loss_ema"][start:stop][mine]
    known = np.isfinite(loss)
    slope = float(np.polyfit(step[known], loss[known], 1)[0]) * 100 if known.sum() >= LEAST else None
    predicted = None if snapshot.own_loop else 100.0 * (span - float(measured.sum())) / span
    return Side(len(step), predicted, slope)
