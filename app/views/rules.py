"""Every alert rule with its limits under the present settings, its live value and where it stands. Pure."""

from dataclasses import dataclass

from app.alert_log import Life
from app.store import Snapshot
from app.theme import ICON
from app.views import words
from app.views.commands import prediction_locked
from app.views.measured import LABELS, Measured, newest, shown
from trainer_core.spec.alerts import NOT_FINITE, RULES, SYSTEM_RULES, AlertRule
from trainer_core.spec.config import Config
from trainer_core.spec.ladders import ladders
from trainer_core.spec.phases import Phase
from trainer_core.spec.severity import Ladder, Severity

ALL_RULES = (NOT_FINITE, *RULES, *SYSTEM_RULES)
BY_NAME = {rule.name: rule for rule in ALL_RULES}
PREDICTION = ("prediction error", "confidence", "mostly full steps", "frequent divergence", "divergence loop",
              "learning rate too low")  # fmt: skip
"""Rules about predictions: they say nothing while prediction is locked, and have no place in a loop without phases."""


@dataclass(frozen=True)
class RuleLine:
    """One rule."""

    name: str
    signal: str
    live: str
    caution: str
    warning: str
    critical: str
    hold: str
    phases: str
    standing: str
    tone: str
    """Severity name while an alert is open or the value is past a limit; else empty."""


def rule_lines(snapshot: Snapshot, config: Config | None) -> list[RuleLine]:
    """Every rule that means something to this run, those with an open alert first, worst first."""
    opened = {life.raised.rule: life for life in snapshot.side.alerts.open}
    limits = ladders(config) if config is not None else {}
    locked = prediction_locked(snapshot)
    rules = [rule for rule in ALL_RULES if not (snapshot.own_loop and rule.name in PREDICTION)]
    values = {signal: newest(snapshot, signal) for signal in {rule.signal for rule in rules}}

    def urgency(rule: AlertRule) -> int:
        return -opened[rule.name].raised.severity if rule.name in opened else 0

    ladder_of = {rule.name: _ladder(rule, limits) for rule in rules}
    return [
        _line(rule, ladder_of[rule.name], values[rule.signal], opened.get(rule.name), snapshot, locked)
        for rule in sorted(rules, key=urgency)
    ]


def _ladder(rule: AlertRule, limits: dict[str, Ladder]) -> Ladder | None:
    """The side of the ladder that a rule looks at; None: it has no limits, or they are not known yet."""
    found = limits.get(rule.signal)
    return None if found is None else found.side(rule.above)


def _line(
    rule: AlertRule, ladder: Ladder | None, live: Measured, life: Life | None, snapshot: Snapshot, locked: bool
) -> RuleLine:
    standing, tone = _standing(rule, ladder, live, life, snapshot, locked)
    phases = "all" if len(rule.phases) == len(Phase) else " ".join(phase.letter for phase in rule.phases)
    unit = "readings" if rule in SYSTEM_RULES else "steps"
    return RuleLine(
        rule.name,
        LABELS[rule.signal],
        live.text,
        _limit(rule, ladder, Severity.CAUTION),
        _limit(rule, ladder, Severity.WARNING),
        "NaN or Inf" if rule is NOT_FINITE else _limit(rule, ladder, Severity.CRITICAL),
        f"{rule.hold} / {rule.recovery} {unit}",
        phases,
        standing,
        tone,
    )


def _limit(rule: AlertRule, ladder: Ladder | None, severity: Severity) -> str:
    """A rung as the rule uses it; a rung that is worse than the rule ever gets is not shown."""
    if ladder is None or severity > rule.worst:
        return words.ABSENT
    for rung, above, below in ladder.rungs():
        limit = above if rule.above else below
        if rung is severity and limit is not None:
            return f"{'>' if rule.above else '<'} {shown(rule.signal, limit)}"
    return words.ABSENT


