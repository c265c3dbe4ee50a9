"""An alert of telemetry's own: raised while something holds, resolved when it does no more. Knows no rule of health."""

from collections.abc import Callable

from trainer_core.spec.records import AlertRaised, AlertResolved, Record
from trainer_core.spec.severity import Severity


class Notice:
    """``say`` is called from the thread that calls ``hold``; ``step`` is asked for the present step."""

    def __init__(self, rule: str, say: Callable[[Record], None], step: Callable[[], int]) -> None:
        self._rule, self._say, self._step = rule, say, step
        self._count, self._said = 0, ""

    def hold(self, message: str) -> None:
        """Say it, if it is not what was said last, and resolve what was. Empty: all is well."""
        if message == self._said:
            return
        alert_id, step = f"{self._rule}-{self._count}", self._step()
        if self._said:
            self._say(AlertResolved(step, alert_id, self._rule, message or "it is no longer so"))
        self._said = message
        if message:
            self._count += 1
            alert_id = f"{self._rule}-{self._count}"
            self._say(AlertRaised(step, alert_id, self._rule, Severity.WARNING, self._rule, None, None, message))
