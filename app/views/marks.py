"""Events as marks on the step axis: commands, alerts, undone predictions, new attempts. Pure."""

from dataclasses import dataclass

from app.store import Snapshot
from trainer_core.spec.commands import CommandState, kind_of
from trainer_core.spec.records import AlertRaised, AttemptStarted, CommandChanged, PredictionEnded
from trainer_core.spec.severity import Severity

MOST = 150
"""Marks of one kind drawn at most: the newest ones."""


@dataclass(frozen=True)
class Mark:
    """One event at a step, with what a pointer over it reads."""

    step: int
    text: str


@dataclass(frozen=True)
class Marks:
    """Marks by kind."""

    commands: list[Mark]
    warnings: list[Mark]
    critical: list[Mark]
    undone: list[Mark]
    attempts: list[Mark]


def marks(snapshot: Snapshot, low: float, high: float) -> Marks:
    """The newest marks between two steps."""
    raised = snapshot.of(AlertRaised)

    def inside(found: list[Mark]) -> list[Mark]:
        return [mark for mark in found if low <= mark.step <= high][-MOST:]

    def alert_marks(critical: bool) -> list[Mark]:
        return inside([Mark(a.step, a.message) for a in raised if (a.severity >= Severity.CRITICAL) is critical])

    return Marks(
        commands=inside([_command(c) for c in snapshot.of(CommandChanged) if c.state is CommandState.APPLIED]),
        warnings=alert_marks(critical=False),
        critical=alert_marks(critical=True),
        undone=inside(
            [Mark(p.step, f"prediction undone: {p.because}") for p in snapshot.of(PredictionEnded) if not p.kept]
        ),
        attempts=inside([_attempt(started) for started in snapshot.of(AttemptStarted)]),
    )


def _command(change: CommandChanged) -> Mark:
    moved = f" {change.before} → {change.after}" if change.before is not None and change.after is not None else ""
    return Mark(change.step, f"{kind_of(change.command)}{moved}, by {change.by}")


def _attempt(started: AttemptStarted) -> Mark:
    return Mark(started.step, f"attempt {started.attempt} goes on from step {started.step:,}: {started.because}")
