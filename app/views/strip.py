"""The status strip: is it healthy, where is it, and what to do. Pure."""

import shlex
from dataclasses import dataclass
from typing import Protocol

from app.store import Snapshot
from app.theme import ICON
from app.views import resuming, words
from app.views.alerts import worst
from app.views.commands import STEERABLE, prediction_locked
from app.views.incident import incident
from trainer_core.spec.phases import Phase
from trainer_core.spec.records import AttemptStarted, RunStarted
from trainer_core.spec.severity import Severity

RATE_WINDOW_S = 10.0

ADVICE = {
    "stalled": "No step for a while. Look at the process and the machine before stopping it.",
    "paused": "Press Resume on the Control page to go on.",
}
"""What to do in a state that needs no command."""
RESUME = {
    "crashed": ("Go on from the last checkpoint:", "To go on from the last checkpoint, start the script again with"),
    "failed": ("Look at the alerts, mend the cause, then:", "Mend the cause, then start the script again with"),
    "stopped": ("To go on:", "To go on, start the script again with"),
}
"""What comes before the command that goes on, and before the call in a script of the user's own."""
TONE = {
    "working": "healthy",
    "paused": "caution",
    "stalled": "warning",
    "crashed": "critical",
    "failed": "critical",
    "unreadable": "critical",
}


class Status(Protocol):
    """What telemetry says of the processes behind a run (``trainer_core.telemetry.rundir.RunStatus``)."""

    @property
    def state(self) -> str: ...
    @property
    def because(self) -> str: ...


@dataclass(frozen=True)
class Strip:
    """Every cell of the strip, in words."""

    state: str
    tone: str
    because: str
    advice: str
    command: str
    """To type, after the advice."""
    phase: Phase | None
    step: str
    total: str
    progress: float
    rate: str
    eta: str
    last_step: str
    own_loop: bool
    """A loop without phases: it has no confidence, and saves no backward pass."""
    confidence: str
    saved: str
    alerts: str
    alerts_tone: str
    attempt: str
    locked: bool
    worst: str
    """The critical alert that is open, or the trainer's answer to the last one while that is news; empty: neither."""
    worst_tone: str
    remedy: str
    """The name of its remedy, where the run can take one."""


def strip(snapshot: Snapshot, status: Status, run: str, now: float) -> Strip:
    """The strip at ``now`` (Unix seconds)."""
    started, began = snapshot.latest(RunStarted), snapshot.latest(AttemptStarted)
    total = started.total_steps if started else None
    step = snapshot.step
    rate = step_rate(snapshot) if status.state in ("working", "replay") else None
    attempt = began.attempt if began else snapshot.steps.last("attempt") if snapshot.steps.length else None
    alerts = [life.raised for life in snapshot.side.alerts.open]
    what, typed = _advice(snapshot, status.state, run)
    severity = Severity(max((alert.severity for alert in alerts), default=Severity.HEALTHY))
    critical, answered = worst(snapshot), incident(snapshot, status.state)
    if critical is not None and (answered is None or critical.seq > answered.seq):
        answered = None
        said = f"{ICON[critical.severity]} {critical.said} · since step {critical.step:,}"
    else:  # what is open was answered: its remedy would do the same once more
        said = f"↶ {answered.text}" if answered is not None else ""
    tone = "critical" if critical is not None else "caution" if answered is not None else "muted"
    return Strip(
        state=status.state,
        tone=TONE.get(status.state, "muted"),
        because=status.because,
        advice=what,
        command=typed,
        phase=None if snapshot.own_loop else snapshot.phase,
        step=words.count(step),
        total=words.count(total),
        progress=min(1.0, step / total) if total else 0.0,
        rate=f"{words.number(rate)} steps/s" if rate else words.ABSENT,
        eta=words.duration((total - step) / rate) if rate and total else words.ABSENT,
        last_step=words.age(now - snapshot.last_time) if snapshot.last_time is not None else words.ABSENT,
        own_loop=snapshot.own_loop,
        confidence=words.number(last_confidence(snapshot)),
        saved=words.share(max(0, step - snapshot.backward_passes), step) if step else words.ABSENT,
        alerts=f"{len(alerts)} open" if alerts else "none open",
        alerts_tone=severity.name.lower(),
        attempt=words.count(attempt),
        locked=prediction_locked(snapshot),
        worst=said,
        worst_tone=tone,
        remedy=critical.remedy if critical and answered is None and status.state in STEERABLE else "",
    )


def _advice(snapshot: Snapshot, state: str, run: str) -> tuple[str, str]:
    """What to do now, and what to type or write for it."""
    if state == "finished":
        return "Read the result:", shlex.join(["hybrid", "report", run])
    if state not in RESUME:
        return ADVICE.get(state, ""), ""
    typed = resuming.command(snapshot, run)
    by_command, by_script = RESUME[state]
    if snapshot.own_loop and state == "crashed":  # whether there is a checkpoint is the script's affair
        by_script = RESUME["stopped"][1]
    return (by_command, typed) if typed is not None else (by_script, resuming.call(snapshot, run))


def step_rate(snapshot: Snapshot) -> float | None:
    """Steps a second over the last ten seconds of the present attempt."""
    steps = snapshot.steps
    if steps.length < 2:
        return None
    start = max(steps.starts[-1], steps.length - 4000)
    time, step = steps["time"][start:], steps["step"][start:]
    if len(time) < 2:
        return None
    first = int((time < time[-1] - RATE_WINDOW_S).sum())
    first = min(first, len(time) - 2)
    took = float(time[-1] - time[first])
    return float(step[-1] - step[first]) / took if took > 0 else None


def last_confidence(snapshot: Snapshot) -> float | None:
    """The newest confidence that was said."""
    return snapshot.last.confidence if snapshot.last is not None else None
