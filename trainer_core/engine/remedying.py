"""Remedies applied by themselves (``remedies = "auto"``): when, how often, and in whose name. Decides no remedy."""

from typing import TYPE_CHECKING, Any

from trainer_core.engine.obey import all_or_nothing
from trainer_core.spec.alerts import NOT_FINITE
from trainer_core.spec.records import Annotated
from trainer_core.spec.remedies import REMEDIES

if TYPE_CHECKING:
    from trainer_core.engine.alarms import OpenAlert
    from trainer_core.engine.session import Session


class Remedying:
    """Once for each alert, with ``remedy_cooldown`` steps between two of them and ``max_remedies`` in all."""

    def __init__(self, session: "Session") -> None:
        self._session = session
        self._applied = 0
        self._last_step: int | None = None
        self._treated: set[str] = set()
        """Alerts that had their remedy, were past the limit, or have none that would change anything."""

    def apply_due(self) -> None:
        """Apply the remedy of an open alert that had none yet; at most one at each boundary.

        While a rollback is due the transition table acts by itself, with its own learning rate and clip.
        """
        engine = self._session.engine
        if engine.config.health.remedies != "auto" or self._cooling:
            return
        waiting = [a for a in engine.recorder.alarms.open_alerts() if self._waits(a)]
        if not waiting or not engine.healthy:
            return
        for alert in waiting:
            self._treated.add(alert.alert_id)
            if self._treat(alert):
                return

    def _waits(self, alert: "OpenAlert") -> bool:
        return alert.remedy is not None and alert.alert_id not in self._treated and alert.rule != NOT_FINITE.name

    @property
    def _cooling(self) -> bool:
        since = None if self._last_step is None else self._session.engine.step_count - self._last_step
        return since is not None and since < self._session.engine.config.health.remedy_cooldown

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
        named = {f"remedy-{alert.alert_id}-{number}": command for number, command in enumerate(commands)}
        if not self._session.inbox.carry_out_together(
            named, lambda them: all_or_nothing(them, self._session, actor), f"remedy {remedy}", actor
        ):
            return False  # as the records of its commands say
        self._applied += 1
        self._last_step = engine.step_count  # after a rollback: where it went back to
        return True

    def state_dict(self) -> dict[str, Any]:
        return {"applied": self._applied, "last_step": self._last_step, "treated": sorted(self._treated)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._applied, self._last_step = state["applied"], state["last_step"]
        self._treated = set(state["treated"])
