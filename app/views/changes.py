"""Which change gave a setting the value that is in force: who, when and what. Pure."""

import time
from dataclasses import dataclass

from app.store import Snapshot
from app.views.commands import title
from app.views.measured import newest
from app.views.settings import history
from trainer_core.spec.commands import ApplyRemedy, Command, CommandState, ScaleLearningRate, SetLearningRate
from trainer_core.spec.config import SETTINGS, Config
from trainer_core.spec.records import CommandChanged, Row
from trainer_core.spec.remedies import REMEDIES

RATE = "learning_rate"
_NEWEST = 400
"""Rows of commands among which one that was sent a moment ago is looked for."""


@dataclass(frozen=True)
class Change:
    """The newest change of one setting; ``seq`` 0: the run has not said its settings."""

    seq: int = 0
    command_id: str = ""
    """Empty: no command did it, the run began with it."""
    said: str = ""
    after: str | None = None
    """The value it left, as the trainer wrote it."""


def last_change(snapshot: Snapshot, name: str) -> Change:
    """What changed ``name`` last: a setting, or RATE for the scale of the learning rate."""
    rows = history(snapshot)
    for (row, config), (_, before) in zip(rows[:0:-1], rows[-2::-1], strict=True):
        record = row.record
        if isinstance(record, CommandChanged) and _moved(name, record.command, before, config):
            return Change(row.seq, record.command_id, _said(row, record), record.after)
    return Change(rows[0][0].seq, said=f"The run began anew at step {rows[0][0].record.step:,}.") if rows else Change()


def applied(snapshot: Snapshot, command_id: str) -> bool:
    """Whether the command of this id was applied, as far as the run's newest commands tell."""
    rows = reversed(snapshot.events[CommandChanged][-_NEWEST:])
    return any(isinstance(c := row.record, CommandChanged) and c.command_id == command_id
               and c.state is CommandState.APPLIED for row in rows)  # fmt: skip


def rate_now(snapshot: Snapshot) -> float | None:
    """The learning rate of the newest step, or the one that a command has set since; None: not measured yet."""
    measured, change = newest(snapshot, RATE).value, last_change(snapshot, RATE)
    if measured is not None and change.after is not None and change.seq > snapshot.steps.last("seq"):
        try:
            return float(change.after)
        except ValueError:  # a remedy says all that it changed
            return measured
    return measured


def _moved(name: str, command: Command, before: Config, after: Config) -> bool:
    if name == RATE:
        parts = REMEDIES[command.remedy](before) if isinstance(command, ApplyRemedy) else [command]
        return any(isinstance(part, SetLearningRate | ScaleLearningRate) for part in parts)
    section = SETTINGS[name].section
    return bool(getattr(getattr(before, section), name) != getattr(getattr(after, section), name))


def _said(row: Row, change: CommandChanged) -> str:
    when = time.strftime("%H:%M:%S UTC", time.gmtime(row.time))
    return f"{title(change.command)} at step {change.step:,}, {when}, by {change.by}."
