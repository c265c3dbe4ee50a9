"""Lengths of the coming FULL window and prediction: the document's, or learnt from what was kept. Knows no tensors."""

from typing import Any

from trainer_core.spec.config import Config

_FIRST_HORIZON = 20
_LONGER, _SHORTER = 1.1, 1.5
"""Factors on the horizon after a kept and a refused prediction: it settles where about four of five are kept, and does
not follow the noise of single batches, whose own best horizon is too short (docs/log.md)."""
_EASIER = 3.0
"""A kept prediction shortens the window by so much."""
_HESITATIONS = 3
"""Refusals in a row, beyond doubt or not, after which the windows between looks begin to grow."""
NO = -2.0
"""z below which a refusal is a plain no."""


OF_FULL = ("full_steps", "min_full_steps")
"""Settings that a FULL window which has begun follows."""


class Lengths:
    """Windows and horizons of one run. ``config`` is read at each call, so live changes hold at once.

    adaptive   kept: horizon x 1.1, window / 3. refused or undone: horizon / 1.5; the window grows by one from the
               fourth refusal in a row on, and doubles where the probe said a plain no (z < -2); up to full_steps.
    document   full_steps and max_predict_steps; undone: full_steps x 2 for the next cycles, horizon / 2;
               kept: back by halves, horizon x 1.5.
    """

    def __init__(self, config: Config) -> None:
        h = config.hybrid_trainer_config
        self.adaptive = h.policy == "adaptive"
        self._window = float(min(h.min_full_steps, h.full_steps)) if self.adaptive else 1.0
        self._horizon = float(_FIRST_HORIZON if self.adaptive else h.max_predict_steps)
        self.refusals = 0

    def full_needed(self, config: Config) -> int:
        """FULL steps before the next probe."""
        h = config.hybrid_trainer_config
        if self.adaptive:
            return max(round(self._window), min(h.min_full_steps, h.full_steps))
        return round(h.full_steps * self._window)

    def horizon(self, config: Config) -> int:
        """Steps the next prediction should try."""
        low, high = self._bounds(config)
        return max(low, min(high, round(self._horizon)))

    def correct_needed(self, config: Config) -> int:
        """Validating full steps in CORRECT."""
        return 1 if self.adaptive else config.hybrid_trainer_config.correct_steps

    def look_again(self, config: Config) -> None:
        """What was refused may be wanted now (an operator moved the threshold): forget the refusals."""
        self.refusals = 0
        if self.adaptive:
            self._window = 1.0

    def entered(self, horizon: int) -> None:
        """A prediction of ``horizon`` steps begins."""
        self._horizon = float(horizon)

    def kept(self, config: Config) -> None:
        """The prediction was worth it."""
        self.refusals = 0
        if self.adaptive:
            self._window = min(self._window, config.hybrid_trainer_config.full_steps) / _EASIER
            self._horizon *= _LONGER
        else:
            self._window = max(1.0, self._window / 2)
            self._horizon *= 1.5
        self._clip(config)

    def refused(self, config: Config, z: float | None = None) -> None:
        """The probe said no, by ``z``: nothing was moved. None: there was nothing to probe, or no saying how clear."""
        self.refusals += 1
        if not self.adaptive:
            self._horizon /= 2
            return self._clip(config)
        self._horizon /= _SHORTER
        if z is not None and z < NO:
            self._window *= 2
        if self.refusals > _HESITATIONS:
            self._window += 1
        self._window = min(self._window, float(config.hybrid_trainer_config.full_steps))
        return self._clip(config)

    def undone(self, config: Config) -> None:
        """A prediction was entered and taken back."""
        if self.adaptive:
            return self.refused(config)
        self._window = min(self._window * 2, 4.0)
        self._horizon /= 2
        return self._clip(config)

    def _bounds(self, config: Config) -> tuple[int, int]:
        h = config.hybrid_trainer_config
        return min(h.min_predict_steps, h.max_predict_steps), h.max_predict_steps

    def _clip(self, config: Config) -> None:
        low, high = self._bounds(config)
        self._horizon = max(float(low), min(float(high), self._horizon))

    def state_dict(self) -> dict[str, Any]:
        return {
            "window": self._window,
            "horizon": self._horizon,
            "refusals": self.refusals,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._window, self._horizon = state["window"], state["horizon"]
        self.refusals = state["refusals"]
