"""Lengths of the coming FULL window and prediction: the document's, or learnt from what was kept. Knows no tensors."""

from typing import Any

from trainer_core.spec.config import Config

_FIRST_HORIZON = 20
RATIO = 1.5
"""Factor between two horizons that are tried: doubling and quartering overlooks the one that pays (docs/log.md)."""
_HESITATIONS = 2
"""Refusals in a row at the shortest horizon before the windows between looks may grow beyond full_steps."""
_LONGEST_BACKOFF = 160
"""A look costs up to three forward passes, about one full step: at most 1 % of the steps, once in so many."""


class Lengths:
    """Windows and horizons of one run. ``config`` is read at each call, so live changes hold at once.

    adaptive   kept: window / 1.5. refused or undone: horizon / 1.5, and the window doubles (up to full_steps; from the
               third such refusal in a row on, up to 160) only where the horizon is already at its shortest.
    document   full_steps and max_predict_steps; undone: full_steps x 2 for the next cycles, horizon / 2;
               kept: back by halves, horizon x 1.5.
    """

    def __init__(self, config: Config) -> None:
        h = config.hybrid_trainer_config
        self.adaptive = h.policy == "adaptive"
        self._window = float(min(h.min_full_steps, h.full_steps)) if self.adaptive else 1.0
        self._horizon = float(_FIRST_HORIZON if self.adaptive else h.max_predict_steps)
        self.refusals = self._at_floor = 0

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

    def shortest(self, config: Config) -> int:
        """Steps the shortest prediction may have."""
        return self._bounds(config)[0]

    def correct_needed(self, config: Config) -> int:
        """Validating full steps in CORRECT."""
        return 1 if self.adaptive else config.hybrid_trainer_config.correct_steps

    def look_again(self, config: Config) -> None:
        """What was refused may be wanted now (an operator moved the threshold): forget the refusals."""
        self.refusals = self._at_floor = 0
        if self.adaptive:
            self._window = min(self._window, float(config.hybrid_trainer_config.full_steps))

    def entered(self, horizon: int) -> None:
        """A prediction of ``horizon`` steps begins."""
        self._horizon = float(horizon)

    def kept(self, config: Config) -> None:
        """The prediction was worth it."""
        self.refusals = self._at_floor = 0
        if self.adaptive:
            self._window = max(1.0, min(self._window, config.hybrid_trainer_config.full_steps) / RATIO)
        else:
            self._window = max(1.0, self._window / 2)
            self._horizon *= 1.5
        self._clip(config)

    def refused(self, config: Config, tried: int | None = None) -> None:
        """The probe said no, ``tried`` being the shortest horizon it was asked about: nothing was moved."""
        self.refusals += 1
        if not self.adaptive:
            self._horizon /= 2
            return self._clip(config)
        self._horizon = min(self._horizon, float(tried or self._horizon)) / RATIO
        if self._horizon < self._bounds(config)[0]:
            self._at_floor += 1
            h = config.hybrid_trainer_config
            ceiling = h.full_steps if self._at_floor <= _HESITATIONS else _LONGEST_BACKOFF
            self._window = max(self._window, min(max(self._window, 1.0) * 2, float(ceiling)))
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
            "at_floor": self._at_floor,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._window, self._horizon = state["window"], state["horizon"]
        self.refusals, self._at_floor = state["refusals"], state["at_floor"]
