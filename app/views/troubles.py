"""The document's troubleshooting guide on a run: which symptoms show now, with their numbers. Pure; sends nothing."""

from dataclasses import dataclass

from app.store import Snapshot
from app.views import words
from app.views.remedy import Plan, plan
from app.views.symptoms import CHECKS
from trainer_core.spec.alerts import LIMIT_SECTIONS
from trainer_core.spec.config import SETTINGS, Config
from trainer_core.spec.render import shown as toml
from trainer_core.spec.troubleshooting import ISSUES, Change, Issue


@dataclass(frozen=True)
class Line:
    """A symptom or a sign of mending."""

    text: str
    shows: bool | None
    detail: str


@dataclass(frozen=True)
class ChangeLine:
    """One line of the settings diff."""

    name: str
    now: str
    value: str
    why: str
    when: str
    """Now, by the remedy or on Control; in the next run; in the script of a loop whose settings these are not."""


@dataclass(frozen=True)
class Trouble:
    """One issue of the guide on this run."""

    issue: Issue
    symptoms: tuple[Line, ...]
    mended: tuple[Line, ...]
    changes: tuple[ChangeLine, ...]
    plan: Plan | None
    alerting: bool
    """One of its rules has an open alert."""

    @property
    def showing(self) -> int:
        """How many symptoms show."""
        return sum(line.shows is True for line in self.symptoms)

    @property
    def headline(self) -> str:
        """One line for the card's head."""
        known = sum(line.shows is not None for line in self.symptoms)
        if self.alerting:
            return f"▲ alert open · {self.showing} of {len(self.symptoms)} symptoms"
        if not known:
            return "nothing to judge by yet"
        return f"{self.showing} of {len(self.symptoms)} symptoms"

    @property
    def tone(self) -> str:
        """Severity name."""
        if self.alerting:
            return "warning"
        return "caution" if self.showing == len(self.symptoms) else "muted"


def troubles(snapshot: Snapshot, config: Config | None) -> list[Trouble]:
    """Every issue, in the order of the document; empty while the settings are unknown."""
    if config is None:
        return []
    opened = {life.raised.rule for life in snapshot.side.alerts.open}
    return [_trouble(issue, snapshot, config, opened) for issue in ISSUES]


def _trouble(issue: Issue, snapshot: Snapshot, config: Config, opened: set[str]) -> Trouble:
    symptoms, mended = CHECKS[issue.key]
    found = plan(snapshot, issue.remedy, config)
    by_remedy = {line.name for line in found.lines} if found is not None else set()
    return Trouble(
        issue,
        tuple(Line(text, *check(snapshot, config)) for text, check in zip(issue.symptoms, symptoms, strict=True)),
        tuple(Line(text, *check(snapshot, config)) for text, check in zip(issue.validation, mended, strict=True)),
        tuple(_change(change, config, by_remedy, snapshot.own_loop) for change in issue.changes),
        found,
        not opened.isdisjoint(issue.rules),
    )


def _change(change: Change, config: Config, by_remedy: set[str], own_loop: bool) -> ChangeLine:
    setting = SETTINGS[change.setting] if change.setting is not None else None
    now = toml(getattr(getattr(config, setting.section), setting.name)) if setting is not None else words.ABSENT
    rate = "learning_rate" if setting is not None and setting.section == "learning_rate" else change.name
    if own_loop and rate not in by_remedy and (setting is None or setting.section not in LIMIT_SECTIONS):
        return ChangeLine(change.name, words.ABSENT, change.value, change.why, "in the training script")
    when = "now, by the remedy" if rate in by_remedy else "now, on Control" if setting and setting.live else "next run"
    return ChangeLine(change.name, now, change.value, change.why, when)
