"""Alert rules against step records: a rung held long enough is raised, healthy steps resolve it. Changes no run."""

from collections.abc import Callable
from typing import Any

from trainer_core.spec.alerts import NOT_FINITE, RULES, AlertRule
from trainer_core.spec.config import Config
from trainer_core.spec.ladders import ladders
from trainer_core.spec.records import AlertRaised, AlertResolved, Record, StepRecord
from trainer_core.spec.severity import Ladder, Severity


class _Watch:
    """One rule's memory: recent severities and the open alert."""

    def __init__(self) -> None:
        self.held = 0
        """Consecutive steps above healthy; their least severity is ``level``."""
        self.level = Severity.HEALTHY
        self.healthy = 0
        self.open: str | None = None
        self.open_level = Severity.HEALTHY
        self.silent_until = 0

    def see(self, severity: Severity) -> None:
        if severity is Severity.HEALTHY:
            self.held, self.level, self.healthy = 0, severity, self.healthy + 1
        else:
            self.level = severity if self.held == 0 else min(self.level, severity)
            self.held, self.healthy = self.held + 1, 0


class Alarms:
    """Rules of a run. One open alert per rule; a worse rung raises it again under the same id."""

    def __init__(self, say: Callable[[Record], None], attempt: Callable[[], int]) -> None:
        self._say = say
        self._attempt = attempt
        self._watches = {rule.name: _Watch() for rule in (*RULES, NOT_FINITE)}
        self._number = 0

    def check(self, record: StepRecord, finite: bool, config: Config) -> None:
        """Look at one measured step."""
        limits = ladders(config)
        for rule in RULES:
            value = getattr(record, rule.signal)
            if value is not None and record.phase in rule.phases:
                self._look(rule, limits[rule.signal], float(value), record.step)
        if config.divergence_config.nan_check_enabled:
            broken = Ladder(critical_above=0.5)
            self._look(
                NOT_FINITE, broken, 0.0 if finite else 1.0, record.step, "NaN or Inf in loss, gradient or update"
            )

    def _look(self, rule: AlertRule, ladder: Ladder, value: float, step: int, message: str = "") -> None:
        watch = self._watches[rule.name]
        severity = min(ladder.classify(value), rule.worst)
        watch.see(severity)
        if watch.open is not None and watch.healthy >= rule.recovery:
            resolved = f"{rule.name} healthy for {rule.recovery} steps"
            self._say(AlertResolved(step, watch.open, rule.name, resolved))
            watch.open, watch.open_level = None, Severity.HEALTHY
        elif watch.held >= rule.hold and watch.level > watch.open_level and step >= watch.silent_until:
            self._raise(rule, watch, ladder, value, step, message)

    def _raise(self, rule: AlertRule, watch: _Watch, ladder: Ladder, value: float, step: int, message: str) -> None:
        if watch.open is None:
            self._number += 1
            watch.open = f"alert-{self._attempt()}-{self._number}"
        watch.open_level = watch.level
        limit = ladder.limit(watch.level, value)
        words = message or f"{rule.name} {value:.3g} is past its {watch.level.name.lower()} limit"
        if limit is not None and not message:
            words += f" {limit:.3g}"
        shown = None if message else value
        self._say(
            AlertRaised(
                step, watch.open, rule.name, watch.level, rule.signal, shown, None if message else limit,
                f"{words}; likely: {rule.causes}", rule.remedy,
            )
        )  # fmt: skip

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

    def state_dict(self) -> dict[str, Any]:
        watches = {
            name: [w.held, int(w.level), w.healthy, w.open, int(w.open_level), w.silent_until]
            for name, w in self._watches.items()
        }
        return {"number": self._number, "watches": watches}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._number = max(self._number, state["number"])
        for name, (held, level, healthy, open_, open_level, silent) in state["watches"].items():
            w = self._watches[name]
            w.held, w.level, w.healthy = held, Severity(level), healthy
            w.open, w.open_level, w.silent_until = open_, Severity(open_level), silent
