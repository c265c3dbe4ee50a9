"""Whether somebody else sets the learning rates too, as a torch scheduler does. Says so once, and sets none."""

import warnings
from typing import TYPE_CHECKING

from trainer_core.spec.records import AlertRaised, AlertResolved
from trainer_core.spec.severity import Severity

if TYPE_CHECKING:
    from trainer_core.engine.engine import Engine

_INSTEAD = (
    "the trainer sets the rate of every step. Use [learning_rate_schedule] or an operator's command instead, "
    "and [learning_rate] initial for the rate it begins from"
)


class RateWatch:
    """One process's. Costs a comparison of numbers a step, and nothing on a device."""

    def __init__(self) -> None:
        self._told = False

    def look(self, engine: "Engine") -> None:
        """Before a step sets its rates: an alert and a Python warning when they are not what the last one left."""
        if self._told:
            return
        schedule = engine.schedule
        found = schedule.changed_by_others()
        if found is not None:
            now, left = found
            self._tell(
                engine, f"something else set the learning rate to {now:g} (it was {left:g}), without effect", now
            )
        elif schedule.given is not None:
            now, given = schedule.given
            text = f"the optimizer has a torch scheduler, without effect (it made {now:g} of the {given:g} given)"
            self._tell(engine, text, now)

    def _tell(self, engine: "Engine", what: str, value: float) -> None:
        self._told = True
        text, step = f"{what}: {_INSTEAD}", engine.step_count
        alert = AlertRaised(
            step, f"schedule-{step}", "learning rate schedule", Severity.WARNING, "learning_rate", value, None, text
        )
        engine.record(alert)
        engine.record(AlertResolved(step, alert.alert_id, alert.rule, "the trainer's own schedule holds"))
        warnings.warn(text, stacklevel=2)
