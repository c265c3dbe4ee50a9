"""Alerts as a list to read: open first, worst first, newest first. Pure."""

import json
from dataclasses import dataclass

from app.alert_log import Life
from app.store import Snapshot
from app.views import words
from app.views.commands import title
from app.views.measured import shown
from app.views.remedy import Plan, against, plan
from app.views.rules import BY_NAME
from trainer_core.spec.alerts import SYSTEM_RULES
from trainer_core.spec.commands import CommandState
from trainer_core.spec.config import Config
from trainer_core.spec.records import AlertRaised, AttemptStarted
from trainer_core.spec.severity import Severity

MOST_OPEN = 60
"""More rules than there are; each has at most one open alert."""
NEWS_S = 60.0
"""Seconds for which an alert is news."""


@dataclass(frozen=True)
class Alert:
    """One alert and where it stands."""

    alert_id: str
    severity: Severity
    said: str
    """What is wrong, with the number and its limit."""
    detail: str
    """Likely causes, and what its remedy would send."""
    step: int
    resolved_step: int | None
    went_back: int | None
    """The step before its own that the run went back to until it was resolved, or since; None: it did not."""
    acknowledged: bool
    remedy: str
    """Name of its remedy; empty: none that would change anything while training runs."""
    seq: int = 0
    """Of the row that raised it last."""

    @property
    def standing(self) -> str:
        """Where it stands, in words."""
        if self.resolved_step is not None:
            return f"resolved at step {self.resolved_step:,}{after_going_back(self.went_back)}"
        back = "" if self.went_back is None else f", the run went back to {self.went_back:,}"
        return f"open{', acknowledged' if self.acknowledged else ''}{back}"


def alerts(snapshot: Snapshot) -> list[Alert]:
    """Open alerts first (worst, then newest), then the resolved ones that are still known, newest first."""
    log = snapshot.side.alerts
    opened = sorted(log.open, key=_urgency)
    return [_alert(life, snapshot) for life in (*opened, *reversed(log.resolved))]


def open_alerts(snapshot: Snapshot) -> list[Alert]:
    """The alerts that are neither resolved nor gone."""
    return [alert for alert in alerts(snapshot) if alert.resolved_step is None]


def worst(snapshot: Snapshot) -> Alert | None:
    """The newest open critical alert; None while there is none."""
    opened = sorted(snapshot.side.alerts.open, key=_urgency)
    return _alert(opened[0], snapshot) if opened and opened[0].raised.severity >= Severity.CRITICAL else None


def _urgency(life: Life) -> tuple[int, int]:
    return -life.raised.severity, -life.seq


def went_back(life: Life, snapshot: Snapshot) -> int | None:
    """The step that a rollback or a resume went back to while an alert was open, if that was before it was raised."""
    ends = life.resolved_seq if life.resolved_seq is not None else snapshot.last_seq
    began = [row for row in snapshot.events[AttemptStarted] if life.first_seq < row.seq <= ends]
    step = min((row.record.step for row in began if isinstance(row.record, AttemptStarted)), default=None)
    return step if step is not None and step < life.first_step else None


def after_going_back(step: int | None) -> str:
    """To be said after the step of an end, which may lie before that of the beginning."""
    return "" if step is None else f", after going back to {step:,}"


def _alert(life: Life, snapshot: Snapshot) -> Alert:
    raised = life.raised
    return Alert(
        alert_id=raised.alert_id,
        severity=Severity(raised.severity),
        said=_said(raised),
        detail=_detail(raised, snapshot),
        step=raised.step,
        resolved_step=life.resolved.step if life.resolved is not None else None,
        went_back=went_back(life, snapshot),
        acknowledged=_seen(life),
        remedy=raised.remedy if raised.remedy is not None and raised.commands else "",
        seq=life.seq,
    )


def _seen(life: Life) -> bool:
    return life.acknowledged is not None and life.acknowledged.state is CommandState.APPLIED


def _detail(raised: AlertRaised, snapshot: Snapshot) -> str:
    """Why, what to do, and what speaks against that."""
    parts = [f"likely: {raised.causes}"] if raised.causes else []
    if raised.remedy is not None and raised.commands:
        parts.append(f"remedy: {', '.join(title(command).lower() for command in raised.commands)}")
        parts += [f"but: {doubt}"] if (doubt := against(snapshot, raised.commands)) else []
    return " · ".join(parts)


