"""Every alert's life so far, in bounded memory: raised, acknowledged, silenced, resolved. Knows no drawing."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import islice

from trainer_core.spec.commands import AcknowledgeAlert, CommandState, SilenceAlert
from trainer_core.spec.records import AlertRaised, AlertResolved, CommandChanged, Row
from trainer_core.spec.severity import Severity

MOST_RESOLVED = 200
"""Resolved alerts kept, the newest."""


@dataclass(frozen=True)
class Acknowledged:
    """Somebody has said that he has seen it, or has asked to say so."""

    state: CommandState
    step: int
    actor: str


@dataclass(frozen=True)
class Life:
    """One alert."""

    raised: AlertRaised
    """As it was raised last: a worse rung raises it again."""
    first_step: int
    first_seq: int
    """Of the row that raised it first."""
    seq: int
    """Of the row that raised it last."""
    time: float
    """Unix seconds of that row."""
    acknowledged: Acknowledged | None = None
    resolved: AlertResolved | None = None
    resolved_seq: int | None = None
    """Of the row that resolved it."""


@dataclass(frozen=True)
class AlertLog:
    """Alerts at one moment."""

    open: tuple[Life, ...] = ()
    """In the order they were raised."""
    resolved: tuple[Life, ...] = ()
    """The newest, in the order they were resolved."""
    count: int = 0
    """Of all alerts so far."""
    silenced: Mapping[str, int] | None = None
    """Rule -> the step until which it raises nothing."""
    critical: Life | None = None
    """The one that became critical last."""

    def silent_until(self, rule: str) -> int | None:
        """The step until which an operator has silenced a rule; None: nobody has."""
        return (self.silenced or {}).get(rule)


NO_ALERTS = AlertLog()


class AlertLogStore:
    """Takes rows in their order."""

    def __init__(self) -> None:
        self._open: dict[str, Life] = {}
        self._resolved: dict[str, Life] = {}
        self._silenced: dict[str, int] = {}
        self._count = 0
        self._critical: Life | None = None
        self._frozen: AlertLog | None = NO_ALERTS

    def note(self, row: Row) -> None:
        """One row, whatever it is."""
        match row.record:
            case AlertRaised():
                self._raise(row.record, row)
            case AlertResolved():
                self._resolve(row.record, row.seq)
            case CommandChanged(command=AcknowledgeAlert(alert_id=alert_id)):
                self._acknowledge(alert_id, row.record)
            case CommandChanged(command=SilenceAlert(rule=rule, steps=steps), state=CommandState.APPLIED):
                self._silenced[rule] = row.record.step + steps
                self._frozen = None
            case _:
                pass

    def frozen(self) -> AlertLog:
        """The alerts as they are now; the same object until one changes."""
        if self._frozen is None:
            self._frozen = AlertLog(
                tuple(self._open.values()), tuple(self._resolved.values()), self._count, dict(self._silenced),
                self._critical,
            )  # fmt: skip
        return self._frozen

    def _raise(self, raised: AlertRaised, row: Row) -> None:
        held = self._open.get(raised.alert_id)
        self._count += held is None
        was = held.raised.severity if held is not None else Severity.HEALTHY
        first = (raised.step, row.seq) if held is None else (held.first_step, held.first_seq)
        life = Life(raised, *first, row.seq, row.time, held.acknowledged if held is not None else None)
        self._open[raised.alert_id] = life
        if raised.severity is Severity.CRITICAL and was is not Severity.CRITICAL:
            self._critical = life
        self._frozen = None

    def _resolve(self, resolved: AlertResolved, seq: int) -> None:
        held = self._open.pop(resolved.alert_id, None)
        if held is None:
            return
        self._resolved[resolved.alert_id] = replace(held, resolved=resolved, resolved_seq=seq)
        for oldest in list(islice(self._resolved, max(0, len(self._resolved) - MOST_RESOLVED))):
            del self._resolved[oldest]
        self._frozen = None

    def _acknowledge(self, alert_id: str, change: CommandChanged) -> None:
        held = self._open.get(alert_id)
        done = held is not None and held.acknowledged is not None and held.acknowledged.state is CommandState.APPLIED
        if held is None or done:
            return
        self._open[alert_id] = replace(held, acknowledged=Acknowledged(change.state, change.step, change.by))
        self._frozen = None
