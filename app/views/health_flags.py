"""Whether the alerts of a signal are open: what stands beside its chart. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass

from app.alert_log import Life
from app.store import Snapshot
from app.theme import ICON
from trainer_core.spec.severity import Severity


@dataclass(frozen=True)
class Flag:
    """One line beside a chart."""

    text: str
    tone: str
    """A severity by name, or muted."""


def lives(snapshot: Snapshot) -> dict[str, Life]:
    """The last alert of each rule, open ones before resolved ones; the same cost however long the run."""
    log = snapshot.side.alerts
    return {life.raised.rule: life for life in (*log.resolved, *log.open)}


def flag(found: Mapping[str, Life], rules: tuple[str, ...]) -> Flag:
    """The worst open alert among ``rules``, or that there is none."""
    standing = [found[rule] for rule in rules if rule in found and found[rule].resolved is None]
    if not standing:
        past = [found[rule].first_step for rule in rules if rule in found]
        return Flag(f"✓ no alert · last at step {max(past):,}" if past else "✓ no alert", "muted")
    worst = max(standing, key=lambda life: life.raised.severity)
    severity = Severity(worst.raised.severity)
    return Flag(f"{ICON[severity]} {worst.raised.rule} since step {worst.first_step:,}", severity.name.lower())
