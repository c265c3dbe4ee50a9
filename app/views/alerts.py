"""Alerts as a list to read: open first, worst first, newest first. Pure."""

from dataclasses import dataclass

from app.store import Snapshot
from app.views import words
from app.views.commands import title
from trainer_core.spec.commands import AcknowledgeAlert, CommandState
from trainer_core.spec.records import AlertRaised, AlertResolved, CommandChanged
from trainer_core.spec.severity import Severity


@dataclass(frozen=True)
class Alert:
    """One alert and where it stands."""

    alert_id: str
    severity: Severity
    message: str
    detail: str
    """The value, the limit it passed, and what its remedy would send."""
    step: int
    resolved_step: int | None
    acknowledged: bool

    @property
    def standing(self) -> str:
        """Where it stands, in words."""
        if self.resolved_step is not None:
            return f"resolved at step {self.resolved_step:,}"
        return "open, acknowledged" if self.acknowledged else "open"


def alerts(snapshot: Snapshot) -> list[Alert]:
    """Every alert of the run: open ones first (worst, then newest), then the resolved ones, newest first."""
    resolved = {record.alert_id: record.step for record in snapshot.of(AlertResolved)}
    seen = {
        change.command.alert_id
        for change in snapshot.of(CommandChanged)
        if change.state is CommandState.APPLIED and isinstance(change.command, AcknowledgeAlert)
    }
    found = [
        Alert(
            alert_id=raised.alert_id,
            severity=Severity(raised.severity),
            message=raised.message,
            detail=_detail(raised),
            step=raised.step,
            resolved_step=resolved.get(raised.alert_id),
            acknowledged=raised.alert_id in seen,
        )
        for raised in snapshot.of(AlertRaised)
    ]
    newest_first = found[::-1]
    opened = sorted((alert for alert in newest_first if alert.resolved_step is None), key=lambda a: -a.severity)
    return opened + [alert for alert in newest_first if alert.resolved_step is not None]


def open_alerts(snapshot: Snapshot) -> list[Alert]:
    """The alerts that are neither resolved nor gone."""
    return [alert for alert in alerts(snapshot) if alert.resolved_step is None]


def _detail(raised: AlertRaised) -> str:
    """The numbers, and what the remedy would send."""
    numbers = raised.signal if raised.value is None else f"{raised.signal} {words.number(raised.value)}"
    if raised.limit is not None:
        numbers += f", limit {words.number(raised.limit)}"
    if raised.remedy is None or not raised.commands:
        return numbers
    return f"{numbers}; remedy {raised.remedy}: {', '.join(title(command).lower() for command in raised.commands)}"