@dataclass(frozen=True)
class Entry:
    """One alert of the feed with all that can be known and done about it."""

    alert_id: str
    rule: str
    severity: Severity
    said: str
    """What is wrong, with the number and its limit."""
    path: str
    """raised at ... → acknowledged at ... → resolved at ..."""
    holds: str
    """How long it was held before it was raised, and what resolves it."""
    causes: str
    advice: str
    """Settings that only the next run can have."""
    step: int
    first_step: int
    open: bool
    can_acknowledge: bool
    can_silence: bool
    plan: Plan | None
    """Its remedy; None: there is none that can be applied while training runs."""


def feed(snapshot: Snapshot, config: Config | None, most: int) -> list[Entry]:
    """The newest alerts, open ones first."""
    log = snapshot.side.alerts
    opened = sorted(log.open, key=_urgency)[:MOST_OPEN]
    past = list(log.resolved[-most:])[::-1]
    return [_entry(life, snapshot, config) for life in (*opened, *past)]


def entry(snapshot: Snapshot, config: Config | None, alert_id: str) -> Entry | None:
    """One open alert by its id."""
    found = next((life for life in snapshot.side.alerts.open if life.raised.alert_id == alert_id), None)
    return None if found is None else _entry(found, snapshot, config)


def _entry(life: Life, snapshot: Snapshot, config: Config | None) -> Entry:
    raised, opened = life.raised, life.resolved is None
    silent = snapshot.side.alerts.silent_until(raised.rule)
    step = snapshot.last.step if snapshot.last is not None else 0
    return Entry(
        alert_id=raised.alert_id,
        rule=raised.rule,
        severity=Severity(raised.severity),
        said=_said(raised),
        path=_path(life, silent, step, went_back(life, snapshot)),
        holds=_holds(raised.rule),
        causes=raised.causes,
        advice=raised.advice,
        step=raised.step,
        first_step=life.first_step,
        open=opened,
        can_acknowledge=opened and (life.acknowledged is None or life.acknowledged.state.final) and not _seen(life),
        can_silence=opened and raised.rule in BY_NAME and (silent is None or step >= silent),
        plan=plan(snapshot, raised.remedy, config) if opened and raised.remedy is not None else None,
    )


def _said(raised: AlertRaised) -> str:
    if raised.value is None:
        return raised.message.split(";")[0] if raised.causes else raised.message
    limit = "" if raised.limit is None else f", past its {_word(raised)} limit {shown(raised.signal, raised.limit)}"
    return f"{raised.rule}: {shown(raised.signal, raised.value)}{limit}"


def _word(raised: AlertRaised) -> str:
    return Severity(raised.severity).name.lower()


def _path(life: Life, silent: int | None, step: int, back: int | None) -> str:
    """Its life so far; what was only asked for is not called done."""
    parts = [f"raised at step {life.first_step:,}"]
    if life.raised.step != life.first_step:
        parts.append(f"{_word(life.raised)} at {life.raised.step:,}")
    seen = life.acknowledged
    if seen is not None and seen.state is CommandState.APPLIED:
        parts.append(f"acknowledged at {seen.step:,} by {seen.actor}")
    elif seen is not None:
        parts.append(f"acknowledgement {seen.state.value}")
    if back is not None:
        parts.append(f"the run went back to {back:,}")
    if life.resolved is not None:
        parts.append(f"resolved at {life.resolved.step:,} ({life.resolved.message})")
    else:
        parts.append("still open")
        if silent is not None and step < silent:
            parts.append(f"silenced until {silent:,}")
    return " → ".join(parts)


def critical_news(snapshot: Snapshot, run: str, now: float) -> str:
    """The alert that became critical within the last minute, as JSON for a notice; empty: none did."""
    life = snapshot.side.alerts.critical
    if life is None or now - life.time > NEWS_S:
        return ""
    return json.dumps({"id": f"{run}/{life.raised.alert_id}", "step": life.raised.step, "text": _said(life.raised)})


def _holds(rule: str) -> str:
    found = BY_NAME.get(rule)
    if found is None:
        return ""
    unit = "reading" if found in SYSTEM_RULES else "step"
    hold, recovery = words.several(found.hold, unit), words.several(found.recovery, f"healthy {unit}")
    return f"raised after {hold} past its limit, resolved after {recovery}"
