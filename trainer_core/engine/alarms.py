"""Alert rules against signals: a rung held long enough is raised, healthy steps resolve it. Changes no run."""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import msgspec

from trainer_core.spec.alerts import NOT_FINITE, RULES, AlertRule
from trainer_core.spec.config import Config
from trainer_core.spec.ladders import ladders
from trainer_core.spec.phases import Phase
from trainer_core.spec.records import AlertRaised, AlertResolved, Record, StepRecord
from trainer_core.spec.remedies import REMEDIES
from trainer_core.spec.severity import Ladder, Severity

_BROKEN = Ladder(critical_above=0.5)
_NOT_FINITE = "NaN or Inf in loss, gradient or update"


class OpenAlert(msgspec.Struct, frozen=True):
    """An alert that is open and what would be done about it."""

    alert_id: str
    rule: str
    remedy: str | None
    level: Severity


_HEALTHY = Severity.HEALTHY
_RUNGS = tuple(rung for rung in Severity if rung is not _HEALTHY)


class _Watch:
    """One rule's memory: recent severities and the open alert."""

    def __init__(self) -> None:
        self.held = [0] * len(_RUNGS)
        """For each rung: consecutive steps at it or at a worse one."""
        self.healthy = 0
        """Consecutive healthy steps while an alert is open."""
        self.open: str | None = None
        self.open_level = Severity.HEALTHY
        self.silent_until = 0
        self.resolved_at: int | None = None

    def see(self, severity: Severity) -> None:
        self.held = [count + 1 if severity >= rung else 0 for count, rung in zip(self.held, _RUNGS, strict=True)]
        self.healthy = self.healthy + 1 if severity is Severity.HEALTHY else 0

    def level(self, hold: int) -> Severity:
        """The worst rung that has been held for ``hold`` steps."""
        return max((rung for count, rung in zip(self.held, _RUNGS, strict=True) if count >= hold), default=_HEALTHY)

    def cooling(self, step: int, cooldown: int) -> bool:
        """Whether the last alert was resolved less than ``cooldown`` steps ago; a rollback before it ends that."""
        return self.resolved_at is not None and 0 <= step - self.resolved_at < cooldown


class _Row(msgspec.Struct, frozen=True):
    """A rule with its limits under the present settings."""

    rule: AlertRule
    watch: _Watch
    ladder: Ladder


