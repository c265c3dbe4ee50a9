"""When a learned predictor may train: a share of the measured time, earned before it is spent. Reads the given clock.

earned = share * seconds of the steps;   a unit is run when spent + its expected seconds <= earned
The expected seconds are the last unit's, and before there was one, its operations at the rate of one CPU thread.
"""

from collections.abc import Callable
from typing import Any, cast

from trainer_core.learning.predictors import Trainable
from trainer_core.spec.config import PredictorConfig

_GUESS = 5e9
"""Floating point operations a second assumed of a machine on which no unit was timed yet: low, for one CPU thread."""
_SAVED_UP = 2.0
"""Units that may be saved up: long stretches without anything to learn do not buy a burst."""


class Pace:
    """One run's accounts. ``predictor_train_every`` > 0 trains by steps instead: the same at every repetition."""

    def __init__(self, clock: Callable[[], float], config: PredictorConfig) -> None:
        self._clock, self._share, self._every = clock, config.predictor_time_share, config.predictor_train_every
        self.balance = 0.0
        """Seconds earned and not yet spent."""
        self.expected: float | None = None
        """Seconds of the last unit."""
        self._trained_at = 0

    def after_step(self, predictor: object, step: int, seconds: float) -> float | None:
        """Let ``predictor`` train after ``step``, which took ``seconds``; the seconds it took, None if it did not."""
        if not hasattr(predictor, "train"):  # isinstance of a protocol takes longer than the whole of this
            return None
        student = cast(Trainable, predictor)
        self.balance += self._share * seconds
        if self._every:
            due = step // self._every > self._trained_at // self._every
            self._trained_at = step
            return self._train(student) if due else None
        flops = student.unit_flops
        expected = self.expected if self.expected is not None else flops / _GUESS
        self.balance = min(self.balance, _SAVED_UP * expected) if flops else 0.0
        return self._train(student) if flops and self.balance >= expected else None

    def _train(self, student: Trainable) -> float:
        start = self._clock()
        student.train()
        seconds = self._clock() - start
        self.expected = seconds
        self.balance -= seconds
        return seconds

    def state_dict(self) -> dict[str, Any]:
        return {"balance": self.balance, "expected": self.expected, "trained_at": self._trained_at}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.balance, self.expected, self._trained_at = state["balance"], state["expected"], state["trained_at"]
