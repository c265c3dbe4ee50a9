"""Held-out losses: what a user's ``validate`` answers, and what the answers so far say. Measures nothing itself."""

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from trainer_core.spec.errors import UserError

if TYPE_CHECKING:
    from trainer_core.engine.engine import Engine

Validate = Callable[[], tuple[float, float | None] | float]
"""Held-out (loss, accuracy or None), or the loss alone."""


def measured(answer: object) -> tuple[float, float | None]:
    """What a ``Validate`` answered: loss, and accuracy or None. Raises UserError when it is something else."""
    values = answer if isinstance(answer, tuple) else (answer, None)
    try:
        loss, accuracy = values
        return float(loss), None if accuracy is None else float(accuracy)
    except (TypeError, ValueError, RuntimeError, OverflowError):
        raise UserError(f"validate() returned {answer!r:.100}: must be the loss, or (loss, accuracy or None)") from None


class HeldOut:
    """A run's validations: the best of them, how many brought no gain since, and of which weights the last one is."""

    def __init__(self) -> None:
        self.best = math.inf
        """Of the whole run: what the best checkpoint is marked by."""
        self.waited = 0
        """Validations without a gain, on the way to the present weights: a rollback takes back those it gave up."""
        self._best_here = math.inf
        """On the way to the present weights."""
        self.step = self.batches = 0
        """Where the last one was measured."""
        self._of: tuple[int, ...] | None = None
        """The weights of the last one; None: of another process."""
        self._improved = False
        """Whether the last one was the best."""

    def take(self, loss: float, engine: "Engine") -> None:
        """A loss of the present weights; NaN is no gain."""
        self.here(engine)
        self._improved = loss < self.best
        self.waited = 0 if loss < self._best_here else self.waited + 1
        self.best, self._best_here = min(self.best, loss), min(self._best_here, loss)

    def here(self, engine: "Engine") -> None:
        """A validation was due and is done."""
        self.step, self.batches, self._of, self._improved = engine.step_count, engine.batches, _weights(engine), False

    def is_best(self, engine: "Engine") -> bool:
        """Whether the present weights have the best loss so far."""
        return self._improved and self._of == _weights(engine)

    def is_missing(self, engine: "Engine") -> bool:
        """Whether the present weights have no validation: steps were taken since, or a prediction was undone."""
        return self.step != engine.step_count or (self._of is not None and self._of != _weights(engine))

    def went_back(self, state: dict[str, Any], engine: "Engine") -> None:
        """A rollback: what was waited for since the checkpoint of ``state`` is as if it had not been."""
        self._best_here, self.waited = _on_the_way(state)
        self.step, self._of, self._improved = engine.step_count, None, False

    def state_dict(self) -> dict[str, Any]:
        return {
            "validation": [self.best, self.waited, self._best_here],
            "validated": [self.step, self.batches],
        }

    def load_state_dict(self, state: dict[str, Any], engine: "Engine") -> None:
        self.best = state["validation"][0]
        self._best_here, self.waited = _on_the_way(state)
        here = engine.step_count, engine.batches
        self.step, self.batches = state.get("validated", here)  # older checkpoints do not say it
        self._of, self._improved = None, False


def _on_the_way(state: dict[str, Any]) -> tuple[float, int]:
    """(best, validations without a gain) when the checkpoint was saved; older ones have one best alone."""
    best, waited, *here = state["validation"]
    return (here[0] if here else best), waited


def _weights(engine: "Engine") -> tuple[int, ...]:
    """Numbers that change whenever training moves the weights."""
    return engine.attempt, engine.step_count, engine.batches, engine.predictions_undone
