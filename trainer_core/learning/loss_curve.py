"""Statistics of the training loss as it comes: EMA, spread, deviation, slope, oscillation. Python floats only.

EMA <- EMA + a (L - EMA)      var <- (1 - a)(var + a (L - EMA)^2)      deviation = (L - EMA) / sigma, before L counts
"""

import math
from collections import deque
from itertools import pairwise
from typing import Any

_DECAY = 0.1
_WINDOW = 20
_SIGNS = 10
_SIGNIFICANT = 1.5
_FLOOR = 1e-3
"""Sigma is at least this share of the EMA, so that a flat curve does not turn rounding into sigmas."""


class LossCurve:
    """Feed it every measured loss. NaN and Inf are answered but never enter the statistics."""

    def __init__(self) -> None:
        self.ema: float | None = None
        self._variance = 0.0
        self._emas: deque[float] = deque(maxlen=_WINDOW + 1)
        self._losses: deque[float] = deque(maxlen=_SIGNS + 2)

    @property
    def sigma(self) -> float | None:
        """Standard deviation of the loss about its EMA."""
        if self.ema is None:
            return None
        return max(math.sqrt(self._variance), _FLOOR * abs(self.ema), 1e-12)

    @property
    def relative_change(self) -> float | None:
        """abs(EMA now - EMA 20 steps ago) / EMA now; None until 20 steps were seen."""
        if len(self._emas) <= _WINDOW:
            return None
        return abs(self._emas[-1] - self._emas[0]) / max(abs(self._emas[-1]), 1e-12)

    @property
    def sign_changes(self) -> int | None:
        """Of the difference between successive losses over the last 10 steps; None until they were seen.

        Only differences above 1.5 sigma count: white batch noise alone changes sign in two steps of three and would
        make every noisy run "oscillate", while a true oscillation of amplitude A has sigma = A and differences of 2 A.
        """
        if len(self._losses) < _SIGNS + 2 or self.sigma is None:
            return None
        losses, noise = list(self._losses), _SIGNIFICANT * self.sigma
        rises = [b - a for a, b in pairwise(losses) if abs(b - a) > noise]
        return sum((a > 0) != (b > 0) for a, b in pairwise(rises))

    def deviation(self, loss: float) -> float | None:
        """(loss - EMA) / sigma against what was known before this loss; None without a baseline."""
        if self.ema is None or len(self._emas) < 2 or self.sigma is None:
            return None
        return (loss - self.ema) / self.sigma

    def update(self, loss: float) -> None:
        """Take one measured loss into the statistics."""
        if not math.isfinite(loss):
            return
        self._losses.append(loss)
        if self.ema is None:
            self.ema = loss
        else:
            step = loss - self.ema
            self.ema += _DECAY * step
            self._variance = (1 - _DECAY) * (self._variance + _DECAY * step * step)
        self._emas.append(self.ema)

    def forget_oscillation(self) -> None:
        """A phase begins: sign changes are counted within it."""
        self._losses.clear()

    def state_dict(self) -> dict[str, Any]:
        return {
            "ema": self.ema,
            "variance": self._variance,
            "emas": list(self._emas),
            "losses": list(self._losses),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.ema = state["ema"]
        self._variance = state["variance"]
        self._emas = deque(state["emas"], maxlen=_WINDOW + 1)
        self._losses = deque(state["losses"], maxlen=_SIGNS + 2)


class Baseline:
    """A running mean and variance of a norm over the full steps: what "10x baseline" is measured against."""

    def __init__(self, window: int = 100) -> None:
        self._window = window
        self._recent: deque[float] = deque(maxlen=_WINDOW)
        self.mean: float | None = None
        self._count = 0

    @property
    def variance(self) -> float | None:
        """Variance over the last 20 values; None until there are two."""
        n = len(self._recent)
        if n < 2:
            return None
        mean = sum(self._recent) / n
        away = [x - mean for x in self._recent]
        return sum([d * d for d in away]) / (n - 1)  # a product becomes infinite where a power would raise

    def update(self, value: float) -> None:
        """Take one finite value: an arithmetic mean at first, then an exponential one."""
        if not math.isfinite(value):
            return
        self._recent.append(value)
        self._count += 1
        rate = 1.0 / min(self._count, self._window)
        self.mean = value if self.mean is None else self.mean + rate * (value - self.mean)

    def state_dict(self) -> dict[str, Any]:
        return {"recent": list(self._recent), "mean": self.mean, "count": self._count}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._recent = deque(state["recent"], maxlen=_WINDOW)
        self.mean = state["mean"]
        self._count = state["count"]
