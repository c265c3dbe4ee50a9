"""Remedies applied by themselves (``remedies = "auto"``): when, how often, and in whose name. Decides no remedy."""

from typing import TYPE_CHECKING, Any

from trainer_core.engine.obey import all_or_nothing
from trainer_core.spec.alerts import NOT_FINITE
from trainer_core.spec.records import Annotated
from trainer_core.spec.remedies import REMEDIES
from trainer_core.spec.severity import Severity

if TYPE_CHECKING:
    from trainer_core.engine.alarms import OpenAlert
    from trainer_core.engine.session import Session


class Remedying:
    """Once for each alert, with ``remedy_cooldown`` steps between two of them and ``max_remedies`` in all.

    A critical alert does not wait because a lesser one had a remedy, and one that becomes critical has that of its own.
    """

    def __init__(self, session: "Session") -> None:
        self._session = session
        self._applied = 0
        self._last_step: int | None = None
        self._last_level = Severity.HEALTHY
        """Of the alert whose remedy was the last."""
        self._treated: set[str] = set()
        """Alerts, each with a remedy, that had it, were past the limit, or of which it would change nothing."""

    def apply_due(self) -> None:
        """Apply the remedy of an open alert that had none yet; at most one at each boundary.

        While a rollback is due the transition table acts by itself, with its own learning rate and clip.
        """
        engine = self._session.engine
        if engine.config.health.remedies != "auto":
            return
        waiting = [a for a in engine.recorder.alarms.open_alerts() if self._waits(a)]
        if not waiting or not engine.healthy:
            return
        for alert in waiting:
            self._treated.add(_treatment(alert))
            if self._treat(alert):
                return

    def _waits(self, alert: "OpenAlert") -> bool:
        if alert.remedy is None or alert.rule == NOT_FINITE.name or self._cooling(alert.level):
            return False
        return not self._treated & {_treatment(alert), alert.alert_id}  # older checkpoints have the alert alone

    def _cooling(self, level: Severity) -> bool:
        if level is Severity.CRITICAL and self._last_level is not Severity.CRITICAL:
            return False
        if self._last_step is None:
            return False
        engine = self._session.engine
        self._last_step = min(self._last_step, engine.step_count)  # a rollback: no longer than from where it went
        return engine.step_count - self._last_step < engine.config.health.remedy_cooldown

    def _treat(self, alert: "OpenAlert") -> bool:
        """Whether the remedy acted, all of it or nothing; a note or its commands say why where it did not."""
        engine, limit = self._session.engine, self._session.engine.config.health.max_remedies
        remedy, actor = alert.remedy or "", f"remedy:{alert.rule}"
        commands = REMEDIES[remedy](engine.config)
        if self._applied >= limit:
            text = f"{remedy} was not applied: {limit} remedies (max_remedies) were applied by themselves already"
            engine.record(Annotated(engine.step_count, text, actor))
            return False
        if not commands:
            text = f"{remedy} would change nothing: what it sets is at its bound already"
            engine.record(Annotated(engine.step_count, text, actor))
            return False
        named = {f"remedy-{_treatment(alert)}-{number}": command for number, command in enumerate(commands)}
        if not self._session.inbox.carry_out_together(
            named, lambda them: all_or_nothing(them, self._session, actor), f"remedy {remedy}", actor
        ):
            return False  # as the records of its commands say
        self._applied += 1
        self._last_level = alert.level
        self._last_step = engine.step_count  # after a rollback: where it went back to
        return True

    def state_dict(self) -> dict[str, Any]:
        return {
            "applied": self._applied,
            "last_step": self._last_step,
            "last_level": int(self._last_level),
            "treated": sorted(self._treated),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._applied, self._last_step = state["applied"], state["last_step"]
        self._last_level = Severity(state.get("last_level", Severity.CRITICAL))
        self._treated = set(state["treated"])


def _treatment(alert: "OpenAlert") -> str:
    return f"{alert.alert_id}-{alert.remedy}"