def _standing(
    rule: AlertRule, ladder: Ladder | None, live: Measured, life: Life | None, snapshot: Snapshot, locked: bool
) -> tuple[str, str]:
    """Where the rule stands in words, and its tone."""
    silent = snapshot.side.alerts.silent_until(rule.name)
    step = snapshot.last.step if snapshot.last is not None else 0
    if life is not None:
        severity = Severity(life.raised.severity)
        return f"{ICON[severity]} {severity.name.lower()} since step {life.first_step:,}", severity.name.lower()
    if silent is not None and step < silent:
        return f"silenced until step {silent:,}", "muted"
    if locked and rule.name in PREDICTION:
        return "prediction is locked", "muted"
    if live.value is None:
        return "not measured yet", ""
    severity = min(ladder.classify(live.value), rule.worst) if ladder is not None else Severity.HEALTHY
    if severity is Severity.HEALTHY:
        return f"{ICON[severity]} healthy", ""
    if snapshot.phase not in rule.phases and not snapshot.own_loop:
        return "past its limit, not watched in this phase", ""
    return f"{ICON[severity]} past its {severity.name.lower()} limit, not held long enough", severity.name.lower()


@dataclass(frozen=True)
class Segment:
    """One piece of a ladder."""

    tone: str
    text: str
    """Its range."""


@dataclass(frozen=True)
class Rungs:
    """One metric of the document's Critical Thresholds."""

    label: str
    segments: tuple[Segment, ...]
    at: float | None
    """Where the value stands, in [0, 1] along the segments, each of one width; None: not measured."""
    value: str
    tone: str


THRESHOLDS = ("confidence", "loss_deviation", "grad_norm", "prediction_error")
"""Signals of the document's table "Critical Thresholds"."""


def threshold_ladders(snapshot: Snapshot, config: Config | None) -> list[Rungs]:
    """The table with the live value beside each limit; empty while the settings are unknown."""
    if config is None:
        return []
    found = ladders(config)
    return [rungs(signal, found[signal], newest(snapshot, signal)) for signal in THRESHOLDS]


def rungs(signal: str, ladder: Ladder, live: Measured) -> Rungs:
    """A ladder laid out from the worst low rung over healthy to the worst high one (or from worst to healthy)."""
    below = [(s, low) for s, _, low in ladder.rungs() if low is not None]
    above = [(s, high) for s, high, _ in reversed(ladder.rungs()) if high is not None]
    edges = [limit for _, limit in below] + [limit for _, limit in above]
    severities = [s for s, _ in below] + [Severity.HEALTHY] + [s for s, _ in above]
    segments = tuple(Segment(severity.name.lower(), _range(signal, edges, i)) for i, severity in enumerate(severities))
    severity = ladder.classify(live.value) if live.value is not None else None
    return Rungs(
        LABELS[signal],
        segments,
        None if live.value is None else place(live.value, edges),
        live.text if severity is None else f"{ICON[severity]} {live.text}",
        "muted" if severity is None else severity.name.lower(),
    )


def _range(signal: str, edges: list[float], i: int) -> str:
    if not edges:
        return ""
    if i == 0:
        return f"< {shown(signal, edges[0])}"
    if i == len(edges):
        return f"> {shown(signal, edges[-1])}"
    return f"{shown(signal, edges[i - 1])} – {shown(signal, edges[i])}"


def place(value: float, edges: list[float]) -> float:
    """Where a value lies along segments of one width. The outer ones reach one inner width, or a factor, further."""
    count = len(edges) + 1
    if value != value:
        return 1.0
    for i, edge in enumerate(edges):
        if value < edge:
            low = edges[i - 1] if i else _beyond(edges, low=True)
            share = (value - low) / (edge - low) if edge > low else 0.0
            return (i + min(1.0, max(0.0, share))) / count
    low, high = edges[-1], _beyond(edges, low=False)
    share = (value - low) / (high - low) if high > low else 1.0
    return (count - 1 + min(1.0, max(0.0, share))) / count


def _beyond(edges: list[float], low: bool) -> float:
    """Where the outermost segment ends."""
    if low:
        return 0.0 if edges[0] > 0 else 2 * edges[0] - 1.0
    return 2 * edges[-1] if edges[-1] > 0 else 1.0
