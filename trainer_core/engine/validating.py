"""What a user's ``validate`` answers, as plain numbers. Measures nothing itself."""

from collections.abc import Callable

from trainer_core.spec.errors import UserError

Validate = Callable[[], tuple[float, float | None] | float]
"""Held-out (loss, accuracy or None), or the loss alone."""


def measured(answer: object) -> tuple[float, float | None]:
    """What a ``Validate`` answered: loss, and accuracy or None. Raises UserError when it is something else."""
    values = answer if isinstance(answer, tuple) else (answer, None)
    try:
        loss, accuracy = values
        return float(loss), None if accuracy is None else float(accuracy)
    except (TypeError, ValueError, RuntimeError):
        raise UserError(f"validate() returned {answer!r:.100}: must be the loss, or (loss, accuracy or None)") from None