class Alarms:
    """Rules of a run. One open alert per rule; a worse rung raises it again under the same id.

    ``suggest(rule, level)`` names the remedy of an alert; ``prefix`` begins the ids, so that two sets share no id.
    """

    def __init__(
        self,
        say: Callable[[Record], None],
        attempt: Callable[[], int],
        *,
        rules: Sequence[AlertRule] = RULES,
        prefix: str = "alert",
        suggest: Callable[[AlertRule, Severity], str | None] | None = None,
    ) -> None:
        self._say = say
        self._attempt = attempt
        self._rules, self._prefix, self._suggest = tuple(rules), prefix, suggest or remedy_of
        self._watches = {rule.name: _Watch() for rule in (*rules, NOT_FINITE)}
        self._number = 0
        self._config: Config | None = None
        self._rows: dict[Phase, list[tuple[str, float, float, _Watch, _Row]]] = {}
        """By phase: signal, lowest and highest healthy value, memory, rule."""
        self._not_finite = _Row(NOT_FINITE, self._watches[NOT_FINITE.name], _BROKEN)

    def check(
        self, record: StepRecord, finite: bool, config: Config, health: Mapping[str, float | None] | None = None
    ) -> None:
        """Look at one measured step and the signals derived from it."""
        if config is not self._config:
            self._read(config)
        signals = health or {}
        for name, low, high, watch, row in self._rows[record.phase]:
            value = signals[name] if name in signals else getattr(record, name, None)
            if value is None:
                continue
            if low <= value <= high and watch.open is None:  # nearly always
                if watch.held[0]:
                    watch.held = [0] * len(_RUNGS)
            else:
                self._look(row, value, record.step)
        if config.divergence_config.nan_check_enabled and not (finite and self._not_finite.watch.open is None):
            self._look(self._not_finite, 0.0 if finite else 1.0, record.step)

    def judge(self, signals: Mapping[str, float | None], step: int, config: Config) -> None:
        """Look at values that belong to no step and no phase; None was not measured."""
        if config is not self._config:
            self._read(config)
        for name, _, _, _, row in self._rows[Phase.FULL]:
            value = signals.get(name)
            if value is not None:
                self._look(row, value, step)

    def _read(self, config: Config) -> None:
        """Take the limits from the settings as they are now."""
        limits = ladders(config)
        sides = {rule.name: limits[rule.signal].side(rule.above) for rule in self._rules}
        rows = [_Row(r, self._watches[r.name], sides[r.name]) for r in self._rules]
        lines = [(row.rule.signal, *row.ladder.healthy, row.watch, row) for row in rows]
        self._rows = {phase: [line for line in lines if phase in line[4].rule.phases] for phase in Phase}
        self._config = config

    def _look(self, row: _Row, value: float, step: int) -> None:
        watch, rule = row.watch, row.rule
        watch.see(min(row.ladder.classify(value), rule.worst))
        if watch.open is not None and watch.healthy >= rule.recovery:
            resolved = f"{rule.name} healthy for {rule.recovery} steps"
            if watch.open_level is not Severity.HEALTHY:  # else it is known to be resolved
                self._say(AlertResolved(step, watch.open, rule.name, resolved))
            watch.open, watch.open_level, watch.resolved_at = None, Severity.HEALTHY, step
            return
        quiet = step < watch.silent_until or (watch.open is None and watch.cooling(step, self._cooldown(rule)))
        level = watch.level(rule.hold)
        if level > watch.open_level and not quiet:
            self._raise(row, level, value, step)

    def _cooldown(self, rule: AlertRule) -> int:
        if rule.cooldown is not None:
            return rule.cooldown
        assert self._config is not None
        return self._config.health.alert_cooldown

    def _raise(self, row: _Row, level: Severity, value: float, step: int) -> None:
        rule, watch = row.rule, row.watch
        assert self._config is not None
        if watch.open is None:
            self._number += 1
            watch.open = f"{self._prefix}-{self._attempt()}-{self._number}"
        watch.open_level = level
        limit = row.ladder.limit(level, value)
        words = f"{rule.name} {value:.3g} is past its {level.name.lower()} limit"
        words += f" {limit:.3g}" if limit is not None else ""
        shown: float | None = value
        if rule is NOT_FINITE:
            words, shown, limit = _NOT_FINITE, None, None
        remedy = self._suggest(rule, level)
        advice = f"; for the next run: {rule.advice}" if rule.advice else ""
        self._say(
            AlertRaised(
                step=step,
                alert_id=watch.open,
                rule=rule.name,
                severity=level,
                signal=rule.signal,
                value=shown,
                limit=limit,
                message=f"{words}; likely: {rule.causes}{advice}",
                remedy=remedy,
                commands=REMEDIES[remedy](self._config) if remedy is not None else (),
                causes=rule.causes,
                advice=rule.advice,
            )
        )

    def silence(self, rule: str, until_step: int) -> bool:
        """Raise nothing for ``rule`` before ``until_step``; False when there is no such rule."""
        watch = self._watches.get(rule)
        if watch is None:
            return False
        watch.silent_until = until_step
        return True

    def is_open(self, alert_id: str) -> bool:
        """Whether an alert of this id is open."""
        return any(watch.open == alert_id for watch in self._watches.values())

    def known(self, ids: Collection[str]) -> None:
        """These are open in the journal of a resumed run: another one that its checkpoint holds is raised again, under
        its id, if it still stands, for it was resolved since."""
        for watch in self._watches.values():
            if watch.open is not None and watch.open not in ids:
                watch.open_level = Severity.HEALTHY

    def open_alerts(self) -> list[OpenAlert]:
        """Every open alert, in the order of the rules."""
        return [
            OpenAlert(watch.open, rule.name, self._suggest(rule, watch.open_level), watch.open_level)
            for rule in (*self._rules, NOT_FINITE)
            for watch in [self._watches[rule.name]]
            if watch.open is not None and watch.open_level is not Severity.HEALTHY
        ]

    def state_dict(self) -> dict[str, Any]:
        watches = {
            name: [w.held, w.healthy, w.open, int(w.open_level), w.silent_until, w.resolved_at]
            for name, w in self._watches.items()
        }
        return {"number": self._number, "watches": watches}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._number = max(self._number, state["number"])
        for name, (held, healthy, open_, open_level, silent, resolved_at) in state["watches"].items():
            w = self._watches[name]
            w.held, w.healthy = list(held), healthy
            w.open, w.open_level, w.silent_until = open_, Severity(open_level), silent
            w.resolved_at = resolved_at


def remedy_of(rule: AlertRule, level: Severity) -> str | None:
    """The remedy that a rule suggests at a level."""
    if level is Severity.CRITICAL and rule.critical_remedy is not None:
        return rule.critical_remedy
    return rule.remedy
